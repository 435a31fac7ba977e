#![no_main]

#[path = "../../crates/wire/tests/support/mod.rs"]
mod support;
#[path = "../../crates/wire/tests/support/targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| targets::pg_startup(bytes));
