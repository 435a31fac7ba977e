#![no_main]
//! Any bytes as a policy file, a statement's text and its facts. See `policy::fuzz::policy`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| policy::fuzz::policy(data));
