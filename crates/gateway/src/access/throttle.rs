//! How often one source may fail to prove who it is.
//!
//! A source is an IPv4 address or an IPv6 network of 64 bits. Each has as many failures as the limit in store and gets
//! them back evenly over a minute; with none left it is turned away before it is asked for a proof. What succeeds gives
//! nothing back: a valid credential does not buy guesses at another one.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Sources that are told apart. Beyond that all others share one store.
const SOURCES_MAX: usize = 16_384;
/// In this time a source gets back all that it may fail.
const WINDOW: Duration = Duration::from_secs(60);

/// Failures of sources.
#[derive(Debug, Default)]
pub(crate) struct Throttle(Mutex<HashMap<Option<IpAddr>, Spent>>);

/// What a source has used up.
#[derive(Debug, Clone, Copy)]
struct Spent {
    /// Failures, in fractions of which time gives back.
    failures: f64,
    at: Instant,
}

impl Spent {
    fn now(self, limit: f64, now: Instant) -> f64 {
        let back = now.saturating_duration_since(self.at).as_secs_f64() / WINDOW.as_secs_f64() * limit;
        (self.failures - back).max(0.0)
    }
}

impl Throttle {
    /// How long this source has to wait; none if it may try.
    pub(crate) fn wait(&self, source: IpAddr, limit: u32, now: Instant) -> Option<Duration> {
        let most = f64::from(limit);
        if limit == 0 {
            return None;
        }
        let spent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let spent = spent.get(&Some(network(source))).or_else(|| spent.get(&None))?;
        let over = spent.now(most, now) - (most - 1.0);
        (over > 0.0).then(|| WINDOW.mul_f64(over / most))
    }

    /// Counts a failure.
    pub(crate) fn failed(&self, source: IpAddr, limit: u32, now: Instant) {
        let most = f64::from(limit);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = Some(network(source));
        if all.len() >= SOURCES_MAX && !all.contains_key(&key) {
            all.retain(|_, spent| spent.now(most, now) > 0.0);
            if all.len() >= SOURCES_MAX {
                key = None;
            }
        }
        let spent = all.entry(key).or_insert(Spent { failures: 0.0, at: now });
        *spent = Spent { failures: (spent.now(most, now) + 1.0).min(most), at: now };
    }
}

fn network(source: IpAddr) -> IpAddr {
    match source.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            std::net::Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    #[test]
    fn who_guesses_waits_and_others_do_not() {
        let throttle = Throttle::default();
        let (guesser, other) = (IpAddr::from([192, 0, 2, 1]), IpAddr::from([192, 0, 2, 2]));
        let start = Instant::now();
        for _ in 0..60 {
            assert_eq!(throttle.wait(guesser, 60, start), None);
            throttle.failed(guesser, 60, start);
        }
        let wait = throttle.wait(guesser, 60, start).unwrap_or_default();
        assert!(wait > Duration::from_millis(900) && wait < Duration::from_millis(1100), "{wait:?}");
        assert_eq!(throttle.wait(other, 60, start), None);
        assert_eq!(throttle.wait(guesser, 60, start + Duration::from_millis(1100)), None);
        assert_eq!(throttle.wait(guesser, 0, start), None, "no limit");
    }

    #[test]
    fn a_network_is_one_source_and_memory_is_bounded() {
        let throttle = Throttle::default();
        let now = Instant::now();
        let near = |last: u16| IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 1, 2, 0, 0, 0, last));
        for n in 0..5 {
            throttle.failed(near(n), 5, now);
        }
        assert!(throttle.wait(near(77), 5, now).is_some());
        for n in 0..40_000u32 {
            throttle.failed(Ipv4Addr::from(n).into(), 5, now);
        }
        assert!(throttle.0.lock().unwrap_or_else(PoisonError::into_inner).len() <= SOURCES_MAX + 1);
        assert!(throttle.wait([203, 0, 113, 9].into(), 5, now).is_some(), "the rest share one store");
    }
}
