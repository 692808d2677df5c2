//! Snapshots: the merged state as a stream of elements, and how they are merged in.
//!
//! A chunk walks Requests in key order and takes, with each row, the operation of its first entry from the effect row.
//! That is the whole merged state: every other row derives from it (see [`super::rules`]). So a chunk merges by the very
//! function that applies entries, in any order with them, and a fuzzy snapshot (chunks of different moments) is enough.
//!
//! What a whole snapshot holds for certain is what all of its chunks hold: the common part of the vectors at which they
//! were read. So it does not matter who read them: a broken snapshot goes on at its [`Cursor`], from whoever can.

use serde::{Deserialize, Serialize};

use crate::id::{EntryId, RequestId, Seq, UserId, Vector};
use crate::limits;
use crate::service::digested::Digested;
use crate::service::entry::{HLC_MAX, Op};
use crate::service::keys;
use crate::service::meta::Meta;
use crate::service::records::{self, Known, RequestRow};
use crate::service::retired::Retirement;
use crate::service::rows::{Rows, RowsMut, Table, Walk};
use crate::service::{meta, rules, trim};
use crate::time::Hlc;

/// A part of a snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// The rows, encoded; at most `SNAPSHOT_BYTES_MAX` and one row.
    pub bytes: Vec<u8>,
    /// How many requests it tells of.
    pub rows: u64,
    /// Where the next chunk begins; none when this was the last.
    pub next: Option<Vec<u8>>,
}

/// A chunk with its place in the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Part {
    /// Where the chunk begins; empty: at the first key, and whatever came before counts no more.
    pub at: Vec<u8>,
    /// The rows, as in [`Chunk`].
    pub bytes: Vec<u8>,
    /// Where the next one begins; none: this is the last, and what all parts held is held now.
    pub next: Option<Vec<u8>>,
    /// What the store held in the transaction that read the chunk.
    pub vector: Vector,
}

/// How far a snapshot is merged in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    /// The rows below this key are merged in.
    pub at: Vec<u8>,
    /// What the stores held that they were read from.
    pub vector: Vector,
}

impl Cursor {
    /// What is known to be held up to the end of a part, if the part follows this cursor or begins anew.
    pub(super) fn advance(cursor: Option<&Self>, part: &Part) -> Result<Vector, String> {
        if part.next.as_ref().is_some_and(|next| *next <= part.at || next.len() > limits::SNAPSHOT_KEY_BYTES_MAX) {
            return Err("a part of a snapshot that leads nowhere".into());
        }
        match cursor {
            _ if part.at.is_empty() => Ok(part.vector.clone()),
            Some(cursor) if cursor.at == part.at => Ok(cursor.vector.common(&part.vector)),
            Some(_) | None => Err("a part of a snapshot that does not follow what is here".into()),
        }
    }
}

/// All that is known about one request of one person.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Element {
    pub(super) user: UserId,
    pub(super) request: RequestId,
    /// By stamp.
    pub(super) entries: Vec<Known>,
    /// What the first entry does; [`Op::Trim`] if it made a post that was trimmed.
    pub(super) op: Op,
}

impl Element {
    /// Tells of the trim itself, at the head of every chunk: without it, what was trimmed would count as not yet seen.
    fn trim(before: Hlc) -> Self {
        Self { user: UserId::NOBODY, request: RequestId::of_trim(), entries: Vec::new(), op: Op::Trim { before } }
    }

    /// Tells of the end of an origin, at the head of every chunk as well.
    fn retirement(one: Retirement) -> Self {
        let Retirement { hlc, by: EntryId { origin, seq }, .. } = one;
        let op = Op::Retire { origin: one.origin, last: one.last };
        let known = Known { hlc, origin, seq, content: records::content(&op) };
        Self { user: UserId::NOBODY, request: RequestId::of_retirement(), entries: vec![known], op }
    }
}

/// Reads the chunk that begins at `at` (empty: the first).
pub fn read_chunk(rows: &dyn Rows, at: &[u8], bytes_max: usize) -> Chunk {
    let trim = meta::trim(rows);
    let held = meta::is_ahead(rows).then(|| meta::held(rows));
    let mut elements: Vec<Element> = Vec::new();
    elements.extend((trim > Hlc::ZERO).then(|| Element::trim(trim)));
    let mut retired = meta::retired(rows);
    held.iter().for_each(|held| retired.keep_held(held));
    elements.extend(retired.iter().map(Element::retirement));
    let told = elements.len();
    let mut bytes = 0;
    let mut next = None;
    rows.ascend(Table::Requests, at, &[], &mut |key, value| {
        if bytes >= bytes_max && elements.len() > told {
            next = Some(key.to_vec());
            return Walk::Stop;
        }
        if let Some(element) = read_element(rows, trim, held.as_ref(), key, value) {
            bytes += key.len() + value.len() + records::encode(&element.op).len();
            elements.push(element);
        }
        Walk::On
    });
    Chunk { bytes: records::encode(&elements), rows: (elements.len() - told) as u64, next }
}

/// All that is known of a request; where there are rows of more than is `held`, what is.
fn read_element(rows: &dyn Rows, trim: Hlc, held: Option<&Vector>, key: &[u8], value: &[u8]) -> Option<Element> {
    let (user, request) = keys::parse_request(key)?;
    let row: RequestRow = records::decode(value)?;
    let first = row.entries.iter().find(|known| held.is_none_or(|held| held.holds(known.id())))?;
    let op = row.operation(rows, trim, user, first)?;
    let row = match held {
        Some(held) => row.held_in(held)?,
        None => row,
    };
    Some(Element { user, request, entries: row.entries, op })
}

/// Merges a chunk's rows in by the same rules as entries. Refuses bytes that are not a chunk, and then changes nothing.
pub fn merge_chunk(rows: &mut dyn RowsMut, bytes: &[u8]) -> Result<(), String> {
    let before = Meta::load(rows);
    let mut after = before.clone();
    let mut digested = Digested::new(rows);
    let highest = merge_elements(&mut digested, &mut after, bytes)?;
    after.hlc = after.hlc.max(highest);
    after.digest = digested.after(before.digest);
    after.save(&before, rows);
    Ok(())
}

/// Merges a chunk into rows that keep count of the digest; the highest clock in it.
pub(super) fn merge_elements(rows: &mut Digested<'_>, meta: &mut Meta, bytes: &[u8]) -> Result<Hlc, String> {
    let mut highest = Hlc::ZERO;
    for element in decode_chunk(bytes)? {
        highest = element.entries.iter().map(|known| known.hlc).fold(highest, Hlc::max);
        if let Op::Trim { before } = element.op {
            trim::raise(rows, &mut meta.trim, before);
            highest = highest.max(before);
        }
        if let Op::Retire { origin, last } = element.op {
            let said = |known: &Known| Retirement { hlc: known.hlc, by: known.id(), origin, last };
            meta.retired.extend(element.entries.iter().map(said));
            continue;
        }
        rules::merge(rows, meta.trim, element.user, &element.request, element.entries, &element.op);
    }
    Ok(highest)
}

/// Reads a chunk and checks all of it.
fn decode_chunk(bytes: &[u8]) -> Result<Vec<Element>, String> {
    if bytes.len() > limits::FRAME_BYTES_MAX {
        return Err(format!("a chunk of {} bytes is longer than a frame", bytes.len()));
    }
    let elements: Vec<Element> = postcard::from_bytes(bytes).map_err(|error| format!("not a chunk: {error}"))?;
    if records::encode(&elements) != bytes {
        return Err("not a chunk: not in canonical form".into());
    }
    elements.iter().try_for_each(|element| {
        check(element).map_err(|reason| format!("request {} of {}: {reason}", element.request, element.user))
    })?;
    Ok(elements)
}

fn check(element: &Element) -> Result<(), &'static str> {
    if let Op::Trim { before } = element.op {
        return check_trimmed(element, before);
    }
    let first = element.entries.first().ok_or("no entry")?;
    check_known(&element.entries)?;
    if first.content != records::content(&element.op) {
        return Err("another operation than its first entry's");
    }
    match &element.op {
        Op::Register { key, .. } if UserId::of(key) != element.user => Err("a registration for somebody else's key"),
        Op::Retire { origin, last } => {
            let said = element.user == UserId::NOBODY && element.request == RequestId::of_retirement();
            let former = origin.host == first.origin.host && *origin != first.origin && *last > Seq::ZERO;
            let one = element.entries.len() == 1;
            if said && former && one { Ok(()) } else { Err("an end of an origin that is not its maker's former one") }
        }
        Op::Register { .. } | Op::Join { .. } | Op::Leave { .. } | Op::Post { .. } | Op::Trim { .. } => Ok(()),
    }
}

fn check_known(entries: &[Known]) -> Result<(), &'static str> {
    if !entries.is_sorted_by(|one, next| one < next) {
        return Err("entries out of order");
    }
    if entries.iter().any(|known| known.seq == Seq::ZERO || known.hlc > HLC_MAX) {
        return Err("a seq or clock that no entry has");
    }
    Ok(())
}

fn check_trimmed(element: &Element, before: Hlc) -> Result<(), &'static str> {
    let told = element.user == UserId::NOBODY && element.request == RequestId::of_trim();
    if before > HLC_MAX || element.entries.first().map_or(!told, |first| first.hlc >= before) {
        return Err("not trimmed by its trim");
    }
    check_known(&element.entries)
}
