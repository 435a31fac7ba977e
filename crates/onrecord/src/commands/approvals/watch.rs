//! `onrecord approvals watch`: a line for each change.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::{Value, json};

use super::{Desk, Seat, shown, summaries};
use crate::Failure;
use crate::commands::asking::{number, text};
use crate::commands::{Context, now_us, words};
use crate::output::{Cell, Column, Console, Format, Table};

/// Between two tries to reach a gateway that did not answer.
const PAUSE: Duration = Duration::from_secs(5);
/// So many tries in a row may fail: a gateway that is started again is waited for.
const TRIES_MAX: u32 = 12;
/// Answers that bring nothing new come no more often than this.
const IDLE_MIN: Duration = Duration::from_secs(1);
/// What an approval that is no longer listed is called.
const GONE: &str = "gone";

/// Arguments of `approvals watch`.
#[derive(Debug, Args)]
pub struct Watch {
    #[command(flatten)]
    desk: Desk,
}

impl Watch {
    /// Follows them until it is stopped, or the gateway is gone for a minute.
    pub(super) fn run(self, context: &mut Context) -> Result<(), Failure> {
        let console = &mut context.console;
        let mut known = Known::default();
        let mut after = None;
        let mut failed = 0;
        loop {
            let began = Instant::now();
            let asked = self.desk.sit().and_then(|Seat { api, proof }| api.approvals(&proof, after));
            match asked {
                Ok(answer) => {
                    failed = 0;
                    let changes = known.take(&answer);
                    for change in &changes {
                        say(change, console)?;
                    }
                    after = Some(number(&answer, "revision"));
                    let spare = IDLE_MIN.saturating_sub(began.elapsed());
                    if changes.is_empty() {
                        std::thread::sleep(spare);
                    }
                }
                // What cannot be had at all is said at once.
                Err(failure) if after.is_none() || failed + 1 >= TRIES_MAX => return Err(failure),
                Err(failure) => {
                    failed += 1;
                    if failed == 1 {
                        crate::cli::say(&failure);
                    }
                    std::thread::sleep(PAUSE);
                }
            }
        }
    }
}

/// Approvals as they were told last.
#[derive(Default)]
struct Known(BTreeMap<String, Value>);

impl Known {
    /// Takes what is told now, and gives what has changed. What was over when it was first told is no news.
    fn take(&mut self, answer: &Value) -> Vec<Value> {
        let mut changes = Vec::new();
        let mut now = BTreeMap::new();
        for one in summaries(answer) {
            let id = text(one, "id").to_owned();
            let news = match self.0.get(&id) {
                None => matches!(text(one, "state"), "waiting" | "approved"),
                Some(before) => {
                    text(before, "state") != text(one, "state")
                        || number(before, "approvals") != number(one, "approvals")
                }
            };
            if news {
                changes.push(one.clone());
            }
            now.insert(id, one.clone());
        }
        for (id, before) in &self.0 {
            if !now.contains_key(id) && matches!(text(before, "state"), "waiting" | "approved") {
                let mut gone = before.clone();
                if let Some(fields) = gone.as_object_mut() {
                    fields.insert("state".to_owned(), json!(GONE));
                }
                changes.push(gone);
            }
        }
        self.0 = now;
        changes
    }
}

/// Says a change, at once.
fn say(change: &Value, console: &mut Console) -> Result<(), Failure> {
    if console.format() == Format::Table {
        let blank = || Column::text("");
        let mut table = Table::new([blank(), blank(), blank(), blank(), blank(), Column::flexible("")]);
        let state = text(change, "state");
        let counted = match number(change, "quorum") {
            quorum if quorum > 1 => format!("{state} {} of {quorum}", number(change, "approvals")),
            _ => state.to_owned(),
        };
        table.row([
            Cell::new(words::to_the_second(now_us())),
            Cell::toned(shown::tone(state), format!("{counted:<10}")),
            Cell::new(text(change, "id")),
            Cell::new(text(change, "requester")),
            Cell::new(text(change, "connection")),
            Cell::new(text(change, "statement")),
        ]);
        console.table(&table)?;
    } else {
        console.json(change)?;
    }
    Ok(console.flush()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn states(changes: &[Value]) -> Vec<(&str, &str)> {
        changes.iter().map(|one| (text(one, "id"), text(one, "state"))).collect()
    }

    #[test]
    fn each_change_is_told_once() {
        let one = |id: &str, state: &str, approvals: u64| json!({"id": id, "state": state, "approvals": approvals});
        let all = |list: &[Value]| json!({"approvals": list});
        let mut known = Known::default();
        let first = all(&[one("a", "waiting", 0), one("b", "denied", 0)]);
        assert_eq!(states(&known.take(&first)), [("a", "waiting")]);
        assert!(known.take(&first).is_empty());
        assert_eq!(states(&known.take(&all(&[one("a", "waiting", 1)]))), [("a", "waiting")]);
        assert_eq!(
            states(&known.take(&all(&[one("a", "used", 2), one("c", "waiting", 0)]))),
            [("a", "used"), ("c", "waiting")]
        );
        assert_eq!(states(&known.take(&all(&[]))), [("c", "gone")]);
        assert!(known.take(&all(&[])).is_empty());
    }
}
