//! The entries between two cursors, the smallest stamp first: what a feed walks over.
//!
//! They are read from the logs, several origins' as one. Where a log was cut, they are read from the tables instead,
//! which keep the effect and the name of every entry: not all of them then, but all that matter to the feeds' people,
//! which are their own joins and leaves and the posts of whomever they ever joined. So a feed is told the same either
//! way and in the same order, and a cursor on the way holds what matters up to a stamp and nothing that matters above
//! it, wherever the feed goes on.
//!
//! Tables know no order of all entries, so each step reads through all posts of those authors: slower the further a feed
//! is behind, and never kept up with, because what is shown is in the log.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use crate::id::{EntryId, Origin, Seq, UserId, Vector};
use crate::service::entry::{Entry, Stamp};
use crate::service::records::{self, Born, Brief, Kind};
use crate::service::rows::{Rows, Table, Walk};
use crate::service::{keys, log, meta};

/// Entries read ahead from one origin's log.
const READ_AHEAD: usize = 64;

/// The entries between two cursors.
pub(super) enum Passage<'a> {
    Logs(LogWalk<'a>),
    Tables(TableWalk<'a>),
}

impl<'a> Passage<'a> {
    /// At least `entries_max` entries, if there are that many, for the feeds of these people.
    pub(super) fn new(
        rows: &'a dyn Rows,
        from: &'a Vector,
        shown: &'a Vector,
        entries_max: usize,
        people: impl FnOnce() -> BTreeSet<UserId>,
    ) -> Self {
        let cut = meta::cut(rows);
        let is_cut = |(origin, seq): (Origin, Seq)| from.get(origin) < seq && from.get(origin) < cut.get(origin);
        if shown.iter().any(is_cut) {
            Self::Tables(TableWalk::new(rows, from, shown, entries_max, &people()))
        } else {
            Self::Logs(LogWalk::new(rows, from, shown))
        }
    }

    pub(super) fn next(&mut self) -> Option<Entry> {
        match self {
            Self::Logs(walk) => walk.next(),
            Self::Tables(walk) => walk.next(),
        }
    }

    /// What is held by whoever has walked over every entry of it: also those that matter to nobody.
    pub(super) fn end(&self) -> Vector {
        match self {
            Self::Logs(_) => Vector::new(),
            Self::Tables(walk) => walk.end(),
        }
    }
}

/// One origin's log between two places.
struct Strand {
    origin: Origin,
    read: Seq,
    upto: Seq,
    ready: VecDeque<Entry>,
}

impl Strand {
    fn refill(&mut self, rows: &dyn Rows) {
        if !self.ready.is_empty() || self.read >= self.upto {
            return;
        }
        let (upto, mut broken) = (self.upto, true);
        let mut read = self.read;
        log::walk(rows, self.origin, self.read, &mut |seq, bytes| {
            if seq > upto || self.ready.len() >= READ_AHEAD {
                return Walk::Stop;
            }
            let Ok(entry) = postcard::from_bytes(bytes) else { return Walk::Stop };
            self.ready.push_back(entry);
            (read, broken) = (seq, false);
            Walk::On
        });
        self.read = if broken { self.upto } else { read };
    }
}

/// The logs of several origins as one walk, the smallest stamp first.
pub(super) struct LogWalk<'a> {
    rows: &'a dyn Rows,
    strands: Vec<Strand>,
}

impl<'a> LogWalk<'a> {
    fn new(rows: &'a dyn Rows, from: &Vector, shown: &Vector) -> Self {
        let strands = shown
            .iter()
            .map(|(origin, upto)| Strand { origin, read: from.get(origin), upto, ready: VecDeque::new() })
            .filter(|strand| strand.read < strand.upto)
            .collect();
        Self { rows, strands }
    }

    fn next(&mut self) -> Option<Entry> {
        self.strands.iter_mut().for_each(|strand| strand.refill(self.rows));
        self.strands.retain(|strand| !strand.ready.is_empty());
        let first = self.strands.iter_mut().min_by_key(|strand| strand.ready.front().map(Entry::stamp))?;
        first.ready.pop_front()
    }
}

/// The name of an entry in the tables, but for its stamp.
#[derive(Debug, Clone, Copy)]
struct Place {
    user: UserId,
    seq: Seq,
    kind: Kind,
    /// The stamp of the effect row: another entry's, if this one repeats a request.
    effect: Stamp,
}

/// Whether all that matters was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Whole,
    Part,
}

/// The entries that matter to some people, out of the tables.
pub(super) struct TableWalk<'a> {
    rows: &'a dyn Rows,
    from: &'a Vector,
    shown: &'a Vector,
    /// The first so many.
    places: BTreeMap<Stamp, Place>,
    places_max: usize,
    extent: Extent,
}

impl<'a> TableWalk<'a> {
    fn new(
        rows: &'a dyn Rows,
        from: &'a Vector,
        shown: &'a Vector,
        places_max: usize,
        people: &BTreeSet<UserId>,
    ) -> Self {
        let mut walk = Self { rows, from, shown, places: BTreeMap::new(), places_max, extent: Extent::Whole };
        let mut authors = people.clone();
        for user in people {
            rows.ascend(Table::Edges, &user.0, &keys::end(&user.0), &mut |key, value| {
                if let Some((followee, stamp)) = keys::parse_edge(key) {
                    authors.insert(followee);
                    walk.offer(*user, Kind::Edge { followee }, stamp, value);
                }
                Walk::On
            });
        }
        for author in authors {
            rows.ascend(Table::Posts, &author.0, &keys::end(&author.0), &mut |key, value| {
                let Some((_, stamp)) = keys::parse_made(key) else { return Walk::On };
                walk.offer(author, Kind::Post, stamp, value);
                // Whatever follows has a larger stamp, and so has each of its repeats.
                if walk.is_beyond(stamp) { Walk::Stop } else { Walk::On }
            });
        }
        walk
    }

    /// Takes the new ones among the entries that carry the request of this effect row.
    fn offer(&mut self, user: UserId, kind: Kind, effect: Stamp, value: &[u8]) {
        let Ok((brief, _)) = postcard::take_from_bytes::<Brief<'_>>(value) else { return };
        self.take(effect, Place { user, seq: brief.seq, kind, effect });
        if brief.also.is_empty() {
            return;
        }
        let Ok((born, _)) = postcard::take_from_bytes::<Born>(value) else { return };
        let row = records::request(self.rows, user, &born.request);
        for known in row.iter().flat_map(|row| &row.entries) {
            self.take(known.stamp(), Place { user, seq: known.seq, kind, effect });
        }
    }

    fn take(&mut self, stamp: Stamp, place: Place) {
        let id = EntryId { origin: stamp.origin, seq: place.seq };
        if self.from.holds(id) || !self.shown.holds(id) {
            return;
        }
        self.places.insert(stamp, place);
        if self.places.len() > self.places_max {
            self.places.pop_last();
            self.extent = Extent::Part;
        }
    }

    fn is_beyond(&self, stamp: Stamp) -> bool {
        self.extent == Extent::Part && self.places.last_key_value().is_some_and(|(last, _)| stamp > *last)
    }

    fn next(&mut self) -> Option<Entry> {
        while let Some((stamp, place)) = self.places.pop_first() {
            let (table, key) = place.kind.place(place.user, place.effect);
            let Some(value) = self.rows.get(table, &key) else { continue };
            let born = postcard::take_from_bytes::<Born>(&value).ok().map(|(born, _)| born);
            if let Some((born, op)) = born.zip(records::cause(place.kind, &value)) {
                let id = EntryId { origin: stamp.origin, seq: place.seq };
                let (user, request) = (place.user, born.request);
                return Some(Entry { id, hlc: stamp.hlc, user, request, after: Vector::new(), op });
            }
        }
        None
    }

    fn end(&self) -> Vector {
        match self.extent {
            Extent::Whole => self.shown.clone(),
            Extent::Part => Vector::new(),
        }
    }
}
