//! The log as others read it: tiles and entry bundles of C2SP tlog-tiles, derived from the segments.
//!
//! `tiles/` is a tree of plain files that any web server can serve. It is a pure function of the log: it can be removed,
//! and the next start makes it again. Nothing waits for it, and when it cannot be written, recording goes on.
//!
//! Invariants:
//! - `tiles/checkpoint` names a size only when every tile and bundle of that size is durable and leads to its root.
//! - What a full tile says, it says for ever.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use ledger::{
    BUNDLE_BYTES_MAX, Checkpoint, Frontier, NOTE_BYTES_MAX, Nodes, SignedNote, TILE_BYTES_MAX, TILE_WIDTH, Tile,
    TileError, TileKind, TileNodes, VerifierKey, partial_tiles, push_bundle_entry, root_of, tile_hashes,
};
use model::{Digest, Peek};

use crate::disk::{Disk, DiskFile, Mode, RealDisk, read_file, replace_file, write_all};
use crate::error::StoreError;
use crate::format::segment_path;
use crate::log::lock;
use crate::snapshot::Snapshot;
use crate::walk::{Step, Tail, Walk};

const DIR: &str = "tiles";
const CHECKPOINT: &str = "checkpoint";
const COSIGNED: &str = "cosigned";

/// The newest checkpoint that was published, and who waits for the next.
#[derive(Default)]
pub(crate) struct Board {
    newest: Mutex<Newest>,
    changed: Condvar,
}

#[derive(Default)]
struct Newest {
    /// Its size and its note.
    published: Option<(u64, String)>,
    /// Why the last one could not be published.
    failure: Option<Arc<str>>,
}

impl Board {
    /// The newest checkpoint of more than `after` entries; waits for it as long as this.
    pub(crate) fn wait(&self, after: u64, timeout: Duration) -> Option<(u64, String)> {
        let end = Instant::now() + timeout;
        let mut newest = lock(&self.newest);
        loop {
            if let Some(found) = newest.published.clone().filter(|(size, _)| *size > after) {
                return Some(found);
            }
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return None;
            }
            newest = self.changed.wait_timeout(newest, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    pub(crate) fn failure(&self) -> Option<Arc<str>> {
        lock(&self.newest).failure.clone()
    }

    /// Adds the cosignatures of a note to what is published.
    pub(crate) fn cosigned(&self, disk: &dyn Disk, note: &SignedNote) -> Result<(), StoreError> {
        let error = |what| StoreError::disk(format!("writing {DIR}/{what}"));
        let mut newest = lock(&self.newest);
        let text = note.to_string();
        replace_file(disk, DIR, COSIGNED, text.as_bytes()).map_err(error(COSIGNED))?;
        if let Some((_, published)) = &mut newest.published
            && SignedNote::parse(published).is_ok_and(|published| published.text() == note.text())
        {
            replace_file(disk, DIR, CHECKPOINT, text.as_bytes()).map_err(error(CHECKPOINT))?;
            *published = text;
        }
        Ok(())
    }

    fn set(&self, size: u64, note: String) {
        *lock(&self.newest) = Newest { published: Some((size, note)), failure: None };
        self.changed.notify_all();
    }
}

/// Makes the tiles. One thread at a time.
pub(crate) struct Publisher {
    disk: Arc<dyn Disk>,
    key: VerifierKey,
    board: Arc<Board>,
    edge: Option<Edge>,
    /// A size of the log at which no session was open.
    complete: u64,
    /// Partial tiles of published checkpoints that may be removed when another is published.
    partial: BTreeSet<Tile>,
    unsynced: Unsynced,
}

/// What was written and is not known to be durable.
#[derive(Default)]
struct Unsynced {
    files: Vec<Box<dyn DiskFile>>,
    /// The directories with new names in them.
    dirs: BTreeSet<String>,
    /// So many that one call for the whole file system is better.
    many: bool,
}

/// Up to so many files are synced one by one. A sync of the whole file system waits for what other programs have written
/// there, and the log's own syncs wait behind it; for many files it is still cheaper.
const SYNCED_SINGLY_MAX: usize = 16;

impl Unsynced {
    /// After an attempt that failed, or an earlier run: directories and files may be there that are not durable, and that
    /// nobody would make again.
    fn unknown() -> Self {
        Self { many: true, ..Self::default() }
    }

    fn wrote(&mut self, path: &str, file: Box<dyn DiskFile>) {
        if self.files.len() < SYNCED_SINGLY_MAX {
            self.dirs.insert(dir_of(path).to_owned());
            self.files.push(file);
        } else {
            self.many = true;
        }
    }

    /// A directory was made, and perhaps some above it.
    fn made(&mut self, mut dir: &str) {
        while !dir.is_empty() {
            dir = dir_of(dir);
            self.dirs.insert(dir.to_owned());
        }
    }
}

/// The directory that a file or directory is in; empty for the data directory.
fn dir_of(path: &str) -> &str {
    path.rsplit_once('/').map_or("", |(dir, _)| dir)
}

/// The tiles that are not full, level by level: all that is needed to go on.
#[derive(Clone, Default)]
struct Edge {
    size: u64,
    bundle: Vec<u8>,
    levels: Vec<Vec<Digest>>,
    /// How the log stands here, if that is known.
    state: Option<Snapshot>,
}

/// Why a checkpoint could not be published.
#[derive(Debug, thiserror::Error)]
enum PublishError {
    #[error("{0}")]
    Disk(#[from] io::Error),
    #[error("{0}")]
    Store(#[from] StoreError),
    #[error("{0}")]
    Tile(#[from] TileError),
    #[error("{0} is not what the log says: it was changed. Remove the directory {DIR}, and it is made again")]
    Altered(String),
    #[error("the tiles do not lead to the root that was signed. Remove the directory {DIR}, and it is made again")]
    Root,
}

impl Publisher {
    pub(crate) fn new(disk: Arc<dyn Disk>, key: VerifierKey, board: Arc<Board>) -> Self {
        Self {
            disk,
            key,
            board,
            edge: None,
            complete: u64::MAX,
            partial: BTreeSet::new(),
            unsynced: Unsynced::unknown(),
        }
    }

    /// Says where no session was open.
    pub(crate) fn complete_at(&mut self, size: u64) {
        self.complete = size;
    }

    /// Publishes a checkpoint that was signed. A failure is noted; the next call begins where this one stopped.
    pub(crate) fn publish(&mut self, checkpoint: &Checkpoint, note: &str) {
        match self.try_publish(checkpoint, note) {
            Ok(()) => {}
            Err(error) => {
                // What is not published yet is written anew.
                (self.edge, self.unsynced) = (None, Unsynced::unknown());
                let why = format!("publishing the log up to entry {} failed: {error}", checkpoint.size);
                lock(&self.board.newest).failure = Some(why.into());
            }
        }
    }

    fn try_publish(&mut self, checkpoint: &Checkpoint, note: &str) -> Result<(), PublishError> {
        self.disk.create_dir(DIR)?;
        let mut edge = match self.edge.take() {
            Some(edge) => edge,
            None => self.resume()?,
        };
        if edge.size < checkpoint.size {
            self.extend(&mut edge, checkpoint.size)?;
        }
        let partial: BTreeSet<Tile> = partial_tiles(checkpoint.size).collect();
        for tile in &partial {
            let bytes = match tile.kind() {
                TileKind::Entries => edge.bundle.clone(),
                TileKind::Hashes(level) => edge.bytes(level),
            };
            self.write(tile, &bytes)?;
        }
        self.make_durable()?;
        let disk = self.disk.clone();
        let mut nodes = TileNodes::new(checkpoint.size, |tile: &Tile| read_tile(&*disk, tile));
        if root_of(&mut nodes, checkpoint.size)? != checkpoint.root {
            return Err(PublishError::Root);
        }
        replace_file(&*self.disk, DIR, CHECKPOINT, note.as_bytes())?;
        self.board.set(checkpoint.size, note.to_owned());
        self.edge = Some(edge);
        let old = std::mem::replace(&mut self.partial, partial);
        for tile in old.difference(&self.partial) {
            self.forget(tile);
        }
        Ok(())
    }

    /// The edge of what is published; empty, so that all is made anew, if that is not sound.
    fn resume(&mut self) -> Result<Edge, PublishError> {
        let Ok(note) = read_text(&*self.disk, CHECKPOINT) else {
            return Ok(Edge::default());
        };
        let Some(checkpoint) = note.and_then(|note| Checkpoint::open(&note, &self.key).ok()) else {
            return Ok(Edge::default());
        };
        self.partial = partial_tiles(checkpoint.size).collect();
        let Ok(edge) = self.edge_of(checkpoint.size) else {
            return Ok(Edge::default());
        };
        let disk = self.disk.clone();
        let mut nodes = TileNodes::new(checkpoint.size, |tile: &Tile| read_tile(&*disk, tile));
        match root_of(&mut nodes, checkpoint.size) {
            Ok(root) if root == checkpoint.root => Ok(edge),
            _ => Ok(Edge::default()),
        }
    }

    fn edge_of(&self, size: u64) -> Result<Edge, PublishError> {
        let mut edge = Edge { size, ..Edge::default() };
        for tile in partial_tiles(size) {
            let bytes = read_tile(&*self.disk, &tile)?;
            match tile.kind() {
                TileKind::Entries => edge.bundle = bytes,
                TileKind::Hashes(level) => *edge.level(level) = tile_hashes(&tile, &bytes)?,
            }
        }
        Ok(edge)
    }

    /// Reads the log from the edge to `size` and writes the tiles that become full, and a snapshot where a segment
    /// begins.
    fn extend(&mut self, edge: &mut Edge, size: u64) -> Result<(), PublishError> {
        let mut walk = Walk::new(self.disk.clone(), edge.size, Tail::Live)?;
        while edge.size < size {
            let group = match walk.step()? {
                Step::Group(group) => group,
                Step::Altered(damage, _) | Step::Damaged(damage) => return Err(StoreError::from(damage).into()),
                Step::End(_) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            };
            if segment_path(group.header.first) == *group.path
                && let Some(state) = edge.state.as_ref().filter(|_| edge.size == group.header.first)
            {
                state.write(&*self.disk)?;
            }
            for ((index, _, leaf), hash) in group.entries().zip(&group.hashes) {
                if index != edge.size || index >= size {
                    continue;
                }
                if index == self.complete {
                    edge.state = Some(Snapshot { frontier: self.frontier(edge)?, ..Snapshot::default() });
                }
                if let (Some(state), Some(peek)) = (&mut edge.state, Peek::new(leaf)) {
                    state.follow(&peek, *hash);
                }
                self.append(edge, leaf, *hash)?;
            }
        }
        Ok(())
    }

    /// The frontier at the edge: of what lies before it, full tiles are on the disk.
    fn frontier(&self, edge: &Edge) -> Result<Frontier, PublishError> {
        let disk = self.disk.clone();
        let mut nodes = TileNodes::new(edge.size, |tile: &Tile| match tile.kind() {
            TileKind::Hashes(level) if !tile.is_full() => Ok(edge.bytes(level)),
            _ => read_tile(&*disk, tile),
        });
        Ok(Frontier::of(&mut nodes, edge.size)?)
    }

    fn append(&mut self, edge: &mut Edge, leaf: &[u8], hash: Digest) -> Result<(), PublishError> {
        if !push_bundle_entry(&mut edge.bundle, leaf) {
            return Err(io::Error::from(io::ErrorKind::InvalidData).into());
        }
        edge.size += 1;
        edge.level(0).push(hash);
        if !edge.size.is_multiple_of(TILE_WIDTH) {
            return Ok(());
        }
        let index = edge.size / TILE_WIDTH - 1;
        self.write_full(TileKind::Entries, index, &std::mem::take(&mut edge.bundle))?;
        let (mut level, mut index) = (0, index);
        while let Some(node) = edge.full(level) {
            self.write_full(TileKind::Hashes(level), index, &edge.bytes(level))?;
            edge.level(level).clear();
            level += 1;
            edge.level(level).push(node);
            index /= TILE_WIDTH;
        }
        Ok(())
    }

    fn write_full(&mut self, kind: TileKind, index: u64, bytes: &[u8]) -> Result<(), PublishError> {
        match Tile::new(kind, index, 256) {
            Some(tile) => self.write(&tile, bytes),
            None => Err(io::Error::from(io::ErrorKind::InvalidData).into()),
        }
    }

    /// Writes a tile. One that is there already was left by a crash, perhaps torn, or is made anew from the log: the same
    /// bytes, if nobody changed it. A published one is only ever written when all tiles are made anew.
    fn write(&mut self, tile: &Tile, bytes: &[u8]) -> Result<(), PublishError> {
        let path = path_of(tile);
        let file = match self.disk.open(&path, Mode::Create) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let dir = dir_of(&path);
                self.disk.create_dir(dir)?;
                self.unsynced.made(dir);
                self.disk.open(&path, Mode::Create)?
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                let file = self.disk.open(&path, Mode::Write)?;
                if file.len()? > u64::try_from(bytes.len()).unwrap_or(0) {
                    return Err(PublishError::Altered(path));
                }
                file
            }
            file => file?,
        };
        write_all(&*file, bytes, 0)?;
        self.unsynced.wrote(&path, file);
        Ok(())
    }

    /// Makes all files durable that were written since the last time.
    fn make_durable(&mut self) -> io::Result<()> {
        let Unsynced { files, dirs, many } = std::mem::take(&mut self.unsynced);
        if many {
            return self.disk.sync_all();
        }
        for file in &files {
            file.sync()?;
        }
        dirs.iter().try_for_each(|dir| self.disk.sync_dir(dir))
    }

    /// Removes a partial tile, and its directory with the last one. What cannot be removed is in nobody's way.
    fn forget(&self, tile: &Tile) {
        let path = path_of(tile);
        let _ = self.disk.remove(&path);
        if let Some((dir, _)) = path.rsplit_once('/') {
            let _ = self.disk.remove_dir(dir);
        }
    }
}

impl Edge {
    fn level(&mut self, level: u8) -> &mut Vec<Digest> {
        let at = usize::from(level);
        if self.levels.len() <= at {
            self.levels.resize(at + 1, Vec::new());
        }
        // It was just made long enough.
        #[allow(clippy::indexing_slicing, reason = "the line before makes it long enough")]
        &mut self.levels[at]
    }

    /// The root of a level's tile, if it is full.
    fn full(&self, level: u8) -> Option<Digest> {
        let hashes = self.levels.get(usize::from(level))?;
        (u64::try_from(hashes.len()) == Ok(TILE_WIDTH)).then(|| ledger::root(hashes))
    }

    fn bytes(&self, level: u8) -> Vec<u8> {
        self.levels.get(usize::from(level)).into_iter().flatten().flat_map(|hash| hash.0).collect()
    }
}

/// The published log of a data directory, for reading.
#[derive(Clone)]
pub struct Published {
    disk: Arc<dyn Disk>,
}

impl Published {
    /// The published log of a data directory.
    #[must_use]
    pub fn open_dir(dir: &Path) -> Self {
        Self::open(Arc::new(RealDisk::new(dir)))
    }

    /// As [`Published::open_dir`], on any disk.
    #[must_use]
    pub fn open(disk: Arc<dyn Disk>) -> Self {
        Self { disk }
    }

    /// The signed note of the newest checkpoint whose tiles are there, with the cosignatures that it has; none if
    /// nothing was published yet.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn checkpoint(&self) -> Result<Option<String>, StoreError> {
        read_text(&*self.disk, CHECKPOINT)
    }

    /// The newest checkpoint that has cosignatures.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn cosigned(&self) -> Result<Option<String>, StoreError> {
        read_text(&*self.disk, COSIGNED)
    }

    /// The bytes of a tile or bundle. One that is asked for by a smaller width than it has by now is cut from the full
    /// one.
    ///
    /// # Errors
    /// It is not there, or cannot be read.
    pub fn tile(&self, tile: &Tile) -> Result<Vec<u8>, StoreError> {
        read_tile(&*self.disk, tile)
    }

    /// The hashes of the tree of this size.
    pub fn nodes(&self, size: u64) -> impl Nodes<Error = StoreError> + use<> {
        let disk = self.disk.clone();
        TileNodes::new(size, move |tile: &Tile| read_tile(&*disk, tile))
    }
}

fn read_text(disk: &dyn Disk, name: &str) -> Result<Option<String>, StoreError> {
    let path = format!("{DIR}/{name}");
    let limit = u64::try_from(NOTE_BYTES_MAX).unwrap_or(u64::MAX);
    let bytes = match read_file(disk, &path, limit) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        bytes => bytes.map_err(StoreError::disk(format!("reading {path}")))?,
    };
    String::from_utf8(bytes).map(Some).map_err(|_| StoreError::malformed(path, "it is not text"))
}

fn read_tile(disk: &dyn Disk, tile: &Tile) -> Result<Vec<u8>, StoreError> {
    let limit = match tile.kind() {
        TileKind::Entries => BUNDLE_BYTES_MAX,
        TileKind::Hashes(_) => TILE_BYTES_MAX,
    };
    let read = |tile: &Tile| read_file(disk, &path_of(tile), u64::try_from(limit).unwrap_or(u64::MAX));
    let whole = match read(tile) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && !tile.is_full() => read(&tile.full()),
        bytes => return bytes.map_err(StoreError::disk(format!("reading {}", path_of(tile)))),
    };
    whole.map(|full| tile.cut(full)).map_err(StoreError::disk(format!("reading {}", path_of(tile))))
}

fn path_of(tile: &Tile) -> String {
    format!("{DIR}/{}", tile.path())
}

impl From<TileError> for StoreError {
    fn from(error: TileError) -> Self {
        Self::malformed(DIR, error.to_string())
    }
}
