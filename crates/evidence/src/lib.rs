//! Evidence bundles: one file that proves a selection of the record to somebody who has nothing else but a public key.
//!
//! [`Draft`] puts one together, [`verify`] takes it apart and gives three verdicts. `docs/format.md` has the form, byte by
//! byte, and `docs/decisions/0011-evidence-bundles.md` the reasons.
//!
//! Pure, so that the same code verifies on the command line and in a browser: no files, no clock, no randomness. Not for:
//! finding entries, or deciding what is selected.
//!
//! Invariants:
//! - A bundle's bytes follow from what is in it: the same selection under the same checkpoint is the same file.
//! - Nothing in a bundle escapes verification: each byte is part of a digest, or is the only one that can stand there.

mod archive;
mod content;
mod draft;
mod entries;
mod fields;
#[doc(hidden)]
pub mod fuzz;
mod json;
mod manifest;
mod names;
mod readme;
mod report;
mod verify;

pub use archive::{BUNDLE_BYTES_MAX, FILES_MAX};
pub use content::UNPACKED_BYTES_MAX;
pub use draft::{Draft, DraftError};
pub use fields::{Disclosure, Erased, FieldId, numbers};
pub use json::SHOWN_BYTES_MAX;
pub use manifest::{Listed, Manifest};
pub use report::{ApprovalEntry, BreakGlassEntry, Command, Content, Counts, From, Report};
pub use verify::{Trust, verify};
