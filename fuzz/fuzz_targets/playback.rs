#![no_main]
//! Any bytes as what a terminal showed: drawn, read, searched and written out. See `onrecord::terminal::fuzz`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| onrecord::terminal::fuzz::everything(data));
