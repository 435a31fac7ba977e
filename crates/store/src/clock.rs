//! Time and randomness as the store takes them: given from outside, so that tests can give their own.

use std::io;

use model::{ClockState, Time};
use rustix::time::{ClockId, clock_gettime};

/// Tells the time.
pub trait Clock: Send + Sync + 'static {
    /// Now, by both clocks.
    fn now(&self) -> Time;
}

/// Gives random bytes for keys, salts and ids.
pub trait Random: Send + 'static {
    /// Fills the buffer with bytes that nobody can guess.
    ///
    /// # Errors
    /// The system has none to give.
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()>;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

/// The system's random numbers.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemRandom;

impl Clock for SystemClock {
    fn now(&self) -> Time {
        let wall = clock_gettime(ClockId::Realtime);
        let boot = clock_gettime(ClockId::Boottime);
        Time {
            wall_us: wall.tv_sec * 1_000_000 + wall.tv_nsec / 1_000,
            boot_us: u64::try_from(boot.tv_sec * 1_000_000 + boot.tv_nsec / 1_000).unwrap_or(0),
        }
    }
}

impl Random for SystemRandom {
    fn fill(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        getrandom::fill(bytes).map_err(|error| io::Error::other(error.to_string()))
    }
}

/// A fixed number of random bytes.
pub(crate) fn random<const N: usize>(source: &mut dyn Random) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    source.fill(&mut bytes)?;
    Ok(bytes)
}

/// Whether the wall clock is synchronised, as far as that can be told without privileges: systemd-timesyncd leaves a
/// mark while it is. Other time services leave none, and then nobody knows.
#[must_use]
pub fn clock_state() -> ClockState {
    if std::path::Path::new("/run/systemd/timesync/synchronized").exists() {
        ClockState::Synchronized
    } else {
        ClockState::NotEstablished
    }
}
