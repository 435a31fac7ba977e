//! Sans-IO taps of the wire protocols: bytes go in, commands and outcomes come out.
//!
//! For: cutting a protocol into its messages, saying which of them execute something, and saying how each
//! command ended. Not for: sockets, clocks, files, policy or the record; those belong to the crates above.
//!
//! Invariant: the bytes that are framed here are the bytes that are forwarded. Nothing is decoded and encoded
//! again; what cannot be understood is not forwarded.

mod cursor;
pub mod postgres;
pub mod ssh;
