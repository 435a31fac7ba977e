//! `onrecord asciicast COMMAND`: what a terminal showed, for other players.

use std::fs::OpenOptions;
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::Context;
use super::source;
use super::transcript::Recording;
use crate::Failure;
use crate::cli::RecordPlace;
use crate::terminal::cast::{self, About};

/// Arguments of `asciicast`.
#[derive(Debug, Args)]
pub struct Asciicast {
    /// A command that had a terminal (SESSION.N), in full or by the end of the session's id
    id: String,
    /// The version of the form: 2 is read by everything, 3 has the exit status
    #[arg(long, value_name = "VERSION", value_enum, default_value_t)]
    version: Version,
    /// The file to write, which must not exist yet [default: standard output]
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    place: RecordPlace,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
enum Version {
    /// Of asciinema 2
    #[default]
    #[value(name = "2")]
    Two,
    /// Of asciinema 3
    #[value(name = "3")]
    Three,
}

impl Asciicast {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let reader = context.reader(&self.place)?;
        let view = source::command_named(&reader, &self.id)?;
        let mut recording = Recording::of(&reader, &view)?;
        let about = About {
            title: view.id.to_string(),
            began_us: recording.began_us,
            duration_us: recording.duration_us,
            terminal: recording.terminal.take(),
            exit: recording.code.take().filter(|code| code.parse::<u32>().is_ok()),
            marks: std::mem::take(&mut recording.marks),
        };
        let version = match self.version {
            Version::Two => cast::Version::V2,
            Version::Three => cast::Version::V3,
        };
        match &self.out {
            None => cast::write(&mut recording.frames, about, version, &mut context.console)?,
            Some(file) => {
                let failed = |error| Failure::new(format_args!("cannot write {}: {error}", file.display()));
                let new = OpenOptions::new().write(true).create_new(true).mode(0o600).open(file).map_err(failed)?;
                let mut new = std::io::BufWriter::new(new);
                cast::write(&mut recording.frames, about, version, &mut new)?;
                new.flush().map_err(failed)?;
            }
        }
        let left_out = recording.left_out().map_or_else(String::new, |left_out| format!("; {left_out}"));
        super::note(format_args!(
            "this shows what is on the record and proves nothing: `onrecord evidence` does{left_out}"
        ));
        Ok(())
    }
}
