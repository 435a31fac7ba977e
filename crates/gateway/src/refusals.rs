//! Connections that came to nothing, counted so that a flood of them cannot fill the record.
//!
//! Each flush writes at most [`SOURCES_MAX`] entries and one more for the rest: what a hostile
//! client costs the disk is bounded by time, not by how often it knocks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) use model::RefusedReason as Reason;

/// Pairs of reason and source that are told apart between two flushes.
const SOURCES_MAX: usize = 64;

/// Counts of refused connections since the last flush.
#[derive(Default)]
pub(crate) struct Refusals {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    by_source: BTreeMap<(Reason, IpAddr), u64>,
    /// Beyond [`SOURCES_MAX`]: by reason alone.
    others: BTreeMap<Reason, u64>,
}

/// One folded count.
pub(crate) struct Folded {
    pub(crate) reason: Reason,
    /// `None` stands for several sources.
    pub(crate) source: Option<IpAddr>,
    pub(crate) count: u64,
}

impl Refusals {
    /// Counts one.
    pub(crate) fn count(&self, reason: Reason, source: IpAddr) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (reason, source.to_canonical());
        let known = counts.by_source.contains_key(&key);
        let count = if known || counts.by_source.len() < SOURCES_MAX {
            counts.by_source.entry(key).or_default()
        } else {
            counts.others.entry(reason).or_default()
        };
        *count += 1;
    }

    /// Takes what was counted since the last call.
    pub(crate) fn take(&self) -> Vec<Folded> {
        let counts = std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner));
        let sourced = counts.by_source.into_iter().map(|((reason, source), count)| Folded {
            reason,
            source: Some(source),
            count,
        });
        let others = counts.others.into_iter().map(|(reason, count)| Folded { reason, source: None, count });
        sourced.chain(others).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_flood_from_everywhere_is_folded() {
        let refusals = Refusals::default();
        for n in 0..10_000u32 {
            refusals.count(Reason::ClosedEarly, Ipv4Addr::from(n).into());
        }
        let folded = refusals.take();
        assert_eq!(folded.len(), SOURCES_MAX + 1);
        assert_eq!(folded.iter().map(|one| one.count).sum::<u64>(), 10_000);
        assert!(refusals.take().is_empty());
    }
}
