//! Replays the fuzzers' committed corpora on the stable compiler.
#![allow(clippy::unwrap_used)]

#[path = "support/scp.rs"]
mod scp_support;
#[path = "support/sftp.rs"]
mod sftp;
#[path = "support/sftp_targets.rs"]
mod sftp_targets;
mod support;
#[path = "support/targets.rs"]
mod targets;

fn replay(target: &str, run: fn(&[u8])) {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(target);
    let mut count = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        run(&std::fs::read(entry.unwrap().path()).unwrap());
        count += 1;
    }
    assert!(count > 5);
}

#[test]
fn pg_startup() {
    replay("pg_startup", targets::pg_startup);
}

#[test]
fn pg_frontend() {
    replay("pg_frontend", targets::pg_frontend);
}

#[test]
fn pg_backend() {
    replay("pg_backend", targets::pg_backend);
}

#[test]
fn sftp_client() {
    replay("sftp_client", sftp_targets::sftp_client);
}

#[test]
fn sftp_server() {
    replay("sftp_server", sftp_targets::sftp_server);
}

#[test]
fn scp() {
    replay("scp", scp_support::scp);
}

#[test]
fn terminal() {
    replay("terminal", wire::ssh::terminal::fuzz);
}
