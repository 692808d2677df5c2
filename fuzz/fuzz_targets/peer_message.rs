#![no_main]
//! What processes send each other.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gaggle_fuzz::round_trip::<gaggle::wire::peer::PeerMessage>(bytes));
