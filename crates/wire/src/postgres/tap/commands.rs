//! The commands that were drafted and have no outcome yet, and what became of their effects.
//!
//! `Effective` is settled by the tag that ends a transaction (COMMIT, ROLLBACK), or else by the ReadyForQuery
//! that ends the implicit one. Where several pieces of one command fared differently, the answer is `Unknown`.

use super::types::{
    CommandKey, CommandOutcome, Copy, CopyDirection, Effective, Event, OutcomeStatus, StatementResult, TxStatus, Via,
};
use crate::postgres::fields::ErrorFields;
use crate::postgres::lexer::Class;
use std::collections::VecDeque;

/// Statement results that are kept for one command; the rest is counted.
const RESULTS_MAX: usize = 1000;
/// Real tags are below 64 bytes (`COMPLETION_TAG_BUFSIZE`).
const TAG_BYTES_MAX: usize = 64;

#[derive(Debug, Default)]
pub(super) struct Commands {
    open: VecDeque<Open>,
    drafted: u64,
}

#[derive(Debug)]
pub(super) struct Open {
    pub(super) key: CommandKey,
    /// The queue entry with which it began.
    began: u64,
    via: Via,
    class: Class,
    /// Id of its prepared statement, 0 for none.
    statement: u64,
    /// Nothing more will come for it.
    done: bool,
    /// Something of it ran since the last COMMIT or ROLLBACK.
    unsettled: bool,
    settled: Option<Effective>,
    outcome: Box<CommandOutcome>,
}

impl Commands {
    pub(super) fn draft(&mut self, began: u64, via: Via, class: Class) -> CommandKey {
        let key = self.mint();
        self.open.push_back(Open {
            key,
            began,
            via,
            class,
            statement: 0,
            done: false,
            unsettled: false,
            settled: None,
            outcome: Box::new(CommandOutcome::new()),
        });
        key
    }

    /// A key for a command that is recorded after the fact.
    pub(super) fn mint(&mut self) -> CommandKey {
        let key = CommandKey(self.drafted);
        self.drafted += 1;
        key
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }

    pub(super) fn get(&mut self, key: CommandKey) -> Option<&mut Open> {
        // The front is asked for nearly always.
        if self.open.front().is_some_and(|open| open.key == key) {
            return self.open.front_mut();
        }
        let place = self.open.binary_search_by_key(&key, |open| open.key).ok()?;
        self.open.get_mut(place)
    }

    pub(super) fn end(&mut self, key: CommandKey) {
        if let Some(open) = self.get(key) {
            open.done = true;
        }
    }

    pub(super) fn stop(&mut self, key: CommandKey, status: OutcomeStatus) {
        if let Some(open) = self.get(key) {
            open.stop(status);
        }
    }

    /// The server skips this command; what is known of it already stays.
    pub(super) fn skip(&mut self, key: CommandKey) {
        if let Some(open) = self.get(key)
            && open.outcome.status == OutcomeStatus::Ok
        {
            open.stop(OutcomeStatus::Skipped);
        }
    }

    /// Whether a command runs this prepared statement.
    pub(super) fn uses(&self, key: CommandKey, statement: u64) -> bool {
        self.open
            .binary_search_by_key(&key, |open| open.key)
            .ok()
            .and_then(|place| self.open.get(place))
            .is_some_and(|open| open.statement == statement)
    }

    /// A transaction ended before or at this entry: all that was open in it shares its fate.
    pub(super) fn settle(&mut self, until: u64, effective: Effective) {
        for open in self.open.iter_mut().take_while(|open| open.began <= until) {
            if open.unsettled {
                open.settle(effective);
            }
        }
    }

    /// ReadyForQuery: outcomes of all that ended.
    pub(super) fn ready(&mut self, until: u64, status: TxStatus, failed: bool, events: &mut Vec<Event>) {
        // Part of what ran may have committed by itself before the error.
        let leaky = failed
            && self.open.iter().take_while(|open| open.began <= until).any(|open| open.class.outside_transaction);
        let mut index = 0;
        while let Some(open) = self.open.get_mut(index) {
            if open.began > until {
                break;
            }
            if status != TxStatus::Idle && !open.done {
                index += 1;
                continue;
            }
            let fate = match (status, open.failed()) {
                (TxStatus::Idle, _) if !failed => Effective::Committed,
                (TxStatus::Idle, _) | (TxStatus::Failed, true) if leaky => Effective::Unknown,
                (TxStatus::Idle, _) | (TxStatus::Failed, true) => Effective::RolledBack,
                (TxStatus::Failed | TxStatus::Open, _) => Effective::Open,
            };
            if !open.outcome.executed && open.outcome.status == OutcomeStatus::Ok {
                open.settled = Some(Effective::RolledBack);
            } else if open.unsettled || open.settled.is_none() {
                open.settle(fate);
            }
            if let Some(open) = self.open.remove(index) {
                events.push(open.into_event());
            }
        }
    }

    /// Too many ended commands wait for a Sync that does not come: their outcomes without their effect.
    pub(super) fn relieve(&mut self, max: usize, events: &mut Vec<Event>) {
        while self.open.len() > max {
            let Some(index) = self.open.iter().position(|open| open.done) else {
                return;
            };
            if let Some(mut open) = self.open.remove(index) {
                open.settle(Effective::Unknown);
                events.push(open.into_event());
            }
        }
    }

    pub(super) fn abandon(&mut self) -> Vec<CommandKey> {
        self.open.drain(..).map(|open| open.key).collect()
    }

    /// The command begins with this entry, not with the one that was next when it was drafted.
    pub(super) fn begins_at(&mut self, key: CommandKey, began: u64) {
        if let Some(open) = self.get(key) {
            open.began = began;
        }
    }
}

impl Open {
    pub(super) fn bytes_up(&mut self, bytes: usize) {
        self.outcome.bytes_up += bytes as u64;
    }

    pub(super) fn bytes_down(&mut self, bytes: usize) {
        self.outcome.bytes_down += bytes as u64;
    }

    pub(super) fn row(&mut self) {
        self.outcome.rows += 1;
    }

    pub(super) fn notice(&mut self) {
        self.outcome.notices = self.outcome.notices.saturating_add(1);
    }

    pub(super) fn copy(&mut self, direction: CopyDirection) {
        let copy = self.outcome.copy.get_or_insert(Copy { direction, bytes: 0 });
        copy.direction = direction;
    }

    pub(super) fn copied(&mut self, bytes: usize) {
        if let Some(copy) = &mut self.outcome.copy {
            copy.bytes += bytes as u64;
        }
    }

    pub(super) fn suspend(&mut self) {
        self.fetched();
        self.outcome.suspended = true;
        self.unsettled = true;
    }

    pub(super) fn result(&mut self, tag: &[u8]) {
        if self.via == Via::Extended {
            self.fetched();
            self.outcome.suspended = false;
            self.done = true;
        }
        self.outcome.executed = true;
        self.unsettled = true;
        self.outcome.results_total += 1;
        if self.outcome.results.len() < RESULTS_MAX {
            let tag = crate::postgres::fields::bounded(tag, TAG_BYTES_MAX);
            let rows = tag.rsplit(' ').next().and_then(|count| count.parse().ok());
            self.outcome.results.push(StatementResult { tag, rows });
        }
    }

    pub(super) fn executed(&mut self) {
        self.outcome.executed = true;
    }

    pub(super) fn fail(&mut self, fields: ErrorFields) {
        self.outcome.status = if fields.code == "57014" { OutcomeStatus::Cancelled } else { OutcomeStatus::Error };
        self.outcome.code = Some(fields.code);
        self.outcome.severity = Some(fields.severity);
        self.outcome.message = Some(fields.message);
        self.unsettled = true;
        self.done = true;
    }

    pub(super) fn settle(&mut self, effective: Effective) {
        self.settled = Some(match self.settled {
            Some(before) if before != effective => Effective::Unknown,
            Some(_) | None => effective,
        });
        self.unsettled = false;
    }

    pub(super) fn of_statement(&mut self, id: u64) {
        self.statement = id;
    }

    /// Whether it may be ROLLBACK TO SAVEPOINT, whose tag is ROLLBACK too.
    pub(super) fn savepoint(&self) -> bool {
        self.class.savepoint
    }

    fn stop(&mut self, status: OutcomeStatus) {
        self.outcome.status = status;
        self.outcome.executed = false;
        self.settled = Some(Effective::RolledBack);
        self.unsettled = false;
        self.done = true;
    }

    fn failed(&self) -> bool {
        self.outcome.status != OutcomeStatus::Ok
    }

    fn into_event(self) -> Event {
        let mut outcome = *self.outcome;
        outcome.effective = self.settled.unwrap_or(Effective::Unknown);
        Event::Outcome { key: self.key, outcome }
    }
}

impl CommandOutcome {
    pub(super) fn new() -> Self {
        Self {
            status: OutcomeStatus::Ok,
            code: None,
            severity: None,
            message: None,
            results: Vec::new(),
            results_total: 0,
            rows: 0,
            bytes_up: 0,
            bytes_down: 0,
            notices: 0,
            copy: None,
            fetches: 0,
            suspended: false,
            effective: Effective::Unknown,
            executed: false,
        }
    }

    pub(super) fn of_error(fields: ErrorFields) -> Self {
        let mut outcome = Self::new();
        outcome.status = OutcomeStatus::Error;
        outcome.code = Some(fields.code);
        outcome.severity = Some(fields.severity);
        outcome.message = Some(fields.message);
        outcome.effective = Effective::RolledBack;
        outcome
    }
}

impl Open {
    fn fetched(&mut self) {
        self.outcome.executed = true;
        self.outcome.fetches = self.outcome.fetches.saturating_add(1);
    }
}
