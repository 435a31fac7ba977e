//! The real binary between real clients and a real PostgreSQL. Every test starts its own server and
//! its own gateway, and looks at them from outside only: at the wire, at `onrecord`'s output, and
//! at the server's own log.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::print_stderr)]

mod access;
mod approvals;
mod break_glass;
mod cancel;
mod clients;
mod corpus;
mod custody;
mod differential;
mod faults;
mod functions;
mod greeting;
mod hostile;
mod identity;
mod large;
mod names;
mod object_store;
mod outpost;
mod passkeys;
mod pipelines;
mod policy;
mod publish;
mod regress;
mod secrets;
mod ssh;
mod witness;

use testkit::{Gateway, Plan, Postgres};

/// The binary under test, configured for the test kit's PostgreSQL.
fn plan() -> Plan {
    Plan::new(env!("CARGO_BIN_EXE_onrecord"))
}

/// A server with a gateway before it.
fn start() -> (Postgres, Gateway) {
    let server = Postgres::start();
    let gateway = plan().start(&server);
    (server, gateway)
}
