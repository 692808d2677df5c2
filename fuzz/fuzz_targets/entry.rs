#![no_main]
//! An entry's canonical bytes; what decodes goes into a log.

use gaggle::service::entry::Entry;
use gaggle::service::ledger::{EntryRun, Write};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let Ok(entry) = Entry::decode(bytes) else { return };
    assert_eq!(entry.encode(), bytes);
    let run = EntryRun { origin: entry.id.origin, from: entry.id.seq, entries: vec![bytes.to_vec()] };
    gaggle_fuzz::commit([Write::Run(run.clone()), Write::Run(run)]).expect("stored or refused");
});
