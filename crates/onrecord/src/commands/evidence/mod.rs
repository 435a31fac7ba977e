//! `onrecord evidence`: the record, or a part of it, as one file that proves itself.

mod export;
mod gather;
mod note;
mod page;
mod pin;
mod show;

use clap::Subcommand;

pub use export::{Exported, Request, Withhold, export};
pub use page::page;
pub use show::read as read_bundle;

use super::Context;
use crate::Failure;

/// The commands about evidence.
#[allow(clippy::large_enum_variant, reason = "there is one, for as long as the program runs")]
#[derive(Debug, Subcommand)]
pub enum EvidenceCommand {
    /// Write commands, their sessions and the proof that they are on the record to one file
    Export(export::Export),
    /// List the commands in such a file
    Show(show::Show),
    /// Write the page that verifies such files in a browser: the one in a file came with it
    Page(page::Page),
}

impl EvidenceCommand {
    /// Does it.
    pub fn run(self, context: &mut Context) -> Result<(), Failure> {
        match self {
            Self::Export(export) => export.run(context),
            Self::Show(show) => show.run(context),
            Self::Page(page) => page.run(context),
        }
    }
}
