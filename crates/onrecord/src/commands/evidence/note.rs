//! The record of an export: what was handed out is itself on the record.

use std::path::Path;

use ledger::VerifierKey;
use model::Export;
use store::{GatewayEntry, Options, Recorder, StoreError};

use crate::Failure;

/// Notes an export in the record of a data directory that no gateway is writing to.
pub(super) fn directly(data: &Path, key: &VerifierKey, export: Export) -> Result<(), Failure> {
    let (recorder, _) = match Recorder::open_dir(data, Options::new(key.name())) {
        Ok(opened) => opened,
        Err(StoreError::Locked) => return Err(Failure::new("the gateway is running and cannot be told")),
        Err(error) => return Err(Failure::new(error)),
    };
    let noted = recorder.note(GatewayEntry::Export(export)).map(drop).map_err(Failure::new);
    noted.and(recorder.stop().map_err(Failure::new))
}
