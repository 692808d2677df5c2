//! Entries: one write each, with canonical bytes that never change once written.
//!
//! The bytes are postcard's, of [`Entry`]. A relay moves them as they are, the log keeps them as they are, and their
//! hash names their content. A new kind of write is a new variant at the end of [`Op`].

use serde::{Deserialize, Serialize};

use crate::id::{EntryId, Origin, PostText, PublicKey, RequestId, Seq, UserId, UserName, Vector};
use crate::limits;
use crate::time::Hlc;

/// One write, as its origin's primary committed it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// Its name.
    pub id: EntryId,
    /// Its time; with the origin, its place in the total order.
    pub hlc: Hlc,
    /// Who wrote it.
    pub user: UserId,
    /// The idempotency key that the client gave it.
    pub request: RequestId,
    /// What its host held of other origins, where that had grown since its last entry: nobody applies this entry before
    /// those (P4). Exact, so that two hosts' entries can never wait for each other.
    pub after: Vector,
    /// What it does.
    pub op: Op,
}

/// What an entry does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Op {
    /// Claims a name for a key. `Entry::user` is the key's user.
    Register {
        /// The person's key.
        key: PublicKey,
        /// The name, as written.
        name: UserName,
    },
    /// From this stamp on, the followee's posts are in the follower's timeline.
    Join {
        /// Whose posts.
        followee: UserId,
    },
    /// Takes them out again.
    Leave {
        /// Whose posts.
        followee: UserId,
    },
    /// Says something.
    Post {
        /// What is said.
        text: PostText,
    },
    /// Posts of an earlier time are not kept, whenever they come (see [`super::trim`]). Made by a host, for nobody.
    Trim {
        /// The first time that is kept.
        before: Hlc,
    },
    /// An origin of an earlier incarnation of the same host ends here, and every host holds all of it: who holds this
    /// entry does (see [`super::retired`]). Made by the host, for nobody; since version 3 of the wire.
    Retire {
        /// Which origin.
        origin: Origin,
        /// Its last entry.
        last: Seq,
    },
}

/// A place in the total order of all entries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    /// The clock.
    pub hlc: Hlc,
    /// Decides between equal clocks.
    pub origin: Origin,
}

/// The highest clock that an entry may carry (in the year 2112): near the end of the numbers, stamps would run out.
pub const HLC_MAX: Hlc = Hlc(u64::MAX - (1 << 40));

/// Bytes that are not an entry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EntryError {
    /// Longer than any entry may be.
    #[error("an entry of {0} bytes is over the limit of {max}", max = limits::ENTRY_BYTES_MAX)]
    TooLong(usize),
    /// Not the canonical bytes of an entry.
    #[error("not an entry: {0}")]
    Malformed(String),
}

impl Entry {
    /// Its place in the total order.
    pub fn stamp(&self) -> Stamp {
        Stamp { hlc: self.hlc, origin: self.id.origin }
    }

    /// The canonical bytes.
    pub fn encode(&self) -> Vec<u8> {
        postcard::to_stdvec(self).unwrap_or_default()
    }

    /// The inverse of [`Self::encode`]; refuses bytes that `encode` would not have written.
    pub fn decode(bytes: &[u8]) -> Result<Self, EntryError> {
        if bytes.len() > limits::ENTRY_BYTES_MAX {
            return Err(EntryError::TooLong(bytes.len()));
        }
        let (entry, rest): (Self, &[u8]) =
            postcard::take_from_bytes(bytes).map_err(|error| EntryError::Malformed(error.to_string()))?;
        if !rest.is_empty() {
            return Err(EntryError::Malformed(format!("{} bytes after its end", rest.len())));
        }
        if entry.id.seq == Seq::ZERO {
            return Err(EntryError::Malformed("seq 0".into()));
        }
        if entry.hlc > HLC_MAX {
            return Err(EntryError::Malformed("a clock beyond all time".into()));
        }
        if let Op::Register { key, .. } = &entry.op
            && UserId::of(key) != entry.user
        {
            return Err(EntryError::Malformed("a registration for somebody else's key".into()));
        }
        if let Op::Trim { before } = entry.op
            && (entry.user != UserId::NOBODY || before > entry.hlc)
        {
            return Err(EntryError::Malformed("a trim of what is to come, or in somebody's name".into()));
        }
        if let Op::Retire { origin, last } = entry.op
            && (entry.user != UserId::NOBODY
                || origin.host != entry.id.origin.host
                || origin == entry.id.origin
                || last == Seq::ZERO)
        {
            return Err(EntryError::Malformed("an end of an origin that is not its maker's former one".into()));
        }
        if entry.encode() != bytes {
            return Err(EntryError::Malformed("not in canonical form".into()));
        }
        Ok(entry)
    }
}
