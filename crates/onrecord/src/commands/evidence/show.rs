//! `onrecord evidence show`: the commands in a bundle, with what it discloses of them.

use std::path::{Path, PathBuf};

use clap::Args;
use evidence::{BUNDLE_BYTES_MAX, Trust};
use ledger::VerifierKey;

use super::super::Context;
use super::super::row::{self, Row, Times};
use super::super::verify;
use crate::output::{Format, Tone};
use crate::{Exit, Failure};

/// Arguments of `evidence show`.
#[derive(Debug, Args)]
pub struct Show {
    /// The file that `evidence export` wrote
    file: PathBuf,
    /// The log's public key, or a file that has it, from a copy kept elsewhere [default: the file's own]
    #[arg(long, value_name = "KEY")]
    vkey: Option<String>,
}

impl Show {
    /// Does it. What does not verify is not shown.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        let key: Option<VerifierKey> = self.vkey.as_deref().map(verify::read_key).transpose()?;
        let report = evidence::verify(&read(&self.file)?, &Trust { key, policy: None });
        if let Some(violation) = &report.audit.integrity.violation {
            let at = violation.index.map_or_else(String::new, |index| format!("entry {index}: "));
            let what = format_args!("{} does not verify: {at}{}", self.file.display(), violation.what);
            return Err(Failure::of(Exit::Integrity, what).hint("`onrecord verify FILE` says more"));
        }
        let rows: Vec<Row> = report.commands.iter().map(Row::from).collect();
        let console = &mut context.console;
        if console.format() != Format::Table {
            return console.json_list(rows.iter().map(Ok::<_, Failure>));
        }
        console.table(&row::table(&rows, Times::Short, 0))?;
        let whole = report.audit.completeness.commands;
        let more = whole.saturating_sub(u64::try_from(rows.len()).unwrap_or(u64::MAX));
        if more > 0 {
            let text = format!("{more} more of the same sessions were not selected; their content is not disclosed");
            console.line(&console.paint(Tone::Faint, &text))?;
        }
        Ok(())
    }
}

/// The bytes of a bundle.
pub fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |what: &dyn std::fmt::Display| Failure::new(format_args!("cannot read {}: {what}", file.display()));
    let length = match std::fs::metadata(file) {
        Ok(found) => found.len(),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(Failure::not_found(format_args!("{} does not exist", file.display())));
        }
        Err(error) => return Err(failed(&error)),
    };
    if usize::try_from(length).map_or(true, |length| length > BUNDLE_BYTES_MAX) {
        return Err(failed(&"it is longer than an evidence bundle can be (1 GiB)"));
    }
    std::fs::read(file).map_err(|error| failed(&error))
}
