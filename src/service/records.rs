//! The values of rows: postcard of small structs, the same bytes on every host that holds the same entries.
//!
//! An *element* is all that is known about one (user, request id): the names of the entries that carry it and the
//! operation of the one with the smallest stamp, whose effect is the only one. Each effect is one row (of Users, Edges or
//! Posts), and repeats in `also` the names of the other entries, so that a reader tells what it has seen from that row
//! alone, whichever of them it met first.

use serde::{Deserialize, Serialize};

use crate::id::{EntryId, Origin, PostText, PublicKey, RequestId, Seq, UserId, UserName, Vector};
use crate::service::entry::{Entry, Op, Stamp};
use crate::service::keys;
use crate::service::rows::{Rows, Table};
use crate::time::Hlc;

/// One entry that carries a request id. Their order is that of their stamps.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Known {
    pub(super) hlc: Hlc,
    pub(super) origin: Origin,
    pub(super) seq: Seq,
    /// Tells a retry from an id that is used again for something else.
    pub(super) content: [u8; 8],
}

impl Known {
    pub(super) fn of(entry: &Entry) -> Self {
        Self { hlc: entry.hlc, origin: entry.id.origin, seq: entry.id.seq, content: content(&entry.op) }
    }

    pub(super) fn stamp(&self) -> Stamp {
        Stamp { hlc: self.hlc, origin: self.origin }
    }

    pub(super) fn id(&self) -> EntryId {
        EntryId { origin: self.origin, seq: self.seq }
    }
}

/// Names the content of an operation.
pub(super) fn content(op: &Op) -> [u8; 8] {
    let mut short = [0; 8];
    short.copy_from_slice(&blake3::hash(&encode(op)).as_bytes()[..8]);
    short
}

/// Where the effect of an element is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Kind {
    /// In Users.
    Register,
    /// In Edges.
    Edge { followee: UserId },
    /// In Posts.
    Post,
}

impl Kind {
    pub(super) fn of(op: &Op) -> Self {
        match op {
            Op::Register { .. } => Self::Register,
            Op::Join { followee } | Op::Leave { followee } => Self::Edge { followee: *followee },
            // What a trim takes is posts. An end of an origin is no element (see `snapshot`).
            Op::Post { .. } | Op::Trim { .. } | Op::Retire { .. } => Self::Post,
        }
    }

    /// The row of the effect of this user's entry with this stamp.
    pub(super) fn place(self, user: UserId, stamp: Stamp) -> (Table, Vec<u8>) {
        match self {
            Self::Register => (Table::Users, keys::made(user, stamp)),
            Self::Edge { followee } => (Table::Edges, keys::edge(user, followee, stamp)),
            Self::Post => (Table::Posts, keys::made(user, stamp)),
        }
    }
}

/// A row of Requests.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RequestRow {
    /// What the first entry does.
    pub(super) kind: Kind,
    /// Every entry known with this id, by stamp.
    pub(super) entries: Vec<Known>,
}

impl RequestRow {
    /// The row with those of its entries that this vector holds, if there are any.
    pub(super) fn held_in(mut self, vector: &Vector) -> Option<Self> {
        self.entries.retain(|known| vector.holds(known.id()));
        (!self.entries.is_empty()).then_some(self)
    }

    /// What this entry of the request does: as the first one, of which the effect is kept unless it was trimmed, or as the
    /// log has it.
    pub(super) fn operation(&self, rows: &dyn Rows, trim: Hlc, user: UserId, of: &Known) -> Option<Op> {
        let first = self.entries.first()?;
        if of.content != first.content {
            let bytes = rows.get(Table::Log, &keys::log(of.id()))?;
            return Some(Entry::decode(&bytes).ok()?.op);
        }
        let (table, place) = self.kind.place(user, first.stamp());
        match rows.get(table, &place) {
            Some(value) => cause(self.kind, &value),
            None => (first.hlc < trim).then_some(Op::Trim { before: trim }),
        }
    }

    /// The smallest stamp of the entries that this vector holds.
    pub(super) fn first_in(&self, vector: &Vector) -> Option<Stamp> {
        self.entries.iter().filter(|known| vector.holds(known.id())).map(Known::stamp).min()
    }
}

/// What every effect row begins with: where it comes from. The stamp is in the row's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Born {
    pub(super) seq: Seq,
    pub(super) request: RequestId,
    /// The other entries with the same id.
    pub(super) also: Vec<EntryId>,
}

/// [`Born`] without a copy of the id, for walks that pass over many rows.
#[derive(Deserialize)]
pub(super) struct Brief<'a> {
    pub(super) seq: Seq,
    #[serde(rename = "request")]
    _request: &'a str,
    pub(super) also: Vec<EntryId>,
}

/// A row of Users.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct UserRow {
    pub(super) born: Born,
    pub(super) key: PublicKey,
    pub(super) name: UserName,
}

/// A row of Names: what LIST needs of the registration that claims the name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct NameRow {
    pub(super) seq: Seq,
    pub(super) also: Vec<EntryId>,
    pub(super) name: UserName,
}

/// Which way an edge turns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Turn {
    Join,
    Leave,
}

/// A row of Edges.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct EdgeRow {
    pub(super) born: Born,
    pub(super) turn: Turn,
}

/// A row of Posts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct PostRow {
    pub(super) born: Born,
    pub(super) text: PostText,
}

/// [`PostRow`] as it is read for people: the text was checked when it came in, and is not checked again.
#[derive(Deserialize)]
pub(super) struct PostView<'a> {
    pub(super) born: Born,
    pub(super) text: &'a str,
}

/// The bytes of a value.
pub(super) fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    postcard::to_stdvec(value).unwrap_or_default()
}

/// The value of bytes that `encode` made. A damaged row counts as none: the store has noticed, and fails the whole
/// transaction at its end.
pub(super) fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Option<T> {
    postcard::from_bytes(bytes).ok()
}

/// The effect row of an operation; none for a post that a trim took.
pub(super) fn effect(op: &Op, born: Born) -> Option<Vec<u8>> {
    Some(match op {
        Op::Register { key, name } => encode(&UserRow { born, key: *key, name: name.clone() }),
        Op::Join { .. } => encode(&EdgeRow { born, turn: Turn::Join }),
        Op::Leave { .. } => encode(&EdgeRow { born, turn: Turn::Leave }),
        Op::Post { text } => encode(&PostRow { born, text: text.clone() }),
        Op::Trim { .. } | Op::Retire { .. } => return None,
    })
}

/// The operation that left this effect row: the inverse of [`effect`].
pub(super) fn cause(kind: Kind, value: &[u8]) -> Option<Op> {
    Some(match kind {
        Kind::Register => {
            let row: UserRow = decode(value)?;
            Op::Register { key: row.key, name: row.name }
        }
        Kind::Edge { followee } => match decode::<EdgeRow>(value)?.turn {
            Turn::Join => Op::Join { followee },
            Turn::Leave => Op::Leave { followee },
        },
        Kind::Post => Op::Post { text: decode::<PostRow>(value)?.text },
    })
}

/// What is known about a request.
pub(super) fn request(rows: &dyn Rows, user: UserId, id: &RequestId) -> Option<RequestRow> {
    let value = rows.get(Table::Requests, &keys::request(user, id))?;
    decode::<RequestRow>(&value).filter(|row| !row.entries.is_empty())
}
