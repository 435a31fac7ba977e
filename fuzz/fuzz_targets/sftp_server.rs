#![no_main]

#[path = "../../crates/wire/tests/support/sftp.rs"]
mod sftp;
#[path = "../../crates/wire/tests/support/sftp_targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::sftp_server(bytes));
