//! A table that fits the terminal: flexible columns give way, the others keep their width.

use std::io::{self, Write};

use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::{Look, Tone, single_line};

/// Between two columns.
const GAP: usize = 2;
/// What a flexible column keeps at least.
const FLEXIBLE_WIDTH_MIN: usize = 8;
/// Columns that leave a flexible column less than this give way to it, if they can.
const FLEXIBLE_WIDTH_WISHED: usize = 28;

/// On which side a column's text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Align {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// A column.
#[derive(Debug, Clone)]
pub struct Column {
    heading: String,
    align: Align,
    flexible: bool,
    headed: bool,
    spare: bool,
    width_min: usize,
}

/// One cell, safe to look at.
#[derive(Debug, Clone, Default)]
pub struct Cell {
    text: String,
    tone: Tone,
}

/// Columns and rows.
#[derive(Debug, Clone, Default)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
    indent: usize,
}

impl Column {
    /// Text that is never cut.
    pub fn text(heading: &str) -> Self {
        Self {
            heading: heading.to_owned(),
            align: Align::Left,
            flexible: false,
            headed: true,
            spare: false,
            width_min: 0,
        }
    }

    /// Numbers.
    pub fn number(heading: &str) -> Self {
        Self { align: Align::Right, ..Self::text(heading) }
    }

    /// Text that is left out as a whole where it would leave a flexible column little room, or where no row has any.
    pub fn spare(heading: &str) -> Self {
        Self { spare: true, ..Self::text(heading) }
    }

    /// Text that gives way when the line is too long.
    pub fn flexible(heading: &str) -> Self {
        Self { flexible: true, ..Self::text(heading) }
    }
}

impl Cell {
    /// Any text, escaped and on one line.
    pub fn new(text: impl AsRef<str>) -> Self {
        Self { text: single_line(text.as_ref()).into_owned(), tone: Tone::Plain }
    }

    /// Any text, in a tone.
    pub fn toned(tone: Tone, text: impl AsRef<str>) -> Self {
        Self { tone, ..Self::new(text) }
    }
}

impl Table {
    /// A table without rows.
    pub fn new(columns: impl IntoIterator<Item = Column>) -> Self {
        Self { columns: columns.into_iter().collect(), rows: Vec::new(), indent: 0 }
    }

    /// The same, further to the right.
    #[must_use]
    pub fn indented(self, indent: usize) -> Self {
        Self { indent, ..self }
    }

    /// The same as the continuation of another: without headings, and its columns no narrower.
    #[must_use]
    pub fn below(mut self, above: &Self) -> Self {
        for (column, width) in self.columns.iter_mut().zip(above.natural_widths()) {
            column.headed = false;
            column.width_min = width;
        }
        self
    }

    /// Adds a row: a cell for every column.
    pub fn row(&mut self, cells: impl IntoIterator<Item = Cell>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn render(&self, out: &mut dyn Write, look: Look) -> io::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        if let Some(spare) = self.left_out(look.width) {
            return self.without(spare).render(out, look);
        }
        let widths = self.widths(look.width);
        if self.columns.iter().any(|column| column.headed && !column.heading.is_empty()) {
            let heading = |column: &Column| Cell::toned(Tone::Faint, &column.heading);
            let headings: Vec<Cell> = self.columns.iter().map(heading).collect();
            self.line(out, &headings, &widths, look)?;
        }
        self.rows.iter().try_for_each(|row| self.line(out, row, &widths, look))
    }

    /// The next column to leave out, if one is.
    fn left_out(&self, limit: Option<usize>) -> Option<usize> {
        let empty = |at: usize| self.rows.iter().all(|row| row.get(at).is_none_or(|cell| cell.text.is_empty()));
        let (natural, widths) = (self.natural_widths(), self.widths(limit));
        let mut flexible = self.columns.iter().zip(natural.iter().zip(&widths)).filter(|(column, _)| column.flexible);
        let squeezed = flexible.any(|(_, (natural, width))| *width < FLEXIBLE_WIDTH_WISHED.min(*natural));
        let mut spare = self.columns.iter().enumerate().rev().filter(|(_, column)| column.spare).map(|(at, _)| at);
        if squeezed { spare.next() } else { spare.find(|at| empty(*at)) }
    }

    fn without(&self, at: usize) -> Self {
        let mut table = self.clone();
        table.columns.remove(at);
        for row in table.rows.iter_mut().filter(|row| at < row.len()) {
            row.remove(at);
        }
        table
    }

    fn natural_widths(&self) -> Vec<usize> {
        let mut widths: Vec<usize> = self.columns.iter().map(|c| c.heading.width().max(c.width_min)).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.text.width());
            }
        }
        widths
    }

    fn widths(&self, limit: Option<usize>) -> Vec<usize> {
        let mut widths = self.natural_widths();
        let Some(limit) = limit else { return widths };
        let taken = widths.iter().sum::<usize>() + GAP * widths.len().saturating_sub(1) + self.indent;
        let mut excess = taken.saturating_sub(limit);
        // The last flexible column is the long one by habit; it gives way first.
        for (column, width) in self.columns.iter().zip(&mut widths).rev() {
            if column.flexible {
                let floor = FLEXIBLE_WIDTH_MIN.max(column.heading.width()).min(*width);
                let given = excess.min(*width - floor);
                *width -= given;
                excess -= given;
            }
        }
        widths
    }

    fn line(&self, out: &mut dyn Write, row: &[Cell], widths: &[usize], look: Look) -> io::Result<()> {
        let mut line = " ".repeat(self.indent);
        let mut owed = 0;
        for ((column, cell), width) in self.columns.iter().zip(row).zip(widths) {
            let text = fit(&cell.text, *width);
            let padding = width.saturating_sub(text.width());
            let (before, after) = match column.align {
                Align::Left => (0, padding),
                Align::Right => (padding, 0),
            };
            if !text.is_empty() {
                line.push_str(&" ".repeat(owed + before));
                line.push_str(&look.paint(cell.tone, &text));
                owed = after + GAP;
            } else {
                owed += before + after + GAP;
            }
        }
        writeln!(out, "{line}")
    }
}

/// The text in at most this many columns, with an ellipsis for what is not shown.
fn fit(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut taken = 0;
    let mut short: String = text
        .chars()
        .take_while(|c| {
            taken += c.width().unwrap_or(0);
            taken < width
        })
        .collect();
    short.push('…');
    short
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    fn rendered(width: Option<usize>) -> String {
        let mut table = Table::new([Column::text("ID"), Column::number("ROWS"), Column::flexible("COMMAND")]);
        table.row([Cell::new("a.1"), Cell::new("12"), Cell::new("select 'a long statement'\nfrom t")]);
        table.row([Cell::new("a.17"), Cell::new(""), Cell::new("日本語日本語日本語日本語日本語")]);
        let mut out = Vec::new();
        table.render(&mut out, Look { colour: false, width }).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_spare_column_gives_way_as_a_whole() {
        let mut table = Table::new([Column::spare("FOR"), Column::spare("PROOF"), Column::flexible("COMMAND")]);
        table.row([Cell::new(""), Cell::new("jwt"), Cell::new("select 'a rather long statement' from t")]);
        let mut out = Vec::new();
        table.render(&mut out, Look { colour: false, width: Some(80) }).unwrap();
        assert!(String::from_utf8(out).unwrap().starts_with("PROOF  COMMAND\njwt    select"), "FOR is empty");
        let mut out = Vec::new();
        table.render(&mut out, Look { colour: false, width: Some(30) }).unwrap();
        assert!(String::from_utf8(out).unwrap().starts_with("COMMAND\nselect"));
    }

    #[test]
    fn fits_when_asked_and_is_whole_otherwise() {
        assert_eq!(
            rendered(Some(30)),
            "ID    ROWS  COMMAND\na.1     12  select 'a long st…\na.17        日本語日本語日本…\n"
        );
        assert!(rendered(None).contains("select 'a long statement'↵from t\n"));
        assert!(rendered(Some(30)).lines().all(|line| line.width() <= 30));
    }
}
