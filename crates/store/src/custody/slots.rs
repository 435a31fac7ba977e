//! A set of slot numbers, kept as ranges: sessions are erased mostly in the order in which they began.

use std::collections::BTreeMap;

/// Slot numbers, as ranges that do not touch: first to last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Slots(BTreeMap<u64, u64>);

impl Slots {
    pub(crate) fn contains(&self, slot: u64) -> bool {
        self.0.range(..=slot).next_back().is_some_and(|(_, last)| *last >= slot)
    }

    pub(crate) fn insert(&mut self, slot: u64) {
        self.insert_range(slot, slot);
    }

    /// Adds all from the first to the last; nothing if there are none.
    pub(crate) fn insert_range(&mut self, mut first: u64, mut last: u64) {
        if first > last {
            return;
        }
        if let Some((&before, &end)) = self.0.range(..=first).next_back()
            && end.saturating_add(1) >= first
        {
            first = before;
            last = last.max(end);
        }
        while let Some((&next, &end)) = self.0.range(first..=last.saturating_add(1)).next() {
            self.0.remove(&next);
            last = last.max(end);
        }
        self.0.insert(first, last);
    }

    /// The ranges, in order.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.0.iter().map(|(first, last)| (*first, *last))
    }

    /// The slot after the last one.
    pub(crate) fn end(&self) -> u64 {
        self.0.values().next_back().map_or(0, |last| last.saturating_add(1))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(ranges in prop::collection::vec((0..60u64, 0..6u64), 0..40)) {
            let (mut slots, mut model) = (Slots::default(), BTreeSet::new());
            for (first, more) in ranges {
                slots.insert_range(first, first + more);
                model.extend(first..=first + more);
                for slot in 0..70 {
                    prop_assert_eq!(slots.contains(slot), model.contains(&slot), "{}", slot);
                }
                let all: Vec<_> = slots.ranges().collect();
                prop_assert!(all.windows(2).all(|pair| matches!(pair, [(_, a), (b, _)] if a + 1 < *b)), "{:?}", all);
                prop_assert_eq!(slots.end(), model.last().map_or(0, |last| last + 1));
            }
        }
    }

    #[test]
    fn the_largest_numbers_do_no_harm() {
        let mut slots = Slots::default();
        slots.insert(u64::MAX);
        slots.insert_range(0, u64::MAX - 1);
        slots.insert_range(5, 3);
        assert_eq!(slots.ranges().collect::<Vec<_>>(), [(0, u64::MAX)]);
        assert_eq!(slots.end(), u64::MAX);
    }
}
