//! What may be shown: rows seen through a vector.
//!
//! A row is seen as soon as any entry that carries its request id is shown, and counts as seen before if any of them
//! was: a retry that was taken twice during a partition is one post, whichever entry arrived first.

use crate::id::{EntryId, Origin, Seq, UserId, Vector};
use crate::service::entry::Stamp;
use crate::service::keys;
use crate::service::records::{self, Born, EdgeRow, Turn, UserRow};
use crate::service::rows::{Rows, Table, Walk};

/// All rows, and which entries may be shown.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) rows: &'a dyn Rows,
    pub(super) shown: &'a Vector,
}

/// Whether a vector holds any entry of a row.
pub(super) fn holds_any(vector: &Vector, origin: Origin, seq: Seq, also: &[EntryId]) -> bool {
    vector.holds(EntryId { origin, seq }) || also.iter().any(|entry| vector.holds(*entry))
}

impl View<'_> {
    fn shows(&self, stamp: Stamp, born: &Born) -> bool {
        holds_any(self.shown, stamp.origin, born.seq, &born.also)
    }

    /// The pair's current edge, by those that are shown.
    pub(super) fn edge(&self, follower: UserId, followee: UserId) -> Option<(Stamp, EdgeRow)> {
        self.find_edge(follower, followee, |stamp, row| self.shows(stamp, &row.born))
    }

    /// Since when the follower has joined the followee, by the edges that are shown.
    pub(super) fn join_stamp(&self, follower: UserId, followee: UserId) -> Option<Stamp> {
        let (stamp, row) = self.edge(follower, followee)?;
        match row.turn {
            Turn::Join => Some(self.since(follower, stamp, &row.born)),
            Turn::Leave => None,
        }
    }

    /// The stamp of an edge: of its first entry that is shown. An earlier one may be held and not be shown yet.
    fn since(&self, follower: UserId, stamp: Stamp, born: &Born) -> Stamp {
        if born.also.is_empty() {
            return stamp;
        }
        let row = records::request(self.rows, follower, &born.request);
        row.and_then(|row| row.first_in(self.shown)).unwrap_or(stamp)
    }

    /// Whether a post of this stamp was in the follower's timeline, by the edges that are shown: the last turn before it
    /// was a join.
    pub(super) fn had_joined(&self, follower: UserId, followee: UserId, post: Stamp) -> bool {
        let edge = self.find_edge(follower, followee, |stamp, row| stamp < post && self.shows(stamp, &row.born));
        edge.is_some_and(|(_, row)| row.turn == Turn::Join)
    }

    fn find_edge(
        &self,
        follower: UserId,
        followee: UserId,
        wanted: impl Fn(Stamp, &EdgeRow) -> bool,
    ) -> Option<(Stamp, EdgeRow)> {
        let pair = keys::pair(follower, followee);
        let mut found = None;
        self.rows.descend(Table::Edges, &pair, &keys::end(&pair), &mut |key, value| {
            found = keys::parse_edge(key)
                .map(|(_, stamp)| stamp)
                .zip(records::decode(value))
                .filter(|(stamp, row)| wanted(*stamp, row));
            if found.is_some() { Walk::Stop } else { Walk::On }
        });
        found
    }

    /// Everybody whom this person has joined, and since when.
    pub(super) fn joined(&self, follower: UserId) -> Vec<(UserId, Stamp)> {
        let mut newest: Vec<(UserId, Stamp, Turn)> = Vec::new();
        self.rows.ascend(Table::Edges, &follower.0, &keys::end(&follower.0), &mut |key, value| {
            if let Some(((followee, stamp), row)) = keys::parse_edge(key).zip(records::decode::<EdgeRow>(value))
                && self.shows(stamp, &row.born)
            {
                if newest.last().is_some_and(|(last, ..)| *last == followee) {
                    newest.pop();
                }
                newest.push((followee, self.since(follower, stamp, &row.born), row.turn));
            }
            Walk::On
        });
        newest.retain(|(.., turn)| *turn == Turn::Join);
        newest.into_iter().map(|(followee, stamp, _)| (followee, stamp)).collect()
    }

    /// A person's first registration that is shown.
    pub(super) fn registration(&self, user: UserId) -> Option<(Stamp, UserRow)> {
        let mut found = None;
        self.rows.ascend(Table::Users, &user.0, &keys::end(&user.0), &mut |key, value| {
            found = keys::parse_made(key)
                .map(|(_, stamp)| stamp)
                .zip(records::decode::<UserRow>(value))
                .filter(|(stamp, row)| self.shows(*stamp, &row.born));
            if found.is_some() { Walk::Stop } else { Walk::On }
        });
        found
    }
}
