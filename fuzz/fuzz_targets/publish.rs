#![no_main]
//! Any bytes as a receipt, and as the file of a witness. See `publish::fuzz`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| publish::fuzz::everything(data));
