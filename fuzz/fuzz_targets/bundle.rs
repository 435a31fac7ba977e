#![no_main]
//! Any bytes as an evidence bundle, and as the files of one. See `evidence::fuzz`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| evidence::fuzz::bundle(data));
