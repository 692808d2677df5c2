//! The merge rules: how an entry changes the rows (DESIGN section 5).
//!
//! The state is a function of the *set* of entries. For each (user, request id) it holds the names of all entries known
//! with it and the operation of the one with the smallest stamp: a union and a minimum, so that merging commutes,
//! associates and absorbs repeats (P5). Everything else derives from those elements: the effect row of each, a pair's
//! current edge (the largest stamp of its effects), a person's registration (the smallest stamp of its effects). What a
//! trim takes away is left out of all that ([`super::trim`]). When an
//! entry with a smaller stamp arrives, the effect of the former first is taken back; nothing of it is needed again,
//! because the minimum only falls. Applying an entry and merging a row of a snapshot are the same function. The
//! property tests are in `tests/merge.rs` of this room.

use crate::id::{RequestId, UserId};
use crate::service::digested::Digested;
use crate::service::entry::{Entry, Op, Stamp};
use crate::service::keys;
use crate::service::meta::Meta;
use crate::service::names;
use crate::service::records::{self, Born, EdgeRow, Kind, Known, NameRow, RequestRow, Turn, UserRow};
use crate::service::retired::Retirement;
use crate::service::rows::{Rows, RowsMut, Table, Walk};
use crate::service::trim;
use crate::time::Hlc;

/// Applies an entry to the merged tables and the digest. Idempotent; any order gives the same rows.
pub fn apply(rows: &mut dyn RowsMut, entry: &Entry) {
    let before = Meta::load(rows);
    let mut digested = Digested::new(rows);
    let mut after = before.clone();
    apply_entry(&mut digested, &mut after, entry);
    after.digest = digested.after(before.digest);
    after.save(&before, rows);
}

/// Applies an entry to rows that keep count of the digest, and to what is known of them.
pub(super) fn apply_entry(rows: &mut Digested<'_>, meta: &mut Meta, entry: &Entry) {
    match entry.op {
        Op::Trim { before } => trim::raise(rows, &mut meta.trim, before),
        Op::Retire { .. } => meta.retired.extend(Retirement::of(entry)),
        Op::Register { .. } | Op::Join { .. } | Op::Leave { .. } | Op::Post { .. } => {
            merge(rows, meta.trim, entry.user, &entry.request, vec![Known::of(entry)], &entry.op);
        }
    }
}

/// Merges what somebody knows about a request: entries by stamp, and the operation of the first of them.
///
/// An element's entries are all posts, or none is: with another operation under the same id (a misuse, taken at two
/// hosts during a partition), the posts count for nothing. Otherwise a trim that forgets the posts would have to bring
/// back an operation that nobody keeps.
pub(super) fn merge(rows: &mut Digested<'_>, trim: Hlc, user: UserId, request: &RequestId, known: Vec<Known>, op: &Op) {
    let is_post = Kind::of(op) == Kind::Post;
    if is_post && trim::forgotten(request, trim) {
        return;
    }
    let mut old = records::request(rows, user, request);
    match old.take_if(|row| (row.kind == Kind::Post) != is_post) {
        Some(_) if is_post => return,
        Some(posts) => remove(rows, user, request, &posts),
        None => {}
    }
    let mut entries = known;
    entries.extend(old.iter().flat_map(|row| row.entries.iter().cloned()));
    entries.sort_unstable();
    entries.dedup();
    let Some(first) = entries.first().cloned() else { return };
    if old.as_ref().is_some_and(|row| row.entries == entries) {
        return;
    }
    let also = entries[1..].iter().map(Known::id).collect();
    let born = Born { seq: first.seq, request: request.clone(), also };
    let kept = old.as_ref().filter(|row| row.entries[0] == first).map(|row| row.kind);
    if let Some(kind) = kept {
        rewrite(rows, user, kind, first.stamp(), born);
    } else {
        if let Some(old) = &old {
            set_effect(rows, user, old.kind, old.entries[0].stamp(), None);
        }
        let kept = !is_post || first.hlc >= trim;
        let value = records::effect(op, born).filter(|_| kept);
        set_effect(rows, user, Kind::of(op), first.stamp(), value);
    }
    let row = RequestRow { kind: kept.unwrap_or(Kind::of(op)), entries };
    let (key, value) = (keys::request(user, request), records::encode(&row));
    match old {
        Some(_) => rows.put(Table::Requests, &key, &value),
        None => rows.put_new(Table::Requests, &key, &value),
    }
}

/// The effect stays, and is known by more names.
fn rewrite(rows: &mut Digested<'_>, user: UserId, kind: Kind, stamp: Stamp, born: Born) {
    let (table, key) = kind.place(user, stamp);
    if let Some(op) = rows.get(table, &key).and_then(|value| records::cause(kind, &value)) {
        set_effect(rows, user, kind, stamp, records::effect(&op, born));
    }
}

/// Nothing of a request is known any more.
pub(super) fn remove(rows: &mut Digested<'_>, user: UserId, request: &RequestId, row: &RequestRow) {
    if let Some(first) = row.entries.first() {
        set_effect(rows, user, row.kind, first.stamp(), None);
    }
    rows.delete(Table::Requests, &keys::request(user, request));
}

/// Writes an effect row or takes it away, and then what derives from it.
fn set_effect(rows: &mut Digested<'_>, user: UserId, kind: Kind, stamp: Stamp, value: Option<Vec<u8>>) {
    let named = match kind {
        Kind::Register => names::registration(rows, user),
        Kind::Edge { .. } | Kind::Post => None,
    };
    let (table, key) = kind.place(user, stamp);
    match value {
        Some(value) => rows.put(table, &key, &value),
        None => rows.delete(table, &key),
    }
    match kind {
        Kind::Register => rename(rows, user, named),
        Kind::Edge { followee } => refresh_joined(rows, user, followee),
        Kind::Post => {}
    }
}

/// A person claims one name: that of the registration with the smallest stamp.
fn rename(rows: &mut Digested<'_>, user: UserId, before: Option<(Stamp, UserRow)>) {
    let now = names::registration(rows, user);
    if now == before {
        return;
    }
    if let Some((stamp, row)) = before {
        rows.delete(Table::Names, &keys::name(&row.name.folded(), stamp, user));
    }
    if let Some((stamp, row)) = now {
        let claim = NameRow { seq: row.born.seq, also: row.born.also, name: row.name.clone() };
        rows.put(Table::Names, &keys::name(&row.name.folded(), stamp, user), &records::encode(&claim));
    }
}

/// The inverse row stands while the pair's edge with the largest stamp is a join.
fn refresh_joined(rows: &mut Digested<'_>, follower: UserId, followee: UserId) {
    let pair = keys::pair(follower, followee);
    let mut current = None;
    rows.descend(Table::Edges, &pair, &keys::end(&pair), &mut |_, value| {
        current = records::decode::<EdgeRow>(value).map(|row| row.turn);
        Walk::Stop
    });
    let inverse = keys::pair(followee, follower);
    match current {
        Some(Turn::Join) if rows.get(Table::JoinedBy, &inverse).is_none() => {
            rows.put(Table::JoinedBy, &inverse, &[]);
        }
        Some(Turn::Join) => {}
        Some(Turn::Leave) | None => rows.delete(Table::JoinedBy, &inverse),
    }
}
