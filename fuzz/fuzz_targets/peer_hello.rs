#![no_main]
//! How processes greet each other.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gaggle_fuzz::round_trip::<gaggle::wire::peer::PeerHello>(bytes));
