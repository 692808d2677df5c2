//! Queries: what people ask, answered from one consistent view of the rows, showing only what may be shown.

use serde::{Deserialize, Serialize};

use crate::error::Refusal;
use crate::id::{PublicKey, RequestId, UserId, UserName, Vector};
use crate::time::Hlc;

/// A read that a person asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Query {
    /// Who am I?
    WhoAmI {
        /// Who asks.
        user: UserId,
    },
    /// LIST, one part at a time, in pages.
    List {
        /// Who asks.
        user: UserId,
        /// Which part.
        part: ListPart,
        /// Names after this one (folded); empty at first.
        after: String,
    },
    /// A timeline: the newest `limit` posts, or the first `limit` after a cursor.
    Timeline {
        /// Who asks.
        user: UserId,
        /// The posts that this person made; else one's own timeline.
        of: Option<String>,
        /// At most so many (the answer may hold fewer and says so).
        limit: u32,
        /// Only what came after this cursor.
        since: Option<Vector>,
        /// Only posts before this stamp, to page back through a long answer.
        before: Option<crate::service::entry::Stamp>,
    },
}

/// The three parts of LIST.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum ListPart {
    /// All users.
    Users,
    /// Whom I joined.
    Joined,
    /// Who joined me.
    JoinedBy,
}

/// A post as it is shown.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShownPost {
    /// The idempotency key it was made with.
    pub id: RequestId,
    /// Who made it, as the name is shown (with a suffix if it is contested).
    pub author: String,
    /// Its place in the total order; its time.
    pub stamp: crate::service::entry::Stamp,
    /// Its place in its origin's log.
    pub seq: crate::id::Seq,
    /// What it says.
    pub text: String,
    /// `--since` this cursor gives what came after this post.
    pub cursor: Vector,
}

/// The answer to a query.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Who the person is.
    WhoAmI {
        /// The name as it is shown.
        name: String,
        /// The name as it was registered.
        registered: UserName,
        /// The key.
        key: PublicKey,
        /// When it was registered.
        hlc: Hlc,
    },
    /// One page of one part of LIST, sorted without case.
    Names {
        /// The names as they are shown.
        names: Vec<String>,
        /// Ask again with this `after` for more; none when this is all.
        next: Option<String>,
    },
    /// Posts, oldest first.
    Posts {
        /// The posts.
        posts: Vec<ShownPost>,
        /// Whether a limit of the answer cut it short: page back with `before` the first post's stamp, or, with
        /// `since`, on with the last post's cursor.
        more: bool,
        /// What this answer took into account; a feed goes on from here.
        cursor: Vector,
    },
}

/// What became of a query.
pub type QueryResult = Result<Answer, Refusal>;

/// Answers a query, showing only entries within `shown`.
pub fn answer(rows: &dyn crate::service::rows::Rows, shown: &Vector, query: &Query) -> QueryResult {
    let _ = (rows, shown, query);
    unimplemented!()
}
