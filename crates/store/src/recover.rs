//! Opening a log: finds its end, checks it against what was signed, and works out what the last run left unfinished.

use std::collections::BTreeMap;
use std::sync::Arc;

use ledger::{Frontier, leaf_hash};
use model::{
    Body, CommandId, Digest, Entry, Kind, Link, Loss, Peek, Recovery as RecoveryEntry, SessionClose, SessionEnd,
    SessionId,
};

use crate::disk::{Disk, DiskFile, Mode, read_full, write_all};
use crate::error::{RecordError, StoreError};
use crate::format::{HEADER_BYTES, SegmentHeader};
use crate::log::{Log, PAGE_BYTES, Purpose, Writer};
use crate::session::lost_outcome;
use crate::snapshot::{OpenSession, Snapshot};
use crate::walk::{End, Step, Tail, Walk, list};

/// What opening a log found, and what was done about it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// How many entries the log had.
    pub entries: u64,
    /// Whether the last run stopped cleanly.
    pub clean: bool,
    /// How many bytes of an incomplete group, which nobody relied on, were dropped.
    pub torn_bytes: u64,
    /// Commands that got an outcome `unknown`.
    pub commands_unknown: Vec<CommandId>,
    /// Sessions that were closed as lost.
    pub sessions_lost: Vec<SessionId>,
}

/// The log as it was found.
pub(crate) struct Found {
    pub(crate) writer: Writer,
    pub(crate) recovery: Recovery,
    sessions: BTreeMap<SessionId, OpenSession>,
    /// The root at each size that was asked for.
    pub(crate) roots: BTreeMap<u64, Digest>,
}

/// Where reading begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// At the last snapshot before everything that was signed, if there is one.
    Snapshot,
    /// At the first entry.
    First,
}

/// Reads the log to its end and makes that ready to be written. `sizes` are those whose roots are wanted.
pub(crate) fn recover(disk: &Arc<dyn Disk>, origin: &Digest, sizes: &[u64], begin: Begin) -> Result<Found, StoreError> {
    let mut state = match begin {
        Begin::Snapshot => snapshot_before(&**disk, sizes)?,
        Begin::First => Snapshot::default(),
    };
    let mut walk = Walk::new(disk.clone(), state.frontier.size(), Tail::Examine)?;
    let mut roots = BTreeMap::new();
    let mut last = None;
    if sizes.contains(&state.frontier.size()) {
        roots.insert(state.frontier.size(), state.frontier.root());
    }
    let end = loop {
        match walk.step()? {
            Step::Group(group) => {
                for ((index, _, leaf), hash) in group.entries().zip(&group.hashes) {
                    let peek = Peek::new(leaf).ok_or(StoreError::Entry { index, source: unreadable(leaf) })?;
                    state.follow(&peek, *hash);
                    if sizes.contains(&state.frontier.size()) {
                        roots.insert(state.frontier.size(), state.frontier.root());
                    }
                    last = Some(peek.kind);
                }
            }
            Step::Altered(damage, _) | Step::Damaged(damage) => return Err(damage.into()),
            Step::End(end) => break end,
        }
    };
    let Snapshot { frontier, sessions } = state;
    let Some(segment) = walk.segment() else {
        return Err(StoreError::NoLog);
    };
    if segment.header.origin != *origin {
        return Err(StoreError::malformed(&*segment.path, "the segment belongs to a log with another name"));
    }
    let clean = matches!(last, Some(Kind::Stop | Kind::Genesis)) && sessions.is_empty() && end.torn_bytes == 0;
    // Only what is durable is signed: a signature over all of it proves the last sync.
    let trust = if clean && sizes.contains(&end.entries) { Trust::Cache } else { Trust::Rewrite };
    let file = ready(disk, &segment.path, segment.offset, segment.length, &end, trust)?;
    let SegmentHeader { number, salt, .. } = segment.header;
    let recovery = Recovery {
        entries: end.entries,
        clean,
        torn_bytes: end.torn_bytes,
        commands_unknown: sessions
            .iter()
            .flat_map(|(&session, state)| state.open.iter().map(move |&ordinal| CommandId { session, ordinal }))
            .collect(),
        sessions_lost: sessions.keys().copied().collect(),
    };
    let writer = Writer {
        number,
        salt,
        length: segment.length,
        offset: segment.offset,
        chain: walk.chain().unwrap_or(Digest([0; 32])),
        frontier,
        page: page_before(&*file, segment.offset)?,
        segment: Arc::from(file),
        group: Vec::new(),
        hashes: Vec::new(),
    };
    Ok(Found { writer, recovery, sessions, roots })
}

/// What the page with this offset holds before it.
fn page_before(file: &dyn DiskFile, offset: u64) -> Result<Vec<u8>, StoreError> {
    let held = usize::try_from(offset).unwrap_or(0) % PAGE_BYTES;
    let mut page = vec![0; held];
    let begin = offset - u64::try_from(held).unwrap_or(0);
    let read = read_full(file, &mut page, begin).map_err(StoreError::disk("reading the end of the log"))?;
    page.truncate(read);
    Ok(page)
}

fn unreadable(leaf: &[u8]) -> model::DecodeError {
    Entry::decode(leaf).err().unwrap_or(model::DecodeError::NotCanonical)
}

/// The last snapshot at which nothing that was signed lies ahead of it: what is signed later proves it.
fn snapshot_before(disk: &dyn Disk, sizes: &[u64]) -> Result<Snapshot, StoreError> {
    let signed = sizes.iter().copied().min().unwrap_or(0);
    let firsts = list(disk)?.into_iter().rev().filter(|first| *first > 0 && *first <= signed);
    Ok(firsts.take(SNAPSHOTS_TRIED).find_map(|first| Snapshot::read(disk, first)).unwrap_or_default())
}

/// A directory without snapshots is not searched to its beginning.
const SNAPSHOTS_TRIED: usize = 64;

/// Whether what was read of the last segment is known to be on the disk.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Trust {
    /// It was synced before the last stop.
    Cache,
    /// The last run may have ended over a failed sync. The system then calls pages clean that never reached the disk:
    /// they are read from its cache, a further sync passes over them, and they are gone when it drops them (Rebello et
    /// al., USENIX ATC 2020). So they are written again.
    Rewrite,
}

/// How much of a segment is written again at a time.
const REWRITE_BYTES: usize = 1024 * 1024;

/// Writes what a file has before this offset over itself, so that the next sync covers it.
fn rewrite(file: &dyn DiskFile, until: u64) -> std::io::Result<()> {
    let mut buffer = vec![0; REWRITE_BYTES];
    let mut at = 0;
    while at < until {
        let step = usize::try_from(until - at).unwrap_or(usize::MAX).min(buffer.len());
        let part = buffer.get_mut(..step).unwrap_or_default();
        let read = read_full(file, part, at)?;
        write_all(file, part.get(..read).unwrap_or_default(), at)?;
        at += u64::try_from(step).unwrap_or(u64::MAX);
    }
    Ok(())
}

/// Clears what was left after the last whole group, and makes all of the segment durable: whole groups that were not
/// acknowledged are kept, and from now on they count.
fn ready(
    disk: &Arc<dyn Disk>,
    path: &str,
    offset: u64,
    length: u64,
    end: &End,
    trust: Trust,
) -> Result<Box<dyn DiskFile>, StoreError> {
    let file = disk.open(path, Mode::Write).map_err(StoreError::disk(format!("opening {path}")))?;
    let clear = || {
        if trust == Trust::Rewrite {
            rewrite(&*file, offset)?;
        }
        let zeros = vec![0; HEADER_BYTES];
        let stop = (offset + end.torn_bytes).min(length);
        let mut at = offset;
        while at < stop {
            let step = usize::try_from(stop - at).unwrap_or(usize::MAX).min(zeros.len());
            write_all(&*file, zeros.get(..step).unwrap_or_default(), at)?;
            at += u64::try_from(step).unwrap_or(0);
        }
        file.sync()?;
        disk.sync_dir("log")
    };
    clear().map_err(StoreError::disk(format!("preparing {path}")))?;
    Ok(file)
}

/// Appends what makes the log complete again: the recovery entry, the unknown outcomes, the lost sessions.
pub(crate) fn complete(log: &Log, found: &Unfinished, recovery: &Recovery) -> Result<(), RecordError> {
    if recovery.clean {
        return Ok(());
    }
    let count = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
    log.note(
        Body::Recovery(RecoveryEntry {
            entries: recovery.entries,
            loss: if recovery.torn_bytes > 0 { Loss::TornTail } else { Loss::None },
            torn_bytes: recovery.torn_bytes,
            commands_unknown: count(recovery.commands_unknown.len()),
            sessions_lost: count(recovery.sessions_lost.len()),
        }),
        Purpose::Complete,
    )?;
    for (&id, session) in &found.0 {
        let mut link = Link { session: id, number: session.next_number, previous: session.previous };
        let mut tree = session.tree.clone();
        let append = |link: &mut Link, tree: &mut Frontier, entry: Entry| {
            let mut leaf = Vec::with_capacity(512);
            entry.encode(&mut leaf);
            let hash = leaf_hash(&leaf);
            link.number += 1;
            link.previous = Some(hash);
            tree.append(hash);
            log.append(&leaf, hash, Purpose::Complete)
        };
        for &ordinal in &session.open {
            let of = CommandId { session: id, ordinal };
            let entry = lost_outcome(link, of, log.clock.now());
            append(&mut link, &mut tree, entry)?;
        }
        let body = Body::SessionClose(SessionClose {
            link,
            reason: SessionEnd::Lost,
            intents: session.intents,
            outcomes: session.outcomes + u32::try_from(session.open.len()).unwrap_or(u32::MAX),
            bytes_up: 0,
            bytes_down: 0,
            root: Some(tree.root()),
        });
        append(&mut link, &mut tree, Entry { time: log.clock.now(), body })?;
    }
    Ok(())
}

/// The sessions that the last run left open.
pub(crate) struct Unfinished(BTreeMap<SessionId, OpenSession>);

impl Found {
    pub(crate) fn split(self) -> (Writer, Unfinished, Recovery) {
        (self.writer, Unfinished(self.sessions), self.recovery)
    }
}
