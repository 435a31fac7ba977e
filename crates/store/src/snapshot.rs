//! What a start needs to know of the log before its last segments: so that it need not read all of it.
//!
//! A snapshot stands beside a segment and says how the log stood where that segment begins: the right edge of the tree,
//! and the sessions that were open. It is derived, and it is not trusted by itself: the tree that goes on from it must
//! lead to what was signed, else the whole log is read. What is before it is looked at by verification, not at a start.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ledger::Frontier;
use model::{Digest, Kind, Peek, SessionId};

use crate::disk::{Disk, read_file, replace_file};

const TITLE: &str = "onrecord/v1 state";
/// A snapshot is at most this long, in bytes: some hundred thousand open sessions.
const BYTES_MAX: u64 = 64 << 20;

/// How the log stands at a place.
#[derive(Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) frontier: Frontier,
    pub(crate) sessions: BTreeMap<SessionId, OpenSession>,
}

/// A session that has not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct OpenSession {
    pub(crate) next_number: u32,
    pub(crate) previous: Option<Digest>,
    pub(crate) tree: Frontier,
    pub(crate) intents: u32,
    pub(crate) outcomes: u32,
    pub(crate) open: BTreeSet<u32>,
}

impl Snapshot {
    /// Takes the next entry.
    pub(crate) fn follow(&mut self, peek: &Peek, hash: Digest) {
        self.frontier.append(hash);
        let Some((id, number)) = peek.place else {
            return;
        };
        if peek.kind == Kind::SessionClose {
            self.sessions.remove(&id);
            return;
        }
        let session = self.sessions.entry(id).or_default();
        session.next_number = number.saturating_add(1);
        session.previous = Some(hash);
        session.tree.append(hash);
        match (peek.kind, peek.command) {
            (Kind::Intent, Some(command)) => {
                session.intents += 1;
                session.open.insert(command.ordinal);
            }
            (Kind::Outcome, Some(command)) => {
                session.outcomes += 1;
                session.open.remove(&command.ordinal);
            }
            _ => {}
        }
    }

    /// Keeps it beside the segment that begins here.
    pub(crate) fn write(&self, disk: &dyn Disk) -> io::Result<()> {
        replace_file(disk, "log", &name(self.frontier.size()), self.text().as_bytes())
    }

    /// Reads the one beside the segment that begins with this entry; none if there is none that can be read.
    pub(crate) fn read(disk: &dyn Disk, first: u64) -> Option<Self> {
        let bytes = read_file(disk, &format!("log/{}", name(first)), BYTES_MAX).ok()?;
        Self::parse(std::str::from_utf8(&bytes).ok()?).filter(|snapshot| snapshot.frontier.size() == first)
    }

    fn text(&self) -> String {
        let encode = |frontier: &Frontier| STANDARD.encode(frontier.to_bytes());
        let mut text = format!("{TITLE}\n{}\n", encode(&self.frontier));
        for (id, session) in &self.sessions {
            let OpenSession { next_number, previous, tree, intents, outcomes, open } = session;
            let previous = previous.map_or_else(|| "-".to_owned(), |previous| previous.base64());
            let open: Vec<String> = open.iter().map(ToString::to_string).collect();
            let (tree, open) = (encode(tree), open.join(","));
            text.push_str(&format!("{id} {next_number} {previous} {tree} {intents} {outcomes} {open}\n"));
        }
        let crc = crc32c::crc32c(text.as_bytes());
        text.push_str(&format!("{crc:08x}\n"));
        text
    }

    fn parse(text: &str) -> Option<Self> {
        let at = text.strip_suffix('\n')?.rfind('\n')? + 1;
        let (body, crc) = text.split_at_checked(at)?;
        if u32::from_str_radix(crc.trim_end(), 16).ok()? != crc32c::crc32c(body.as_bytes()) {
            return None;
        }
        let decode = |text: &str| Frontier::from_bytes(&STANDARD.decode(text).ok()?).ok();
        let mut lines = body.lines();
        if lines.next()? != TITLE {
            return None;
        }
        let frontier = decode(lines.next()?)?;
        let mut sessions = BTreeMap::new();
        for line in lines {
            let mut words = line.split(' ');
            let id: SessionId = words.next()?.parse().ok()?;
            let next_number = words.next()?.parse().ok()?;
            let previous = match words.next()? {
                "-" => None,
                digest => Some(Digest::from_base64(digest)?),
            };
            let tree = decode(words.next()?)?;
            let (intents, outcomes) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let open = words.next()?.split(',').filter(|ordinal| !ordinal.is_empty());
            let open = open.map(|ordinal| ordinal.parse().ok()).collect::<Option<_>>()?;
            sessions.insert(id, OpenSession { next_number, previous, tree, intents, outcomes, open });
        }
        Some(Self { frontier, sessions })
    }
}

fn name(first: u64) -> String {
    format!("{first:020}.state")
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]
    use super::*;

    #[test]
    fn a_snapshot_reads_back_or_not_at_all() {
        let mut snapshot = Snapshot::default();
        let id = SessionId::from_bytes([7; 16]);
        let place = |number| Some((id, number));
        let command = |ordinal| Some(model::CommandId { session: id, ordinal });
        snapshot.follow(&Peek { kind: Kind::Genesis, command: None, place: None }, Digest([1; 32]));
        snapshot.follow(&Peek { kind: Kind::SessionOpen, command: None, place: place(0) }, Digest([2; 32]));
        for ordinal in 1..=3 {
            let peek = Peek { kind: Kind::Intent, command: command(ordinal), place: place(ordinal) };
            snapshot.follow(&peek, Digest([3; 32]));
        }
        snapshot.follow(&Peek { kind: Kind::Outcome, command: command(2), place: place(4) }, Digest([4; 32]));
        let text = snapshot.text();
        let read = Snapshot::parse(&text).unwrap();
        assert_eq!((read.frontier, read.sessions), (snapshot.frontier, snapshot.sessions.clone()));
        assert_eq!(snapshot.sessions[&id].open.len(), 2);
        for at in 0..text.len() {
            let mut bytes = text.clone().into_bytes();
            bytes[at] ^= 1;
            let read = std::str::from_utf8(&bytes).ok().and_then(Snapshot::parse);
            assert!(read.is_none(), "byte {at} of {text}");
            assert!(Snapshot::parse(&text[..at]).is_none());
        }
    }
}
