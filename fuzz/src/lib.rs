//! What the fuzz targets share. Each target hands bytes to one decoder; see docs/fuzzing.md.

use std::fmt::Debug;

use gaggle::id::Epoch;
use gaggle::service::ledger::{Write, WriteId, WriterMark};
use gaggle::store::{MemoryStore, Store, StoreError};
use gaggle::time::Wall;
use gaggle::wire::frame;
use serde::Serialize;
use serde::de::DeserializeOwned;

/// Decodes a frame's body; what decodes must survive being encoded and decoded again.
pub fn round_trip<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
    let Ok(message) = frame::decode_body::<T>(bytes) else { return };
    let again = frame::encode_body(&message).and_then(|bytes| frame::decode_body::<T>(&bytes));
    assert_eq!(again.as_ref(), Ok(&message));
}

/// Commits these writes in turn to an empty store.
pub fn commit(writes: impl IntoIterator<Item = Write>) -> Result<(), StoreError> {
    let store = MemoryStore::new();
    store.take_epoch(&WriterMark { process: "W5".parse().expect("a name"), pid: 1 })?;
    for write in writes {
        store.commit(Epoch(1), Wall(1), vec![(WriteId(1), write)])?;
    }
    Ok(())
}
