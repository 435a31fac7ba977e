//! `onrecord break-glass`: run what is held without waiting for an approval, in the open, and have it reviewed; over the
//! gateway's HTTP API.
//!
//! What it is not for: deciding who may. The gateway knows the bearer, and refuses whoever may not.

mod review;
mod shown;

use clap::{Args, Subcommand};
use model::BreakGlassId;
use serde_json::{Value, json};

use super::Context;
use super::asking::{text, when};
use super::desk::{self, Desk, Seat, words};
use super::token::duration;
use crate::Failure;
use crate::agent::Api;
use crate::output::{Cell, Column, Format, Table, single_line};

const EXAMPLES: &str = "\
Examples:
  onrecord break-glass open --connection app --reason 'the orders queue is stuck, ticket 4711' --for 30m
  onrecord break-glass list
  onrecord break-glass close 7Q2M4Y
  onrecord break-glass review 7Q2M4Y --comment 'looked at all three, as agreed'
Where and as whom, as with `onrecord whoami`: use `onrecord login` once, or --gateway and --token-file.";

/// `break-glass ...`.
#[derive(Debug, Subcommand)]
#[command(after_long_help = EXAMPLES)]
pub enum BreakGlass {
    /// Let what you send over a connection run at once, where it would have to be approved. Others are told
    Open(Open),
    /// List what is open or waits for its review, oldest first
    List(List),
    /// Show everything known of one, with the commands under it
    Show(Show),
    /// Close one before its time
    Close(Close),
    /// Look at what ran under one, and say on the record what you found
    Review(review::Review),
}

/// Arguments of `break-glass open`.
#[derive(Debug, Args)]
pub struct Open {
    /// The connection
    #[arg(long, value_name = "NAME")]
    connection: String,
    /// Why; it stays on the record, in clear, and others are told
    #[arg(long, value_name = "TEXT", value_parser = words)]
    reason: String,
    /// For how long, such as 15m or 1h [default: as long as the connection allows]
    #[arg(long = "for", value_name = "TIME", value_parser = duration)]
    seconds: Option<u64>,
    #[command(flatten)]
    desk: Desk,
}

/// Arguments of `break-glass list`.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    desk: Desk,
}

/// Arguments of `break-glass show`.
#[derive(Debug, Args)]
pub struct Show {
    /// Its id, in full or the end of it
    id: String,
    #[command(flatten)]
    desk: Desk,
}

/// Arguments of `break-glass close`.
#[derive(Debug, Args)]
pub struct Close {
    /// Its id, in full or the end of it
    id: String,
    #[command(flatten)]
    desk: Desk,
}

impl BreakGlass {
    /// Does it.
    ///
    /// # Errors
    /// The gateway cannot be asked, or refuses.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Self::Open(open) => open.run(context),
            Self::List(list) => list.run(context),
            Self::Show(show) => show.run(context),
            Self::Close(close) => close.run(context),
            Self::Review(review) => review.run(context),
        }
    }
}

impl Open {
    fn run(self, context: &mut Context) -> Result<(), Failure> {
        let Seat { api, proof } = self.desk.sit()?;
        let mut body = json!({"connection": self.connection, "reason": self.reason});
        if let (Some(fields), Some(seconds)) = (body.as_object_mut(), self.seconds) {
            fields.insert("seconds".to_owned(), seconds.into());
        }
        let opened = api.break_the_glass(&proof, &body)?;
        let console = &mut context.console;
        if console.format() != Format::Table {
            return Ok(console.json(&opened)?);
        }
        let (id, connection, until) = (text(&opened, "id"), text(&opened, "connection"), when(text(&opened, "until")));
        console.line(&single_line(&format!(
            "Break-glass {id} is open on {connection} until {until} UTC: what you send there runs without an approval, \
             unless it is denied."
        )))?;
        console.line(&single_line(&format!(
            "Others have been told. Close it with: onrecord break-glass close {id}. Another person reviews it."
        )))?;
        Ok(())
    }
}

impl List {
    fn run(self, context: &mut Context) -> Result<(), Failure> {
        let Seat { api, proof } = self.desk.sit()?;
        let answer = api.break_glasses(&proof)?;
        let console = &mut context.console;
        if console.format() != Format::Table {
            return console.json_list(all(&answer).map(Ok::<_, Failure>));
        }
        let columns = [
            Column::text("ID"),
            Column::text("STATE"),
            Column::text("OPENED"),
            Column::text("UNTIL"),
            Column::text("WHO"),
            Column::text("CONNECTION"),
            Column::flexible("REASON"),
        ];
        let mut table = Table::new(columns);
        for one in all(&answer) {
            let state = shown::state(one);
            table.row([
                Cell::new(text(one, "id")),
                Cell::toned(shown::tone(text(one, "state")), state),
                Cell::new(when(text(one, "opened"))),
                Cell::new(when(text(one, "until"))),
                Cell::new(text(one, "opener")),
                Cell::new(text(one, "connection")),
                Cell::new(text(one, "reason")),
            ]);
        }
        if table.is_empty() {
            return Ok(console.line("Nothing is open, and nothing waits for a review, as far as you may see.")?);
        }
        Ok(console.table(&table)?)
    }
}

impl Show {
    fn run(self, context: &mut Context) -> Result<(), Failure> {
        let Seat { api, proof } = self.desk.sit()?;
        let id = which(&api, &proof, &self.id)?;
        let console = &mut context.console;
        if console.format() != Format::Table {
            return Ok(console.json(&whole(&api, &proof, id)?)?);
        }
        let mut telling = shown::Telling::new(console.look());
        each_page(&api, &proof, id, |page| {
            telling.page(page).iter().try_for_each(|line| console.line(line)).map_err(Failure::from)
        })?;
        Ok(telling.end().iter().try_for_each(|line| console.line(line))?)
    }
}

impl Close {
    fn run(self, context: &mut Context) -> Result<(), Failure> {
        let Seat { api, proof } = self.desk.sit()?;
        let closed = api.close_break_glass(&proof, which(&api, &proof, &self.id)?)?;
        let console = &mut context.console;
        if console.format() != Format::Table {
            return Ok(console.json(&closed)?);
        }
        let id = text(&closed, "id");
        Ok(console.line(&single_line(&format!("Closed {id}. Another person reviews it.")))?)
    }
}

/// The items of a list.
fn all(answer: &Value) -> impl Iterator<Item = &Value> {
    answer.get("break_glass").and_then(Value::as_array).into_iter().flatten()
}

/// Has `take` take one, with all commands under it, page by page.
fn each_page(
    api: &Api,
    proof: &str,
    id: BreakGlassId,
    mut take: impl FnMut(&Value) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut after = None;
    loop {
        let page = api.break_glass(proof, id, after)?;
        take(&page)?;
        match page.get("next").and_then(Value::as_u64) {
            None => return Ok(()),
            next if next > after => after = next,
            Some(_) => return Err(Failure::new("the gateway's answer makes no sense: a page that does not go on")),
        }
    }
}

/// One with all commands under it.
fn whole(api: &Api, proof: &str, id: BreakGlassId) -> Result<Value, Failure> {
    let mut whole = Value::Null;
    each_page(api, proof, id, |page| {
        match whole.get_mut("commands").and_then(Value::as_array_mut) {
            Some(commands) => {
                commands.extend(page.get("commands").and_then(Value::as_array).into_iter().flatten().cloned());
            }
            None => whole = page.clone(),
        }
        Ok(())
    })?;
    whole.as_object_mut().map(|fields| fields.remove("next"));
    Ok(whole)
}

/// The one that is meant: in full, or the only one of the list whose id ends so.
fn which(api: &Api, proof: &str, meant: &str) -> Result<BreakGlassId, Failure> {
    match meant.parse() {
        Ok(id) => Ok(id),
        Err(_) => only(&api.break_glasses(proof)?, meant),
    }
}

/// As [`which`], among those of a list.
fn only(answer: &Value, meant: &str) -> Result<BreakGlassId, Failure> {
    let end = meant.to_ascii_uppercase();
    let fits = |id: &BreakGlassId| !end.is_empty() && id.to_string().ends_with(&end);
    let found: Vec<BreakGlassId> = all(answer).filter_map(|one| text(one, "id").parse().ok()).filter(fits).collect();
    let hint = "`onrecord break-glass list` has those that are open or wait for a review";
    desk::only("break-glass", hint, meant, &found)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::Exit;

    #[test]
    fn one_is_found_by_the_end_of_its_id() {
        let id = |last| BreakGlassId::new(1_763_804_136_123, [0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
        let all = [1, 2, 34].map(|last| json!({"id": id(last).to_string()}));
        let list = json!({ "break_glass": all });
        assert_eq!(only(&list, &id(1).to_string()[20..].to_lowercase()).unwrap(), id(1));
        assert_eq!(only(&list, &id(2).to_string()[25..]).unwrap_err().exit(), Exit::Usage, "02 and 12");
        for nothing in ["", "zzz", "\u{1b}[2J"] {
            let failure = only(&list, nothing).unwrap_err();
            assert_eq!(failure.exit(), Exit::NotFound, "{nothing}");
            assert!(!failure.to_string().contains('\u{1b}'));
        }
    }
}
