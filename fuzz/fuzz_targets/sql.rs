#![no_main]
//! Any bytes as a statement, the first byte as the settings. See `sql::fuzz::text`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| sql::fuzz::text(data));
