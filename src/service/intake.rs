//! Intake: a request becomes an entry, or finds that it already is one, or is refused.

use serde::{Deserialize, Serialize};

use crate::error::Refusal;
use crate::id::{EntryId, PostText, PublicKey, RequestId, UserId, UserName};
use crate::time::{Hlc, Wall};

/// A write that a person asks for, before it has a place in any log.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WriteRequest {
    /// Who asks: the connection's proven key.
    pub key: PublicKey,
    /// The idempotency key.
    pub id: RequestId,
    /// What is asked.
    pub op: WriteOp,
}

/// What a write asks for; people are named as people name them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum WriteOp {
    /// Log in under this name: registers it the first time, confirms it afterwards.
    Register {
        /// The name.
        name: UserName,
    },
    /// JOIN.
    Join {
        /// Whom; may carry the suffix of a contested name (`ann~3f2a`).
        name: String,
    },
    /// LEAVE.
    Leave {
        /// Whom; may carry a suffix.
        name: String,
    },
    /// CHAT.
    Post {
        /// What is said.
        text: PostText,
    },
}

/// A write that has its place.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// The entry that has the effect: of this request, or of an earlier one with the same id.
    pub entry: EntryId,
    /// Its time.
    pub hlc: Hlc,
    /// The person's id.
    pub user: UserId,
    /// The name concerned as it is shown: of the person (Register, Post), or of the one joined or left.
    pub name: String,
}

/// What became of one request.
pub type IntakeResult = Result<Accepted, Refusal>;

/// What intake needs to know besides the rows.
#[derive(Debug, Clone, Copy)]
pub struct IntakeContext {
    /// The next entry's name; used up only if the request makes an entry.
    pub next: EntryId,
    /// The host's clock so far: the next stamp is above it.
    pub hlc: Hlc,
    /// The time when the batch was made.
    pub wall: Wall,
}
