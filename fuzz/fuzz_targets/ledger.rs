#![no_main]
//! Any bytes as a note, a checkpoint, a proof, a policy, a request to a witness, a bundle. See `ledger::fuzz`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| ledger::fuzz::everything(data));
