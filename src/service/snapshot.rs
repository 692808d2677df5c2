//! Snapshots: the merged tables as a stream of rows, and how rows are merged in.

use crate::service::rows::{Rows, RowsMut};

/// A part of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The rows, encoded; at most `SNAPSHOT_BYTES_MAX` and one row.
    pub bytes: Vec<u8>,
    /// Where the next chunk begins; none when this was the last.
    pub next: Option<Vec<u8>>,
}

/// Reads the chunk that begins at `at` (empty: the first).
pub fn read_chunk(rows: &dyn Rows, at: &[u8], bytes_max: usize) -> Chunk {
    let _ = (rows, at, bytes_max);
    unimplemented!()
}

/// Merges a chunk's rows in by the same rules as entries. Refuses bytes that are not a chunk, and then changes nothing.
pub fn merge_chunk(rows: &mut dyn RowsMut, bytes: &[u8]) -> Result<(), String> {
    let _ = (rows, bytes);
    unimplemented!()
}
