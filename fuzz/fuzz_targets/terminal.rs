#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| wire::ssh::terminal::fuzz(bytes));
