//! The merge rules: how an entry changes the rows (DESIGN section 5).

use crate::service::entry::Entry;
use crate::service::rows::RowsMut;

/// Applies an entry to the merged tables. Idempotent; any order gives the same rows.
pub fn apply(rows: &mut dyn RowsMut, entry: &Entry) {
    let _ = (rows, entry);
    unimplemented!()
}
