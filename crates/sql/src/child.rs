//! An analysing process as the gateway has it: started, asked, ended.
//!
//! Nothing here waits without a deadline. Not for deciding what a failure means: that is the analyzer's.

use std::cmp::Ordering;
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::process::{ChildStdin, ChildStdout, Command, Stdio};
use std::time::Instant;

use model::Facts;
use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::analysis::Holds;
use crate::codec::{self, ANSWER_BYTES_MAX, LENGTH_BYTES};

/// What is read of an answer at once, bytes: nearly all are shorter.
const CHUNK_BYTES: usize = 4096;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unanswered {
    /// It took too long.
    #[error("the analysis took too long")]
    Late,
    /// The process ended, or answered what is no answer.
    #[error("the analysing process failed: {0}")]
    Failed(#[from] io::Error),
}

/// A running process. It ends when this is dropped.
pub(crate) struct Child {
    process: std::process::Child,
    questions: ChildStdin,
    answers: ChildStdout,
}

impl Child {
    /// Starts one.
    pub(crate) fn start(command: &[OsString]) -> io::Result<Self> {
        let (program, arguments) =
            command.split_first().ok_or_else(|| io::Error::other("no program is configured for the analysis"))?;
        let mut process = Command::new(program)
            .args(arguments)
            .env_clear()
            .current_dir("/")
            // Not ended by what a terminal sends to the gateway.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // What C libraries print can have the text in it.
            .stderr(Stdio::null())
            .spawn()?;
        match (process.stdin.take(), process.stdout.take()) {
            (Some(questions), Some(answers)) => {
                rustix::io::ioctl_fionbio(&questions, true)?;
                rustix::io::ioctl_fionbio(&answers, true)?;
                Ok(Self { process, questions, answers })
            }
            _ => Err(io::Error::other("the analysing process has no pipes")),
        }
    }

    /// Whether it runs.
    pub(crate) fn runs(&mut self) -> bool {
        matches!(self.process.try_wait(), Ok(None))
    }

    /// Asks a question. After an error the process is of no more use.
    pub(crate) fn ask(&mut self, question: &[u8], deadline: Instant) -> Result<(Facts, Holds), Unanswered> {
        let mut rest = question;
        while !rest.is_empty() {
            match self.questions.write(rest) {
                Ok(0) => return Err(ended().into()),
                Ok(written) => rest = rest.get(written..).unwrap_or_default(),
                Err(error) if retry(&error) => wait(&self.questions, PollFlags::OUT, deadline)?,
                Err(error) => return Err(error.into()),
            }
        }
        let answer = self.answer(deadline)?;
        let facts = answer.get(LENGTH_BYTES..).and_then(codec::answered);
        facts.ok_or_else(|| io::Error::other("an answer is no facts").into())
    }

    /// One answer, with its length.
    fn answer(&mut self, deadline: Instant) -> Result<Vec<u8>, Unanswered> {
        let mut answer = Vec::new();
        let mut chunk = [0; CHUNK_BYTES];
        loop {
            // It never is there at once: to look before waiting would be a call more.
            wait(&self.answers, PollFlags::IN, deadline)?;
            match self.answers.read(&mut chunk) {
                Ok(0) => return Err(ended().into()),
                Ok(read) => answer.extend_from_slice(chunk.get(..read).unwrap_or_default()),
                Err(error) if retry(&error) => continue,
                Err(error) => return Err(error.into()),
            }
            let Some(length) = answer.first_chunk() else { continue };
            let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
            if length > ANSWER_BYTES_MAX {
                return Err(io::Error::other("an answer is longer than any may be").into());
            }
            match answer.len().cmp(&(LENGTH_BYTES + length)) {
                Ordering::Less => {}
                Ordering::Equal => return Ok(answer),
                Ordering::Greater => return Err(io::Error::other("more is answered than was asked").into()),
            }
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn ended() -> io::Error {
    io::Error::from(io::ErrorKind::UnexpectedEof)
}

fn retry(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Waits until a pipe is ready, or something is wrong with it.
fn wait(pipe: &impl AsFd, for_what: PollFlags, deadline: Instant) -> Result<(), Unanswered> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        return Err(Unanswered::Late);
    }
    let left = Timespec::try_from(left).map_err(io::Error::other)?;
    match poll(&mut [PollFd::new(pipe, for_what)], Some(&left)) {
        Ok(0) => Err(Unanswered::Late),
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(io::Error::from(error).into()),
    }
}
