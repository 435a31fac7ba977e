#![no_main]
//! Any bytes as a request to the control socket and as an answer. See `onrecord::control::fuzz`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| onrecord::control::fuzz(data));
