//! The keys of rows: fixed in width and big-endian, so that the order of bytes is the order of what they mean.
//!
//! A change here is a change of the disk format and of the digest; golden bytes in the tests of `records` guard it.

use crate::id::{EntryId, HostId, Origin, RequestId, Seq, UserId};
use crate::service::entry::Stamp;
use crate::time::Hlc;

/// Bytes of a user in a key.
pub(super) const USER: usize = 16;
/// Bytes of a stamp in a key.
pub(super) const STAMP: usize = 28;
/// Bytes of an origin in a key.
pub(super) const ORIGIN: usize = 20;

/// An origin: the host padded with zeros, then the incarnation.
pub(super) fn origin(origin: Origin) -> [u8; ORIGIN] {
    let mut key = [0; ORIGIN];
    key[..16].copy_from_slice(&origin.host.to_bytes());
    key[16..].copy_from_slice(&origin.incarnation.to_be_bytes());
    key
}

/// A stamp: the clock, then the origin; the order of the bytes is the order of stamps.
pub(super) fn stamp(stamp: Stamp) -> [u8; STAMP] {
    let mut key = [0; STAMP];
    key[..8].copy_from_slice(&stamp.hlc.0.to_be_bytes());
    key[8..].copy_from_slice(&origin(stamp.origin));
    key
}

/// A place of the log.
pub(super) fn log(entry: EntryId) -> Vec<u8> {
    [&origin(entry.origin)[..], &entry.seq.0.to_be_bytes()].concat()
}

/// What one person made at a stamp: the key of Users and of Posts.
pub(super) fn made(user: UserId, at: Stamp) -> Vec<u8> {
    [&user.0[..], &stamp(at)].concat()
}

/// A pair of people: the key of JoinedBy, and the beginning of the keys of Edges.
pub(super) fn pair(first: UserId, second: UserId) -> Vec<u8> {
    [first.0, second.0].concat()
}

/// A join or leave.
pub(super) fn edge(follower: UserId, followee: UserId, at: Stamp) -> Vec<u8> {
    [&follower.0[..], &followee.0, &stamp(at)].concat()
}

/// The beginning of the keys of all claims of a name.
pub(super) fn name_group(folded: &str) -> Vec<u8> {
    [folded.as_bytes(), &[0]].concat()
}

/// A claim of a name.
pub(super) fn name(folded: &str, at: Stamp, user: UserId) -> Vec<u8> {
    [folded.as_bytes(), &[0], &stamp(at), &user.0].concat()
}

/// A request of a person.
pub(super) fn request(user: UserId, request: &RequestId) -> Vec<u8> {
    [&user.0[..], request.as_str().as_bytes()].concat()
}

/// The smallest key above this one.
pub(super) fn after(key: &[u8]) -> Vec<u8> {
    [key, &[0]].concat()
}

/// The smallest key above all keys with this prefix; empty, which means the end of the table, if there is none.
pub(super) fn end(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

/// Reads a big-endian number that fills these bytes.
fn number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_be_bytes(bytes.try_into().ok()?))
}

/// Reads an origin that fills these bytes.
pub(super) fn parse_origin(bytes: &[u8]) -> Option<Origin> {
    let host = HostId::from_bytes(bytes.get(..16)?.try_into().ok()?).ok()?;
    Some(Origin { host, incarnation: u32::from_be_bytes(bytes.get(16..)?.try_into().ok()?) })
}

/// Reads a stamp that fills these bytes.
pub(super) fn parse_stamp(bytes: &[u8]) -> Option<Stamp> {
    Some(Stamp { hlc: Hlc(number(bytes.get(..8)?)?), origin: parse_origin(bytes.get(8..)?)? })
}

/// Reads a user that fills these bytes.
pub(super) fn parse_user(bytes: &[u8]) -> Option<UserId> {
    Some(UserId(bytes.try_into().ok()?))
}

/// Reads the key of Users or Posts.
pub(super) fn parse_made(key: &[u8]) -> Option<(UserId, Stamp)> {
    Some((parse_user(key.get(..USER)?)?, parse_stamp(key.get(USER..)?)?))
}

/// Reads the key of JoinedBy.
pub(super) fn parse_pair(key: &[u8]) -> Option<(UserId, UserId)> {
    Some((parse_user(key.get(..USER)?)?, parse_user(key.get(USER..)?)?))
}

/// Reads the key of Edges, all but the follower.
pub(super) fn parse_edge(key: &[u8]) -> Option<(UserId, Stamp)> {
    parse_made(key.get(USER..)?)
}

/// Reads the key of Names: the folded name, the stamp of the claim, who claims.
pub(super) fn parse_name(key: &[u8]) -> Option<(String, Stamp, UserId)> {
    let split = key.len().checked_sub(STAMP + USER + 1)?;
    let folded = std::str::from_utf8(&key[..split]).ok()?;
    let at = parse_stamp(&key[split + 1..split + 1 + STAMP])?;
    Some((folded.to_owned(), at, parse_user(&key[split + 1 + STAMP..])?))
}

/// Reads a place of the log.
pub(super) fn parse_log(key: &[u8]) -> Option<EntryId> {
    Some(EntryId { origin: parse_origin(key.get(..ORIGIN)?)?, seq: Seq(number(key.get(ORIGIN..)?)?) })
}

/// Reads the key of Requests.
pub(super) fn parse_request(key: &[u8]) -> Option<(UserId, RequestId)> {
    let id = std::str::from_utf8(key.get(USER..)?).ok()?;
    Some((parse_user(key.get(..USER)?)?, id.parse().ok()?))
}
