//! What people are answered: their writes acknowledged, their reads answered, or both refused.

use std::collections::BTreeSet;

use gaggle::error::{ErrorCode, Refusal};
use gaggle::id::{EntryId, RequestId, Seq, Vector};
use gaggle::service::query::{Answer, ShownPost};
use gaggle::wire::client::Written;

use super::{Asked, Breach, Extent, History, Memory, Promise, Session, Verdict, Want, entry_of, never};

const READ_YOUR_WRITES: Promise = Promise::P3(Session::ReadYourWrites);
const MONOTONIC_READS: Promise = Promise::P3(Session::MonotonicReads);
const MONOTONIC_WRITES: Promise = Promise::P3(Session::MonotonicWrites);
const WRITES_FOLLOW_READS: Promise = Promise::P3(Session::WritesFollowReads);

impl History {
    /// Disks survive all faults but one's loss: what is missing is on a disk that is not in reach, or was lost; and while
    /// every process runs and hears every other, only what was lost is missing.
    pub(crate) fn on_missing(
        &mut self,
        person: usize,
        asked: &Asked,
        gaps: &[(EntryId, EntryId)],
        clock: u64,
    ) -> Verdict {
        self.people[person].edges_certain = false;
        never(gaps.is_empty(), Promise::Rules, || {
            format!("person{person} is told that something is missing, and not what: {asked:?}")
        })?;
        for (first, last) in gaps {
            let mut seqs = first.seq.0..=last.seq.0;
            let entry = |seq: &u64| EntryId { origin: first.origin, seq: Seq(*seq) };
            let nowhere = |seq: &u64| self.copies(entry(seq)) == 0 && !self.is_gone(entry(seq));
            if let Some(seq) = seqs.clone().find(nowhere) {
                let what = || format!("person{person} has seen {}#{seq}, which no disk holds", first.origin);
                never(true, Promise::P1, what)?;
            }
            if let Some(seq) = seqs.find(|seq| !self.is_gone(entry(seq))).filter(|_| self.is_sound(clock)) {
                let what = || {
                    format!(
                        "person{person} is told that {}#{seq} is missing, while every host can be had",
                        first.origin
                    )
                };
                never(true, MONOTONIC_READS, what)?;
            }
        }
        Ok(())
    }

    /// A write is acknowledged.
    pub(crate) fn on_written(&mut self, person: usize, asked: &Asked, written: &Written) -> Verdict {
        let (entry, hlc) = (written.accepted.entry, written.accepted.hlc);
        never(!self.people[person].token.vector.holds(entry), READ_YOUR_WRITES, || {
            format!("person{person}'s token lacks its own acknowledged {entry:?}")
        })?;
        // A host without what was seen may be behind in time as well.
        let whole = asked.reduced.is_none();
        let behind = |promise: Promise, what: &str| {
            never(true, promise, || {
                format!("person{person}'s {asked:?} got {hlc:?}, before what it had {what} by then")
            })
        };
        if whole && asked.wrote >= hlc {
            behind(MONOTONIC_WRITES, "written")?;
        }
        if whole && asked.saw >= hlc {
            behind(WRITES_FOLLOW_READS, "seen")?;
        }
        let me = &mut self.people[person];
        me.acknowledged.insert(asked.id.clone(), entry);
        me.wrote = me.wrote.max(hlc);
        match &asked.want {
            Want::Register => me.registered = true,
            Want::Post { .. } => {
                me.seen.insert(asked.id.clone(), (person, entry));
                me.newest_post = Some(asked.id.clone());
            }
            Want::Join(whom) => {
                let before = me.joined.insert(*whom, hlc);
                never(before.is_some() && me.edges_certain, READ_YOUR_WRITES, || {
                    format!("person{person} joined person{whom} twice: {written:?}")
                })?;
            }
            Want::Leave(whom) => {
                let before = me.joined.remove(whom);
                never(before.is_none() && me.edges_certain, READ_YOUR_WRITES, || {
                    format!("person{person} left person{whom}, not joined: {written:?}")
                })?;
                me.seen.retain(|_, (author, _)| author != whom);
            }
            Want::Timeline | Want::Page { .. } | Want::Users => {
                never(true, Promise::Rules, || format!("{asked:?} is answered by {written:?}"))?;
            }
        }
        Ok(())
    }

    /// A person is told that asking again changes nothing.
    pub(crate) fn on_refused(&mut self, person: usize, asked: &Asked, refusal: &Refusal) -> Verdict {
        if asked.want == Want::Register && refusal.code == ErrorCode::NameTaken && self.shares_name(person) {
            self.people[person].name = format!("person{person}");
            return Ok(());
        }
        let me = &mut self.people[person];
        if asked.want == Want::Register && refusal.code == ErrorCode::OtherName {
            // It had got the name that it was refused elsewhere.
            let Memory { name, wanted, .. } = me;
            let known = name != wanted;
            name.clone_from(wanted);
            if known {
                return Ok(());
            }
        }
        if asked.attempts > 1 {
            // An earlier attempt may have been taken at a host of which this one knew nothing yet.
            me.edges_certain = false;
        }
        let of_the_service = matches!(
            refusal.code,
            ErrorCode::AlreadyJoined
                | ErrorCode::NotJoined
                | ErrorCode::UnknownUser
                | ErrorCode::NameTaken
                | ErrorCode::OtherName
                | ErrorCode::NotRegistered
        );
        let expected = match (&asked.want, refusal.code) {
            (Want::Join(whom), ErrorCode::AlreadyJoined) => me.joined.contains_key(whom) || !me.edges_certain,
            (Want::Leave(whom), ErrorCode::NotJoined) => !me.joined.contains_key(whom) || !me.edges_certain,
            // Somebody who has not come yet.
            (Want::Join(whom) | Want::Leave(whom), ErrorCode::UnknownUser) => !me.joined.contains_key(whom),
            _ => false,
        };
        // Without its whole token, a host may not know this person yet.
        let expected = expected || (of_the_service && asked.reduced.is_some());
        let promise = if of_the_service { READ_YOUR_WRITES } else { Promise::P8 };
        never(!expected, promise, || format!("person{person} is refused {asked:?}: {refusal:?}"))
    }

    /// A read is answered.
    pub(crate) fn on_answer(&mut self, person: usize, asked: &Asked, answer: &Answer) -> Verdict {
        match (&asked.want, answer) {
            (Want::Timeline, Answer::Posts { posts, cursor, .. }) => {
                self.on_timeline(person, asked, posts, cursor, Extent::of(answer))
            }
            (Want::Page { of, .. }, Answer::Posts { posts, cursor, .. }) => {
                self.on_page(person, asked, *of, posts, cursor, Extent::of(answer))
            }
            (Want::Users, Answer::Names { names, .. }) => {
                let listed = names.iter().any(|name| self.goes_by(name, person));
                never(!listed && asked.reduced.is_none(), READ_YOUR_WRITES, || {
                    format!("person{person} is not in the list of users: {names:?}")
                })
            }
            (_, answer) => never(true, Promise::Rules, || format!("{asked:?} is answered by {answer:?}")),
        }
    }

    fn on_timeline(
        &mut self,
        person: usize,
        asked: &Asked,
        posts: &[ShownPost],
        cursor: &Vector,
        extent: Extent,
    ) -> Verdict {
        let ids = self.check_lines(person, posts)?;
        let me = &self.people[person];
        let stranger = posts.iter().find(|post| {
            let author = self.posts.get(&post.id).map(|facts| facts.author);
            author != Some(person) && author.is_none_or(|author| !me.joined.contains_key(&author))
        });
        if extent == Extent::All {
            self.check_kept(person, asked, &ids, cursor)?;
        }
        if let (Some(post), true) = (stranger, me.edges_certain) {
            never(true, Promise::Rules, || format!("person{person} is shown {post:?} of somebody not joined"))?;
        }
        let orphan = posts.iter().find(|post| self.parent_lost(person, post, |parent| ids.contains(parent)));
        if let (Some(post), Extent::All) = (orphan, extent) {
            never(true, Promise::P4, || format!("person{person} is shown {post:?}, and not what it answers"))?;
        }
        self.remember(person, posts.iter());
        Ok(())
    }

    /// What holds for the lines of a timeline; says which posts they are.
    pub(super) fn check_lines<'a>(
        &self,
        person: usize,
        posts: &'a [ShownPost],
    ) -> Result<BTreeSet<&'a RequestId>, Breach> {
        self.check_posts(person, posts)?;
        let ids: BTreeSet<&RequestId> = posts.iter().map(|post| &post.id).collect();
        never(ids.len() != posts.len(), Promise::P2, || format!("person{person}'s timeline holds a post twice"))?;
        never(!posts.is_sorted_by_key(|post| post.stamp), Promise::Rules, || {
            format!("person{person}'s timeline is not in order")
        })?;
        if let Some(post) = posts.iter().find(|post| !self.token_knows(person, post)) {
            let what = || format!("person{person} is shown {:?}, and its token lacks it", entry_of(post));
            never(true, MONOTONIC_READS, what)?;
        }
        Ok(ids)
    }

    /// What was seen or written is there still.
    fn check_kept(&self, person: usize, asked: &Asked, ids: &BTreeSet<&RequestId>, cursor: &Vector) -> Verdict {
        let me = &self.people[person];
        // Who was joined when is uncertain once something seen could not be had; one's own posts are one's own.
        let lost = me.seen.iter().find(|(id, (author, entry))| {
            let certain = me.edges_certain || *author == person;
            let excused = || self.trimmed(id) || self.precedes_join(person, *author, id);
            certain && self.names(&asked.token.vector, *entry) && !ids.contains(id) && !excused()
        });
        let Some((id, (author, entry))) = lost else { return Ok(()) };
        let (promise, what) =
            if *author == person { (READ_YOUR_WRITES, "its own") } else { (MONOTONIC_READS, "a seen") };
        never(true, promise, || {
            let token = &asked.token;
            format!(
                "person{person} misses {what} post {id:?} ({entry:?}) in a timeline up to {cursor:?}, asked with {token:?}"
            )
        })
    }

    /// From now on these were seen.
    pub(super) fn remember<'a>(&mut self, person: usize, posts: impl Iterator<Item = &'a ShownPost>) {
        let me = &mut self.people[person];
        for post in posts {
            let Some(facts) = self.posts.get(&post.id) else { continue };
            me.seen.insert(post.id.clone(), (facts.author, entry_of(post)));
            me.saw = me.saw.max(post.stamp.hlc);
        }
    }

    /// A retry of a post was taken at a second host, was seen there, and the first entry turned up later, with a stamp
    /// before the person joined its author: a post has its smallest stamp, so it leaves the timeline.
    fn precedes_join(&self, person: usize, author: usize, id: &RequestId) -> bool {
        let first = self.posts.get(id).and_then(|facts| facts.entries.values().min());
        let joined = self.people[person].joined.get(&author);
        first.zip(joined).is_some_and(|(first, joined)| first.hlc < *joined)
    }

    /// Whether this answers a post that this person must see as well, and is not `shown`.
    pub(super) fn parent_lost(&self, person: usize, post: &ShownPost, shown: impl Fn(&RequestId) -> bool) -> bool {
        let me = &self.people[person];
        let facts = self.posts.get(&post.id).filter(|facts| !facts.orphaned);
        let Some(parent) = facts.and_then(|facts| facts.parent.as_ref()) else { return false };
        let Some(facts) = self.posts.get(parent) else { return false };
        let Some(first) = facts.entries.values().min() else { return false };
        let visible = facts.author == person || me.joined.get(&facts.author).is_some_and(|since| *since < first.hlc);
        visible && me.edges_certain && !self.trimmed(parent) && !shown(parent)
    }
}
