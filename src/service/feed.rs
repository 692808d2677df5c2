//! Feeds: which of the entries between two cursors somebody is shown, each post once, in the order of arrival.

use crate::id::{FeedId, UserId, Vector};
use crate::service::query::ShownPost;
use crate::service::rows::Rows;

/// What one feed is told next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedStep {
    /// Which feed.
    pub feed: FeedId,
    /// Its posts, in the order of arrival.
    pub posts: Vec<ShownPost>,
}

/// Walks from one cursor towards what is shown, for every feed that stands at that cursor, and returns the steps and
/// the cursor reached (which may fall short of `shown`: at most `FEED_ENTRIES_MAX` entries are walked at once).
pub fn advance(rows: &dyn Rows, from: &Vector, shown: &Vector, feeds: &[(FeedId, UserId)]) -> (Vec<FeedStep>, Vector) {
    let _ = (rows, from, shown, feeds);
    unimplemented!()
}
