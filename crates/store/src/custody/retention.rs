//! Retention: content of sessions that ended long enough ago is erased, as the configuration says. The entries stay.
//!
//! Slow on purpose: a pass reads the old part of the log, erases some sessions at a time, and asks in between whether
//! it may go on.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use model::{Actor, Entry, EraseCause, IdentityName, SessionId, Time};

use super::subject::{Gather, Gathering, Pass, Subject, pass};
use super::{Custodian, CustodyError, State, erasure};
use crate::disk::{Disk, RealDisk};
use crate::error::StoreError;
use crate::keys;
use crate::log::lock;
use crate::recorder::Recorder;

/// How many sessions are erased at a time: they share a flush of the log and one of the keys.
const BATCH_SESSIONS: usize = 32;
/// So many groups are read between two questions whether to go on.
const GROUPS_BETWEEN: u32 = 256;
const DAY_US: i64 = 86_400_000_000;
/// How far the wall clock may be from where the boot clock says it should be.
const CLOCK_STEP_US: u64 = 3_600_000_000;

/// How long content is kept, in days after its session ended. What has no rule is kept for ever.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RetentionRules {
    /// For connections without a rule of their own.
    pub days: Option<u32>,
    /// By connection.
    pub connections: BTreeMap<String, u32>,
}

impl RetentionRules {
    /// Whether nothing is ever erased by them.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.days.is_none() && self.connections.is_empty()
    }

    /// For how long a connection's content is kept, and by which rule.
    #[must_use]
    pub fn of(&self, connection: &str) -> Option<(u32, String)> {
        match (self.connections.get(connection), self.days) {
            (Some(&days), _) => Some((days, format!("connections.{connection}.retention_days = {days}"))),
            (None, Some(days)) => Some((days, format!("retention.days = {days}"))),
            (None, None) => None,
        }
    }

    /// Nothing that ended later than this is due.
    fn latest(&self, now: Time) -> i64 {
        let shortest = self.connections.values().copied().chain(self.days).min();
        shortest.map_or(i64::MIN, |days| before(now, days))
    }
}

fn before(now: Time, days: u32) -> i64 {
    now.wall_us.saturating_sub(i64::from(days).saturating_mul(DAY_US))
}

/// A session whose content has been kept as long as it should be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Due {
    /// The session.
    pub session: SessionId,
    /// Its connection.
    pub connection: String,
    /// Its identity.
    pub identity: IdentityName,
    /// When it ended.
    pub ended: Time,
    /// The rule.
    pub rule: String,
    /// The hold that keeps it all the same.
    pub held: Option<String>,
}

/// Whether a pass goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It does.
    Go,
    /// It ends here; the next one goes on.
    Stop,
}

/// What a pass did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Sessions whose content was erased.
    pub erased: u64,
    /// Sessions whose content would have been erased, if it was not held.
    pub held: u64,
}

/// What would be erased from the log in a directory by these rules, oldest first. Nothing is.
///
/// # Errors
/// There is no log, or it cannot be read.
pub fn retention_due(
    dir: &Path,
    rules: &RetentionRules,
    now: Time,
    each: &mut dyn FnMut(Due),
) -> Result<(), StoreError> {
    let disk: Arc<dyn Disk> = Arc::new(RealDisk::new(dir));
    let vkey = keys::verifier_key(&*disk)?;
    let (state, _) = State::read(&disk, vkey.name())?;
    let mut search = Search::new(rules, now);
    search.pass(&disk, 0, &mut |subject, ended, rule| {
        if !state.erased.contains(subject.slot) {
            let held = state.holding(subject.session, &subject.connection, &subject.identity);
            let held = held.map(|held| held.hold.hold.clone());
            let Subject { session, connection, identity, .. } = subject;
            each(Due { session, connection, identity, ended, rule, held });
        }
        Ok(Pass::On)
    })?;
    Ok(())
}

/// Finds sessions that are due.
struct Search<'a> {
    rules: &'a RetentionRules,
    now: Time,
    gathering: Gathering,
    /// The first entry of the first session that is not due yet, or that was passed over.
    resume: Option<u64>,
}

type Found<'a> = dyn FnMut(Subject, Time, String) -> Result<Pass, StoreError> + 'a;

impl<'a> Search<'a> {
    fn new(rules: &'a RetentionRules, now: Time) -> Self {
        Self { rules, now, gathering: Gathering::new(Gather::Blobs), resume: None }
    }

    fn keep(&mut self, index: u64) {
        self.resume = Some(self.resume.map_or(index, |resume| resume.min(index)));
    }

    /// Passes over the log from this entry on. Where a later pass can begin is in `resume` afterwards.
    fn pass(&mut self, disk: &Arc<dyn Disk>, from: u64, found: &mut Found<'_>) -> Result<(), StoreError> {
        let latest = self.rules.latest(self.now);
        let mut next = from;
        pass(disk, from, &mut |group| {
            for (index, _, leaf) in group.entries().filter(|(index, _, _)| *index >= from) {
                next = index;
                let rules = self.rules;
                let closed = self.gathering.entry(index, leaf, &mut |open| rules.of(&open.connection).is_some())?;
                let Some(subject) = closed else { continue };
                let (Some(ended), Some((days, rule))) = (subject.closed, rules.of(&subject.connection)) else {
                    continue;
                };
                if ended.wall_us >= before(self.now, days) {
                    self.keep(subject.index);
                } else if found(subject, ended, rule)? == Pass::Stop {
                    return Ok(Pass::Stop);
                }
            }
            // The log is in the order of time: what comes after this is not due.
            let first = group.entries().next().and_then(|(_, _, leaf)| Entry::decode(leaf).ok());
            let past = first.is_some_and(|entry| entry.time.wall_us >= latest);
            Ok(if past { Pass::Stop } else { Pass::On })
        })?;
        let open = self.gathering.open.values().map(|subject| subject.index).min();
        self.keep(open.unwrap_or(next).min(next));
        Ok(())
    }
}

impl Recorder {
    /// Erases the content of sessions that has been kept as long as the rules say, unless it is held. `pace` is asked
    /// again and again; it may take its time.
    ///
    /// # Errors
    /// See [`CustodyError`]. What was erased until then stays so.
    pub fn retain(
        &self,
        rules: &RetentionRules,
        by: &Actor,
        pace: &mut dyn FnMut() -> Pace,
    ) -> Result<Retained, CustodyError> {
        let (log, custodian) = self.custody();
        let mut retained = Retained::default();
        if rules.is_empty() {
            return Ok(retained);
        }
        let now = log.clock.now();
        let from = lock(custodian).begin_pass(rules, now)?;
        log.write();
        let (mut search, mut batch, mut failure, mut groups) = (Search::new(rules, now), Vec::new(), None, 0u32);
        let mut passed_over = Vec::new();
        let mut flush = |batch: &mut Vec<(Subject, String)>| -> Result<(), CustodyError> {
            let taken = std::mem::take(batch);
            if taken.is_empty() {
                return Ok(());
            }
            let kept = self.erase_batch(taken, by, &mut retained)?;
            passed_over.extend(kept);
            Ok(())
        };
        search.pass(&log.disk, from, &mut |subject, _, rule| {
            groups = groups.wrapping_add(1);
            batch.push((subject, rule));
            if batch.len() >= BATCH_SESSIONS
                && let Err(error) = flush(&mut batch)
            {
                failure = Some(error);
                return Ok(Pass::Stop);
            }
            let ask = batch.is_empty() || groups.is_multiple_of(GROUPS_BETWEEN);
            Ok(if ask && pace() == Pace::Stop { Pass::Stop } else { Pass::On })
        })?;
        if failure.is_none() {
            failure = flush(&mut batch).err();
        }
        match failure {
            Some(error) => Err(error),
            None => {
                passed_over.into_iter().for_each(|index| search.keep(index));
                lock(custodian).resume = search.resume.map(|resume| (rules.clone(), resume));
                Ok(retained)
            }
        }
    }

    /// Erases these sessions together, and gives the first entries of those that a hold keeps.
    fn erase_batch(
        &self,
        batch: Vec<(Subject, String)>,
        by: &Actor,
        retained: &mut Retained,
    ) -> Result<Vec<u64>, CustodyError> {
        self.with_custody(|log, custodian, source| {
            let (mut subjects, mut erasures, mut kept) = (Vec::new(), Vec::new(), Vec::new());
            for (subject, rule) in batch {
                match custodian.check(&subject).and_then(|()| custodian.check_key(&log.disk, &subject)) {
                    Ok(()) => {
                        erasures.push(erasure(&subject, None, EraseCause::Retention, &rule, by));
                        subjects.push(subject);
                    }
                    Err(CustodyError::Held { .. }) => {
                        retained.held += 1;
                        kept.push(subject.index);
                    }
                    // Nothing to do, now or later.
                    Err(CustodyError::Already | CustodyError::OtherKey(_)) => {}
                    Err(error) => return Err(error),
                }
            }
            if !subjects.is_empty() {
                custodian.declare(log, &erasures)?;
                custodian
                    .means(&log.disk, source, |means, state| means.sessions(state, &subjects))
                    .map_err(CustodyError::Unfinished)?;
                custodian.finished(log)?;
                retained.erased += super::count(subjects.len());
            }
            Ok(kept)
        })
    }
}

impl Custodian {
    /// Where a pass begins; an error if nobody knows what time it is.
    fn begin_pass(&mut self, rules: &RetentionRules, now: Time) -> Result<u64, CustodyError> {
        let booted = i64::try_from(now.boot_us.saturating_sub(self.opened.boot_us)).unwrap_or(i64::MAX);
        let step = now.wall_us.saturating_sub(self.opened.wall_us).saturating_sub(booted).unsigned_abs();
        if step > CLOCK_STEP_US {
            return Err(CustodyError::ClockStepped { hours: step / 3_600_000_000 });
        }
        Ok(match &self.resume {
            Some((known, resume)) if known == rules => *resume,
            _ => 0,
        })
    }
}
