//! The digest of what is read from, or written to, one open file.
//!
//! SFTP has no streams: every read and write names its offset, many are under way at once, and a server may answer them
//! in any order. What comes early waits here, within a bound that all files of the session share.
//!
//! Invariant: a digest is only given for bytes of which each came once, without a gap, from the first offset on.

use super::types::{ContentDigest, Transferred};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;

/// What a piece that waits takes besides its bytes, in bytes: without it, pieces of one byte each would be for nothing.
const PIECE_OVERHEAD_BYTES: usize = 96;

/// One direction of one open file.
#[derive(Debug, Default)]
pub(super) struct Content {
    bytes: u64,
    piece: Piece,
}

#[derive(Debug, Default)]
enum Piece {
    /// Nothing was asked for.
    #[default]
    None,
    /// All that came is one piece, or will be once the gaps are filled.
    Growing(Box<Growing>),
    /// It is none.
    Broken,
}

#[derive(Debug)]
struct Growing {
    offset: u64,
    next: u64,
    hash: Sha256,
    early: BTreeMap<u64, Vec<u8>>,
}

impl Content {
    /// Content from `offset` on was asked for or is being sent.
    pub(super) fn begin(&mut self, offset: u64) {
        if matches!(self.piece, Piece::None) {
            let growing = Growing { offset, next: offset, hash: Sha256::new(), early: BTreeMap::new() };
            self.piece = Piece::Growing(Box::new(growing));
        }
    }

    /// So many bytes went over.
    pub(super) fn count(&mut self, bytes: usize) {
        self.bytes = self.bytes.saturating_add(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    /// `data` belongs at `offset`; `room` is what may still wait, in bytes.
    pub(super) fn add(&mut self, offset: u64, data: &[u8], room: &mut usize) {
        let Piece::Growing(growing) = &mut self.piece else {
            return;
        };
        if !growing.add(offset, data, room) {
            self.break_up(room);
        }
    }

    /// There is no one piece any more.
    pub(super) fn break_up(&mut self, room: &mut usize) {
        if let Piece::Growing(growing) = &self.piece {
            *room += growing.waiting();
        }
        self.piece = Piece::Broken;
    }

    /// Where the piece ends so far.
    pub(super) fn end(&self) -> Option<u64> {
        match &self.piece {
            Piece::Growing(growing) => Some(growing.next),
            Piece::None | Piece::Broken => None,
        }
    }

    /// All that there was.
    pub(super) fn finish(self, room: &mut usize) -> Transferred {
        let digest = match self.piece {
            Piece::Growing(growing) if growing.early.is_empty() => {
                Some(ContentDigest { offset: growing.offset, sha256: growing.hash.finalize().into() })
            }
            Piece::Growing(growing) => {
                *room += growing.waiting();
                None
            }
            Piece::None | Piece::Broken => None,
        };
        Transferred { bytes: self.bytes, digest }
    }
}

impl Growing {
    fn add(&mut self, offset: u64, data: &[u8], room: &mut usize) -> bool {
        if data.is_empty() {
            return true;
        }
        if offset == self.next {
            return self.take(data) && self.take_early(room);
        }
        if offset < self.next || cost(data) > *room || self.early.contains_key(&offset) {
            return false;
        }
        *room -= cost(data);
        self.early.insert(offset, data.to_vec());
        true
    }

    fn take(&mut self, data: &[u8]) -> bool {
        self.hash.update(data);
        let end = u64::try_from(data.len()).ok().and_then(|length| self.next.checked_add(length));
        self.next = end.unwrap_or(self.next);
        end.is_some()
    }

    /// Takes what waited for the piece to come this far; false if some of it is there already.
    fn take_early(&mut self, room: &mut usize) -> bool {
        while let Some(first) = self.early.first_entry() {
            if *first.key() > self.next {
                return true;
            }
            if *first.key() < self.next {
                return false;
            }
            let data = first.remove();
            *room += cost(&data);
            if !self.take(&data) {
                return false;
            }
        }
        true
    }

    fn waiting(&self) -> usize {
        self.early.values().map(|data| cost(data)).sum()
    }
}

/// What a piece takes while it waits, in bytes.
fn cost(data: &[u8]) -> usize {
    data.len() + PIECE_OVERHEAD_BYTES
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn digest(data: &[u8]) -> [u8; 32] {
        Sha256::digest(data).into()
    }

    #[test]
    fn twice_the_same_is_no_piece() {
        for second in [0, 1, 3] {
            let mut room = 1000;
            let mut content = Content::default();
            content.begin(0);
            content.add(4, b"efgh", &mut room);
            content.add(0, b"abcd", &mut room);
            content.add(second, b"x", &mut room);
            assert_eq!(content.finish(&mut room).digest, None, "{second}");
            assert_eq!(room, 1000);
        }
    }

    #[test]
    fn an_overlap_that_waited_is_no_piece() {
        let mut room = 1000;
        let mut content = Content::default();
        content.begin(0);
        content.add(2, b"cd", &mut room);
        content.add(0, b"abc", &mut room);
        assert_eq!(content.finish(&mut room).digest, None);
        assert_eq!(room, 1000);
    }

    #[test]
    fn what_waits_is_bounded() {
        for (spare, digested) in [(0, false), (1, true)] {
            let all = 2 * PIECE_OVERHEAD_BYTES + 3 + spare;
            let mut room = all;
            let mut content = Content::default();
            content.begin(0);
            content.add(1, b"bcd", &mut room);
            assert_eq!(room, PIECE_OVERHEAD_BYTES + spare);
            content.add(4, b"e", &mut room);
            content.add(0, b"a", &mut room);
            assert_eq!(content.finish(&mut room).digest.is_some(), digested);
            assert_eq!(room, all);
        }
    }

    #[test]
    fn however_small_the_pieces_they_are_bounded() {
        let mut room = 10 * PIECE_OVERHEAD_BYTES;
        let mut content = Content::default();
        content.begin(0);
        for offset in 1..10 {
            content.add(offset, b"x", &mut room);
        }
        assert_eq!(room, PIECE_OVERHEAD_BYTES - 9);
        content.add(10, b"x", &mut room);
        assert_eq!(room, 10 * PIECE_OVERHEAD_BYTES);
        assert_eq!(content.finish(&mut room).digest, None);
    }

    #[test]
    fn the_end_of_all_offsets() {
        let mut room = 9;
        let mut content = Content::default();
        content.begin(u64::MAX);
        content.add(u64::MAX, b"a", &mut room);
        assert_eq!(content.finish(&mut room).digest, None);
    }

    proptest! {
        #[test]
        fn any_order_gives_the_digest_of_the_whole(
            pieces in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..20), 1..20),
            start in 0u64..1000,
            seed in any::<prop::sample::Index>(),
        ) {
            let mut placed = Vec::new();
            let mut offset = start;
            for piece in &pieces {
                placed.push((offset, piece.clone()));
                offset += piece.len() as u64;
            }
            let turn = seed.index(placed.len());
            placed.rotate_left(turn);
            placed[..].reverse();
            let mut room = 10_000;
            let mut content = Content::default();
            content.begin(start);
            for (offset, data) in &placed {
                content.add(*offset, data, &mut room);
            }
            prop_assert_eq!(content.end(), Some(offset));
            let expected = Some(ContentDigest { offset: start, sha256: digest(&pieces.concat()) });
            prop_assert_eq!(content.finish(&mut room).digest, expected);
            prop_assert_eq!(room, 10_000);
        }
    }
}
