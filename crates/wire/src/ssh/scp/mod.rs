//! What an exec channel carries that runs the old scp on the host (`scp -t PATH`, `scp -f PATH`): files with their modes,
//! sizes and digests.
//!
//! For: telling more about a command whose exact text, bytes and status are on record anyway. Not for: deciding, holding
//! or changing anything: bytes pass whatever this says, and at anything odd it stops with [`Event::Lost`].
//!
//! scp has a source, which sends lines and content, and a sink, which answers each of them; `-t` makes the host the sink.
//! Each waits for the other, so the two streams are read here in the order in which scp itself reads them: what comes
//! early waits, within a bound.
//!
//! Invariant: while no more than [`EARLY_BYTES_MAX`] of a stream are early, what is said depends on the bytes of the two
//! streams alone, not on how they were cut or interleaved.

mod command;
mod tap;

pub use command::{Role, Scp};
pub use tap::{
    Answer, DEPTH_MAX, Directory, EARLY_BYTES_MAX, Event, File, LINE_BYTES_MAX, PATH_BYTES_MAX, Speaker, Tap, Times,
};
