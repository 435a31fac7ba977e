//! Walks over the groups of a log, segment by segment, and says what is damage and what is only an unfinished end.
//!
//! Used by recovery, by the readers and by verification, so that all three see the same log.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;

use ledger::leaf_hash;
use model::{CommandId, Digest, Peek};

use crate::disk::{Disk, DiskFile, Mode, read_full};
use crate::error::StoreError;
use crate::format::{
    self, GROUP_BYTES_MAX, GROUP_HEADER_BYTES, GroupHeader, HEADER_BYTES, SegmentHeader, entries, segment_first,
    segment_path,
};

/// A group whose checksum is right.
pub(crate) struct GroupAt {
    pub(crate) path: Arc<str>,
    /// Where the group begins in its segment.
    pub(crate) offset: u64,
    pub(crate) header: GroupHeader,
    pub(crate) body: Vec<u8>,
    pub(crate) hashes: Vec<Digest>,
}

impl GroupAt {
    /// Index, offset in the segment and bytes of each entry.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u64, u64, &[u8])> {
        let body = self.offset + u64::try_from(GROUP_HEADER_BYTES).unwrap_or(0);
        (self.header.first..)
            .zip(entries(&self.body))
            .map(move |(index, entry)| (index, body + u64::try_from(entry.at).unwrap_or(0), entry.leaf))
    }
}

/// Something that a crash does not explain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Damage {
    pub(crate) path: Arc<str>,
    pub(crate) offset: u64,
    /// The first entry that is damaged or lost.
    pub(crate) index: u64,
    /// The last entry that it may be: later than `index` if only the group is known.
    pub(crate) last: u64,
    /// The command of that entry, if it can still be read.
    pub(crate) command: Option<CommandId>,
    pub(crate) what: String,
}

impl From<Damage> for StoreError {
    fn from(damage: Damage) -> Self {
        Self::Corrupt { file: format!("{} ({})", damage.path, damage.what), offset: damage.offset, index: damage.index }
    }
}

pub(crate) enum Step {
    Group(GroupAt),
    /// A group whose checksum is right and whose content is not what was written. The walk goes on after it.
    Altered(Damage, GroupAt),
    /// The walk cannot go on.
    Damaged(Damage),
    End(End),
}

/// The end of the log.
#[derive(Clone, Debug)]
pub(crate) struct End {
    /// How many entries there are.
    pub(crate) entries: u64,
    /// Bytes after the last group that are not zero, up to the last of them.
    pub(crate) torn_bytes: u64,
    /// What would be damaged if those bytes were a group that was once whole.
    pub(crate) torn: Option<Damage>,
}

/// How carefully the end is examined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tail {
    /// Everything after the last group is read: is it really the end?
    Examine,
    /// A log that may be growing: zeros are the end.
    Live,
}

pub(crate) struct Walk {
    disk: Arc<dyn Disk>,
    tail: Tail,
    /// First indexes of the segments that are still to come.
    segments: VecDeque<u64>,
    current: Option<Segment>,
    next: u64,
    chain: Option<Digest>,
    origin: Option<Digest>,
}

/// The segment in which the walk stands.
pub(crate) struct Segment {
    pub(crate) path: Arc<str>,
    pub(crate) header: SegmentHeader,
    pub(crate) length: u64,
    pub(crate) offset: u64,
    window: Window,
    /// The memory of a group that is done with, for the next one.
    spare: (Vec<u8>, Vec<Digest>),
}

impl Walk {
    /// Begins at the segment that has entry `from`, or the last one.
    pub(crate) fn new(disk: Arc<dyn Disk>, from: u64, tail: Tail) -> Result<Self, StoreError> {
        let all = list(&*disk)?;
        let Some(&first) = all.iter().rev().find(|first| **first <= from).or(all.first()) else {
            return Err(StoreError::NoLog);
        };
        let segments = all.into_iter().filter(|f| *f >= first).collect();
        Ok(Self { disk, tail, segments, current: None, next: first, chain: None, origin: None })
    }

    /// The chain hash of the last group.
    pub(crate) fn chain(&self) -> Option<Digest> {
        self.chain
    }

    pub(crate) fn segment(&self) -> Option<&Segment> {
        self.current.as_ref()
    }

    /// Takes back the memory of a group that is done with.
    pub(crate) fn reuse(&mut self, group: GroupAt) {
        if let Some(segment) = &mut self.current {
            segment.spare = (group.body, group.hashes);
        }
    }

    pub(crate) fn step(&mut self) -> Result<Step, StoreError> {
        loop {
            let Some(segment) = &mut self.current else {
                match self.enter()? {
                    None => continue,
                    Some(damage) => return Ok(Step::Damaged(damage)),
                }
            };
            match segment.read(self.next).map_err(StoreError::disk(format!("reading {}", segment.path)))? {
                Some(group) => return Ok(self.accept(group)),
                None => {
                    if let Some(step) = self.end_of_segment()? {
                        return Ok(step);
                    }
                }
            }
        }
    }

    fn accept(&mut self, group: GroupAt) -> Step {
        let before = self.chain.unwrap_or(Digest([0; 32]));
        self.next = group.header.first + u64::from(group.header.count);
        self.chain = Some(group.header.chain);
        match altered(&group, &before) {
            Some(damage) => Step::Altered(damage, group),
            None => Step::Group(group),
        }
    }

    /// Opens the next segment. Returns damage if it does not follow from the one before.
    fn enter(&mut self) -> Result<Option<Damage>, StoreError> {
        let Some(first) = self.segments.pop_front() else {
            return Err(StoreError::NoLog);
        };
        let path = segment_path(first);
        let damage = |what: &str| {
            Ok(Some(Damage {
                path: path.as_str().into(),
                offset: 0,
                index: self.next,
                last: self.next,
                command: None,
                what: what.to_owned(),
            }))
        };
        if first != self.next {
            return damage(&missing(self.next, first));
        }
        let file = self.disk.open(&path, Mode::Read).map_err(StoreError::disk(format!("opening {path}")))?;
        let length = file.len().map_err(StoreError::disk(format!("reading {path}")))?;
        let mut bytes = vec![0; HEADER_BYTES];
        let count = read_full(&*file, &mut bytes, 0).map_err(StoreError::disk(format!("reading {path}")))?;
        bytes.truncate(count);
        let header = match SegmentHeader::decode(&bytes) {
            Ok(header) => header,
            Err(what) => return damage(what),
        };
        if header.first != first {
            return damage("the segment's name does not say which entry is its first");
        }
        if self.chain.is_some_and(|chain| chain != header.chain) || (first == 0 && header.chain != Digest([0; 32])) {
            return damage("the segment does not follow from the one before");
        }
        if self.origin.is_some_and(|origin| origin != header.origin) {
            return damage("the segment belongs to another log");
        }
        self.chain = Some(header.chain);
        self.origin = Some(header.origin);
        let window = Window { file, start: 0, bytes: Vec::new() };
        let offset = u64::try_from(HEADER_BYTES).unwrap_or(0);
        self.current = Some(Segment { path: path.into(), header, length, offset, window, spare: Default::default() });
        Ok(None)
    }

    /// No valid group follows here: the next segment, the end, or damage.
    fn end_of_segment(&mut self) -> Result<Option<Step>, StoreError> {
        if self.segments.is_empty() {
            // A segment may have been begun since the walk began.
            self.segments = list(&*self.disk)?.into_iter().filter(|first| *first >= self.next).collect();
            if self.segments.front() == Some(&self.next)
                && self.current.as_ref().is_some_and(|segment| segment.header.first == self.next)
            {
                // The current segment itself, still without an entry.
                self.segments.pop_front();
            }
        }
        let Some(segment) = &mut self.current else {
            return Ok(None);
        };
        let error = StoreError::disk(format!("reading {}", segment.path));
        if self.segments.is_empty() {
            let zero = segment.zero_header().map_err(error)?;
            if zero && self.tail == Tail::Live {
                return Ok(Some(Step::End(End { entries: self.next, torn_bytes: 0, torn: None })));
            }
            let error = StoreError::disk(format!("reading {}", segment.path));
            return segment.tail(self.next).map(Some).map_err(error);
        }
        // One more try: the last group may have been written after it was looked for.
        segment.window.bytes.clear();
        if let Some(group) = segment.read(self.next).map_err(error)? {
            return Ok(Some(self.accept(group)));
        }
        if self.segments.front() == Some(&self.next) {
            self.current = None;
            return Ok(None);
        }
        let error = StoreError::disk(format!("reading {}", segment.path));
        let mut examine = || {
            let mut damage = segment.damage(self.next)?;
            if segment.zero_header()? {
                let until = self.segments.front().copied().unwrap_or(self.next);
                damage.what = missing(self.next, until);
            }
            Ok(damage)
        };
        examine().map(|damage| Some(Step::Damaged(damage))).map_err(error)
    }
}

fn missing(from: u64, until: u64) -> String {
    format!("entries {from} to {} are missing", until.saturating_sub(1))
}

/// What is wrong with a group whose checksum is right: someone who changes entries can also set that checksum.
fn altered(group: &GroupAt, before: &Digest) -> Option<Damage> {
    let body = group.offset + u64::try_from(GROUP_HEADER_BYTES).unwrap_or(0);
    let damage = |index, offset, leaf: Option<&[u8]>, what: &str| {
        let command = leaf.and_then(Peek::new).and_then(|peek| peek.command);
        Some(Damage { path: group.path.clone(), offset, index, last: index, command, what: what.to_owned() })
    };
    let first = group.header.first;
    let mut count = 0u32;
    for entry in entries(&group.body) {
        if !entry.is_intact() {
            let at = body + u64::try_from(entry.at).unwrap_or(0);
            return damage(first + u64::from(count), at, Some(entry.leaf), "the entry's checksum is wrong");
        }
        count += 1;
    }
    if count != group.header.count {
        return damage(first, group.offset, None, "the group does not have as many entries as it says");
    }
    if format::chain(before, &group.hashes) != group.header.chain {
        let leaf = entries(&group.body).next().map(|entry| entry.leaf);
        let what = "the group's entries are not those that were written: its chain hash is wrong";
        let last = first + u64::from(count.saturating_sub(1));
        return damage(first, group.offset, leaf, what).map(|damage| Damage { last, ..damage });
    }
    None
}

impl Segment {
    /// The group at the offset, if there is a valid one that begins with entry `first`.
    fn read(&mut self, first: u64) -> io::Result<Option<GroupAt>> {
        let found = self.read_at(self.offset)?;
        let found = match found {
            Some(group) if group.header.first == first => Some(group),
            _ => {
                // What was read earlier may have been written since.
                self.window.bytes.clear();
                self.read_at(self.offset)?.filter(|group| group.header.first == first)
            }
        };
        if let Some(group) = &found {
            self.offset += u64::try_from(group.header.total_bytes()).unwrap_or(0);
        }
        Ok(found)
    }

    fn read_at(&mut self, offset: u64) -> io::Result<Option<GroupAt>> {
        let Some((header, crc)) = GroupHeader::decode(self.window.get(offset, GROUP_HEADER_BYTES)?) else {
            return Ok(None);
        };
        let length = GROUP_HEADER_BYTES + usize::try_from(header.body_bytes).unwrap_or(0);
        let total = header.total_bytes();
        let bytes = self.window.get(offset, total)?;
        let (Some(first_60), Some(body)) = (bytes.get(..60), bytes.get(GROUP_HEADER_BYTES..length)) else {
            return Ok(None);
        };
        let padding = bytes.get(length..total).is_some_and(|rest| rest.iter().all(|&b| b == 0));
        if !padding || format::group_crc(&self.header.salt, first_60, body) != crc {
            return Ok(None);
        }
        let (mut copy, mut hashes) = std::mem::take(&mut self.spare);
        copy.clear();
        copy.extend_from_slice(body);
        hashes.clear();
        hashes.extend(entries(&copy).map(|entry| leaf_hash(entry.leaf)));
        Ok(Some(GroupAt { path: self.path.clone(), offset, header, body: copy, hashes }))
    }

    fn zero_header(&mut self) -> io::Result<bool> {
        self.window.bytes.clear();
        Ok(self.window.get(self.offset, GROUP_HEADER_BYTES)?.iter().all(|&b| b == 0))
    }

    /// What stands where the group that begins with entry `next` should be.
    fn damage(&mut self, next: u64) -> io::Result<Damage> {
        let offset = self.offset;
        let path = self.path.clone();
        let mut damage = Damage {
            path,
            offset,
            index: next,
            last: next,
            command: None,
            what: "the group is damaged or lost".to_owned(),
        };
        let bytes = self.window.get(offset, GROUP_HEADER_BYTES + GROUP_BYTES_MAX)?;
        let Some((header, body)) = bytes.split_at_checked(GROUP_HEADER_BYTES) else {
            return Ok(damage);
        };
        let length = GroupHeader::decode(header).filter(|(header, _)| header.first == next).map(|(header, _)| header);
        let body = match length.and_then(|header| usize::try_from(header.body_bytes).ok()) {
            Some(length) => body.get(..length).unwrap_or(body),
            None => return Ok(damage),
        };
        for (index, entry) in (next..).zip(entries(body)) {
            if !entry.is_intact() {
                damage.index = index;
                damage.offset = offset + u64::try_from(GROUP_HEADER_BYTES + entry.at).unwrap_or(0);
                damage.command = Peek::new(entry.leaf).and_then(|peek| peek.command);
                damage.what = "the entry is not as it was written".to_owned();
                break;
            }
        }
        Ok(damage)
    }

    /// Examines what follows the last valid group: an end, an unfinished group that nobody relied on, or damage.
    ///
    /// Groups that are not yet synced may reach the disk in any order, so a valid group after an invalid one proves
    /// nothing by itself. But each group says which entries were durable when it was written: if a later one says so
    /// of the missing entry, the entry was lost after it was safe.
    fn tail(&mut self, next: u64) -> io::Result<Step> {
        let start = self.offset;
        let mut last = start;
        let mut at = start;
        let mut safe = next;
        while at < self.length {
            let bytes = self.window.get(at, SCAN_BYTES)?;
            if bytes.is_empty() {
                break;
            }
            let length = u64::try_from(bytes.len()).unwrap_or(0);
            if bytes.iter().all(|&b| b == 0) {
                at += length;
                continue;
            }
            let mut candidates = Vec::new();
            for (place, word) in (at..).step_by(8).zip(bytes.chunks(8)) {
                if word.iter().any(|&b| b != 0) {
                    last = place + u64::try_from(word.len()).unwrap_or(0);
                    candidates.push(place);
                }
            }
            for place in candidates {
                let plausible = GroupHeader::decode(self.window.get(place, GROUP_HEADER_BYTES)?)
                    .is_some_and(|(header, _)| header.first > next && header.durable > next);
                if plausible && let Some(group) = self.read_at(place)? {
                    safe = safe.max(group.header.durable);
                }
            }
            at += length;
        }
        if safe > next {
            return self.damage(next).map(Step::Damaged);
        }
        let torn = if last > start { Some(self.damage(next)?) } else { None };
        Ok(Step::End(End { entries: next, torn_bytes: last - start, torn }))
    }
}

const SCAN_BYTES: usize = 64 * 1024;
const WINDOW_BYTES: usize = 256 * 1024;

/// A part of the file that is kept in memory, so that small groups do not cost a system call each.
struct Window {
    file: Box<dyn DiskFile>,
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    /// `length` bytes at `offset`, fewer at the end of the file.
    fn get(&mut self, offset: u64, length: usize) -> io::Result<&[u8]> {
        let within = |start: u64, have: usize| {
            let from = usize::try_from(offset.checked_sub(start)?).ok()?;
            (from + length <= have).then_some(from)
        };
        let from = match within(self.start, self.bytes.len()) {
            Some(from) => from,
            None => {
                self.start = offset;
                self.bytes.resize(length.max(WINDOW_BYTES), 0);
                let count = read_full(&*self.file, &mut self.bytes, offset)?;
                self.bytes.truncate(count);
                0
            }
        };
        let end = (from + length).min(self.bytes.len());
        Ok(self.bytes.get(from..end).unwrap_or_default())
    }
}

/// The first indexes of all segments, in order.
pub(crate) fn list(disk: &dyn Disk) -> Result<Vec<u64>, StoreError> {
    let names = match disk.list("log") {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(StoreError::NoLog),
        names => names.map_err(StoreError::disk("listing log"))?,
    };
    let mut firsts: Vec<u64> = names.iter().filter_map(|name| segment_first(name)).collect();
    firsts.sort_unstable();
    Ok(firsts)
}
