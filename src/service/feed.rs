//! Feeds: which of the entries between two cursors somebody is shown, each post once, in the order of arrival.
//!
//! A post may arrive as several entries with one request id, taken at two hosts during a partition. A feed shows it at
//! the first of them that it walks over; the cursor then holds that entry, so that the others are known as repeats here
//! and, when the client resumes there, on any other host.

use std::collections::{BTreeMap, BTreeSet};

use crate::id::{FeedId, UserId, Vector};
use crate::limits;
use crate::service::entry::{Entry, Op, Stamp};
use crate::service::passage::Passage;
use crate::service::query::ShownPost;
use crate::service::records::{self, Kind, Known, PostRow};
use crate::service::rows::{Rows, Table, Walk};
use crate::service::timeline::{self, Authors};
use crate::service::view::View;
use crate::service::{keys, meta};
use crate::time::Hlc;

/// What one feed is told next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FeedStep {
    /// Which feed.
    pub feed: FeedId,
    /// Its posts, in the order of arrival.
    pub posts: Vec<ShownPost>,
}

/// Walks from one cursor towards what is shown, for every feed that stands at that cursor, and returns the steps (of
/// those feeds that are told a post) and the cursor reached, which holds for all of them and may fall short of `shown`:
/// at most `FEED_ENTRIES_MAX` entries and `ANSWER_BYTES_MAX` bytes are walked at once.
pub fn advance(rows: &dyn Rows, from: &Vector, shown: &Vector, feeds: &[(FeedId, UserId)]) -> (Vec<FeedStep>, Vector) {
    advance_by(limits::FEED_ENTRIES_MAX, rows, from, shown, feeds)
}

/// [`advance`], by this many entries at most.
pub(super) fn advance_by(
    entries_max: usize,
    rows: &dyn Rows,
    from: &Vector,
    shown: &Vector,
    feeds: &[(FeedId, UserId)],
) -> (Vec<FeedStep>, Vector) {
    let mut told = Told::new(View { rows, shown }, from, feeds);
    let people = || told.by_user.keys().copied().collect();
    let mut passage = Passage::new(rows, from, shown, entries_max, people);
    let mut bytes = 0;
    for _ in 0..entries_max {
        let Some(entry) = passage.next() else {
            told.reached.merge(&passage.end());
            break;
        };
        bytes += told.tell(&entry);
        if bytes >= limits::ANSWER_BYTES_MAX {
            break;
        }
    }
    told.finish()
}

/// A join that a feed has come by.
#[derive(Debug, Clone, Copy)]
struct Join {
    user: UserId,
    followee: UserId,
    since: Stamp,
    /// It was known before, with this later stamp.
    until: Option<Stamp>,
}

/// Posts that a feed has passed, and that belong to the timeline since it has come by a join.
fn late_posts(then: View<'_>, join: Join, limit: usize, authors: &mut Authors) -> Vec<ShownPost> {
    let was_told = |post: Stamp| match join.until {
        Some(until) => post > until,
        None => then.had_joined(join.user, join.followee, post),
    };
    let passed = timeline::newest_after(then, join.followee, join.since, limit);
    let missed = passed.iter().filter(|found| !was_told(found.stamp_in(then)));
    missed.filter_map(|found| timeline::line(then, found, authors)).collect()
}

/// A feed that shows an author's posts, by its place among the feeds, and since when it has joined the author.
type Listener = (usize, Option<Stamp>);

/// What the feeds have been told so far.
struct Told<'a> {
    view: View<'a>,
    feeds: &'a [(FeedId, UserId)],
    by_user: BTreeMap<UserId, Vec<usize>>,
    listeners: BTreeMap<UserId, Vec<Listener>>,
    authors: Authors,
    posts: Vec<Vec<ShownPost>>,
    reached: Vector,
    /// Posts of an earlier time are not kept, though the log may still hold them.
    trim: Hlc,
}

impl<'a> Told<'a> {
    fn new(view: View<'a>, from: &Vector, feeds: &'a [(FeedId, UserId)]) -> Self {
        let mut by_user: BTreeMap<UserId, Vec<usize>> = BTreeMap::new();
        for (index, (_, user)) in feeds.iter().enumerate() {
            by_user.entry(*user).or_default().push(index);
        }
        let posts = vec![Vec::new(); feeds.len()];
        let (listeners, authors) = (BTreeMap::new(), Authors::default());
        let (reached, trim) = (from.clone(), meta::trim(view.rows));
        Self { view, feeds, by_user, listeners, authors, posts, reached, trim }
    }

    /// Walks over one entry; says how many bytes that takes in the answer at most.
    fn tell(&mut self, entry: &Entry) -> usize {
        match &entry.op {
            Op::Post { .. } => self.tell_post(entry),
            Op::Join { followee } => self.tell_join(entry, *followee),
            Op::Leave { followee } => {
                self.reached.raise(entry.id.origin, entry.id.seq);
                self.listeners.remove(followee);
                0
            }
            Op::Register { .. } | Op::Trim { .. } | Op::Retire { .. } => {
                self.reached.raise(entry.id.origin, entry.id.seq);
                0
            }
        }
    }

    fn tell_post(&mut self, entry: &Entry) -> usize {
        let post = self.post(entry);
        self.reached.raise(entry.id.origin, entry.id.seq);
        let Some(post) = post else { return 0 };
        let bytes = timeline::line_bytes(post.text.len(), self.reached.len());
        let listeners = self.listeners.get(&entry.user).map(Vec::as_slice).unwrap_or_default();
        for (index, after) in listeners {
            if after.is_none_or(|after| post.stamp > after) {
                self.posts[*index].push(ShownPost { cursor: self.reached.clone(), ..post.clone() });
            }
        }
        bytes
    }

    /// Posts that were made after this join and arrived before it (they had their copies earlier, or it was made at
    /// another host, or again at another host before the first became known) are in the timeline from now on, and so
    /// are told now: late, with their own time.
    fn tell_join(&mut self, entry: &Entry, followee: UserId) -> usize {
        let rows = self.view.rows;
        let before = self.reached.clone();
        self.reached.raise(entry.id.origin, entry.id.seq);
        self.listeners.remove(&followee);
        let Some(indexes) = self.by_user.get(&entry.user).filter(|_| entry.user != followee) else { return 0 };
        let Some(row) = records::request(rows, entry.user, &entry.request) else { return 0 };
        let (now, then) = (View { rows, shown: &self.reached }, View { rows, shown: &before });
        let current = now.edge(entry.user, followee).map(|(stamp, _)| stamp);
        let (since, until) = (row.first_in(&self.reached), row.first_in(&before));
        let Some(since) = since.filter(|_| current == row.entries.first().map(Known::stamp) && since != until) else {
            return 0;
        };
        let join = Join { user: entry.user, followee, since, until };
        let mut lines = late_posts(then, join, limits::FEED_LATE_POSTS_MAX, &mut self.authors);
        // Whoever goes on from any but the last is told all of them again: never one too few.
        let last = lines.len().saturating_sub(1);
        for (index, line) in lines.iter_mut().enumerate() {
            line.cursor = if index == last { self.reached.clone() } else { before.clone() };
        }
        for index in indexes {
            self.posts[*index].extend(lines.iter().cloned());
        }
        lines.iter().map(|line| timeline::line_bytes(line.text.len(), self.reached.len())).sum()
    }

    /// The post of this entry, if anybody listens and it has not arrived before.
    fn post(&mut self, entry: &Entry) -> Option<ShownPost> {
        // People have joined whom they had joined when the walk comes by, not what else is shown by now.
        let (view, by_user) = (View { rows: self.view.rows, shown: &self.reached }, &self.by_user);
        let listeners = self.listeners.entry(entry.user).or_insert_with(|| listeners(view, by_user, entry.user));
        if listeners.is_empty() {
            return None;
        }
        let row = records::request(self.view.rows, entry.user, &entry.request)?;
        let repeated = row.entries.iter().any(|known| known.id() != entry.id && self.reached.holds(known.id()));
        let trimmed = row.entries.first().is_some_and(|first| first.hlc < self.trim);
        if repeated || trimmed || row.kind != Kind::Post {
            return None;
        }
        let first = row.entries.first().filter(|first| first.id() != entry.id && self.view.shown.holds(first.id()));
        let (stamp, seq, text) = match (first, &entry.op) {
            (Some(first), _) => {
                let row = self.view.rows.get(Table::Posts, &keys::made(entry.user, first.stamp()))?;
                (first.stamp(), first.seq, records::decode::<PostRow>(&row)?.text.into())
            }
            (None, Op::Post { text }) => (entry.stamp(), entry.id.seq, text.as_str().to_owned()),
            (None, Op::Register { .. } | Op::Join { .. } | Op::Leave { .. } | Op::Trim { .. } | Op::Retire { .. }) => {
                return None;
            }
        };
        let author = self.authors.name(self.view, entry.user);
        Some(ShownPost { id: entry.request.clone(), author, stamp, seq, text, cursor: Vector::new() })
    }

    fn finish(self) -> (Vec<FeedStep>, Vector) {
        let steps = self.feeds.iter().zip(self.posts).filter(|(_, posts)| !posts.is_empty());
        (steps.map(|((feed, _), posts)| FeedStep { feed: *feed, posts }).collect(), self.reached)
    }
}

/// Which feeds show this author's posts: looks from the smaller side, the author's followers or the feeds' people.
fn listeners(view: View<'_>, by_user: &BTreeMap<UserId, Vec<usize>>, author: UserId) -> Vec<Listener> {
    let mut followers = BTreeSet::new();
    let mut walked = 0;
    view.rows.ascend(Table::JoinedBy, &author.0, &keys::end(&author.0), &mut |key, _| {
        walked += 1;
        if let Some((_, follower)) = keys::parse_pair(key).filter(|(_, follower)| by_user.contains_key(follower)) {
            followers.insert(follower);
        }
        if walked > by_user.len() { Walk::Stop } else { Walk::On }
    });
    let candidates: Vec<UserId> = match walked > by_user.len() {
        true => by_user.keys().copied().collect(),
        false => followers.into_iter().collect(),
    };
    let indexes = |user: &UserId| by_user.get(user).cloned().unwrap_or_default();
    let mut found: Vec<Listener> = indexes(&author).into_iter().map(|index| (index, None)).collect();
    for user in candidates.into_iter().filter(|user| *user != author) {
        if let Some(stamp) = view.join_stamp(user, author) {
            found.extend(indexes(&user).into_iter().map(|index| (index, Some(stamp))));
        }
    }
    found
}
