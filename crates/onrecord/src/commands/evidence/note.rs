//! The record of an export: what was handed out is itself on the record.

use std::path::Path;
use std::sync::Arc;

use ledger::VerifierKey;
use model::Export;
use store::{GatewayEntry, LocalKey, Options, Recorder, StoreError, WrappingKey};

use crate::Failure;
use crate::control::{Asked, Request, ask};

/// Notes an export on the record: through the gateway that has it open, or if none has, directly.
pub(super) fn note(
    data: &Path,
    key: &VerifierKey,
    wrapping: Option<Arc<LocalKey>>,
    export: Export,
) -> Result<(), Failure> {
    let request = Request::NoteExport {
        selection: export.selection.clone(),
        entries: export.entries,
        disclosed: export.disclosed,
        sha256: export.sha256.hex(),
    };
    match ask(data, &request) {
        Ok(Asked::Answered(answer)) => answer.map(drop).map_err(|refusal| Failure::new(refusal.message)),
        Ok(Asked::Nobody) => directly(data, key, wrapping, export),
        Err(error) => Err(Failure::new(format_args!("the gateway cannot be told: {error}"))),
    }
}

fn directly(data: &Path, key: &VerifierKey, wrapping: Option<Arc<LocalKey>>, export: Export) -> Result<(), Failure> {
    let wrapping_key = wrapping.map(|key| key as Arc<dyn WrappingKey>);
    let (recorder, _) = match Recorder::open_dir(data, Options { wrapping_key, ..Options::new(key.name()) }) {
        Ok(opened) => opened,
        Err(StoreError::Locked) => return Err(Failure::new("the gateway is running and cannot be told")),
        Err(error) => return Err(Failure::new(error)),
    };
    let noted = recorder.note(GatewayEntry::Export(export)).map(drop).map_err(Failure::new);
    noted.and(recorder.stop().map_err(Failure::new))
}
