//! What people make of answers and feeds, and whether they may be so: each check names the promise that it guards.

use std::collections::{BTreeMap, BTreeSet};

use gaggle::error::{Advice, ErrorCode, Refusal};
use gaggle::id::{FeedId, RequestId, Token, Vector};
use gaggle::service::query::{Answer, ShownPost};
use gaggle::wire::client::{Assignment, FeedFrame, Response, ServerFrame, Written};

use super::people::{Call, FeedState, Person, Want};
use super::world::World;

/// Whether an answer holds all, or was cut to the newest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    All,
    Newest,
}

impl World {
    pub(crate) fn on_frame(&mut self, conn: u64, frame: ServerFrame) {
        let Some(person) = self.conns.get(&conn).map(|conn| conn.person) else { return };
        self.note(|| format!("person{person} <- {}", short(&frame)));
        match frame {
            ServerFrame::Hello { .. } | ServerFrame::Assigned(_) => {}
            ServerFrame::Serving { serving: true, .. } => {}
            ServerFrame::Serving { serving: false, .. } => {
                if self.people[person].home {
                    self.hang_up(person);
                    self.tick_after(person, 5_000);
                }
            }
            ServerFrame::Response { result: Ok(Response::Assigned(assignment)), .. } => {
                if !self.people[person].home {
                    self.choose_home(person, &assignment);
                }
            }
            ServerFrame::Response { number, token, result } => {
                let call = self.people[person].call.clone().filter(|call| call.number == number);
                if let Some(call) = call {
                    self.on_response(person, &call, &token, result);
                } else if !self.people[person].home {
                    self.retry_elsewhere(person);
                }
            }
        }
    }

    /// Most go where they are sent; some insist on another host that serves.
    fn choose_home(&mut self, person: usize, assignment: &Assignment) {
        let serving: Vec<_> =
            assignment.hosts.iter().filter(|host| host.ready).filter_map(|host| host.serving).collect();
        let choice = if self.dice.chance(800) { serving.first().copied() } else { self.dice.pick(&serving) };
        match choice {
            Some(process) => self.go_home(person, process),
            None => self.retry_elsewhere(person),
        }
    }

    fn retry_elsewhere(&mut self, person: usize) {
        self.hang_up(person);
        let after = self.dice.between(10_000, 60_000);
        self.tick_after(person, after);
    }

    fn on_response(&mut self, person: usize, call: &Call, token: &Token, result: Result<Response, Refusal>) {
        match result {
            Ok(Response::Missing { gaps }) => {
                self.counts.missing += 1;
                self.note(|| format!("person{person} misses {gaps:?}"));
                self.people[person].edges_certain = false;
                if let Some(call) = self.people[person].call.as_mut() {
                    call.reduced = Some(token.clone());
                }
                self.check_missing(person, call, &gaps);
                self.try_call(person);
            }
            Ok(Response::Written(written)) => {
                self.people[person].token.merge(token);
                self.on_written(person, call, &written);
                self.call_done(person);
            }
            Ok(Response::Answer(answer)) => {
                self.people[person].token.merge(token);
                self.on_answer(person, call, answer);
                self.call_done(person);
            }
            Ok(other) => self.fail(format!("person{person} asked for {call:?} and got {other:?}")),
            Err(refusal) => match refusal.code.advice() {
                Advice::Retry => {
                    if let Some(call) = self.people[person].call.as_mut() {
                        call.tried_at = None;
                    }
                    let after = self.dice.between(10_000, 60_000);
                    self.tick_after(person, after);
                }
                Advice::Elsewhere => self.retry_elsewhere(person),
                Advice::Never => {
                    self.on_refused(person, call, &refusal);
                    self.call_done(person);
                }
            },
        }
    }

    fn call_done(&mut self, person: usize) {
        self.people[person].call = None;
        let think = self.people[person].think_micros;
        let after = self.dice.between(think / 10, think * 2);
        self.tick_after(person, after);
    }

    /// Disks survive all faults: while every process runs and hears every other, nothing is missing.
    fn check_missing(&mut self, person: usize, call: &Call, gaps: &[(gaggle::id::EntryId, gaggle::id::EntryId)]) {
        if gaps.is_empty() {
            self.fail(format!("person{person} is told that something is missing, and not what: {call:?}"));
        }
        for (first, last) in gaps {
            let mut seqs = first.seq.0..=last.seq.0;
            let nowhere = seqs.find(|seq| {
                let entry = gaggle::id::EntryId { origin: first.origin, seq: gaggle::id::Seq(*seq) };
                self.copies(entry) == 0 && !self.is_gone(entry)
            });
            if let Some(seq) = nowhere {
                self.fail(format!("P1: person{person} has seen {}#{seq}, which no disk holds", first.origin));
            }
        }
    }

    /// P1: an acknowledgement counts no copy that is not durable, at the moment when it leaves its host.
    pub(crate) fn check_copies(&mut self, frame: &ServerFrame) {
        let ServerFrame::Response { result: Ok(Response::Written(written)), .. } = frame else { return };
        let copies = self.copies(written.accepted.entry);
        if written.copies < 2 {
            self.losses.thin.insert(written.accepted.entry.origin);
        }
        if written.copies == 0 || copies < usize::try_from(written.copies).unwrap_or(usize::MAX) {
            self.fail(format!("P1: {written:?} is acknowledged while {copies} hosts hold it durably"));
        }
    }

    fn on_written(&mut self, person: usize, call: &Call, written: &Written) {
        self.counts.acknowledged += 1;
        let entry = written.accepted.entry;
        if !self.people[person].token.vector.holds(entry) {
            self.fail(format!("P3: person{person}'s token lacks its own acknowledged {entry:?}"));
        }
        let certain = self.people[person].edges_certain;
        self.people[person].acknowledged.insert(call.id.clone(), entry);
        match &call.want {
            Want::Register => self.people[person].registered = true,
            Want::Post { .. } => {
                self.people[person].seen.insert(call.id.clone(), (person, entry));
            }
            Want::Join(whom) => {
                let before = self.people[person].joined.insert(*whom, written.accepted.hlc);
                if before.is_some() && certain {
                    self.fail(format!("P3: person{person} joined person{whom} twice: {written:?}"));
                }
            }
            Want::Leave(whom) => {
                let before = self.people[person].joined.remove(whom);
                if before.is_none() && certain {
                    self.fail(format!("P3: person{person} left person{whom}, not joined: {written:?}"));
                }
                self.people[person].seen.retain(|_, (author, _)| author != whom);
            }
            Want::Timeline | Want::Users => self.fail(format!("{call:?} is answered by {written:?}")),
        }
    }

    fn on_refused(&mut self, person: usize, call: &Call, refusal: &Refusal) {
        self.counts.answers += 1;
        if call.want == Want::Register && refusal.code == ErrorCode::NameTaken && self.shares_name(person) {
            self.people[person].name = format!("person{person}");
            return;
        }
        if call.want == Want::Register && refusal.code == ErrorCode::OtherName {
            // It had got the name that it was refused elsewhere.
            let Person { name, wanted, .. } = &mut self.people[person];
            let known = name != wanted;
            name.clone_from(wanted);
            if known {
                return;
            }
        }
        if call.attempts > 1 {
            // An earlier attempt may have been taken at a host of which this one knew nothing yet.
            self.people[person].edges_certain = false;
        }
        let me = &self.people[person];
        let expected = match (&call.want, refusal.code) {
            (Want::Join(whom), ErrorCode::AlreadyJoined) => me.joined.contains_key(whom) || !me.edges_certain,
            (Want::Leave(whom), ErrorCode::NotJoined) => !me.joined.contains_key(whom) || !me.edges_certain,
            // Somebody who has not come yet.
            (Want::Join(whom) | Want::Leave(whom), ErrorCode::UnknownUser) => !me.joined.contains_key(whom),
            _ => false,
        };
        // Without its whole token, a host may not know this person yet.
        if !expected && call.reduced.is_none() {
            self.fail(format!("P3: person{person} is refused {call:?}: {refusal:?}"));
        }
    }

    fn on_answer(&mut self, person: usize, call: &Call, answer: Answer) {
        self.counts.answers += 1;
        match (&call.want, answer) {
            (Want::Timeline, Answer::Posts { posts, more, cursor }) => {
                self.check_timeline(person, call, &posts, &cursor, if more { Extent::Newest } else { Extent::All });
                self.maybe_begin_feed(person, &posts, cursor);
            }
            (Want::Users, Answer::Names { names, .. }) => {
                let me = &self.people[person];
                if !names.iter().any(|name| goes_by(name, me)) && call.reduced.is_none() {
                    self.fail(format!("P3: person{person} is not in the list of users: {names:?}"));
                }
            }
            (_, answer) => self.fail(format!("{call:?} is answered by {answer:?}")),
        }
    }

    fn check_timeline(&mut self, person: usize, call: &Call, posts: &[ShownPost], cursor: &Vector, extent: Extent) {
        self.check_posts(person, posts);
        let ids: BTreeSet<&RequestId> = posts.iter().map(|post| &post.id).collect();
        if ids.len() != posts.len() {
            self.fail(format!("P2: person{person}'s timeline holds a post twice"));
        }
        if !posts.is_sorted_by_key(|post| post.stamp) {
            self.fail(format!("person{person}'s timeline is not in order"));
        }
        if let Some(post) = posts.iter().find(|post| !self.token_knows(person, post)) {
            self.fail(format!("P3: person{person} is shown {:?}, and its token lacks it", entry_of(post)));
            return;
        }
        let me = &self.people[person];
        // Who was joined when is uncertain once something seen could not be had; one's own posts are one's own.
        let lost = me.seen.iter().find(|(id, (author, entry))| {
            let certain = me.edges_certain || *author == person;
            certain && call.token.vector.holds(*entry) && !ids.contains(id) && !self.precedes_join(person, *author, id)
        });
        if let (Some((id, (author, entry))), Extent::All) = (lost, extent) {
            let what = if *author == person { "its own" } else { "a seen" };
            self.fail(format!(
                "P3: person{person} misses {what} post {id:?} ({entry:?}) in a timeline up to {cursor:?}, asked with {:?}",
                call.token
            ));
            return;
        }
        let stranger = posts.iter().find(|post| {
            let author = self.posts.get(&post.id).map(|facts| facts.author);
            author != Some(person) && author.is_none_or(|author| !me.joined.contains_key(&author))
        });
        if let (Some(post), true) = (stranger, me.edges_certain) {
            self.fail(format!("person{person} is shown {post:?} of somebody not joined"));
            return;
        }
        let parents_lost = self.parents_lost(person, posts, &ids);
        if let (Some(found), Extent::All) = (parents_lost, extent) {
            self.fail(format!("P4: person{person} is shown {found:?}, and not what it answers"));
        }
        let seen: BTreeMap<_, _> = posts
            .iter()
            .filter_map(|post| Some((post.id.clone(), (self.posts.get(&post.id)?.author, entry_of(post)))))
            .collect();
        self.people[person].seen.extend(seen);
    }

    /// Whether a person's token holds any entry that carries this post.
    fn token_knows(&self, person: usize, post: &ShownPost) -> bool {
        let vector = &self.people[person].token.vector;
        let facts = self.posts.get(&post.id);
        facts.is_some_and(|facts| facts.entries.keys().any(|entry| vector.holds(*entry)))
    }

    /// A retry of a post was taken at a second host, was seen there, and the first entry turned up later, with a stamp
    /// before the person joined its author: a post has its smallest stamp, so it leaves the timeline.
    fn precedes_join(&self, person: usize, author: usize, id: &RequestId) -> bool {
        let first = self.posts.get(id).and_then(|facts| facts.entries.values().min());
        let joined = self.people[person].joined.get(&author);
        first.zip(joined).is_some_and(|(first, joined)| first.hlc < *joined)
    }

    /// A shown answer to a post that this person must see as well, and does not.
    fn parents_lost(&self, person: usize, posts: &[ShownPost], ids: &BTreeSet<&RequestId>) -> Option<RequestId> {
        let me = &self.people[person];
        let lost = posts.iter().find(|post| {
            let facts = self.posts.get(&post.id).filter(|facts| !facts.orphaned);
            let Some(parent) = facts.and_then(|facts| facts.parent.as_ref()) else { return false };
            let Some(facts) = self.posts.get(parent) else { return false };
            let Some(first) = facts.entries.values().min() else { return false };
            let visible =
                facts.author == person || me.joined.get(&facts.author).is_some_and(|since| *since < first.hlc);
            visible && me.edges_certain && !ids.contains(parent)
        });
        lost.map(|post| post.id.clone())
    }

    /// What holds for posts wherever they are shown.
    fn check_posts(&mut self, person: usize, posts: &[ShownPost]) {
        for post in posts {
            let facts = self.posts.get(&post.id);
            let fine = facts.is_some_and(|facts| {
                facts.text == post.text
                    && goes_by(&post.author, &self.people[facts.author])
                    && facts.entries.get(&entry_of(post)) == Some(&post.stamp)
            });
            if !fine {
                self.fail(format!("person{person} is shown {post:?}, where {facts:?} was posted"));
                return;
            }
        }
    }

    fn maybe_begin_feed(&mut self, person: usize, posts: &[ShownPost], cursor: Vector) {
        let me = &mut self.people[person];
        if me.wants_feed && me.feed.is_none() {
            let before = posts.iter().map(|post| post.id.clone()).collect();
            me.feed = Some(FeedState { open: None, cursor, before, told: BTreeSet::new(), lacking: false });
            self.follow(person);
        }
    }

    pub(crate) fn on_feed_frame(&mut self, feed: FeedId, frame: FeedFrame) {
        let Some((_, person)) = self.feeds.get(&feed).copied() else { return };
        match frame {
            FeedFrame::Items { posts, cursor, token } => {
                self.note(|| format!("person{person} is told {} posts, up to {cursor:?}", posts.len()));
                self.check_posts(person, &posts);
                self.people[person].token.merge(&token);
                self.on_items(person, &posts, cursor);
            }
            FeedFrame::Ended(refusal) => {
                self.note(|| format!("person{person}'s feed ends: {refusal:?}"));
                self.feeds.remove(&feed);
                if let Some(state) = self.people[person].feed.as_mut() {
                    state.open = None;
                }
                // Whoever lives in a feed alone looks for another way as for a call.
                if self.people[person].call.is_none() {
                    self.hang_up(person);
                }
            }
        }
    }

    fn on_items(&mut self, person: usize, posts: &[ShownPost], cursor: Vector) {
        self.counts.feed_posts += posts.len() as u64;
        let mut seen = Vec::new();
        for post in posts {
            let Some(author) = self.posts.get(&post.id).map(|facts| facts.author) else { return };
            let me = &mut self.people[person];
            let Some(state) = me.feed.as_mut() else { return };
            let lacking = state.lacking;
            let twice = state.before.contains(&post.id) || !state.told.insert(post.id.clone());
            let since = me.joined.get(&author).copied();
            if author == person || since.is_some_and(|since| since < post.stamp.hlc) {
                seen.push((post.id.clone(), (author, entry_of(post))));
            }
            if twice && !lacking {
                self.fail(format!("P8: person{person}'s feed tells {post:?} twice"));
                return;
            }
        }
        let me = &mut self.people[person];
        let leaving = me.call.as_ref().is_some_and(|call| matches!(call.want, Want::Leave(_)));
        if !leaving && me.edges_certain {
            me.seen.extend(seen);
        }
        let Some(state) = me.feed.as_mut() else { return };
        let falls = !cursor.covers(&state.cursor);
        let before = std::mem::replace(&mut state.cursor, cursor);
        if falls {
            self.fail(format!("P8: the cursor of person{person}'s feed falls back from {before:?}"));
        } else if let Some(post) = posts.iter().find(|post| !self.token_knows(person, post)) {
            self.fail(format!("P3: person{person}'s feed tells {:?}, and its token lacks it", entry_of(post)));
        }
    }
}

/// Whether a name, as it is shown, is this person's: perhaps with the suffix of a contested name.
fn goes_by(shown: &str, person: &Person) -> bool {
    let name = shown.split('~').next();
    name == Some(person.name.as_str()) || name == Some(person.wanted.as_str())
}

/// The entry that a shown post was read from.
fn entry_of(post: &ShownPost) -> gaggle::id::EntryId {
    gaggle::id::EntryId { origin: post.stamp.origin, seq: post.seq }
}

fn short(frame: &ServerFrame) -> String {
    format!("{frame:?}").chars().take(400).collect()
}
