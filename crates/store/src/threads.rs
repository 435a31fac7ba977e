//! The store's four threads. They are owned by the recorder, which waits for them when it goes.
//!
//! The *syncer* flushes when someone asks, and at the latest one interval after something was appended, so that
//! outcomes become durable without anybody waiting for them. The *keeper* prepares segments and keys ahead, which takes
//! it long at times. The *signer* signs checkpoints. The *publisher* makes the tiles of what was signed.

use std::sync::atomic::Ordering::SeqCst;
use std::sync::{Arc, PoisonError};
use std::thread::JoinHandle;
use std::time::Instant;

use crate::log::{Log, lock};

pub(crate) fn start(log: &Arc<Log>) -> std::io::Result<Vec<JoinHandle<()>>> {
    type Work = fn(&Log);
    let works: [(&str, Work); 4] =
        [("store-syncer", syncer), ("store-keeper", keeper), ("store-signer", signer), ("store-publisher", publisher)];
    let mut threads = Vec::new();
    for (name, work) in works {
        let log_of_thread = log.clone();
        match std::thread::Builder::new().name(name.into()).spawn(move || work(&log_of_thread)) {
            Ok(thread) => threads.push(thread),
            Err(error) => {
                quit(log, threads);
                return Err(error);
            }
        }
    }
    Ok(threads)
}

/// Ends the threads and waits for them.
pub(crate) fn quit(log: &Log, threads: Vec<JoinHandle<()>>) {
    lock(&log.signal.asks).quit = true;
    log.signal.changed.notify_all();
    log.signal.keeper.notify_all();
    log.signal.signer.notify_all();
    log.signal.publisher.notify_all();
    for thread in threads {
        // A thread that panicked has nothing more to say; the log is closed either way.
        let _ = thread.join();
    }
}

fn syncer(log: &Log) {
    let signal = &log.signal;
    // By when what is now appended must be durable, and how much that is.
    let mut due: Option<(Instant, u64)> = None;
    loop {
        let mut asks = lock(&signal.asks);
        loop {
            if asks.quit {
                return;
            }
            if asks.sync {
                break;
            }
            if asks.dirty && due.is_none() {
                asks.dirty = false;
                due = Some((Instant::now() + log.options.sync_interval, log.appended()));
            }
            let Some((at, _)) = due else {
                asks = signal.changed.wait(asks).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left = at.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            asks = signal.changed.wait_timeout(asks, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let asked = std::mem::take(&mut asks.sync);
        drop(asks);

        let overdue = due.is_some_and(|(at, upto)| at <= Instant::now() && log.durable() < upto);
        if overdue {
            log.write();
        }
        if asked || overdue {
            log.sync();
            log.wake_gates(None);
        }
        if due.is_some_and(|(at, _)| at <= Instant::now()) {
            // From here the next append sets the mark again; what came before this line is looked at now.
            signal.dirty.store(false, SeqCst);
            let appended = log.appended();
            due = (appended > log.durable()).then(|| (Instant::now() + log.options.sync_interval, appended));
        }
        if log.failure().is_some() {
            due = None;
        }
    }
}

/// How many rounds of the keeper pass between two tries to find space for a segment.
const SPACE_RETRY_ROUNDS: u32 = 10;

fn keeper(log: &Log) {
    let mut round = 0u32;
    loop {
        // A full disk is not filled to its last byte every second.
        if !log.lacks_space() || round.is_multiple_of(SPACE_RETRY_ROUNDS) {
            log.prepare_spare();
        }
        round = round.wrapping_add(1);
        log.prepare_keys();
        let asks = lock(&log.signal.asks);
        if asks.quit {
            return;
        }
        drop(
            log.signal
                .keeper
                .wait_timeout(asks, log.options.checkpoint_interval)
                .unwrap_or_else(PoisonError::into_inner),
        );
    }
}

/// When so many entries are not signed, that is done before its time: the more come, the more each checkpoint has to
/// publish, and it must not take ever longer.
const CHECKPOINT_ENTRIES: u64 = 16 * 1024;
/// How many looks at that there are in the interval between two checkpoints.
const CHECKPOINT_LOOKS: u32 = 5;

fn signer(log: &Log) {
    let interval = log.options.checkpoint_interval;
    let mut due = Instant::now() + interval;
    loop {
        let asks = lock(&log.signal.asks);
        if asks.quit {
            return;
        }
        let pause = due.saturating_duration_since(Instant::now()).min(interval / CHECKPOINT_LOOKS);
        drop(log.signal.signer.wait_timeout(asks, pause).unwrap_or_else(PoisonError::into_inner));
        if Instant::now() >= due || log.unsigned() >= CHECKPOINT_ENTRIES {
            log.checkpoint();
            due = Instant::now() + interval;
        }
    }
}

fn publisher(log: &Log) {
    // What an earlier run signed and could not publish comes first.
    log.publish();
    loop {
        let mut asks = lock(&log.signal.asks);
        while !asks.quit && !std::mem::take(&mut asks.publish) {
            asks = log.signal.publisher.wait(asks).unwrap_or_else(PoisonError::into_inner);
        }
        if asks.quit {
            return;
        }
        drop(asks);
        log.publish();
    }
}
