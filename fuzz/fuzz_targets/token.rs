#![no_main]
//! A token or cursor, as profiles and people keep it (inside its base64).

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gaggle_fuzz::round_trip::<gaggle::id::Token>(bytes));
