//! The gateway's own thread for what becomes old: from time to time it erases content that has been kept as long as the
//! configuration says, slowly, and never in a command's way.

use std::io;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use model::{Actor, Known};
use store::Pace;

use crate::control::Executor;

/// After the start, before the first pass.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
/// Between two passes.
const PAUSE: Duration = Duration::from_secs(3600);
/// Between two groups of sessions of one pass.
const STEP_PAUSE: Duration = Duration::from_millis(50);

/// The thread. It ends when this is dropped.
pub(crate) struct Custodian {
    quit: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Custodian {
    pub(crate) fn start(executor: Executor) -> io::Result<Self> {
        let (quit, told) = channel();
        let thread = std::thread::Builder::new().name("custodian".into()).spawn(move || run(&executor, &told))?;
        Ok(Self { quit: Some(quit), thread: Some(thread) })
    }
}

impl Drop for Custodian {
    fn drop(&mut self) {
        // The thread waits for the other end to go.
        self.quit.take();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn run(executor: &Executor, told: &Receiver<()>) {
    let by = Actor { name: "gateway".to_owned(), known: Known::Verified };
    let goes_on = |pause| told.recv_timeout(pause) == Err(RecvTimeoutError::Timeout);
    let mut pause = FIRST_PAUSE;
    while goes_on(pause) {
        pause = PAUSE;
        let mut pace = || if goes_on(STEP_PAUSE) { Pace::Go } else { Pace::Stop };
        match executor.recorder.retain(&executor.rules.now(), &by, &mut pace) {
            Ok(retained) if retained.erased > 0 => {
                tracing::info!("retention: content of {} sessions erased, {} held", retained.erased, retained.held);
            }
            Ok(_) => {}
            Err(error) => tracing::error!("retention: {error}"),
        }
        if let Err(error) = executor.recorder.save_custody() {
            tracing::warn!("{error}");
        }
    }
}
