//! `onrecord policy replay`: what rules would have decided about the recorded past.

use std::collections::{BTreeMap, VecDeque};

use clap::Args;
use serde_json::{Value, json};

use super::super::row::Row;
use super::super::selection::Selection;
use super::super::source;
use super::super::words::{counted, to_the_second};
use super::asked::{self, Why};
use super::{Context, Labels, PolicyPlace, pair};
use crate::Failure;
use crate::cli::RecordPlace;
use crate::output::{Cell, Column, Console, Format, Table, Tone};

/// Arguments of `policy replay`.
#[derive(Debug, Args)]
pub struct Replay {
    #[command(flatten)]
    selection: Selection,
    /// Of the commands that would change, the newest so many; 0 is all
    #[arg(long, short = 'n', value_name = "N", default_value_t = 50)]
    limit: usize,
    /// A label of the connections
    #[arg(long = "label", value_name = "NAME=TEXT", value_parser = pair)]
    labels: Vec<(String, String)>,
    #[command(flatten)]
    policy: PolicyPlace,
    #[command(flatten)]
    place: RecordPlace,
}

/// What would have been different.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Change {
    recorded: &'static str,
    new: &'static str,
    /// The rules that matched, or that none did, or which failed.
    rules: String,
}

#[derive(Default)]
struct Tally {
    commands: u64,
    changed: u64,
    changes: BTreeMap<Change, u64>,
    undecided: BTreeMap<Why, u64>,
    list: VecDeque<(Change, Row)>,
}

impl Replay {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let set = self.policy.set(context)?;
        let reader = context.reader(&self.place)?;
        // A session may have begun before the commands that are asked for.
        let whole = Selection { session: self.selection.session.clone(), ..Selection::default() };
        let sessions = asked::sessions(&source::sessions(&reader, &whole)?, &Labels::new(context, self.labels.clone()));
        let mut tally = Tally::default();
        for view in source::commands(&reader, &self.selection)? {
            let view = view.map_err(source::unreadable)?;
            tally.commands += 1;
            let asked = match asked::recorded(&view, &sessions) {
                Ok(asked) => asked,
                Err(why) => {
                    *tally.undecided.entry(why).or_default() += 1;
                    continue;
                }
            };
            let decision = asked.decide(&set);
            // Break-glass is no rule: what it let through was decided otherwise by those.
            let decided = view.break_glass.and(view.observed).unwrap_or(view.verdict);
            let (recorded, new) = (decided.as_str(), decision.ruling().as_str());
            if recorded == new {
                continue;
            }
            let rules = match (decision.rules(), decision.error()) {
                (_, Some(error)) => format!("error: {error}"),
                ([], None) => "(default)".to_owned(),
                (rules, None) => rules.join(", "),
            };
            let change = Change { recorded, new, rules };
            tally.changed += 1;
            *tally.changes.entry(change.clone()).or_default() += 1;
            if self.limit > 0 && tally.list.len() == self.limit {
                tally.list.pop_front();
            }
            tally.list.push_back((change, Row::from(view)));
        }
        if context.console.format() == Format::Table {
            tables(&mut context.console, &tally)
        } else {
            Ok(context.console.json(&as_json(&tally))?)
        }
    }
}

fn tables(console: &mut Console, tally: &Tally) -> Result<(), Failure> {
    let commands = counted(tally.commands, "command", "commands");
    let tone = if tally.changed == 0 { Tone::Good } else { Tone::Strong };
    let changed = console.paint(tone, &format!("{} would change", tally.changed));
    console.line(&format!("{commands}: {changed}"))?;
    for (why, count) in &tally.undecided {
        console.line(&console.paint(Tone::Warning, &format!("not put to the rules: {count} ({})", why.as_str())))?;
    }
    if tally.changed == 0 {
        return Ok(());
    }
    console.line("")?;
    let mut table = Table::new([
        Column::text("RECORDED"),
        Column::text("NEW"),
        Column::number("COMMANDS"),
        Column::flexible("RULES"),
    ]);
    for (change, count) in &tally.changes {
        let Change { recorded, new, rules } = change;
        table.row([Cell::new(recorded), Cell::new(new), Cell::new(count.to_string()), Cell::new(rules)]);
    }
    console.table(&table)?;
    console.line("")?;
    let mut table = Table::new([
        Column::text("TIME (UTC)"),
        Column::text("ID"),
        Column::text("WHO"),
        Column::text("NEW"),
        Column::text("RULES"),
        Column::flexible("COMMAND"),
    ]);
    for (change, row) in &tally.list {
        let (tone, text) = row.text_or_why();
        table.row([
            Cell::toned(Tone::Faint, to_the_second(row.time)),
            Cell::new(row.short_id()),
            Cell::new(&row.identity),
            Cell::new(change.new),
            Cell::new(&change.rules),
            Cell::toned(tone, text),
        ]);
    }
    Ok(console.table(&table)?)
}

fn as_json(tally: &Tally) -> Value {
    let undecided: serde_json::Map<String, Value> =
        tally.undecided.iter().map(|(why, count)| (why.key().to_owned(), json!(count))).collect();
    let change = |change: &Change| json!({"recorded": change.recorded, "new": change.new, "rules": change.rules});
    let with = |mut value: Value, name: &str, more: Value| {
        if let Some(fields) = value.as_object_mut() {
            fields.insert(name.to_owned(), more);
        }
        value
    };
    let changes: Vec<Value> =
        tally.changes.iter().map(|(one, count)| with(change(one), "count", json!(count))).collect();
    let list: Vec<Value> = tally.list.iter().map(|(one, row)| with(change(one), "command", json!(row))).collect();
    json!({
        "commands": tally.commands,
        "changed": tally.changed,
        "not_decided": undecided,
        "changes": changes,
        "list": list,
    })
}
