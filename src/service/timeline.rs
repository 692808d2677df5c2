//! Timelines: posts of several authors merged by stamp, each with the cursor after it.
//!
//! Nothing is copied at a post: a read takes each author's newest post and goes on only where it took one, so that 20
//! lines over 40 authors cost about 60 seeks.
//!
//! **Cursors.** A line's cursor is a vector that holds the lines up to it and none of the later ones: from the end of the
//! timeline backwards, each line lowers it below every entry that carries its id. That is exact, because within an origin
//! seqs and stamps rise together: an earlier line's entry cannot come after a later line's in the same origin. One case is
//! left where a cursor gives a line once more, never one too few: while a post that two hosts took (one id, two entries)
//! is shown by its later entry only, its cursor cannot hold it, because the entry that gives it its place is not shown yet.

use std::collections::{BTreeMap, BTreeSet, BinaryHeap, VecDeque};

use crate::id::{EntryId, Seq, UserId, Vector};
use crate::limits;
use crate::service::entry::{Entry, Op, Stamp};
use crate::service::log;
use crate::service::query::{Answer, ShownPost};
use crate::service::records::{self, Brief, Kind, PostView};
use crate::service::rows::{Table, Walk};
use crate::service::view::{View, holds_any};
use crate::service::{keys, meta, names};

/// Rows that the first step into an author's posts reads: a second row costs less than a second seek.
const READ_AHEAD: usize = 2;
/// Rows that one refill reads ahead at most.
const READ_AHEAD_MAX: usize = 64;

/// An author whose posts belong to a timeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Source {
    pub(super) author: UserId,
    /// Only later posts: when the reader joined the author.
    pub(super) after: Option<Stamp>,
}

/// The sources of a person's own timeline.
pub(super) fn sources(view: View<'_>, user: UserId) -> Vec<Source> {
    let joined = view.joined(user).into_iter().filter(|(author, _)| *author != user);
    let joined = joined.map(|(author, stamp)| Source { author, after: Some(stamp) });
    std::iter::once(Source { author: user, after: None }).chain(joined).collect()
}

/// A row of Posts that belongs to the timeline.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Found {
    pub(super) stamp: Stamp,
    pub(super) author: UserId,
    pub(super) seq: Seq,
    pub(super) also: Vec<EntryId>,
    /// The row; empty if it was not kept.
    value: Vec<u8>,
}

impl Found {
    /// Reads a row of Posts, if it may be shown.
    fn read(view: View<'_>, key: &[u8], value: &[u8], keep: Keep) -> Option<Self> {
        let (author, stamp) = keys::parse_made(key)?;
        let (brief, _): (Brief<'_>, _) = postcard::take_from_bytes(value).ok()?;
        let value = match keep {
            Keep::Value => value.to_vec(),
            Keep::Place => Vec::new(),
        };
        let found = Self { stamp, author, seq: brief.seq, also: brief.also, value };
        holds_any(view.shown, stamp.origin, found.seq, &found.also).then_some(found)
    }

    /// The stamp that the post had when only the view's entries were known.
    pub(super) fn stamp_in(&self, view: View<'_>) -> Stamp {
        if self.also.is_empty() {
            return self.stamp;
        }
        let post: Option<PostView<'_>> = records::decode(&self.value);
        let request = post.and_then(|post| records::request(view.rows, self.author, &post.born.request));
        request.and_then(|row| row.first_in(view.shown)).unwrap_or(self.stamp)
    }

    /// Lowers a cursor below this post.
    pub(super) fn lower(&self, cursor: &mut Vector) {
        let own = EntryId { origin: self.stamp.origin, seq: self.seq };
        for EntryId { origin, seq } in std::iter::once(own).chain(self.also.iter().copied()) {
            if cursor.get(origin) >= seq {
                cursor.set(origin, Seq(seq.0.saturating_sub(1)));
            }
        }
    }
}

/// Whether a walk keeps the rows' values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Keep {
    Value,
    Place,
}

/// The range of a source's posts in Posts, before a stamp.
fn range(source: &Source, before: Option<Stamp>) -> (Vec<u8>, Vec<u8>) {
    let from = match source.after {
        Some(stamp) => keys::after(&keys::made(source.author, stamp)),
        None => source.author.0.to_vec(),
    };
    let to = match before {
        Some(stamp) => keys::made(source.author, stamp),
        None => keys::end(&source.author.0),
    };
    (from, to)
}

/// One author's posts, newest first, read ahead in growing steps.
struct Descent {
    from: Vec<u8>,
    to: Vec<u8>,
    ready: VecDeque<Found>,
    step: usize,
}

impl Descent {
    fn pop(&mut self, view: View<'_>) -> Option<Found> {
        if self.ready.is_empty() && self.step > 0 {
            let mut last = Vec::new();
            view.rows.descend(Table::Posts, &self.from, &self.to, &mut |key, value| {
                if let Some(found) = Found::read(view, key, value, Keep::Value) {
                    self.ready.push_back(found);
                    if self.ready.len() >= self.step {
                        last = key.to_vec();
                        return Walk::Stop;
                    }
                }
                Walk::On
            });
            // Without a full step there is nothing below it.
            self.step = if last.is_empty() { 0 } else { (self.step * 2).min(READ_AHEAD_MAX) };
            self.to = last;
        }
        self.ready.pop_front()
    }
}

/// Names of authors, each looked up once.
#[derive(Default)]
pub(super) struct Authors(BTreeMap<UserId, String>);

impl Authors {
    pub(super) fn name(&mut self, view: View<'_>, author: UserId) -> String {
        self.0.entry(author).or_insert_with(|| names::display_or_id(view.rows, author)).clone()
    }
}

/// Makes a line of a post; the cursor is set by the caller.
pub(super) fn line(view: View<'_>, found: &Found, authors: &mut Authors) -> Option<ShownPost> {
    let stored;
    let value = if found.value.is_empty() {
        stored = view.rows.get(Table::Posts, &keys::made(found.author, found.stamp))?;
        &stored
    } else {
        &found.value
    };
    let row: PostView<'_> = records::decode(value)?;
    Some(ShownPost {
        id: row.born.request,
        author: authors.name(view, found.author),
        stamp: found.stamp,
        seq: row.born.seq,
        text: row.text.to_owned(),
        cursor: Vector::new(),
    })
}

/// What a line takes in an answer at most, in bytes, with a text and a cursor of these sizes.
pub(super) fn line_bytes(text: usize, origins: usize) -> usize {
    text + 256 + origins * 40
}

/// The limits of one answer.
struct Room {
    posts: usize,
    bytes: usize,
}

impl Room {
    fn new(limit: u32) -> Self {
        let posts = usize::try_from(limit.min(limits::ANSWER_POSTS_MAX)).unwrap_or(usize::MAX);
        Self { posts, bytes: limits::ANSWER_BYTES_MAX }
    }

    fn takes(&mut self, bytes: usize) -> bool {
        let fits = self.posts > 0 && self.bytes >= bytes;
        if fits {
            self.posts -= 1;
            self.bytes -= bytes;
        }
        fits
    }
}

/// The newest `limit` posts before a stamp.
pub(super) fn newest(view: View<'_>, sources: &[Source], before: Option<Stamp>, limit: u32) -> Answer {
    let mut descents: Vec<Descent> = sources
        .iter()
        .map(|source| range(source, before))
        .filter(|(from, to)| to.is_empty() || from < to)
        .map(|(from, to)| Descent { from, to, ready: VecDeque::new(), step: READ_AHEAD })
        .collect();
    let mut heap = BinaryHeap::new();
    for (index, descent) in descents.iter_mut().enumerate() {
        heap.extend(descent.pop(view).map(|found| (found, index)));
    }
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let mut room = Room::new(limit);
    let mut taken = Vec::new();
    while taken.len() < wanted
        && let Some((found, index)) = heap.pop()
    {
        if !room.takes(line_bytes(found.value.len(), view.shown.len())) {
            heap.push((found, index));
            break;
        }
        taken.push(found);
        heap.extend(descents[index].pop(view).map(|found| (found, index)));
    }
    let more = taken.len() < wanted && !heap.is_empty();
    let mut cursor = view.shown.clone();
    if let Some(before) = before {
        lower_from(view, sources, before, &mut cursor);
    }
    let answered = cursor.clone();
    let mut authors = Authors::default();
    let mut posts = Vec::with_capacity(taken.len());
    for found in &taken {
        posts.extend(line(view, found, &mut authors).map(|post| ShownPost { cursor: cursor.clone(), ..post }));
        found.lower(&mut cursor);
    }
    posts.reverse();
    Answer::Posts { posts, more, cursor: answered }
}

/// The newest posts of an author after a stamp, oldest first.
pub(super) fn newest_after(view: View<'_>, author: UserId, after: Stamp, limit: usize) -> Vec<Found> {
    let (from, to) = range(&Source { author, after: Some(after) }, None);
    let mut found = Vec::new();
    view.rows.descend(Table::Posts, &from, &to, &mut |key, value| {
        found.extend(Found::read(view, key, value, Keep::Value));
        if found.len() < limit { Walk::On } else { Walk::Stop }
    });
    found.reverse();
    found
}

/// Lowers a cursor below all posts from a stamp on: earlier pages have delivered them, and this one has not.
fn lower_from(view: View<'_>, sources: &[Source], from: Stamp, cursor: &mut Vector) {
    for source in sources {
        let (start, end) = range(source, None);
        let start = start.max(keys::made(source.author, from));
        let mut met = BTreeSet::new();
        view.rows.ascend(Table::Posts, &start, &end, &mut |key, value| {
            if let Some(found) = Found::read(view, key, value, Keep::Place) {
                found.lower(cursor);
                met.insert(found.stamp.origin);
            }
            // Once an origin was met, its later entries cannot lower the cursor.
            if met.len() >= view.shown.len() { Walk::Stop } else { Walk::On }
        });
    }
}

/// The first `limit` posts that came after a cursor, by stamp.
pub(super) fn after_cursor(
    view: View<'_>,
    sources: &[Source],
    since: &Vector,
    before: Option<Stamp>,
    limit: u32,
) -> Answer {
    let found = new_posts(view, sources, since);
    let origins = view.shown.len() + since.len();
    let wanted = usize::try_from(limit).unwrap_or(usize::MAX);
    let deliverable = found.iter().take_while(|found| before.is_none_or(|before| found.stamp < before)).count();
    let mut room = Room::new(limit);
    let mut authors = Authors::default();
    let mut posts: Vec<(usize, ShownPost)> = Vec::new();
    let mut delivered = 0;
    for (index, found) in found.iter().enumerate().take(deliverable.min(wanted)) {
        let post = line(view, found, &mut authors);
        if !room.takes(post.as_ref().map_or(0, |post| line_bytes(post.text.len(), origins))) {
            break;
        }
        posts.extend(post.map(|post| (index, post)));
        delivered = index + 1;
    }
    let (posts, cursor) = with_cursors(view, &found, posts, since, delivered);
    Answer::Posts { posts, more: delivered < deliverable.min(wanted), cursor }
}

/// Sets the cursors of lines, given with their index in all that is new; and the cursor after the delivered ones.
pub(super) fn with_cursors(
    view: View<'_>,
    found: &[Found],
    mut posts: Vec<(usize, ShownPost)>,
    since: &Vector,
    delivered: usize,
) -> (Vec<ShownPost>, Vector) {
    let mut cursor = view.shown.clone();
    cursor.merge(since);
    found[delivered..].iter().for_each(|later| later.lower(&mut cursor));
    let answered = cursor.clone();
    let mut above = delivered;
    for (index, post) in posts.iter_mut().rev() {
        found[*index + 1..above].iter().for_each(|later| later.lower(&mut cursor));
        post.cursor = cursor.clone();
        above = *index + 1;
    }
    (posts.into_iter().map(|(_, post)| post).collect(), answered)
}

/// All posts of the timeline that a cursor lacks, by stamp.
pub(super) fn new_posts(view: View<'_>, sources: &[Source], since: &Vector) -> Vec<Found> {
    let cut = meta::cut(view.rows);
    let logged =
        view.shown.iter().all(|(origin, seq)| since.get(origin) >= seq || since.get(origin) >= cut.get(origin));
    let mut found = match logged {
        true => from_log(view, sources, since),
        false => from_tables(view, sources, since),
    };
    found.sort_unstable();
    found.dedup();
    found
}

fn is_new(found: &Found, since: &Vector) -> bool {
    !holds_any(since, found.stamp.origin, found.seq, &found.also)
}

/// Walks the entries between the cursor and what is shown: cheap when little is new.
pub(super) fn from_log(view: View<'_>, sources: &[Source], since: &Vector) -> Vec<Found> {
    let after: BTreeMap<UserId, Option<Stamp>> = sources.iter().map(|source| (source.author, source.after)).collect();
    let mut found = Vec::new();
    for (origin, upto) in view.shown.iter() {
        log::walk(view.rows, origin, since.get(origin), &mut |seq, bytes| {
            if seq > upto {
                return Walk::Stop;
            }
            if let Ok(entry) = postcard::from_bytes::<Entry>(bytes)
                && matches!(entry.op, Op::Post { .. })
                && let Some(after) = after.get(&entry.user)
                && let Some(post) = effective(view, &entry)
                && after.is_none_or(|after| post.stamp > after)
                && is_new(&post, since)
            {
                found.push(post);
            }
            Walk::On
        });
    }
    found
}

/// The post that an entry's request id made.
fn effective(view: View<'_>, entry: &Entry) -> Option<Found> {
    let row = records::request(view.rows, entry.user, &entry.request)?;
    let (table, key) = row.kind.place(entry.user, row.entries.first()?.stamp());
    match row.kind {
        Kind::Post => Found::read(view, &key, &view.rows.get(table, &key)?, Keep::Place),
        Kind::Register | Kind::Edge { .. } => None,
    }
}

/// Walks all posts of all authors: works whatever was cut from the log.
pub(super) fn from_tables(view: View<'_>, sources: &[Source], since: &Vector) -> Vec<Found> {
    let mut new = Vec::new();
    for source in sources {
        let (from, to) = range(source, None);
        view.rows.ascend(Table::Posts, &from, &to, &mut |key, value| {
            new.extend(Found::read(view, key, value, Keep::Place).filter(|found| is_new(found, since)));
            Walk::On
        });
    }
    new
}
