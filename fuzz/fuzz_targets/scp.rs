#![no_main]

#[path = "../../crates/wire/tests/support/scp.rs"]
mod support;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| support::scp(bytes));
