//! The files and directories that are open, each the operation that opened it.

use super::content::Content;
use super::packet::code;
use super::types::{End, Event, OpenFlags, OperationKey, Outcome, Status};
use std::collections::BTreeMap;

/// What is open, by handle and by operation.
#[derive(Debug)]
pub(super) struct Files {
    /// A handle stands here from the server's answer to its open until its CLOSE goes to the server: then the server may
    /// give the same to another file.
    handles: BTreeMap<Vec<u8>, OperationKey>,
    files: BTreeMap<OperationKey, File>,
    /// Bytes of content that may still wait for their turn.
    room: usize,
}

/// One of them, from OPEN or OPENDIR until the answers to CLOSE and to all reads and writes before it.
#[derive(Debug)]
struct File {
    path: Vec<u8>,
    /// None of a directory.
    flags: Option<OpenFlags>,
    state: State,
    /// Reads and writes that were not answered yet.
    unanswered: usize,
    read: Content,
    written: Content,
    entries: u64,
    /// Least offset at which the server said that there is nothing.
    empty_at: Option<u64>,
    failed: Option<Status>,
}

#[derive(Debug)]
enum State {
    /// Until CLOSE is answered.
    Open,
    Closed(Status),
}

/// What a request does with a handle.
#[derive(Clone, Copy, Debug)]
pub(super) enum Use {
    Entries,
    Read,
    Write,
}

/// A read or a write that was sent.
#[derive(Clone, Copy, Debug)]
pub(super) enum Transfer {
    Entries,
    Read { offset: u64, length: usize },
    Write { length: usize },
}

impl Files {
    pub(super) fn new(reorder_bytes_max: usize) -> Self {
        Self { handles: BTreeMap::new(), files: BTreeMap::new(), room: reorder_bytes_max }
    }

    pub(super) fn count(&self) -> usize {
        self.files.len()
    }

    /// The operation that opened a handle.
    pub(super) fn opened_by(&self, handle: &[u8]) -> Option<OperationKey> {
        self.handles.get(handle).copied()
    }

    /// The same, if it was opened for this; else what did open it, if anything has.
    pub(super) fn opened_for(&self, handle: &[u8], wanted: Use) -> Result<OperationKey, Option<OperationKey>> {
        let key = self.opened_by(handle).ok_or(None)?;
        let flags = self.files.get(&key).ok_or(None)?.flags;
        let fits = match wanted {
            Use::Entries => flags.is_none(),
            Use::Read => flags.is_some_and(OpenFlags::reads),
            Use::Write => flags.is_some_and(OpenFlags::writes),
        };
        if fits { Ok(key) } else { Err(Some(key)) }
    }

    pub(super) fn path(&self, key: OperationKey) -> Option<&[u8]> {
        self.files.get(&key).map(|file| file.path.as_slice())
    }

    /// An open that was asked for.
    pub(super) fn asked(&mut self, key: OperationKey, path: &[u8], flags: Option<OpenFlags>) {
        let file = File {
            path: path.to_vec(),
            flags,
            state: State::Open,
            unanswered: 0,
            read: Content::default(),
            written: Content::default(),
            entries: 0,
            empty_at: None,
            failed: None,
        };
        self.files.insert(key, file);
    }

    /// Its handle; false if that is another file's.
    #[must_use]
    pub(super) fn opened(&mut self, key: OperationKey, handle: &[u8]) -> bool {
        let free = !self.handles.contains_key(handle);
        if free {
            self.handles.insert(handle.to_vec(), key);
        }
        free
    }

    /// It was not opened.
    pub(super) fn forget(&mut self, key: OperationKey) {
        self.files.remove(&key);
    }

    /// CLOSE goes to the server.
    pub(super) fn closing(&mut self, handle: &[u8]) {
        self.handles.remove(handle);
    }

    pub(super) fn closed(&mut self, key: OperationKey, status: Status) -> Option<Event> {
        self.files.get_mut(&key)?.state = State::Closed(status);
        self.settle(key)
    }

    /// A read of a file, or of the entries of a directory, goes to the server.
    pub(super) fn reads(&mut self, key: OperationKey, offset: Option<u64>) {
        if let Some(file) = self.files.get_mut(&key) {
            file.unanswered += 1;
            if let Some(offset) = offset {
                file.read.begin(offset);
            }
        }
    }

    /// A write goes to the server.
    pub(super) fn writes(&mut self, key: OperationKey, offset: u64, data: &[u8]) {
        if let Some(file) = self.files.get_mut(&key) {
            file.unanswered += 1;
            file.written.begin(offset);
            // Where it is appended only the server knows, and in which order it came: there none may wait for another.
            let mut none = 0;
            let appends = file.flags.is_some_and(OpenFlags::appends);
            file.written.add(offset, data, if appends { &mut none } else { &mut self.room });
        }
    }

    /// What is written to it is not all seen here.
    pub(super) fn writes_unseen(&mut self, key: OperationKey) {
        if let Some(file) = self.files.get_mut(&key) {
            file.written.break_up(&mut self.room);
        }
    }

    /// The answer to a read.
    pub(super) fn data(&mut self, key: OperationKey, offset: u64, data: &[u8]) -> Option<Event> {
        let file = self.files.get_mut(&key)?;
        file.read.count(data.len());
        file.read.add(offset, data, &mut self.room);
        self.answered(key)
    }

    /// The answer to READDIR.
    pub(super) fn entries(&mut self, key: OperationKey, count: u32) -> Option<Event> {
        let file = self.files.get_mut(&key)?;
        file.entries = file.entries.saturating_add(u64::from(count));
        self.answered(key)
    }

    /// The answer to a write, or to a read that gave nothing.
    pub(super) fn status(&mut self, key: OperationKey, transfer: Transfer, status: Status) -> Option<Event> {
        let file = self.files.get_mut(&key)?;
        match (transfer, status.code) {
            (Transfer::Write { length }, code::OK) => file.written.count(length),
            (Transfer::Write { .. }, _) => {
                file.written.break_up(&mut self.room);
                file.failed.get_or_insert(status);
            }
            (Transfer::Read { offset, .. }, code::EOF) => {
                file.empty_at = Some(file.empty_at.map_or(offset, |least| least.min(offset)));
            }
            (Transfer::Entries, code::EOF) => {}
            (Transfer::Read { .. } | Transfer::Entries, _) => {
                file.failed.get_or_insert(status);
            }
        }
        self.answered(key)
    }

    fn answered(&mut self, key: OperationKey) -> Option<Event> {
        let file = self.files.get_mut(&key)?;
        file.unanswered = file.unanswered.saturating_sub(1);
        self.settle(key)
    }

    fn settle(&mut self, key: OperationKey) -> Option<Event> {
        let file = self.files.get(&key)?;
        if file.unanswered > 0 || matches!(file.state, State::Open) {
            return None;
        }
        let file = self.files.remove(&key)?;
        Some(Event { key, outcome: file.finish(&mut self.room) })
    }

    /// The channel has ended: whatever is still here ends with it.
    pub(super) fn abandon(&mut self) -> impl Iterator<Item = Event> {
        self.handles.clear();
        let room = &mut self.room;
        let finish = |(key, file): (OperationKey, File)| Event { key, outcome: file.finish(room) };
        let ended: Vec<_> = std::mem::take(&mut self.files).into_iter().map(finish).collect();
        ended.into_iter()
    }
}

impl File {
    fn finish(self, room: &mut usize) -> Box<Outcome> {
        let mut outcome = Outcome::of(match self.state {
            State::Open => End::NotClosed,
            State::Closed(status) => End::Answered(status),
        });
        outcome.read_to_end = self.empty_at.zip(self.read.end()).is_some_and(|(empty, end)| empty <= end);
        outcome.read = self.read.finish(room);
        outcome.written = self.written.finish(room);
        outcome.entries = self.entries;
        outcome.failed = self.failed;
        outcome
    }
}
