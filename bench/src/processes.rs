//! Every process that a run starts, and the directory it works in, so that both go away with it.
//!
//! Invariant: once `end_all` has begun, nothing can be started any more, and when it returns every
//! process that was ever started here has ended and been waited for.

use std::{
    fs,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How long a process may take to end when asked, before it is killed.
const GRACE: Duration = Duration::from_secs(10);

/// Shared by the measuring thread and the one that waits for signals.
#[derive(Clone, Default)]
pub(crate) struct Processes(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    ending: bool,
    running: Vec<Running>,
    directory: Option<PathBuf>,
}

struct Running {
    child: Child,
    ask: Signal,
}

/// What started: enough to read its counters and to end it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Started(u32);

impl Started {
    /// The process id, for `/proc`.
    pub(crate) fn pid(self) -> u32 {
        self.0
    }
}

impl Processes {
    /// The directory that the run works in; removed at the end.
    pub(crate) fn directory(&self, under: &Path) -> anyhow::Result<PathBuf> {
        let directory = tempfile::Builder::new()
            .prefix("onrecord-bench-")
            .tempdir_in(under)
            .with_context(|| format!("no directory can be made in {}", under.display()))?
            .keep();
        self.state().directory = Some(directory.clone());
        Ok(directory)
    }

    /// Starts a process that runs until `end`; `ask` is the signal it ends at in good order.
    /// What of its pipes the caller asked for, it takes through `with`.
    pub(crate) fn start<T>(
        &self,
        command: &mut Command,
        ask: Signal,
        with: impl FnOnce(&mut Child) -> T,
    ) -> anyhow::Result<(Started, T)> {
        let mut state = self.state();
        ensure!(!state.ending, "the run is ending");
        // A group of its own: a terminal's Ctrl-C reaches this program alone, which ends the rest.
        let mut child = command
            .process_group(0)
            .stdin(Stdio::null())
            .spawn()
            .with_context(|| format!("{} does not start", name(command)))?;
        let started = Started(child.id());
        let taken = with(&mut child);
        state.running.push(Running { child, ask });
        Ok((started, taken))
    }

    /// Runs a process to its end; an error tells what it printed.
    pub(crate) fn run(&self, command: &mut Command) -> anyhow::Result<Output> {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let (started, pipes) = self.start(command, Signal::KILL, |child| (child.stdout.take(), child.stderr.take()))?;
        let (stdout, stderr) = pipes;
        let stderr = thread::spawn(move || read(stderr));
        let stdout = read(stdout);
        let stderr = stderr.join().unwrap_or_default();
        // Its pipes are closed, so it has ended or is about to.
        let Some(mut running) = self.take(started) else {
            bail!("the run is ending");
        };
        let status = running.child.wait()?;
        let output = Output { status, stdout, stderr };
        ensure!(
            output.status.success(),
            "{} failed ({}): {}{}",
            name(command),
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        Ok(output)
    }

    /// Waits for one that ends by itself.
    pub(crate) fn wait(&self, started: Started) -> anyhow::Result<()> {
        let Some(mut running) = self.take(started) else { bail!("the run is ending") };
        let status = running.child.wait()?;
        ensure!(status.success(), "a process failed ({status})");
        Ok(())
    }

    /// Ends one process.
    pub(crate) fn end(&self, started: Started) {
        if let Some(running) = self.take(started) {
            running.end();
        }
    }

    /// Ends everything, the last started first, and removes the directory.
    pub(crate) fn end_all(&self) {
        let mut state = self.state();
        state.ending = true;
        while let Some(running) = state.running.pop() {
            running.end();
        }
        if let Some(directory) = state.directory.take() {
            let _ = fs::remove_dir_all(directory);
        }
    }

    /// The ids of all that run now.
    pub(crate) fn pids(&self) -> Vec<u32> {
        self.state().running.iter().map(|r| r.child.id()).collect()
    }

    fn take(&self, started: Started) -> Option<Running> {
        let mut state = self.state();
        let at = state.running.iter().position(|r| r.child.id() == started.0)?;
        Some(state.running.remove(at))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Running {
    fn end(mut self) {
        let pid = Pid::from_child(&self.child);
        // The child has not been waited for, so its id cannot have become another's.
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        let _ = kill_process(pid, self.ask);
        let deadline = Instant::now() + GRACE;
        while Instant::now() < deadline {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(Duration::from_millis(10));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn read(pipe: Option<impl std::io::Read>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(mut pipe) = pipe {
        let _ = pipe.read_to_end(&mut bytes);
    }
    bytes
}

fn name(command: &Command) -> String {
    Path::new(command.get_program()).file_name().unwrap_or_default().to_string_lossy().into_owned()
}
