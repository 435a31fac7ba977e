#![no_main]
//! Any bytes as a frame of the outpost link, as a join token and as WebSocket frames. See `link::fuzz`.

libfuzzer_sys::fuzz_target!(|data: &[u8]| link::fuzz(data));
