//! What the log says of its own content: which holds are in force, and whose keys must be gone.
//!
//! Derived from the log, always: the file `custody` only saves reading the log again from its beginning. It may be
//! removed, and one that belongs to another log, to a longer one, or that is damaged, counts as none.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::sync::Arc;

use model::{Body, Entry, Erase, Hold, HoldAction, IdentityName, Kind, Peek, SessionId, Time};

use super::slots::Slots;
use crate::disk::{Disk, read_file, replace_file};
use crate::error::StoreError;
use crate::walk::{Step, Tail, Walk};

const FILE: &str = "custody";
const FIRST_LINE: &str = "onrecord/v1 custody";
/// A longer file is not read: the log is, instead.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// A hold that is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// The index of its entry.
    pub index: u64,
    /// When it was placed.
    pub time: Time,
    /// What it says.
    pub hold: Hold,
}

/// A session of which some fields were erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Redacted {
    pub(crate) slot: u64,
    /// How many fields the session has.
    pub(crate) count: u64,
    /// Those that were erased.
    pub(crate) fields: BTreeSet<u64>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct State {
    /// How many entries of the log are accounted for.
    pub(crate) size: u64,
    /// No session has a key in this slot or a later one.
    pub(crate) next_slot: u64,
    /// The slots of sessions that were erased as a whole.
    pub(crate) erased: Slots,
    pub(crate) redacted: BTreeMap<SessionId, Redacted>,
    pub(crate) holds: BTreeMap<String, Held>,
}

impl State {
    /// What the log says up to its end as it is now, and the erasures among it that are not accounted for: whose keys
    /// are in which slots is not known yet.
    pub(crate) fn read(disk: &Arc<dyn Disk>, origin: &str) -> Result<(Self, Vec<Erase>), StoreError> {
        let file = read_file(&**disk, FILE, FILE_BYTES_MAX).ok();
        let known = file.and_then(|bytes| Self::parse(&bytes, origin)).unwrap_or_default();
        match known.catch_up(disk)? {
            Some(caught_up) => Ok(caught_up),
            None => Self::default().catch_up(disk).map(Option::unwrap_or_default),
        }
    }

    /// Reads what the log has after what is accounted for; none if the log is shorter than that.
    fn catch_up(mut self, disk: &Arc<dyn Disk>) -> Result<Option<(Self, Vec<Erase>)>, StoreError> {
        let mut erasures = Vec::new();
        let from = self.size;
        let mut walk = Walk::new(disk.clone(), from, Tail::Live)?;
        loop {
            match walk.step()? {
                Step::Group(group) => {
                    for (index, _, leaf) in group.entries().filter(|(index, _, _)| *index >= from) {
                        erasures.extend(self.follow(index, leaf)?);
                    }
                }
                Step::Altered(damage, _) | Step::Damaged(damage) => return Err(damage.into()),
                Step::End(end) => return Ok((end.entries >= from).then_some((self, erasures))),
            }
        }
    }

    fn follow(&mut self, index: u64, leaf: &[u8]) -> Result<Option<Erase>, StoreError> {
        self.size = index + 1;
        if !matches!(Peek::new(leaf).map(|peek| peek.kind), Some(Kind::SessionOpen | Kind::Hold | Kind::Erase)) {
            return Ok(None);
        }
        let Entry { time, body } = Entry::decode(leaf).map_err(|source| StoreError::Entry { index, source })?;
        match body {
            Body::SessionOpen(open) => self.next_slot = self.next_slot.max(open.key_slot.saturating_add(1)),
            Body::Hold(hold) => self.hold(index, time, hold),
            Body::Erase(erase) => return Ok(Some(erase)),
            _ => {}
        }
        Ok(None)
    }

    pub(crate) fn hold(&mut self, index: u64, time: Time, hold: Hold) {
        match hold.action {
            HoldAction::Placed => {
                self.holds.insert(hold.hold.clone(), Held { index, time, hold });
            }
            HoldAction::Released => {
                self.holds.remove(&hold.hold);
            }
        }
    }

    /// A hold that keeps the content of this session.
    pub(crate) fn holding(&self, session: SessionId, connection: &str, identity: &IdentityName) -> Option<&Held> {
        self.holds.values().find(|Held { hold, .. }| {
            hold.session.is_none_or(|held| held == session)
                && hold.connection.as_ref().is_none_or(|held| held == connection)
                && hold.identity.as_ref().is_none_or(|held| held == identity)
        })
    }

    pub(crate) fn save(&self, disk: &dyn Disk, origin: &str) -> Result<(), StoreError> {
        let text = self.encode(origin);
        replace_file(disk, "", FILE, text.as_bytes()).map_err(StoreError::disk(format!("writing {FILE}")))
    }

    pub(crate) fn encode(&self, origin: &str) -> String {
        let mut text = format!("{FIRST_LINE}\n{origin}\nentries {}\nnext-slot {}\n", self.size, self.next_slot);
        for (first, last) in self.erased.ranges() {
            let _ = writeln!(text, "erased {first} {last}");
        }
        for (session, Redacted { slot, count, fields }) in &self.redacted {
            let _ = write!(text, "redacted {session} {slot} {count}");
            for field in fields {
                let _ = write!(text, " {field}");
            }
            text.push('\n');
        }
        for Held { index, time, hold } in self.holds.values() {
            let mut leaf = Vec::new();
            Entry { time: *time, body: Body::Hold(hold.clone()) }.encode(&mut leaf);
            let _ = writeln!(text, "hold {index} {}", String::from_utf8_lossy(&leaf));
        }
        let crc = crc32c::crc32c(text.as_bytes());
        let _ = writeln!(text, "{crc:08x}");
        text
    }

    pub(crate) fn parse(bytes: &[u8], origin: &str) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let at = text.strip_suffix('\n')?.rfind('\n')? + 1;
        let (content, crc) = text.split_at_checked(at)?;
        if crc != format!("{:08x}\n", crc32c::crc32c(content.as_bytes())) {
            return None;
        }
        let mut lines = content.strip_suffix('\n')?.split('\n');
        if lines.next()? != FIRST_LINE || lines.next()? != origin {
            return None;
        }
        let mut state = Self {
            size: lines.next()?.strip_prefix("entries ")?.parse().ok()?,
            next_slot: lines.next()?.strip_prefix("next-slot ")?.parse().ok()?,
            ..Self::default()
        };
        for line in lines {
            state.line(line)?;
        }
        Some(state)
    }

    fn line(&mut self, line: &str) -> Option<()> {
        let (what, rest) = line.split_once(' ')?;
        match what {
            "erased" => {
                let (first, last) = rest.split_once(' ')?;
                self.erased.insert_range(first.parse().ok()?, last.parse().ok()?);
            }
            "redacted" => {
                let mut words = rest.split(' ');
                let session = words.next()?.parse().ok()?;
                let (slot, count) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
                let fields = words.map(|word| word.parse().ok()).collect::<Option<_>>()?;
                self.redacted.insert(session, Redacted { slot, count, fields });
            }
            "hold" => {
                let (index, leaf) = rest.split_once(' ')?;
                let index = index.parse().ok()?;
                let Entry { time, body: Body::Hold(hold) } = Entry::decode(leaf.as_bytes()).ok()? else {
                    return None;
                };
                self.holds.insert(hold.hold.clone(), Held { index, time, hold });
            }
            _ => return None,
        }
        Some(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use model::{Actor, Known};

    use super::*;

    fn state() -> State {
        let session: SessionId = "01K9ZZ3Q0V8C2M4N6P8R0T2W4Y".parse().unwrap();
        let mut state = State { size: 77, next_slot: 300, ..State::default() };
        state.erased.insert_range(3, 9);
        state.erased.insert(12);
        state.redacted.insert(session, Redacted { slot: 20, count: 9, fields: [1, 4].into() });
        state.hold(
            5,
            Time { wall_us: 1_763_804_101_000_000, boot_us: 7 },
            Hold {
                hold: "h1".into(),
                action: HoldAction::Placed,
                session: Some(session),
                connection: None,
                identity: None,
                reason: "litigation \"A\"\nsecond line".into(),
                by: Actor { name: "uid:0".into(), known: Known::Verified },
            },
        );
        state
    }

    #[test]
    fn it_reads_what_it_writes() {
        let text = state().encode("gateway.example.com/1");
        assert_eq!(State::parse(text.as_bytes(), "gateway.example.com/1"), Some(state()));
        assert_eq!(State::parse(text.as_bytes(), "gateway.example.com/2"), None);
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            *bytes.get_mut(at).unwrap() ^= 1;
            assert_eq!(State::parse(&bytes, "gateway.example.com/1"), None, "byte {at}");
            assert_eq!(State::parse(&text.as_bytes()[..at], "gateway.example.com/1"), None, "cut at {at}");
        }
    }
}
