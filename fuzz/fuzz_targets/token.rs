#![no_main]
//! Any bytes as a token, an issuer's keys, a certificate, claims. See `identity::fuzz::token`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| identity::fuzz::token(data));
