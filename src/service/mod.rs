//! What a microblog is: entries and their canonical bytes, merge rules, and queries over rows.
//!
//! Pure: no clock, no I/O, no randomness. State is a set of rows in named tables ([`rows::Rows`]); the same rules run
//! on LMDB, in memory and in the simulator. Applying entries commutes, associates and absorbs repeats (P5), which the
//! property tests of [`rules`] show.

pub mod blocks;
mod digested;
pub mod entry;
pub mod feed;
pub mod intake;
mod keys;
pub mod ledger;
pub mod log;
mod meta;
pub mod names;
mod passage;
pub mod query;
mod records;
pub mod retired;
pub mod rows;
pub mod rules;
pub mod snapshot;
mod sweep;
mod timeline;
pub mod trim;
mod view;

#[cfg(test)]
mod tests;

pub use digested::{DigestSum, digest_of};
