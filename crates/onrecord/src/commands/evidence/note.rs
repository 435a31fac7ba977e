//! The record of an export: what was handed out is itself on the record.

use std::path::Path;

use model::Export;
use store::{GatewayEntry, Options, Recorder};

use crate::Failure;
use crate::control::{Asked, Request, ask};

/// Notes an export: the gateway that writes the record does it; without one, this process, which then writes it as
/// `options` say.
pub(super) fn note(data: &Path, options: Options, export: Export) -> Result<(), Failure> {
    let request = Request::NoteExport {
        selection: export.selection.clone(),
        entries: export.entries,
        disclosed: export.disclosed,
        sha256: export.sha256.hex(),
    };
    match ask(data, &request) {
        Ok(Asked::Answered(answer)) => answer.map(drop).map_err(|refusal| Failure::new(refusal.message)),
        Ok(Asked::Nobody) => directly(data, options, export),
        Err(error) => Err(Failure::new(format_args!("the gateway cannot be asked: {error}"))),
    }
}

fn directly(data: &Path, options: Options, export: Export) -> Result<(), Failure> {
    let (recorder, _) = Recorder::open_dir(data, options).map_err(Failure::new)?;
    let noted = recorder.note(GatewayEntry::Export(export)).map(drop).map_err(Failure::new);
    noted.and(recorder.stop().map_err(Failure::new))
}
