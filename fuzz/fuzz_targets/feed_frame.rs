#![no_main]
//! What a live feed carries.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gaggle_fuzz::round_trip::<gaggle::wire::client::FeedFrame>(bytes));
