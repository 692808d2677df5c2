//! Intake: a request becomes an entry, or finds that it already is one, or is refused.
//!
//! Runs in the transaction that commits the entry, on all that the host holds, shown or not, so that no second request
//! can slip between the look and the write. People read the messages: each says what happened, to what, and what to do.

use serde::{Deserialize, Serialize};

use crate::error::{ErrorCode, Refusal};
use crate::id::{EntryId, PostText, PublicKey, RequestId, UserId, UserName, Vector};
use crate::limits;
use crate::service::entry::{Entry, Op, Stamp};
use crate::service::names;
use crate::service::records::{self, Kind, RequestRow, Turn, UserRow};
use crate::service::rows::Rows;
use crate::service::trim;
use crate::service::view::{self, View};
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
pub struct IntakeContext<'a> {
    /// The next entry's name; used up only if the request makes an entry.
    pub next: EntryId,
    /// The host's clock so far: the next stamp is above it.
    pub hlc: Hlc,
    /// The time when the batch was made.
    pub wall: Wall,
    /// Posts of an earlier time are not kept.
    pub trim: Hlc,
    /// What the host holds. A part of a snapshot may have told of more, which may never come.
    pub held: &'a Vector,
}

/// What becomes of a request that is not refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IntakeStep {
    /// It is an entry, to be appended to the log and applied; [`accepted`] then gives its answer.
    New(Entry),
    /// It has had its effect before.
    Known(Accepted),
}

/// Turns a request into an entry, or finds the earlier one.
pub fn intake(rows: &dyn Rows, context: &IntakeContext<'_>, request: &WriteRequest) -> Result<IntakeStep, Refusal> {
    let user = UserId::of(&request.key);
    let registered = names::registration(rows, user);
    if let WriteOp::Register { name } = &request.op
        && let Some((stamp, row)) = &registered
        && row.name.folded() == name.folded()
    {
        if !view::holds_any(context.held, stamp.origin, row.born.seq, &row.born.also) {
            let op = Op::Register { key: request.key, name: row.name.clone() };
            return Ok(IntakeStep::New(new_entry(context, user, request, op)));
        }
        let entry = EntryId { origin: stamp.origin, seq: row.born.seq };
        let name = names::display_or_id(rows, user);
        return Ok(IntakeStep::Known(Accepted { entry, hlc: stamp.hlc, user, name }));
    }
    let earlier_row = records::request(rows, user, &request.id).and_then(|row| row.held_in(context.held));
    if let Some(row) = earlier_row {
        return earlier(rows, user, &row, request).map(IntakeStep::Known);
    }
    let made = uuid_time(&request.id);
    if made.is_some_and(|made| made.0.saturating_add(memory_us()) < context.wall.0)
        || trim::forgotten(&request.id, context.trim)
    {
        let message = format!(
            "the request {} was made more than 7 days ago, longer than ids are remembered: look whether it was done, \
             and if not, ask again with a new id",
            request.id
        );
        return Err(Refusal::new(ErrorCode::TooOld, message));
    }
    let op = new_op(rows, context.held, user, registered.as_ref(), request)?;
    Ok(IntakeStep::New(new_entry(context, user, request, op)))
}

fn new_entry(context: &IntakeContext<'_>, user: UserId, request: &WriteRequest, op: Op) -> Entry {
    let hlc = context.hlc.tick(context.wall);
    Entry { id: context.next, hlc, user, request: request.id.clone(), after: Vector::new(), op }
}

/// The answer to the request that this entry, by now applied, came from.
pub fn accepted(rows: &dyn Rows, entry: &Entry) -> Accepted {
    let concerned = match &entry.op {
        Op::Join { followee } | Op::Leave { followee } => *followee,
        Op::Register { .. } | Op::Post { .. } | Op::Trim { .. } | Op::Retire { .. } => entry.user,
    };
    let name = names::display_or_id(rows, concerned);
    Accepted { entry: entry.id, hlc: entry.hlc, user: entry.user, name }
}

/// The entry that carries this request's id and content, if there is one among those with its id.
fn earlier(rows: &dyn Rows, user: UserId, row: &RequestRow, request: &WriteRequest) -> Result<Accepted, Refusal> {
    let mut concerned = user;
    let same = match &request.op {
        WriteOp::Register { name } => vec![Op::Register { key: request.key, name: name.clone() }],
        WriteOp::Post { text } => vec![Op::Post { text: text.clone() }],
        WriteOp::Join { name } | WriteOp::Leave { name } => {
            let followees: Vec<UserId> = followees(rows, row, name);
            concerned = followees.first().copied().unwrap_or(user);
            followees.into_iter().map(|followee| edge_op(&request.op, followee)).collect()
        }
    };
    let contents: Vec<[u8; 8]> = same.iter().map(records::content).collect();
    let Some(known) = row.entries.iter().find(|known| contents.contains(&known.content)) else {
        let message = format!("the id {} was used for another request: ask again with a new id", request.id);
        return Err(Refusal::new(ErrorCode::IdReused, message));
    };
    let name = names::display_or_id(rows, concerned);
    Ok(Accepted { entry: known.id(), hlc: known.hlc, user, name })
}

/// Whom a retry may mean by this name: first whom the earlier request named, if it still fits (a contested name may
/// have got a suffix since), then whom it means now.
fn followees(rows: &dyn Rows, row: &RequestRow, name: &str) -> Vec<UserId> {
    let base = names::parts(name).map(|(base, _)| base);
    let mut found = Vec::new();
    if let Kind::Edge { followee } = row.kind
        && names::registration(rows, followee).map(|(_, row)| row.name.folded()) == base
    {
        found.push(followee);
    }
    found.extend(names::resolve_name(rows, name));
    found
}

fn edge_op(op: &WriteOp, followee: UserId) -> Op {
    match op {
        WriteOp::Leave { .. } => Op::Leave { followee },
        WriteOp::Join { .. } | WriteOp::Register { .. } | WriteOp::Post { .. } => Op::Join { followee },
    }
}

fn new_op(
    rows: &dyn Rows,
    held: &Vector,
    user: UserId,
    registered: Option<&(Stamp, UserRow)>,
    request: &WriteRequest,
) -> Result<Op, Refusal> {
    if let WriteOp::Register { name } = &request.op {
        return register(rows, registered, request.key, name);
    }
    if registered.is_none() {
        let message = "this key has no name here yet: log in with a name first (gaggle login NAME)";
        return Err(Refusal::new(ErrorCode::NotRegistered, message));
    }
    match &request.op {
        WriteOp::Join { name } => join(rows, held, user, name),
        WriteOp::Leave { name } => leave(rows, held, user, name),
        WriteOp::Post { text } => Ok(Op::Post { text: text.clone() }),
        WriteOp::Register { name } => register(rows, registered, request.key, name),
    }
}

fn register(
    rows: &dyn Rows,
    registered: Option<&(Stamp, UserRow)>,
    key: PublicKey,
    name: &UserName,
) -> Result<Op, Refusal> {
    if let Some((_, row)) = registered {
        let message =
            format!("this key is registered as {0}, not as {name}: log in as {0}, or with another key", row.name);
        return Err(Refusal::new(ErrorCode::OtherName, message));
    }
    if names::owner(rows, &name.folded()).is_some() {
        let message = format!("the name {name} belongs to another key: choose another name, or log in with its key");
        return Err(Refusal::new(ErrorCode::NameTaken, message));
    }
    Ok(Op::Register { key, name: name.clone() })
}

/// Whom a name means, or the refusal that people read.
pub(super) fn resolve(rows: &dyn Rows, name: &str) -> Result<UserId, Refusal> {
    names::resolve_name(rows, name).ok_or_else(|| {
        let name: String = name.chars().take(80).filter(|shown| !shown.is_control()).collect();
        let message = format!("nobody is called {name}: look at the names with LIST");
        Refusal::new(ErrorCode::UnknownUser, message)
    })
}

/// The pair's current edge of all that is held, whether it is shown already or not.
fn turn(rows: &dyn Rows, held: &Vector, follower: UserId, followee: UserId) -> Turn {
    View { rows, shown: held }.edge(follower, followee).map_or(Turn::Leave, |(_, row)| row.turn)
}

fn join(rows: &dyn Rows, held: &Vector, user: UserId, name: &str) -> Result<Op, Refusal> {
    let followee = resolve(rows, name)?;
    if followee == user {
        let message = "you cannot join yourself: your own posts are in your timeline already";
        return Err(Refusal::new(ErrorCode::Oneself, message));
    }
    match turn(rows, held, user, followee) {
        Turn::Leave => Ok(Op::Join { followee }),
        Turn::Join => {
            let name = names::display_or_id(rows, followee);
            let message = format!("you have joined {name} already: nothing to do (LEAVE {name} ends it)");
            Err(Refusal::new(ErrorCode::AlreadyJoined, message))
        }
    }
}

fn leave(rows: &dyn Rows, held: &Vector, user: UserId, name: &str) -> Result<Op, Refusal> {
    let followee = resolve(rows, name)?;
    match turn(rows, held, user, followee) {
        Turn::Join => Ok(Op::Leave { followee }),
        Turn::Leave => {
            let name = names::display_or_id(rows, followee);
            let message = format!("you have not joined {name}: nothing to leave (LIST shows whom you joined)");
            Err(Refusal::new(ErrorCode::NotJoined, message))
        }
    }
}

/// How long ids are remembered, in microseconds.
fn memory_us() -> u64 {
    u64::try_from(limits::REQUEST_MEMORY.as_micros()).unwrap_or(u64::MAX)
}

/// When an id was made, if it is a UUIDv7 in its usual form; other ids were chosen by a person.
pub(super) fn uuid_time(id: &RequestId) -> Option<Wall> {
    let text = id.as_str().as_bytes();
    let hyphens = [8, 13, 18, 23];
    let well_formed = text.len() == 36
        && text[14] == b'7'
        && text.iter().enumerate().all(|(at, byte)| match hyphens.contains(&at) {
            true => *byte == b'-',
            false => byte.is_ascii_hexdigit(),
        });
    if !well_formed {
        return None;
    }
    let digits = format!("{}{}", &id.as_str()[..8], &id.as_str()[9..13]);
    let milliseconds = u64::from_str_radix(&digits, 16).ok()?;
    Some(Wall(milliseconds.saturating_mul(1_000)))
}
