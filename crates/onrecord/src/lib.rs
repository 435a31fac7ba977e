//! The `onrecord` program as a library: command line, configuration, output, and the wiring of the
//! gateway to the record. `main.rs` only starts it; the demo uses its parts.
//!
//! Not for: deciding, recording or forwarding anything. Those belong to the crates that this one wires.

pub mod agent;
pub mod cli;
pub mod commands;
pub mod config;
pub mod control;
mod custodian;
pub mod failure;
pub mod http;
pub mod keys;
pub mod output;
pub mod outside;
pub mod terminal;
pub mod wiring;

pub use failure::{Exit, Failure};
