//! Connections that came to nothing, counted so that a flood of them cannot fill the record.
//!
//! Each flush writes at most [`SOURCES_MAX`] entries and one more for the rest: what a hostile
//! client costs the disk is bounded by time, not by how often it knocks.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) use model::RefusedReason as Reason;
use model::{Label, Refused};
use store::GatewayEntry;

/// Pairs of reason and source that are told apart between two flushes.
const SOURCES_MAX: usize = 64;

/// Counts of refused connections since the last flush.
#[derive(Default)]
pub(crate) struct Refusals {
    counts: Mutex<Counts>,
}

#[derive(Default)]
struct Counts {
    by_source: BTreeMap<(Reason, IpAddr), Count>,
    /// Beyond [`SOURCES_MAX`]: by reason alone.
    others: BTreeMap<Reason, Count>,
}

/// What a client that was refused said it wanted, as far as it came to that.
#[derive(Debug, Default)]
pub(crate) struct Named {
    /// The user name.
    pub(crate) user: Option<Label>,
    /// The connection.
    pub(crate) connection: Option<Label>,
}

impl Named {
    /// As the client named them. A token that somebody put into the wrong place is not kept.
    pub(crate) fn new(user: &[u8], connection: &[u8]) -> Self {
        let label = |text: &[u8]| {
            let token = text.starts_with(b"ort_") || text.starts_with(b"eyJ");
            Some(Label::new(if token { b"(a token)" } else { text }))
        };
        Self { user: label(user), connection: label(connection) }
    }
}

struct Count {
    count: u64,
    first_us: i64,
    first: Named,
}

/// One folded count.
pub(crate) struct Folded {
    pub(crate) reason: Reason,
    /// `None` stands for several sources.
    pub(crate) source: Option<IpAddr>,
    pub(crate) count: u64,
    /// Wall clock of the first, microseconds since 1970.
    pub(crate) first_us: i64,
    /// What the first wanted.
    pub(crate) first: Named,
}

impl Folded {
    /// The entry.
    pub(crate) fn into_entry(self) -> GatewayEntry {
        GatewayEntry::Refused(Refused {
            reason: self.reason,
            source: self.source.map_or_else(|| "several".to_owned(), |source| source.to_string()),
            count: self.count,
            first_us: self.first_us,
            user: self.first.user,
            connection: self.first.connection,
        })
    }
}

impl Refusals {
    /// Counts one.
    pub(crate) fn count(&self, reason: Reason, source: IpAddr, named: Named) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (reason, source.to_canonical());
        let known = counts.by_source.contains_key(&key);
        let new = || Count { count: 0, first_us: now_us(), first: named };
        let count = if known || counts.by_source.len() < SOURCES_MAX {
            counts.by_source.entry(key).or_insert_with(new)
        } else {
            counts.others.entry(reason).or_insert_with(new)
        };
        count.count += 1;
    }

    /// Takes what was counted since the last call.
    pub(crate) fn take(&self) -> Vec<Folded> {
        let counts = std::mem::take(&mut *self.counts.lock().unwrap_or_else(PoisonError::into_inner));
        let fold = |reason, source, Count { count, first_us, first }| Folded { reason, source, count, first_us, first };
        let sourced = counts.by_source.into_iter().map(|((reason, source), count)| fold(reason, Some(source), count));
        let others = counts.others.into_iter().map(|(reason, count)| fold(reason, None, count));
        sourced.chain(others).collect()
    }
}

fn now_us() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[test]
    fn a_flood_from_everywhere_is_folded() {
        let refusals = Refusals::default();
        for n in 0..10_000u32 {
            refusals.count(Reason::ClosedEarly, Ipv4Addr::from(n).into(), Named::default());
        }
        let folded = refusals.take();
        assert_eq!(folded.len(), SOURCES_MAX + 1);
        assert_eq!(folded.iter().map(|one| one.count).sum::<u64>(), 10_000);
        assert!(refusals.take().is_empty());
    }
}
