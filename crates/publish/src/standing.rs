//! How the witnesses stand, as a pure account: what they answered in, an entry for the record out.
//!
//! Not for: asking them.

use std::time::{Duration, Instant};

use model::{WitnessStanding, WitnessState, Witnesses};

/// A witness that does not answer is left alone at first for this long, then twice as long, and so on.
const BACKOFF_FIRST: Duration = Duration::from_secs(2);
/// At most so long.
const BACKOFF_MAX: Duration = Duration::from_secs(300);

/// What a witness answered for a checkpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It cosigned it.
    Cosigned,
    /// It refused by its rules: it asks for another log, or saw another past.
    Refused,
    /// It did not answer, or not as a witness does.
    Silent,
}

/// The account of one witness.
#[derive(Clone, Debug)]
pub(crate) struct Account {
    name: String,
    state: WitnessState,
    /// The largest size that it cosigned.
    cosigned: Option<u64>,
    failures: u32,
    not_before: Option<Instant>,
}

impl Account {
    pub(crate) fn new(name: String) -> Self {
        Self { name, state: WitnessState::Absent, cosigned: None, failures: 0, not_before: None }
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.not_before.is_none_or(|at| at <= now)
    }

    /// Takes in what it answered, for a checkpoint of this size.
    pub(crate) fn answered(&mut self, outcome: Outcome, size: u64, now: Instant) {
        match outcome {
            Outcome::Cosigned => {
                self.cosigned = self.cosigned.max(Some(size));
                self.state = WitnessState::Current;
                self.failures = 0;
                self.not_before = None;
            }
            Outcome::Refused => {
                self.state = WitnessState::Refused;
                self.back_off(now);
            }
            Outcome::Silent => {
                self.lag();
                self.back_off(now);
            }
        }
    }

    /// It was not asked for a checkpoint that there is: it is behind.
    pub(crate) fn lag(&mut self) {
        match (self.state, self.cosigned) {
            // A refusal stays one until something else is heard.
            (WitnessState::Refused, _) => {}
            (_, Some(_)) => self.state = WitnessState::Behind,
            (_, None) => self.state = WitnessState::Absent,
        }
    }

    pub(crate) fn standing(&self) -> WitnessStanding {
        WitnessStanding { name: self.name.clone(), state: self.state, size: self.cosigned }
    }

    fn back_off(&mut self, now: Instant) {
        let pause = BACKOFF_FIRST.saturating_mul(1u32.checked_shl(self.failures).unwrap_or(u32::MAX)).min(BACKOFF_MAX);
        self.failures = (self.failures + 1).min(16);
        self.not_before = Some(now + pause);
    }
}

/// When an entry is due: whenever somebody's state changed, and at the latest after a while.
#[derive(Default)]
pub(crate) struct Notices {
    last: Option<(Witnesses, Instant)>,
}

impl Notices {
    /// Whether this is to be put on the record now.
    pub(crate) fn is_due(&mut self, witnesses: &Witnesses, now: Instant, at_the_latest: Duration) -> bool {
        let due = self.last.as_ref().is_none_or(|(last, at)| {
            now.saturating_duration_since(*at) >= at_the_latest || states(last) != states(witnesses)
        });
        if due {
            self.last = Some((witnesses.clone(), now));
        }
        due
    }
}

/// What is worth an entry at once: sizes grow all the time.
fn states(witnesses: &Witnesses) -> (bool, Vec<(&str, WitnessState)>) {
    let each = witnesses.witnesses.iter().map(|witness| (witness.name.as_str(), witness.state));
    (witnesses.enough.is_some(), each.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(account: &Account) -> Witnesses {
        Witnesses { size: 9, enough: None, witnesses: vec![account.standing()] }
    }

    #[test]
    fn an_account_follows_the_answers() {
        let start = Instant::now();
        let mut account = Account::new("w".to_owned());
        assert_eq!(account.standing().state, WitnessState::Absent);
        account.answered(Outcome::Silent, 5, start);
        assert_eq!((account.standing().state, account.is_due(start)), (WitnessState::Absent, false));
        assert!(account.is_due(start + BACKOFF_FIRST));
        account.answered(Outcome::Cosigned, 6, start);
        assert_eq!((account.standing().state, account.standing().size), (WitnessState::Current, Some(6)));
        assert!(account.is_due(start));
        account.answered(Outcome::Silent, 7, start);
        assert_eq!((account.standing().state, account.standing().size), (WitnessState::Behind, Some(6)));
        account.answered(Outcome::Refused, 8, start);
        account.lag();
        assert_eq!(account.standing().state, WitnessState::Refused);
        for _ in 0..100 {
            account.answered(Outcome::Silent, 9, start);
        }
        assert!(account.is_due(start + BACKOFF_MAX));
    }

    #[test]
    fn an_entry_is_due_when_a_state_changes_and_after_a_while() {
        let (start, minute) = (Instant::now(), Duration::from_secs(60));
        let mut notices = Notices::default();
        let mut account = Account::new("w".to_owned());
        assert!(notices.is_due(&entry(&account), start, minute));
        assert!(!notices.is_due(&entry(&account), start, minute));
        account.answered(Outcome::Cosigned, 1, start);
        assert!(notices.is_due(&entry(&account), start, minute));
        account.answered(Outcome::Cosigned, 2, start);
        assert!(!notices.is_due(&entry(&account), start, minute));
        assert!(notices.is_due(&entry(&account), start + minute, minute));
    }
}
