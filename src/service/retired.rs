//! Sealed origins that vectors need not name any more.
//!
//! A host that begins a new incarnation leaves an origin behind, and every vector would name it for ever. Once every
//! host holds all of it, the host says so in an entry of its new origin, [`Op::Retire`]: whoever holds that entry holds
//! the old origin up to its end (P4), so a vector that names the entry need not name the origin. Tokens and cursors are
//! *shortened* in this way when they go to a client, and made *whole* again where somebody counts by them. Hosts keep
//! whole vectors among themselves, and replication knows nothing of this. (It is the pruning of retired replicas from
//! version vectors, after D. Ratner, P. Reiher and G. Popek, "Dynamic version vector maintenance", UCLA 1997.)
//!
//! The end that an entry names is exact. If a restored backup brings more of the origin than its host knew of, vectors
//! that hold more name it again, until the host says anew where it ends.
//!
//! [`Op::Retire`]: crate::service::entry::Op::Retire

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::id::{EntryId, HostId, Origin, Seq, Vector};
use crate::service::entry::{Entry, Op};
use crate::time::Hlc;

/// What one entry says of an origin that has come to its end. The clock comes first: an entry that implies another one,
/// whose origin is at its end as well, comes after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Retirement {
    /// The clock of the entry.
    pub hlc: Hlc,
    /// The entry: whoever holds it holds all of the origin.
    pub by: EntryId,
    /// The origin.
    pub origin: Origin,
    /// Its last entry.
    pub last: Seq,
}

impl Retirement {
    /// What an entry says, if it is of that kind.
    pub fn of(entry: &Entry) -> Option<Self> {
        match entry.op {
            Op::Retire { origin, last } => Some(Self { hlc: entry.hlc, by: entry.id, origin, last }),
            Op::Register { .. } | Op::Join { .. } | Op::Leave { .. } | Op::Post { .. } | Op::Trim { .. } => None,
        }
    }
}

/// All origins that have come to their end: a union, so that merging commutes, associates and absorbs repeats (P5).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retired(BTreeSet<Retirement>);

impl Retired {
    /// Takes in what entries say.
    pub fn extend(&mut self, news: impl IntoIterator<Item = Retirement>) {
        self.0.extend(news);
    }

    /// Whether this is known.
    pub fn contains(&self, one: &Retirement) -> bool {
        self.0.contains(one)
    }

    /// Forgets what no entry says that is held.
    pub fn keep_held(&mut self, held: &Vector) {
        self.0.retain(|one| held.holds(one.by));
    }

    /// What entries have said, each after what it may imply.
    pub fn iter(&self) -> impl Iterator<Item = Retirement> + '_ {
        self.0.iter().copied()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an origin is known to end here.
    pub fn ends(&self, origin: Origin, last: Seq) -> bool {
        self.0.iter().any(|one| one.origin == origin && one.last == last)
    }

    /// How many entries a host has of its origins that are later than one that has ended, for each of those.
    pub fn newer(&self, held: &Vector) -> BTreeMap<Origin, u64> {
        let ended: BTreeMap<Origin, Hlc> = self.0.iter().map(|one| (one.origin, one.hlc)).collect();
        let mut after: BTreeMap<HostId, u64> = BTreeMap::new();
        for (origin, seq) in held.iter().filter(|(origin, _)| !self.0.is_empty() && !ended.contains_key(origin)) {
            *after.entry(origin.host).or_default() += seq.0;
        }
        let mut newer = BTreeMap::new();
        // From the last that has ended. Of one that has ended more than once, the last end counts.
        for one in self.0.iter().rev().filter(|one| ended.get(&one.origin) == Some(&one.hlc)) {
            let after = after.entry(one.origin.host).or_default();
            newer.insert(one.origin, *after);
            *after += held.get(one.origin).0;
        }
        newer
    }

    /// Makes a cursor of a line such that nothing of an origin counts as implied which it does not hold. A line's cursor
    /// stands before later lines of each origin, so it may hold the end of an origin and nothing of that. Whatever comes
    /// after the end comes after all of the origin, and so after the line: it does no harm to stand before the end.
    pub fn lower(&self, cursor: &mut Vector) {
        for one in &self.0 {
            if cursor.holds(one.by) && cursor.get(one.origin) == Seq::ZERO {
                cursor.set(one.by.origin, Seq(one.by.seq.0 - 1));
            }
        }
    }

    /// Leaves origins out that other parts of the vector imply, by entries of which this holds.
    pub fn shorten(&self, vector: &mut Vector, may: impl Fn(EntryId) -> bool) {
        let further = |one: &Retirement| {
            self.0.iter().any(|other| other.origin == one.origin && other.last > one.last && vector.holds(other.by))
        };
        let ends = |one: &Retirement| vector.holds(one.by) && vector.get(one.origin) == one.last && !further(one);
        let implied = |one: &&Retirement| ends(one) && may(one.by);
        let gone: Vec<Origin> = self.0.iter().filter(implied).map(|one| one.origin).collect();
        for origin in gone {
            vector.set(origin, Seq::ZERO);
        }
    }

    /// Names again what the vector implies: a cursor of a line may well name a part of an origin, and hold its end.
    pub fn complete(&self, vector: &mut Vector) {
        // From the last: an origin that is implied may hold the entry that implies another one.
        for one in self.0.iter().rev() {
            if vector.holds(one.by) && vector.get(one.origin) == Seq::ZERO {
                vector.set(one.origin, one.last);
            }
        }
    }
}

impl FromIterator<Retirement> for Retired {
    fn from_iter<I: IntoIterator<Item = Retirement>>(items: I) -> Self {
        Self(items.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(incarnation: u32) -> Origin {
        Origin { host: "h".parse().unwrap(), incarnation }
    }

    fn vector(held: &[(u32, u64)]) -> Vector {
        held.iter().map(|(incarnation, seq)| (origin(*incarnation), Seq(*seq))).collect()
    }

    /// The third incarnation ends the second, which had ended the first. Random numbers need not rise.
    fn three() -> Retired {
        let ends = |hlc, (by, seq), (of, last)| Retirement {
            hlc: Hlc(hlc),
            by: EntryId { origin: origin(by), seq: Seq(seq) },
            origin: origin(of),
            last: Seq(last),
        };
        [ends(30, (1, 2), (7, 6)), ends(20, (7, 4), (3, 9))].into_iter().collect()
    }

    fn shortened(of: &[(u32, u64)]) -> Vector {
        let mut short = vector(of);
        three().shorten(&mut short, |_| true);
        short
    }

    fn whole(mut of: Vector) -> Vector {
        three().complete(&mut of);
        of
    }

    #[test]
    fn what_is_left_out_comes_back_over_any_number_of_ends() {
        let full = [(3, 9), (7, 6), (1, 2)];
        assert_eq!(shortened(&full), vector(&[(1, 2)]));
        assert_eq!(whole(shortened(&full)), vector(&full));
    }

    #[test]
    fn nothing_is_left_out_that_is_not_implied() {
        assert_eq!(shortened(&[(3, 9), (7, 3)]), vector(&[(3, 9), (7, 3)]), "before the entry that says so");
        assert_eq!(shortened(&[(3, 9), (7, 5)]), vector(&[(7, 5)]));
        assert_eq!(shortened(&[(3, 11), (7, 6), (1, 2)]), vector(&[(3, 11), (1, 2)]), "a backup brought more");
        assert_eq!(whole(vector(&[(3, 11), (1, 2)])), vector(&[(3, 11), (7, 6), (1, 2)]));
    }

    #[test]
    fn what_is_later_is_counted_from_the_present_origin_back() {
        let held = vector(&[(3, 9), (7, 6), (1, 20)]);
        assert_eq!(three().newer(&held), [(origin(7), 20), (origin(3), 26)].into_iter().collect());
        assert_eq!(Retired::default().newer(&held), BTreeMap::new());
    }

    #[test]
    fn only_by_entries_that_may_imply() {
        let mut some = vector(&[(3, 9), (7, 6), (1, 2)]);
        three().shorten(&mut some, |by| by.origin == origin(7));
        assert_eq!(some, vector(&[(7, 6), (1, 2)]));
    }

    #[test]
    fn an_origin_that_has_ended_twice_is_left_out_at_its_last_end_only() {
        let later = Retirement {
            hlc: Hlc(40),
            by: EntryId { origin: origin(1), seq: Seq(5) },
            origin: origin(7),
            last: Seq(8),
        };
        let mut ends = three();
        ends.extend([later]);
        for held in [[(7, 6), (1, 5)], [(7, 8), (1, 5)], [(7, 6), (1, 4)]] {
            let mut some = vector(&held);
            ends.shorten(&mut some, |_| true);
            assert_eq!(some.len(), if held == [(7, 6), (1, 5)] { 2 } else { 1 }, "{held:?}");
            ends.complete(&mut some);
            assert_eq!((some.get(origin(7)), some.get(origin(1))), (Seq(held[0].1), Seq(held[1].1)));
        }
    }
}
