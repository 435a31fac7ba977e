//! The analysing process: questions from standard input, answers to standard output, until the input ends.
//!
//! It holds nothing worth taking: no environment, no files, and, once it runs, no right to open any. It writes nothing but
//! answers: what it analyses must not be found in a terminal, a log or a core dump.

use std::io::{self, Read, Write};

use model::{Facts, Opaque};

use crate::analysis::{Holds, analyze_shape};
use crate::codec::{self, LENGTH_BYTES, QUESTION_BYTES_MAX};

/// The stack of the thread that analyses, bytes. PostgreSQL's parser stops itself long before; what walks its answer needs
/// far less.
const STACK_BYTES: usize = 64 * 1024 * 1024;
/// The most memory that the process may map, bytes.
const MEMORY_BYTES_MAX: u64 = 2 * 1024 * 1024 * 1024;

/// What the analysing process does: reads texts from standard input, writes facts to standard output, until the input ends.
///
/// # Errors
/// Standard input or output is broken, or the process that this is to be cannot be set up.
pub fn serve_worker() -> io::Result<()> {
    // The message of a panic can have the text in it.
    std::panic::set_hook(Box::new(|_| {}));
    let analysis = std::thread::Builder::new().name("sql-analysis".into()).stack_size(STACK_BYTES);
    let analysis = analysis.spawn(|| {
        confine()?;
        serve(io::stdin().lock(), io::stdout().lock())
    })?;
    analysis.join().unwrap_or_else(|_| Err(io::Error::other("the analysis panicked")))
}

/// Gives up what analysing does not need.
fn confine() -> io::Result<()> {
    use rustix::process::{Resource, Rlimit, setrlimit};
    let limit = |resource, most| setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
    limit(Resource::Core, 0)?;
    limit(Resource::Fsize, 0)?;
    // Those that it has stay.
    limit(Resource::Nofile, 0)?;
    limit(Resource::As, MEMORY_BYTES_MAX)?;
    #[cfg(target_os = "linux")]
    {
        rustix::thread::set_no_new_privs(true)?;
        // A text that never ends must not outlive the one who would end it.
        rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    }
    Ok(())
}

fn serve(mut questions: impl Read, mut answers: impl Write) -> io::Result<()> {
    let mut question = Vec::new();
    loop {
        let mut length = [0; LENGTH_BYTES];
        match questions.read_exact(&mut length) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            other => other?,
        }
        let length = usize::try_from(u32::from_le_bytes(length)).unwrap_or(usize::MAX);
        if length > QUESTION_BYTES_MAX {
            return Err(io::Error::other("a question is longer than any may be"));
        }
        question.resize(length, 0);
        questions.read_exact(&mut question)?;
        let (facts, holds) = match codec::asked(&question) {
            Some((settings, text)) => analyze_shape(text, settings),
            None => (Facts::unknown(Opaque::Failed), Holds::Text),
        };
        answers.write_all(&codec::answer(&facts, holds)?)?;
        answers.flush()?;
    }
}
