#![no_main]
//! Any bytes as what a browser and an authenticator say. See `ledger::fuzz`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| ledger::fuzz::passkey(data));
