#![no_main]
//! Any bytes as a segment of a log. See `store::fuzz::segment`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| store::fuzz::segment(data));
