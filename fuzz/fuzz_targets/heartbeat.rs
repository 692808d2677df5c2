#![no_main]
//! A datagram.

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| gaggle_fuzz::round_trip::<gaggle::wire::heartbeat::Heartbeat>(bytes));
