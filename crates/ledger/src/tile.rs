//! The form in which a log is published: C2SP tlog-tiles. Names of tiles, bundles of entries, and proofs made from tiles.
//!
//! A tile has up to 256 hashes of one level of the tree, where the levels are 8 apart: tile `L/N` has the roots of the
//! complete subtrees of 256^L leaves. An entry bundle has up to 256 entries. Hashes between the levels of tiles are
//! computed.
//!
//! Not for: where tiles are kept; callers fetch them.

use std::collections::VecDeque;

use model::Digest;

use crate::tree::{EMPTY_ROOT, node_hash, root};

/// How many hashes or entries a full tile or bundle has.
pub const TILE_WIDTH: u64 = 256;
/// How many levels of the tree a tile spans.
pub const TILE_LEVELS: u8 = 8;
/// The longest bundle, in bytes: 256 entries of at most 65,535 bytes and their lengths.
pub const BUNDLE_BYTES_MAX: usize = 256 * (2 + 65_535);
/// The longest tile of hashes, in bytes.
pub const TILE_BYTES_MAX: usize = 256 * 32;
/// Levels of tiles that a tree of 2^64 leaves has.
const LEVELS_MAX: u8 = 8;
/// How many tiles [`TileNodes`] remembers.
const TILES_KEPT: usize = 64;

/// What a tile is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TileKind {
    /// Hashes; the level counts tiles, not nodes.
    Hashes(u8),
    /// Entries.
    Entries,
}

/// The name of a tile or a bundle.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tile {
    kind: TileKind,
    index: u64,
    width: u16,
}

/// What is wrong with a tile's content.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TileError {
    /// A tile of hashes has 32 bytes for each.
    #[error("a tile of {expected} hashes has {} bytes, and this one has {found}", expected * 32)]
    Length {
        /// How many hashes it should have.
        expected: u16,
        /// How many bytes it has.
        found: usize,
    },
    /// The bundle ends in the middle of an entry.
    #[error("the bundle ends in the middle of an entry")]
    Cut,
}

impl Tile {
    /// The tile of this kind and place with this many hashes or entries, 1 to 256.
    #[must_use]
    pub fn new(kind: TileKind, index: u64, width: u16) -> Option<Self> {
        let level = match kind {
            TileKind::Hashes(level) => level,
            TileKind::Entries => 0,
        };
        // Beyond these, a tile would stand for leaves that no tree can have.
        let leaves = u32::from(TILE_LEVELS) * (u32::from(level) + 1);
        let possible = level < LEVELS_MAX && index <= u64::MAX.checked_shr(leaves).unwrap_or(0);
        (possible && (1..=256).contains(&width)).then_some(Self { kind, index, width })
    }

    /// What it is made of.
    #[must_use]
    pub fn kind(&self) -> TileKind {
        self.kind
    }

    /// Its place among those of its kind, from 0.
    #[must_use]
    pub fn index(&self) -> u64 {
        self.index
    }

    /// How many hashes or entries it has.
    #[must_use]
    pub fn width(&self) -> u16 {
        self.width
    }

    /// Whether it will not grow any more.
    #[must_use]
    pub fn is_full(&self) -> bool {
        u64::from(self.width) == TILE_WIDTH
    }

    /// The full tile at the same place.
    #[must_use]
    pub fn full(&self) -> Self {
        Self { width: 256, ..*self }
    }

    /// The bytes of this tile, cut from those of the full one at its place.
    #[must_use]
    pub fn cut(&self, mut full: Vec<u8>) -> Vec<u8> {
        let length = match self.kind {
            TileKind::Hashes(_) => usize::from(self.width) * 32,
            TileKind::Entries => {
                let entries = bundle_entries(&full).take(self.width.into());
                entries.map_while(Result::ok).map(|entry| 2 + entry.len()).sum()
            }
        };
        full.truncate(length);
        full
    }

    /// Its path below the log's prefix, such as `tile/0/x001/234.p/5` or `tile/entries/000`.
    #[must_use]
    pub fn path(&self) -> String {
        let mut path = match self.kind {
            TileKind::Hashes(level) => format!("tile/{level}/"),
            TileKind::Entries => "tile/entries/".to_owned(),
        };
        let mut groups = vec![format!("{:03}", self.index % 1000)];
        let mut rest = self.index / 1000;
        while rest > 0 {
            groups.push(format!("x{:03}", rest % 1000));
            rest /= 1000;
        }
        groups.reverse();
        path.push_str(&groups.join("/"));
        if !self.is_full() {
            path.push_str(&format!(".p/{}", self.width));
        }
        path
    }

    /// Reads a path. Only what [`Tile::path`] gives is one.
    #[must_use]
    pub fn from_path(path: &str) -> Option<Self> {
        let rest = path.strip_prefix("tile/").filter(|_| path.len() <= PATH_BYTES_MAX)?;
        let (kind, rest) = rest.split_once('/')?;
        let kind = match kind {
            "entries" => TileKind::Entries,
            level => TileKind::Hashes(level.parse().ok()?),
        };
        let (place, width) = match rest.split_once(".p/") {
            Some((place, width)) => (place, width.parse().ok()?),
            None => (rest, 256),
        };
        let mut index = 0u64;
        for group in place.split('/') {
            let digits = group.strip_prefix('x').unwrap_or(group);
            index = index.checked_mul(1000)?.checked_add(digits.parse().ok()?)?;
        }
        // One spelling only: leading zeros, signs, a missing x and a full partial tile all end here.
        Self::new(kind, index, width).filter(|tile| tile.path() == path)
    }
}

const PATH_BYTES_MAX: usize = 64;

/// Every tile and bundle of a tree of this size: full ones first, level by level, then the partial ones.
pub fn tiles(size: u64) -> impl Iterator<Item = Tile> {
    let kinds = || std::iter::once(TileKind::Entries).chain((0..LEVELS_MAX).map(TileKind::Hashes));
    let full = kinds().flat_map(move |kind| {
        (0..hashes_at(kind, size) / TILE_WIDTH).filter_map(move |index| Tile::new(kind, index, 256))
    });
    full.chain(partial_tiles(size))
}

/// The tiles and bundles of a tree of this size that are not full: at most one of each kind.
pub fn partial_tiles(size: u64) -> impl Iterator<Item = Tile> {
    let kinds = std::iter::once(TileKind::Entries).chain((0..LEVELS_MAX).map(TileKind::Hashes));
    kinds.filter_map(move |kind| {
        let count = hashes_at(kind, size);
        Tile::new(kind, count / TILE_WIDTH, u16::try_from(count % TILE_WIDTH).ok()?)
    })
}

/// How many entries, or complete subtrees of a level of tiles, a tree of this size has.
fn hashes_at(kind: TileKind, size: u64) -> u64 {
    match kind {
        TileKind::Entries => size,
        TileKind::Hashes(level) => size.checked_shr(u32::from(level) * u32::from(TILE_LEVELS)).unwrap_or(0),
    }
}

/// Appends an entry to a bundle: its length in two bytes, big-endian, and its bytes. `false` if it is too long for that.
#[must_use]
pub fn push_bundle_entry(bundle: &mut Vec<u8>, leaf: &[u8]) -> bool {
    let Ok(length) = u16::try_from(leaf.len()) else {
        return false;
    };
    bundle.extend_from_slice(&length.to_be_bytes());
    bundle.extend_from_slice(leaf);
    true
}

/// The entries of a bundle.
pub fn bundle_entries(mut bundle: &[u8]) -> impl Iterator<Item = Result<&[u8], TileError>> {
    std::iter::from_fn(move || {
        if bundle.is_empty() {
            return None;
        }
        let entry = bundle
            .split_first_chunk::<2>()
            .and_then(|(length, rest)| rest.split_at_checked(usize::from(u16::from_be_bytes(*length))));
        match entry {
            Some((entry, rest)) => {
                bundle = rest;
                Some(Ok(entry))
            }
            None => {
                bundle = &[];
                Some(Err(TileError::Cut))
            }
        }
    })
}

/// The hashes of a tile.
///
/// # Errors
/// It has not as many as its name says.
pub fn tile_hashes(tile: &Tile, bytes: &[u8]) -> Result<Vec<Digest>, TileError> {
    let (hashes, rest) = bytes.as_chunks::<32>();
    if !rest.is_empty() || hashes.len() != usize::from(tile.width) {
        return Err(TileError::Length { expected: tile.width, found: bytes.len() });
    }
    Ok(hashes.iter().copied().map(Digest).collect())
}

/// The inner hashes of a log, wherever they are kept.
pub trait Nodes {
    /// Why a hash could not be had.
    type Error;

    /// The root of the complete subtree of `2^level` leaves, the `index`-th of its level from the left.
    ///
    /// # Errors
    /// It could not be had.
    fn node(&mut self, level: u8, index: u64) -> Result<Digest, Self::Error>;
}

/// The root of the tree of the first `size` leaves.
///
/// # Errors
/// A hash could not be had.
pub fn root_of<N: Nodes>(nodes: &mut N, size: u64) -> Result<Digest, N::Error> {
    if size == 0 { Ok(EMPTY_ROOT) } else { range(nodes, 0, size) }
}

/// The proof that the leaf at `index` is in the tree of the first `size` leaves: RFC 6962, section 2.1.1. Empty if there
/// is no such leaf.
///
/// # Errors
/// A hash could not be had.
pub fn prove_inclusion<N: Nodes>(nodes: &mut N, index: u64, size: u64) -> Result<Vec<Digest>, N::Error> {
    let (mut begin, mut end, mut proof) = (0, size, Vec::new());
    if index >= size {
        return Ok(proof);
    }
    while end - begin > 1 {
        let middle = begin + split(end - begin);
        if index < middle {
            proof.push(range(nodes, middle, end)?);
            end = middle;
        } else {
            proof.push(range(nodes, begin, middle)?);
            begin = middle;
        }
    }
    proof.reverse();
    Ok(proof)
}

/// The proof that the tree of the first `old` leaves is a prefix of that of the first `new`: RFC 6962, section 2.1.2.
/// Empty if either is, or if there is nothing to prove.
///
/// # Errors
/// A hash could not be had.
pub fn prove_consistency<N: Nodes>(nodes: &mut N, old: u64, new: u64) -> Result<Vec<Digest>, N::Error> {
    let (mut begin, mut end, mut proof) = (0, new, Vec::new());
    if old == 0 || old >= new {
        return Ok(proof);
    }
    let mut whole = true;
    while old < end {
        let middle = begin + split(end - begin);
        if old <= middle {
            proof.push(range(nodes, middle, end)?);
            end = middle;
        } else {
            proof.push(range(nodes, begin, middle)?);
            begin = middle;
            whole = false;
        }
    }
    if !whole {
        proof.push(range(nodes, begin, end)?);
    }
    proof.reverse();
    Ok(proof)
}

/// The root over the leaves from `begin` to before `end`, where `begin` is what a walk down the tree comes to: complete
/// subtrees, joined from the right.
pub(crate) fn range<N: Nodes>(nodes: &mut N, begin: u64, end: u64) -> Result<Digest, N::Error> {
    let mut parts = Vec::new();
    let mut at = begin;
    while at < end {
        let largest = (end - at).ilog2();
        let level = if at == 0 { largest } else { at.trailing_zeros().min(largest) };
        parts.push(nodes.node(u8::try_from(level).unwrap_or(0), at >> level)?);
        at += 1 << level;
    }
    let mut parts = parts.into_iter().rev();
    Ok(parts.next().map_or(EMPTY_ROOT, |last| parts.fold(last, |right, left| node_hash(&left, &right))))
}

/// The largest power of two below `count`, which is at least 2.
pub(crate) fn split(count: u64) -> u64 {
    1 << (count - 1).ilog2()
}

/// [`Nodes`] from tiles. A tile is fetched in the width that a tree of `size` has it, and remembered for a while.
pub struct TileNodes<F> {
    size: u64,
    fetch: F,
    kept: VecDeque<(Tile, Vec<Digest>)>,
}

impl<F, E> TileNodes<F>
where
    F: FnMut(&Tile) -> Result<Vec<u8>, E>,
    E: From<TileError>,
{
    /// The hashes of a log that has published at least `size` entries. `fetch` gives a tile's bytes.
    pub fn new(size: u64, fetch: F) -> Self {
        Self { size, fetch, kept: VecDeque::new() }
    }

    fn tile(&mut self, tile: Tile) -> Result<&[Digest], E> {
        if let Some(at) = self.kept.iter().position(|(kept, _)| *kept == tile) {
            return Ok(self.kept.get(at).map_or(&[], |(_, hashes)| hashes));
        }
        let hashes = tile_hashes(&tile, &(self.fetch)(&tile)?)?;
        if self.kept.len() >= TILES_KEPT {
            self.kept.pop_back();
        }
        self.kept.push_front((tile, hashes));
        Ok(self.kept.front().map_or(&[], |(_, hashes)| hashes))
    }
}

impl<F, E> Nodes for TileNodes<F>
where
    F: FnMut(&Tile) -> Result<Vec<u8>, E>,
    E: From<TileError>,
{
    type Error = E;

    fn node(&mut self, level: u8, index: u64) -> Result<Digest, E> {
        let kind = TileKind::Hashes(level / TILE_LEVELS);
        // The subtree's hashes at the level of the tile: they lie in one tile.
        let within = u32::from(level % TILE_LEVELS);
        let first = index << within;
        let place = first / TILE_WIDTH;
        let there = hashes_at(kind, self.size).saturating_sub(place * TILE_WIDTH).min(TILE_WIDTH);
        let width = u16::try_from(there).unwrap_or(0);
        let missing = TileError::Length { expected: width, found: 0 };
        let tile = Tile::new(kind, place, width).ok_or(missing)?;
        let begin = usize::try_from(first % TILE_WIDTH).unwrap_or(usize::MAX);
        let hashes = self.tile(tile)?.get(begin..begin.saturating_add(1 << within)).ok_or(missing)?;
        Ok(root(hashes))
    }
}
