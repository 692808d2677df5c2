//! The judge: what was called, answered, told and committed in a run, in order, and whether it may be so.
//!
//! Pure: it is told of each happening ([`sessions`], [`feeds`], [`hosts`]) and of the state at the end ([`end`]), and
//! knows no node, no network and no chance, so each promise is tested on histories made by hand, a bad one and its good
//! neighbour ([`tests`]). A breach names the promise that it breaks.

pub(crate) mod end;
mod feeds;
mod hosts;
mod pages;
mod sessions;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use gaggle::id::{EntryId, PublicKey, RequestId, Token, Vector};
use gaggle::service::entry::{Entry, Stamp};
use gaggle::service::query::{Answer, ShownPost};
use gaggle::service::retired::Retired;
use gaggle::time::Hlc;

pub(crate) use hosts::{Facts, Losses, SnapshotRows};
pub(crate) use pages::{PAGE_POSTS, Walk};

/// The four guarantees of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Session {
    ReadYourWrites,
    MonotonicReads,
    MonotonicWrites,
    WritesFollowReads,
}

/// What was broken: a promise of DESIGN section 1, or what goes without saying.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Promise {
    P1,
    P2,
    P3(Session),
    P4,
    P5,
    P6,
    P7,
    P8,
    /// A rule of the service or of the node's dealings with the world, whatever is promised.
    Rules,
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::P3(Session::ReadYourWrites) => f.write_str("P3 (read your writes)"),
            Self::P3(Session::MonotonicReads) => f.write_str("P3 (monotonic reads)"),
            Self::P3(Session::MonotonicWrites) => f.write_str("P3 (monotonic writes)"),
            Self::P3(Session::WritesFollowReads) => f.write_str("P3 (writes follow reads)"),
            Self::Rules => f.write_str("rules"),
            Self::P1 | Self::P2 | Self::P4 | Self::P5 | Self::P6 | Self::P7 | Self::P8 => write!(f, "{self:?}"),
        }
    }
}

/// Whether an answer holds all, or was cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    All,
    Part,
}

impl Extent {
    fn of(answer: &Answer) -> Self {
        if matches!(answer, Answer::Posts { more: true, .. }) { Self::Part } else { Self::All }
    }
}

/// A promise that was not kept, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Breach {
    pub(crate) promise: Promise,
    pub(crate) what: String,
}

impl fmt::Display for Breach {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.promise, self.what)
    }
}

/// Whether a happening may be.
pub(crate) type Verdict = Result<(), Breach>;

/// Fails if something is so that must not be.
#[expect(clippy::fn_params_excessive_bools, reason = "an assertion: what must not be comes first")]
fn never(so: bool, promise: Promise, what: impl FnOnce() -> String) -> Verdict {
    if so { Err(Breach { promise, what: what() }) } else { Ok(()) }
}

/// What a person wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Want {
    Register,
    Post {
        text: String,
    },
    Join(usize),
    Leave(usize),
    Timeline,
    /// The next posts of a person, from this cursor.
    Page {
        of: usize,
        since: Vector,
    },
    Users,
}

/// What a call was asked with.
#[derive(Debug, Clone)]
pub(crate) struct Asked {
    pub(crate) want: Want,
    pub(crate) id: RequestId,
    /// Stamps of what the person had written, and had seen, when it began: each is below the stamp of what it writes.
    pub(crate) wrote: Hlc,
    pub(crate) saw: Hlc,
    pub(crate) attempts: u32,
    /// What the last attempt named as seen.
    pub(crate) token: Token,
    /// After `Missing`: the part that can be had.
    pub(crate) reduced: Option<Token>,
}

/// What a feed has told, across connections.
#[derive(Debug, Default)]
pub(crate) struct Told {
    pub(crate) cursor: Vector,
    /// Shown before the feed began.
    pub(crate) before: BTreeSet<RequestId>,
    pub(crate) told: BTreeSet<RequestId>,
    /// A host told it that lacked what was told elsewhere: entries of a post, a join or a leave. It cannot know what
    /// those were worth, then or later; the client library sorts posts out by their ids.
    pub(crate) lacking: bool,
}

/// What one person has done and seen.
#[expect(clippy::struct_excessive_bools, reason = "independent facts of one person, each read by its name")]
#[derive(Debug)]
pub(crate) struct Memory {
    pub(crate) key: PublicKey,
    /// The name that it goes by; during a partition another may have claimed it, too.
    pub(crate) name: String,
    /// The name that it asked for first: it may have got it somewhere, whatever it was told.
    pub(crate) wanted: String,
    pub(crate) token: Token,
    pub(crate) registered: bool,
    /// Since when: the stamp of the acknowledged JOIN.
    pub(crate) joined: BTreeMap<usize, Hlc>,
    /// Posts that every later timeline must hold, unless their author was left.
    pub(crate) seen: BTreeMap<RequestId, (usize, EntryId)>,
    pub(crate) acknowledged: BTreeMap<RequestId, EntryId>,
    /// The newest post that was acknowledged: no host holds the next and not this one.
    newest_post: Option<RequestId>,
    /// The highest stamps that were acknowledged, and seen.
    wrote: Hlc,
    saw: Hlc,
    pub(crate) feed: Option<Told>,
    /// Pages that are being read.
    pub(crate) walk: Option<Walk>,
    /// Once something seen could not be had, joins and leaves may have gone elsewhere.
    pub(crate) edges_certain: bool,
}

impl Memory {
    pub(crate) fn new(key: PublicKey, name: &str) -> Self {
        Self {
            key,
            name: name.to_owned(),
            wanted: name.to_owned(),
            token: Token::default(),
            registered: false,
            joined: BTreeMap::new(),
            seen: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            newest_post: None,
            wrote: Hlc(0),
            saw: Hlc(0),
            feed: None,
            walk: None,
            edges_certain: true,
        }
    }
}

/// What is known of one post, by its request id.
#[derive(Debug, Clone)]
pub(crate) struct PostFacts {
    pub(crate) author: usize,
    pub(crate) text: String,
    pub(crate) parent: Option<RequestId>,
    /// The author's post before it.
    previous: Option<RequestId>,
    /// Its author was told that something seen could not be had, and went on without: perhaps without the parent.
    pub(crate) orphaned: bool,
    /// The entries that carry it, as they were seen on disks.
    pub(crate) entries: BTreeMap<EntryId, Stamp>,
}

/// Everything that happened, as far as a promise speaks of it.
#[derive(Debug, Default)]
pub(crate) struct History {
    pub(crate) people: Vec<Memory>,
    pub(crate) posts: BTreeMap<RequestId, PostFacts>,
    pub(crate) hosts: Vec<Facts>,
    /// Every entry that was ever committed.
    pub(crate) archive: BTreeMap<EntryId, Entry>,
    pub(crate) losses: Losses,
    /// The largest trim that was ever committed: posts of an earlier time may be missing anywhere.
    pub(crate) trim: Hlc,
    /// Since when all is well, if it is: no fault is left, and every host holds what any did.
    pub(crate) sound_since: Option<u64>,
    /// Where origins end, by every entry that ever said so.
    pub(crate) retired: Retired,
}

impl History {
    /// A cursor with all that it implies.
    pub(super) fn whole(&self, vector: &Vector) -> Vector {
        let mut whole = vector.clone();
        self.retired.complete(&mut whole);
        whole
    }

    /// Whether a token names an entry, in whichever way: who holds the end of an origin holds all of it, also where the
    /// token still names a part of it.
    pub(super) fn names(&self, token: &Vector, entry: EntryId) -> bool {
        let ends = || self.retired.iter().filter(|one| one.origin == entry.origin && one.last >= entry.seq);
        token.holds(entry) || ends().any(|one| self.names(token, one.by))
    }

    /// A person begins a call.
    pub(crate) fn on_call(&mut self, person: usize, id: RequestId, want: Want) -> Asked {
        let me = &self.people[person];
        if let Want::Post { text } = &want {
            let facts = PostFacts {
                author: person,
                text: text.clone(),
                parent: text.split_once("re:").and_then(|(_, parent)| parent.parse().ok()),
                previous: me.newest_post.clone(),
                orphaned: false,
                entries: BTreeMap::new(),
            };
            self.posts.insert(id.clone(), facts);
        }
        let (wrote, saw) = (me.wrote, me.saw);
        Asked { want, id, wrote, saw, attempts: 0, token: Token::default(), reduced: None }
    }

    /// A person asks, for the first time or again, with what it has seen or with the part that can be had.
    pub(crate) fn on_attempt(&mut self, asked: &mut Asked, token: &Token) {
        asked.attempts += 1;
        asked.token.clone_from(token);
        if asked.reduced.is_some()
            && let Some(facts) = self.posts.get_mut(&asked.id)
        {
            facts.orphaned = true;
        }
    }

    /// A person forgets a call: it may have been taken, or will be.
    pub(crate) fn on_forgotten(&mut self, person: usize, asked: &Asked) {
        if matches!(asked.want, Want::Join(_) | Want::Leave(_)) {
            self.people[person].edges_certain = false;
        }
    }

    /// Whether a name, as it is shown, is this person's: perhaps with the suffix of a contested name.
    fn goes_by(&self, shown: &str, person: usize) -> bool {
        let name = shown.split('~').next();
        let person = &self.people[person];
        name == Some(person.name.as_str()) || name == Some(person.wanted.as_str())
    }

    /// Whether a post may be missing because it is not kept.
    fn trimmed(&self, post: &RequestId) -> bool {
        let first = self.posts.get(post).and_then(|facts| facts.entries.values().min());
        first.is_some_and(|first| first.hlc < self.trim)
    }

    /// Whether another person goes by the same name, or may.
    pub(crate) fn shares_name(&self, person: usize) -> bool {
        let Memory { name, wanted, .. } = &self.people[person];
        name != wanted || self.people.iter().filter(|other| other.name == *name || other.wanted == *name).count() > 1
    }

    /// Whether a person's token holds any entry that carries this post.
    fn token_knows(&self, person: usize, post: &ShownPost) -> bool {
        let vector = &self.people[person].token.vector;
        let facts = self.posts.get(&post.id);
        facts.is_some_and(|facts| facts.entries.keys().any(|entry| self.names(vector, *entry)))
    }

    /// What holds for posts wherever they are shown.
    fn check_posts(&self, person: usize, posts: &[ShownPost]) -> Verdict {
        for post in posts {
            let facts = self.posts.get(&post.id);
            let fine = facts.is_some_and(|facts| {
                facts.text == post.text
                    && self.goes_by(&post.author, facts.author)
                    && facts.entries.get(&entry_of(post)) == Some(&post.stamp)
            });
            never(!fine, Promise::Rules, || format!("person{person} is shown {post:?}, where {facts:?} was posted"))?;
        }
        Ok(())
    }
}

/// The entry that a shown post was read from.
fn entry_of(post: &ShownPost) -> EntryId {
    EntryId { origin: post.stamp.origin, seq: post.seq }
}
