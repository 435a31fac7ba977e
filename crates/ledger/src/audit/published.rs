//! The audit of a published log: its bundles are read in order, its tree is computed from them, and the lowest tiles are
//! held against it, so that an altered entry is named.

use std::sync::Arc;

use super::{Audit, BlobState, Place, Violation};
use crate::tile::{Tile, TileKind, bundle_entries, tile_hashes};
use crate::tree::leaf_hash;

/// Reads the first `size` entries of a published log into an audit, those that it has seen already left out. `fetch` gives
/// the bytes of a tile or bundle, none if it is not there. The audit's verdict comes from [`Audit::finish`]: its caller has told it what was signed.
///
/// # Errors
/// As `fetch`: the log could not be read. What is wrong with it is in the audit.
pub fn read_published<E>(
    audit: &mut Audit,
    size: u64,
    mut fetch: impl FnMut(&Tile) -> Result<Option<Vec<u8>>, E>,
    mut progress: impl FnMut(&Audit),
) -> Result<(), E> {
    let seen = audit.entries();
    let mut first = seen - seen % 256;
    while first < size {
        let count = (size - first).min(256);
        let (index, width) = (first / 256, u16::try_from(count).unwrap_or(256));
        let (Some(bundle), Some(tile)) =
            (Tile::new(TileKind::Entries, index, width), Tile::new(TileKind::Hashes(0), index, width))
        else {
            break;
        };
        let Some(bytes) = fetch(&bundle)? else {
            let last = first + count - 1;
            audit.violate(last, violation(first, &bundle, 0, format!("entries {first} to {last} are missing")));
            return Ok(());
        };
        // Without the tile, the root still tells whether all is as it was signed.
        let hashes = fetch(&tile)?.and_then(|bytes| tile_hashes(&tile, &bytes).ok());
        let file: Arc<str> = bundle.path().into();
        let (mut at, mut found) = (first, 0u64);
        for entry in bundle_entries(&bytes) {
            let Ok(leaf) = entry else { break };
            if at == first + count {
                found += 1;
                break;
            }
            let place = Place { file: file.clone(), offset: found + 2, index: at };
            let hash = leaf_hash(leaf);
            let listed = hashes.as_ref().and_then(|hashes| hashes.get(usize::try_from(at - first).ok()?));
            if listed.is_some_and(|listed| *listed != hash) {
                let what = format!("it is not the entry whose hash stands in {}", tile.path());
                audit.violate(at, violation(at, &bundle, place.offset, what));
            }
            if at >= seen {
                audit.entry(&place, leaf, hash, &mut |_, _| BlobState::Unchecked);
            }
            found += 2 + u64::try_from(leaf.len()).unwrap_or(0);
            at += 1;
        }
        if at != first + count || found != u64::try_from(bytes.len()).unwrap_or(0) {
            let what = format!("the bundle does not have the {count} entries that it should");
            audit.violate(at, violation(at.min(first + count - 1), &bundle, found, what));
            return Ok(());
        }
        first += count;
        progress(audit);
    }
    Ok(())
}

fn violation(index: u64, bundle: &Tile, offset: u64, what: String) -> Violation {
    Violation { index: Some(index), command: None, file: bundle.path(), offset, what }
}
