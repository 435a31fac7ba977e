//! Real servers, real clients and the real `onrecord` binary on loopback, for the tests.
//!
//! For: starting a PostgreSQL ([`Postgres`]) and a gateway ([`Gateway`]) that nobody else knows,
//! letting an unmodified client do a known list of things against either of them ([`clients`]), and
//! holding three accounts of what happened against each other ([`agree`]): the client's, the
//! record's, and the server's own log.
//!
//! Not for: anything that ships. Helpers panic when the machine does not do what they need, with a
//! message that says what was expected; nothing here is a place to handle errors gracefully.
//!
//! Invariants: all listens on loopback; every process is ended by its own pid when its owner is
//! dropped, on a panic too; waits poll against a deadline and never assert how long something took.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr)]

pub mod agree;
pub mod browser;
pub mod clients;
pub mod corpus;
mod gateway;
/// Requests over HTTP, byte by byte.
pub mod http;
/// Issuers of tokens.
pub mod issuer;
mod namespace;
mod object_store;
mod outpost;
pub mod postgres;
pub mod process;
pub mod raw;
mod record;
pub mod regress;
mod rustls_connect;
pub mod scram;
mod server_log;
/// A disk in memory that crashes and fails on request.
pub mod sim_disk;
pub mod sshd;
mod target;
mod tls;
mod witness;

pub use gateway::{Connection, Gateway, Plan};
pub use namespace::Namespace;
pub use object_store::ObjectStore;
pub use outpost::{Outpost, Proxy, Way};
pub use postgres::{PASSWORD, Postgres};
pub use record::{Command, Record};
pub use rustls_connect::MakeRustls;
pub use server_log::{Ran, ServerLog};
pub use target::{Target, Tls};
pub use tls::{Authority, client_certificate};
pub use witness::{Witness, copy_directory};
