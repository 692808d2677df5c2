#![no_main]
//! A chunk of another host's tables, merged in twice.

use gaggle::service::ledger::Write;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let writes = [Write::Rows(bytes.to_vec()), Write::Rows(bytes.to_vec())];
    gaggle_fuzz::commit(writes).expect("merged or refused");
});
