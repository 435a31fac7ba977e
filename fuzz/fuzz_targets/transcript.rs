#![no_main]
//! Any bytes as the transcript of a program. See `model::transcript::fuzz`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| model::transcript::fuzz(data));
