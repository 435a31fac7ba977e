//! The record's face to the outside: the log over HTTP for anyone to read, the server of a witness, the client that
//! asks witnesses, and receipts for those whose sessions are on the record.
//!
//! Not for: anything in a command's path. Everything here follows the record behind its writer; when it is slow, absent
//! or lied to, recording goes on. Nor for writing the record: that is `store`'s.
//!
//! Invariants: only what a signed checkpoint covers is handed out; nothing below `keys/` can be reached by any path; a
//! witness never cosigns two roots of one size, whatever happens to its process or its disk.

mod asker;
mod closes;
#[doc(hidden)]
pub mod fuzz;
mod looking;
mod receipt;
mod server;
mod site;
mod source;
mod standing;
mod tiles;
mod webhook;
mod witness;
mod witness_site;

pub use asker::{Asker, Asking};
pub use closes::{Closes, Follower, Search};
pub use looking::{Contradiction, Look, look};
pub use receipt::{RECEIPT_BYTES_MAX, Receipt, ReceiptError};
pub use server::{Answer, Encoding, Limits, Method, Request, Server, Site};
pub use site::LogSite;
pub use source::{Source, SourceError};
pub use webhook::{Cosignatures, Webhook, WebhookConfig, WebhookError};
pub use witness::{LogState, Witness, WitnessError, origin_name};
pub use witness_site::WitnessSite;

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Locks, also after a thread that held the lock has panicked: what is guarded here is replaced whole.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
