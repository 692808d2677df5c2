//! Retention: which posts need not be kept, and how they go at every host alike.
//!
//! An entry [`Op::Trim`] names a time; of all that a host has met, the largest counts (its *trim*). The state stays a
//! function of the set of entries, because what a trim leaves out is told by a row itself and the trim alone:
//! - A **post** goes when its time, the smallest stamp of its request id, is below the trim. Its request row stays, so
//!   that a retry finds it and an entry with the same id, whenever it comes, brings nothing back.
//! - That **request row** goes when the id is [`forgotten`]: it is a UUIDv7, and the time *in the id* is so far below
//!   the trim that no host takes a request with it any more. All entries with the id fall under this at once, whichever
//!   of them a host has met and whenever it meets the others, even weeks later: none of them counts.
//!
//! The times of entries could not tell the latter: of two entries with one id, at two hosts, one may be below any line
//! and the other above it. For that reason ids that people chose, which hold no time, are remembered for ever, without
//! the post; so are those of registrations, joins and leaves, whose effects are kept.
//!
//! [`Op::Trim`]: crate::service::entry::Op::Trim

use std::collections::BinaryHeap;
use std::time::Duration;

use crate::id::{RequestId, UserId};
use crate::limits;
use crate::service::digested::Digested;
use crate::service::records::{self, Kind, RequestRow};
use crate::service::rows::{Rows, RowsMut, Table, Walk};
use crate::service::{intake, keys, rules};
use crate::time::{Hlc, Wall};

/// What is to be kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// Posts from this time on; zero: whatever their age.
    pub since: Hlc,
    /// So many posts, the newest; none: however many.
    pub posts: Option<u64>,
    /// Nothing is done for fewer rows than this.
    pub rows_min: usize,
}

/// Whether posts with this id count for nothing: it is older than ids are remembered, by a margin for clocks that differ.
/// Only the usual form of a UUIDv7 in small letters, so that such ids lie in the order of their times.
pub(super) fn forgotten(id: &RequestId, trim: Hlc) -> bool {
    forgotten_at(id).is_some_and(|at| at <= trim)
}

/// The smallest trim that forgets an id.
fn forgotten_at(id: &RequestId) -> Option<Hlc> {
    let small = !id.as_str().bytes().any(|byte| byte.is_ascii_uppercase());
    let made = intake::uuid_time(id).filter(|_| small)?;
    let micros = made.0.saturating_add(micros(limits::REQUEST_MEMORY + limits::REQUEST_MEMORY_MARGIN));
    // Later than all clocks: never.
    (micros <= Hlc(u64::MAX).wall().0).then_some(Hlc::at(Wall(micros)))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

/// Raises the trim, and removes what falls below it.
pub(super) fn raise(rows: &mut Digested<'_>, trim: &mut Hlc, to: Hlc) {
    if to <= *trim {
        return;
    }
    let from = std::mem::replace(trim, to);
    let mut posts = Vec::new();
    oldest_posts(rows, &mut |key, hlc| {
        if hlc >= to {
            return Walk::Stop;
        }
        posts.push(key.to_vec());
        Walk::On
    });
    for key in posts {
        rows.delete(Table::Posts, &key);
    }
    let mut requests = Vec::new();
    oldest_requests(rows, from, to, &mut |user, id, row, at| {
        if at <= to {
            requests.push((user, id, row));
        }
    });
    for (user, id, row) in requests {
        rules::remove(rows, user, &id, &row);
    }
}

/// Up to where to trim now, if it is worth it. One trim removes about `TRIM_ROWS_MAX` rows.
pub(super) fn due(rows: &dyn Rows, trim: Hlc, keep: &Keep) -> Option<Hlc> {
    let too_many = keep.posts.map_or(0, |posts| rows.count(Table::Posts).saturating_sub(posts));
    if keep.since <= trim && too_many < keep.rows_min.max(1) as u64 {
        return None;
    }
    let too_many = usize::try_from(too_many).unwrap_or(usize::MAX).min(limits::TRIM_ROWS_MAX);
    // One walk, which holds up whoever commits: the oldest posts tell both the time of the last that is one too many,
    // and how many go.
    let posts = oldest(rows, if too_many == 0 { keep.since } else { Hlc(u64::MAX) });
    let line =
        keep.since.max(too_many.checked_sub(1).and_then(|last| posts.get(last)).map_or(Hlc::ZERO, |at| after(*at)));
    if line <= trim {
        return None;
    }
    // Every row by the largest trim that leaves it.
    let mut first = Smallest::new(limits::TRIM_ROWS_MAX);
    for hlc in posts.into_iter().take_while(|hlc| *hlc < line) {
        first.offer(hlc);
    }
    oldest_requests(rows, trim, line, &mut |_, _, _, at| {
        if at <= line {
            first.offer(Hlc(at.0.saturating_sub(1)));
        }
    });
    if first.times.len() < keep.rows_min.max(1) {
        return None;
    }
    Some(if first.is_full() { first.times.peek().copied().map_or(line, after) } else { line })
}

/// The times of the oldest posts before this one, in order, as many as one trim may take.
fn oldest(rows: &dyn Rows, before: Hlc) -> Vec<Hlc> {
    let mut first = Smallest::new(limits::TRIM_ROWS_MAX);
    oldest_posts(rows, &mut |_, hlc| if hlc < before { first.offer(hlc) } else { Walk::Stop });
    first.times.into_sorted_vec()
}

/// The smallest trim above a time.
fn after(hlc: Hlc) -> Hlc {
    Hlc(hlc.0.saturating_add(1))
}

/// The smallest times of all that are offered.
struct Smallest {
    times: BinaryHeap<Hlc>,
    room: usize,
}

impl Smallest {
    fn new(room: usize) -> Self {
        Self { times: BinaryHeap::new(), room }
    }

    fn is_full(&self) -> bool {
        self.times.len() >= self.room
    }

    /// Takes a time; `Stop` if neither it nor a later one belongs to them.
    fn offer(&mut self, time: Hlc) -> Walk {
        if self.is_full() {
            match self.times.peek() {
                Some(largest) if time < *largest => self.times.pop(),
                Some(_) | None => return Walk::Stop,
            };
        }
        self.times.push(time);
        Walk::On
    }
}

/// Visits the posts of each author, the oldest first; `Stop` leads to the next author: keys of posts begin with the
/// author, and an index by time would cost every post a row more.
fn oldest_posts(rows: &dyn Rows, visit: &mut dyn FnMut(&[u8], Hlc) -> Walk) {
    leap(rows, Table::Posts, &mut |key, _| match keys::parse_made(key) {
        Some((user, stamp)) if visit(key, stamp.hlc) == Walk::Stop => Leap::To(keys::end(&user.0)),
        Some(_) | None => Leap::Next,
    });
}

/// Visits the request rows of posts that some trim above `from`, and none above `to`, forgets.
fn oldest_requests(rows: &dyn Rows, from: Hlc, to: Hlc, visit: &mut dyn FnMut(UserId, RequestId, RequestRow, Hlc)) {
    let (first, last) = (uuid_prefix(from), keys::end(&uuid_prefix(to)));
    leap(rows, Table::Requests, &mut |key, value| {
        let Some((user, id)) = key.split_at_checked(keys::USER) else { return Leap::Next };
        if id < first.as_slice() {
            return Leap::To([user, &first].concat());
        }
        if id >= last.as_slice() {
            return Leap::To(keys::end(user));
        }
        let row = records::decode::<RequestRow>(value).filter(|row| row.kind == Kind::Post);
        if let Some(((user, id), row)) = keys::parse_request(key).zip(row)
            && let Some(at) = forgotten_at(&id).filter(|at| *at > from)
        {
            visit(user, id, row, at);
        }
        Leap::Next
    });
}

/// How ids begin that this trim just forgets.
fn uuid_prefix(trim: Hlc) -> Vec<u8> {
    let memory = micros(limits::REQUEST_MEMORY + limits::REQUEST_MEMORY_MARGIN);
    let millis = trim.wall().0.saturating_sub(memory) / 1_000;
    format!("{:08x}-{:04x}-7", millis >> 16, millis & 0xffff).into_bytes()
}

/// What a visitor wants to see after a row.
enum Leap {
    Next,
    /// The first row from this key on; empty: nothing more.
    To(Vec<u8>),
}

/// So many rows are stepped over before a seek, which costs as much as some of them: most people have few rows.
const STEPS_MAX: u32 = 8;

/// Visits the rows of a table that a visitor does not leap over.
fn leap(rows: &dyn Rows, table: Table, visit: &mut dyn FnMut(&[u8], &[u8]) -> Leap) {
    let mut to = Vec::new();
    let mut seek = true;
    while std::mem::take(&mut seek) {
        let (from, mut steps) = (to.clone(), 0);
        rows.ascend(table, &from, &[], &mut |key, value| {
            if key < to.as_slice() {
                steps += 1;
                seek = steps > STEPS_MAX;
                return if seek { Walk::Stop } else { Walk::On };
            }
            steps = 0;
            match visit(key, value) {
                Leap::Next => Walk::On,
                Leap::To(end) if end.is_empty() => Walk::Stop,
                Leap::To(key) => {
                    to = key;
                    Walk::On
                }
            }
        });
    }
}
