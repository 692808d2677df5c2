#![no_main]
//! What a client sends.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gaggle_fuzz::round_trip::<gaggle::wire::client::ClientFrame>(bytes));
