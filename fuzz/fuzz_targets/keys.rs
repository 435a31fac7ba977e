#![no_main]
//! Any bytes as the files about keys and erasures. See `store::fuzz::keys`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| store::fuzz::keys(data));
