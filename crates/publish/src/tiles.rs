//! Tiles and entries of a published log.

use std::sync::Arc;

use ledger::{Nodes, Tile, TileKind, TileNodes, bundle_entries, leaf_hash};
use model::{Digest, Kind, Peek, SessionId};
use store::{Published, StoreError};

/// How often a tile is looked for whose log grows in the same moment.
const TRIES: usize = 3;
const WIDTH: u64 = ledger::TILE_WIDTH;

/// The size that the text of a checkpoint names. For sizes that are trusted anyhow, or checked later.
pub(crate) fn size_of(note: &str) -> Option<u64> {
    note.split('\n').nth(1)?.parse().ok()
}

/// The size of what is published; 0 before anything is.
pub(crate) fn published_size(published: &Published) -> Result<u64, StoreError> {
    Ok(published.checkpoint()?.as_deref().and_then(size_of).unwrap_or(0))
}

/// How wide a tile of this kind and place is in a tree of `size`; 0 if it is not there.
pub(crate) fn width_at(kind: TileKind, index: u64, size: u64) -> u16 {
    let items = match kind {
        TileKind::Entries => size,
        TileKind::Hashes(level) => size.checked_shr(u32::from(level) * 8).unwrap_or(0),
    };
    u16::try_from(items.saturating_sub(index.saturating_mul(WIDTH)).min(WIDTH)).unwrap_or(0)
}

/// The bytes of a tile of the published log. A narrower one than there is now, as an earlier checkpoint had it, is cut
/// from the one that is there. None if the published log has no such tile.
pub(crate) fn tile(published: &Published, tile: &Tile) -> Result<Option<Vec<u8>>, StoreError> {
    let mut last = None;
    for _ in 0..TRIES {
        let now = width_at(tile.kind(), tile.index(), published_size(published)?);
        if now < tile.width() {
            return Ok(None);
        }
        let Some(there) = Tile::new(tile.kind(), tile.index(), now) else { return Ok(None) };
        match published.tile(&there) {
            Ok(bytes) => return Ok(Some(cut(bytes, tile))),
            // The partial tile of a moment ago was replaced by a wider one.
            Err(error) if is_missing(&error) => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    last.map_or(Ok(None), Err)
}

fn is_missing(error: &StoreError) -> bool {
    matches!(error, StoreError::Disk { source, .. } if source.kind() == std::io::ErrorKind::NotFound)
}

fn cut(mut bytes: Vec<u8>, tile: &Tile) -> Vec<u8> {
    bytes.truncate(match tile.kind() {
        TileKind::Hashes(_) => usize::from(tile.width()) * 32,
        TileKind::Entries => {
            let first = bundle_entries(&bytes).take(tile.width().into());
            first.map_while(Result::ok).map(|entry| 2 + entry.len()).sum()
        }
    });
    bytes
}

/// The hashes of the tree of this size.
pub(crate) fn nodes(published: &Published, size: u64) -> impl Nodes<Error = StoreError> + use<> {
    let published = published.clone();
    TileNodes::new(size, move |wanted: &Tile| match tile(&published, wanted)? {
        Some(bytes) => Ok(bytes),
        None => Err(missing(wanted)),
    })
}

/// The error for a tile that should be there.
pub(crate) fn missing(tile: &Tile) -> StoreError {
    StoreError::Malformed { file: "tiles".to_owned(), what: format!("{} is not there", tile.path()) }
}

/// The entries of one bundle, as they are in a tree of `size`.
pub(crate) fn bundle(published: &Published, number: u64, size: u64) -> Result<Vec<Arc<[u8]>>, StoreError> {
    let Some(wanted) = Tile::new(TileKind::Entries, number, width_at(TileKind::Entries, number, size)) else {
        return Ok(Vec::new());
    };
    let bytes = tile(published, &wanted)?.ok_or_else(|| missing(&wanted))?;
    bundle_entries(&bytes).map(|entry| Ok(Arc::from(entry?))).collect()
}

/// One entry.
pub(crate) fn entry(published: &Published, index: u64, size: u64) -> Result<Option<Arc<[u8]>>, StoreError> {
    let at = usize::try_from(index % WIDTH).unwrap_or(usize::MAX);
    Ok(bundle(published, index / WIDTH, size)?.get(at).cloned())
}

/// The session that an entry closes, if it does.
pub(crate) fn closed_session(leaf: &[u8]) -> Option<SessionId> {
    let peek = Peek::new(leaf).filter(|peek| peek.kind == Kind::SessionClose)?;
    peek.place.map(|(session, _)| session)
}

/// The hash of an entry in the tree.
pub(crate) fn hash(leaf: &[u8]) -> Digest {
    leaf_hash(leaf)
}
