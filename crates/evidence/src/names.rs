//! The names of a bundle's files.

use model::SessionId;

pub(crate) const README: &str = "README.txt";
pub(crate) const MANIFEST: &str = "manifest.json";
pub(crate) const CHECKPOINT: &str = "checkpoint";
pub(crate) const ENTRIES: &str = "entries.txt";
pub(crate) const KEYS: &str = "keys.txt";
pub(crate) const POLICY: &str = "policy";
pub(crate) const PROOF: &str = "proof.txt";
pub(crate) const PAGE: &str = "verify.html";
pub(crate) const VKEY: &str = "vkey";
/// The blobs, by their digests.
pub(crate) const BLOBS: &str = "blobs/";
/// The proofs of sessions.
pub(crate) const SESSIONS: &str = "sessions/";

pub(crate) fn session_proof(session: SessionId) -> String {
    format!("{SESSIONS}{session}.tlog-proof")
}

/// Whether this version knows what a file is.
pub(crate) fn is_known(name: &str) -> bool {
    [README, MANIFEST, CHECKPOINT, ENTRIES, KEYS, POLICY, PROOF, PAGE, VKEY].contains(&name)
        || name.starts_with(BLOBS)
        || name.starts_with(SESSIONS)
}
