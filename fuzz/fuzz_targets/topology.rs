#![no_main]
//! A topology file.

libfuzzer_sys::fuzz_target!(|text: &str| {
    let _ = gaggle::topology::Topology::parse(text, "topology.toml");
});
