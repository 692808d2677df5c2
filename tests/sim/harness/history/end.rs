//! The end of a history: after all faults the cluster becomes whole within a bound (P7), and what it then holds is
//! compared with a model that knows only the entries and the merge rules of DESIGN section 5.

use std::collections::{BTreeMap, BTreeSet};

use gaggle::error::Refusal;
use gaggle::id::{Digest, EntryId, Origin, PostText, ProcessId, RequestId, UserId, Vector};
use gaggle::service::entry::{Entry, Op, Stamp};
use gaggle::time::Hlc;
use gaggle::wire::heartbeat::Duty;

use super::{Breach, History, Promise, Verdict, never};

/// What all entries together say.
#[derive(Debug, Default)]
struct Model {
    /// Who owns each name: who claimed it first.
    owners: BTreeMap<String, (Stamp, UserId)>,
    posts: BTreeMap<(UserId, RequestId), (Stamp, PostText)>,
    /// follower, followee -> since when.
    joined: BTreeMap<(UserId, UserId), Stamp>,
}

/// Of one pair: each request's smallest stamp, and whether it joins.
type Attempts<'a> = BTreeMap<&'a RequestId, (Stamp, bool)>;

impl Model {
    fn of(entries: &[Entry]) -> Self {
        let mut model = Self::default();
        // Each request id first collapses to its smallest stamp, then the largest stamp of a pair wins.
        let mut edges: BTreeMap<(UserId, UserId), Attempts> = BTreeMap::new();
        let mut registered: BTreeMap<UserId, (Stamp, String)> = BTreeMap::new();
        let mut trim = Hlc::ZERO;
        for entry in entries {
            let (stamp, user) = (entry.stamp(), entry.user);
            let mut edge = |followee: UserId, joins: bool| {
                let first = edges.entry((user, followee)).or_default().entry(&entry.request).or_insert((stamp, joins));
                *first = (*first).min((stamp, joins));
            };
            match &entry.op {
                Op::Post { text } => {
                    let key = (user, entry.request.clone());
                    let first = model.posts.entry(key).or_insert_with(|| (stamp, text.clone()));
                    first.0 = first.0.min(stamp);
                }
                Op::Join { followee } => edge(*followee, true),
                Op::Leave { followee } => edge(*followee, false),
                Op::Trim { before } => trim = trim.max(*before),
                Op::Retire { .. } => {}
                Op::Register { name, .. } => {
                    let first = registered.entry(user).or_insert((stamp, name.folded()));
                    if stamp < first.0 {
                        *first = (stamp, name.folded());
                    }
                }
            }
        }
        model.posts.retain(|_, (stamp, _)| stamp.hlc >= trim);
        for (user, (stamp, name)) in registered {
            let owner = model.owners.entry(name).or_insert((stamp, user));
            *owner = (*owner).min((stamp, user));
        }
        for (pair, requests) in edges {
            if let Some((stamp, true)) = requests.into_values().max() {
                model.joined.insert(pair, stamp);
            }
        }
        model
    }

    fn timeline(&self, user: UserId) -> Vec<RequestId> {
        let mut shown: Vec<(Stamp, RequestId)> = self
            .posts
            .iter()
            .filter(|((author, _), (stamp, _))| {
                *author == user || self.joined.get(&(user, *author)).is_some_and(|since| since < stamp)
            })
            .map(|((_, id), (stamp, _))| (*stamp, id.clone()))
            .collect();
        shown.sort();
        shown.into_iter().map(|(_, id)| id).collect()
    }
}

/// One moment of the cluster, once the faults have ended.
#[derive(Debug, Default)]
pub(crate) struct Moment {
    /// Processes that do not run, and how they are.
    pub(crate) down: Vec<(ProcessId, String)>,
    /// Groups of which one is to hold a duty, and who does.
    pub(crate) duties: Vec<(String, Duty, Vec<ProcessId>)>,
    /// Who was drained, and has a duty though another would take it.
    pub(crate) unwilling: Vec<(ProcessId, Duty)>,
    /// People who wait, for the answer to which call, and how it stands.
    pub(crate) waiting: Vec<(usize, RequestId, String)>,
    /// What each host holds; none before its first commit.
    pub(crate) held: Vec<Option<(Vector, Digest)>>,
    /// Origins of former incarnations of which some host does not know that they have ended, though all could be told.
    pub(crate) unended: Vec<(usize, Origin)>,
}

/// What may be expected of a later moment, though people go on calling.
#[derive(Debug)]
pub(crate) struct Mark {
    /// What any host held.
    held: Vector,
    waiting: BTreeSet<RequestId>,
}

fn unrest(what: String) -> Breach {
    Breach { promise: Promise::P7, what }
}

impl Moment {
    /// Whether all processes run, and each duty has one holder.
    pub(crate) fn is_manned(&self) -> Verdict {
        if let Some((proc, state)) = self.down.first() {
            return Err(unrest(format!("{proc} is {state}")));
        }
        if let Some((group, duty, holders)) = self.duties.iter().find(|(_, _, holders)| holders.len() != 1) {
            return Err(unrest(format!("{group} has {duty:?} at {holders:?}")));
        }
        if let Some((proc, duty)) = self.unwilling.first() {
            return Err(unrest(format!("{proc} was drained, and has {duty:?} though another would take it")));
        }
        Ok(())
    }

    pub(crate) fn mark(&self) -> Mark {
        let mut held = Vector::new();
        for (vector, _) in self.held.iter().flatten() {
            held.merge(vector);
        }
        Mark { held, waiting: self.waiting.iter().map(|(_, id, _)| id.clone()).collect() }
    }

    /// Whether every host holds by now what any held at the mark, and those who waited then have been answered.
    pub(crate) fn fulfils(&self, mark: &Mark) -> Verdict {
        let holds =
            |held: &Option<(Vector, Digest)>| held.as_ref().is_some_and(|(vector, _)| vector.covers(&mark.held));
        if let Some(host) = self.held.iter().position(|held| !holds(held)) {
            let found = self.held[host].as_ref().map(|(vector, _)| vector);
            return Err(unrest(format!("host {host} holds {found:?}, and should hold {:?}", mark.held)));
        }
        if let Some((person, _, call)) = self.waiting.iter().find(|(_, id, _)| mark.waiting.contains(id)) {
            return Err(unrest(format!("person{person} waits still for {call}")));
        }
        Ok(())
    }
}

/// A host's answers at the end.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    pub(crate) host: usize,
    /// Of a person: its timeline, oldest first.
    pub(crate) timelines: BTreeMap<usize, Result<Vec<RequestId>, Refusal>>,
    /// Of a person: its name as it is shown, and as it was registered (folded).
    pub(crate) names: BTreeMap<usize, (String, String)>,
}

impl History {
    /// What keeps the cluster from being whole.
    pub(crate) fn on_moment(&self, moment: &Moment) -> Verdict {
        moment.is_manned()?;
        if let Some((person, _, call)) = moment.waiting.first() {
            return Err(unrest(format!("person{person} waits for {call}")));
        }
        let held: Vec<_> = moment.held.iter().flatten().collect();
        let differs =
            |(vector, digest): &(Vector, Digest)| held.iter().any(|(other, found)| other == vector && found != digest);
        never(held.iter().any(|one| differs(one)), Promise::P5, || {
            format!("hosts differ in state: {:#?}", moment.held)
        })?;
        let same = moment.held.windows(2).all(|pair| pair[0] == pair[1]) && held.len() == moment.held.len();
        never(!same, Promise::P7, || format!("hosts differ: {:#?}", moment.held))?;
        never(!moment.unended.is_empty(), Promise::P7, || format!("origins stay in tokens: {:?}", moment.unended))?;
        self.check_feeds()
    }

    /// P8: feeds have been told what they must tell.
    fn check_feeds(&self) -> Verdict {
        let model = Model::of(&self.entries(0));
        for (index, person) in self.people.iter().enumerate() {
            let Some(state) = person.feed.as_ref().filter(|_| person.edges_certain) else { continue };
            let timeline = model.timeline(UserId::of(&person.key));
            let untold: Vec<_> =
                timeline.into_iter().filter(|id| !state.before.contains(id) && !state.told.contains(id)).collect();
            never(!untold.is_empty(), Promise::P8, || {
                format!("person{index}'s feed at {:?} was not told {untold:?}", state.cursor)
            })?;
        }
        Ok(())
    }

    /// Everything that a host holds, whether its log still has it or not.
    fn entries(&self, host: usize) -> Vec<Entry> {
        self.archive.values().filter(|entry| self.hosts[host].holds(entry.id)).cloned().collect()
    }

    /// Compares what the hosts hold with what was acknowledged, and what they show with the model.
    pub(crate) fn on_end(&self, shown: &[Shown]) -> Verdict {
        let entries = self.entries(0);
        let held: BTreeSet<_> = entries.iter().map(|entry| entry.id).collect();
        for (index, person) in self.people.iter().enumerate() {
            let user = UserId::of(&person.key);
            let lost = person
                .acknowledged
                .iter()
                .filter(|(_, entry)| !self.is_gone(**entry))
                .find(|(id, entry)| !held.contains(entry) || !self.carries(**entry, user, id));
            if let Some(lost) = lost {
                never(true, Promise::P1, || format!("person{index}'s acknowledged {lost:?} is lost"))?;
            }
        }
        let model = Model::of(&entries);
        for shown in shown {
            for (person, timeline) in &shown.timelines {
                self.compare_timeline(&model, shown.host, *person, timeline)?;
            }
            for (person, name) in &shown.names {
                self.compare_name(&model, shown.host, *person, name)?;
            }
        }
        Ok(())
    }

    /// Whether an entry is what this request made. One that confirms a name is answered with the one that registered it.
    fn carries(&self, id: EntryId, user: UserId, request: &RequestId) -> bool {
        self.archive.get(&id).is_some_and(|entry| {
            entry.user == user && (entry.request == *request || matches!(entry.op, Op::Register { .. }))
        })
    }

    /// P5: a name belongs to its first claim, and everybody else who claimed it has a suffix.
    fn compare_name(&self, model: &Model, host: usize, person: usize, (name, folded): &(String, String)) -> Verdict {
        let user = UserId::of(&self.people[person].key);
        let owner = model.owners.get(folded);
        let owns = owner.is_some_and(|(_, owner)| *owner == user);
        never(owns == name.contains('~'), Promise::P5, || {
            format!("host {host} shows person{person} ({user}) as {name}, whose owner is {owner:?}")
        })
    }

    fn compare_timeline(
        &self,
        model: &Model,
        host: usize,
        person: usize,
        timeline: &Result<Vec<RequestId>, Refusal>,
    ) -> Verdict {
        let found = match timeline {
            Ok(found) => found,
            Err(_) if !self.people[person].registered => return Ok(()),
            Err(refusal) => {
                return never(true, Promise::P8, || {
                    format!("host {host} refuses person{person} a timeline: {refusal:?}")
                });
            }
        };
        let expected = model.timeline(UserId::of(&self.people[person].key));
        let newest = &expected[expected.len().saturating_sub(found.len().max(1))..];
        let whole = expected.len() <= usize::try_from(gaggle::limits::ANSWER_POSTS_MAX).unwrap_or(usize::MAX);
        never(found != newest || (whole && found.len() != expected.len()), Promise::P2, || {
            format!("host {host} shows person{person} {found:?}, and the entries say {expected:?}")
        })
    }
}
