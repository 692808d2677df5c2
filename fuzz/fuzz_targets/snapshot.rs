#![no_main]
//! A chunk of another host's tables, merged in twice.

use gaggle::id::Vector;
use gaggle::service::ledger::Write;
use gaggle::service::snapshot::Part;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let part = Part { at: Vec::new(), bytes: bytes.to_vec(), next: None, vector: Vector::new() };
    let writes = [Write::Rows(part.clone()), Write::Rows(part)];
    gaggle_fuzz::commit(writes).expect("merged or refused");
});
