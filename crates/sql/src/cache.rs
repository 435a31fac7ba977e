//! What was found out, remembered by the exact text and what changes its meaning; or by the text's shape, where whoever
//! analysed it says that it holds for all texts of that.
//!
//! Never by a fingerprint: two texts that look alike can do different things. Bounded in entries and in bytes; what was
//! not asked for in a while goes first.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use model::Facts;
use sha2::{Digest as _, Sha256};

use crate::shape::Shape;
use crate::{Settings, codec};

/// The most texts that are remembered.
pub(crate) const ENTRIES_MAX: usize = 65_536;
/// The most memory that what is remembered takes, bytes, roughly.
pub(crate) const BYTES_MAX: usize = 64 * 1024 * 1024;

/// A text, or a shape of texts, under the settings it was read with.
pub(crate) type Key = [u8; 32];

/// Tells the keys of shapes from those of texts. No settings have this bit.
const OF_SHAPE: u8 = 0x80;

pub(crate) fn key(text: &[u8], settings: Settings) -> Key {
    let mut hash = Sha256::new();
    hash.update([codec::settings_byte(settings)]);
    hash.update(text);
    hash.finalize().into()
}

pub(crate) fn shape_key(shape: &Shape, settings: Settings) -> Key {
    let mut hash = Sha256::new();
    hash.update([codec::settings_byte(settings) | OF_SHAPE]);
    hash.update(shape.form());
    hash.finalize().into()
}

/// Two generations: entries that are asked for move to the young one; when that has half of what there may be, the old one
/// goes and the young one becomes it.
#[derive(Default)]
pub(crate) struct Cache(Mutex<Generations>);

#[derive(Default)]
struct Generations {
    young: Generation,
    old: Generation,
}

#[derive(Default)]
struct Generation {
    entries: HashMap<Key, Arc<Facts>>,
    bytes: usize,
}

impl Cache {
    pub(crate) fn get(&self, key: &Key) -> Option<Arc<Facts>> {
        let mut generations = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(facts) = generations.young.entries.get(key) {
            return Some(Arc::clone(facts));
        }
        let facts = generations.old.take(key)?;
        generations.put(*key, Arc::clone(&facts));
        Some(facts)
    }

    pub(crate) fn put(&self, key: Key, facts: Arc<Facts>) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(key, facts);
    }
}

impl Generations {
    fn put(&mut self, key: Key, facts: Arc<Facts>) {
        if self.young.entries.len() >= ENTRIES_MAX / 2 || self.young.bytes >= BYTES_MAX / 2 {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.bytes += weight(&facts);
        if let Some(before) = self.young.entries.insert(key, facts) {
            self.young.bytes -= weight(&before);
        }
    }
}

impl Generation {
    fn take(&mut self, key: &Key) -> Option<Arc<Facts>> {
        let facts = self.entries.remove(key)?;
        self.bytes -= weight(&facts);
        Some(facts)
    }
}

/// The memory of an entry, bytes, roughly.
fn weight(facts: &Facts) -> usize {
    let relation = |relation: &model::Relation| {
        size_of::<model::Relation>() + relation.name.len() + relation.schema.as_ref().map_or(0, String::len) + 16
    };
    let relations: usize = facts.relations.iter().map(relation).sum();
    let functions: usize = facts.functions.iter().map(|name| size_of::<String>() + name.len()).sum();
    // What the lists of small members and the table around them take.
    size_of::<Key>() + size_of::<Facts>() + 128 + relations + functions
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::indexing_slicing)]
mod tests {
    use model::Opaque;

    use super::*;
    use crate::{Encoding, Strings};

    const SETTINGS: Settings = Settings { strings: Strings::Standard, encoding: Encoding::AsciiSafe };

    fn facts() -> Arc<Facts> {
        Arc::new(Facts::unknown(Opaque::Failed))
    }

    #[test]
    fn it_is_bounded_and_keeps_what_is_asked_for() {
        let cache = Cache::default();
        let kept = key(b"kept", SETTINGS);
        cache.put(kept, facts());
        for number in 0..2 * ENTRIES_MAX {
            cache.put(key(&number.to_le_bytes(), SETTINGS), facts());
            if number % 1000 == 0 {
                assert!(cache.get(&kept).is_some());
            }
        }
        let generations = cache.0.lock().unwrap();
        let entries = generations.young.entries.len() + generations.old.entries.len();
        assert!(entries <= ENTRIES_MAX && generations.young.bytes + generations.old.bytes <= BYTES_MAX + 1000);
        drop(generations);
        assert!(cache.get(&key(&0_usize.to_le_bytes(), SETTINGS)).is_none());
    }

    #[test]
    fn bytes_bound_it_too() {
        let mut large = Facts::unknown(Opaque::Failed);
        large.functions = (0..64).map(|number| format!("{number:060}")).collect();
        let large = Arc::new(large);
        let cache = Cache::default();
        for number in 0..3 * BYTES_MAX / weight(&large) {
            cache.put(key(&number.to_le_bytes(), SETTINGS), Arc::clone(&large));
        }
        let generations = cache.0.lock().unwrap();
        assert!(generations.young.bytes + generations.old.bytes <= BYTES_MAX + 2 * weight(&large));
    }

    #[test]
    fn settings_are_part_of_the_key() {
        let other = Settings { strings: Strings::Escapes, ..SETTINGS };
        assert_ne!(key(b"x", SETTINGS), key(b"x", other));
        let shape = Shape::of(b"1").unwrap();
        assert_ne!(shape_key(&shape, SETTINGS), shape_key(&shape, other));
        assert_ne!(shape_key(&shape, SETTINGS), key(shape.form(), SETTINGS));
    }
}
