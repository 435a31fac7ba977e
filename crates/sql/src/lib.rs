//! What a PostgreSQL statement does, by PostgreSQL's own grammar.
//!
//! For deciding on statements and describing them. The grammar is the server's own (`pg_query`), the walk over its tree is
//! ours: what hides a relation from it is what hides it from the server. What the text does not tell is said, not guessed:
//! see [`model::Facts`] and docs/facts.md.
//!
//! Not for rewriting or executing statements, and not a boundary by itself: what a role may do, the server decides.
//!
//! The invariant: facts without an [`model::Opaque`] reason name every relation that the text names, with what is done to
//! it, and every effect. [`analyze`] works in this process; [`Analyzer`] has it done in others, which no text can turn
//! against the one that asks.

mod analysis;
mod analyzer;
mod builtins;
mod cache;
mod child;
mod codec;
mod fingerprint;
#[doc(hidden)]
pub mod fuzz;
mod shape;
mod tree;
mod union;
mod walk;
mod worker;

pub use analysis::{NESTING_MAX, TEXT_BYTES_MAX, analyze};
pub use analyzer::{Analyzer, AnalyzerConfig, QUEUE_MAX, STARTS_MAX, STARTS_WINDOW};
pub use builtins::harmless_setting;
pub use worker::serve_worker;

/// The settings of a session that change what a text means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Whether a backslash in `'...'` is a backslash (`standard_conforming_strings`).
    pub strings: Strings,
    /// Whether the text is UTF-8 (`client_encoding`).
    pub encoding: Encoding,
}

/// What a backslash in `'...'` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Strings {
    /// A backslash: `standard_conforming_strings` is on.
    Standard,
    /// The start of an escape: it is off.
    Escapes,
    /// It cannot be said: both must be assumed.
    Either,
}

/// How the bytes of a text are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As UTF-8, or as an encoding in which each byte below 0x80 is what it is in ASCII wherever it stands, and the others
    /// are letters (LATIN1 and its like, SQL_ASCII).
    AsciiSafe,
    /// As one in which a byte below 0x80 can be part of another character, or as an unknown one.
    Other,
}
