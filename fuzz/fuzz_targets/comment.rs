#![no_main]
//! Any bytes as a statement whose comment claims something. See `model::fuzz_comment`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| model::fuzz_comment(data));
