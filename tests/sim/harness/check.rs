//! The end of a simulation: after all faults the cluster becomes whole within a bound (P7), and what it then holds is
//! compared with a model that knows only the entries and the merge rules of DESIGN section 5.

use std::collections::{BTreeMap, BTreeSet};

use gaggle::core::node::Node;
use gaggle::id::{EntryId, PostText, RequestId, UserId};
use gaggle::service::entry::{Entry, Op, Stamp};
use gaggle::service::query::{self, Answer, Query};
use gaggle::wire::heartbeat::Duty;

use super::world::{State, World};

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
                Op::Register { name, .. } => {
                    let first = registered.entry(user).or_insert((stamp, name.folded()));
                    if stamp < first.0 {
                        *first = (stamp, name.folded());
                    }
                }
            }
        }
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

impl World {
    /// What keeps the cluster from being whole; none if it is.
    pub(crate) fn unrest(&self) -> Option<String> {
        if let Some(proc) = self.procs.iter().find(|proc| proc.state != State::Running) {
            return Some(format!("{} is {:?}", proc.id, proc.state));
        }
        for host in 0..self.disks.len() {
            for duty in [Duty::Serve, Duty::Relay] {
                let holders = self.holders(duty, |proc| proc == host);
                if holders.len() != 1 {
                    return Some(format!("host {host} has {duty:?} at {holders:?}"));
                }
            }
        }
        if let Some(directors) = self.directors_astray() {
            return Some(format!("the directors are {directors:?}"));
        }
        if let Some((index, person)) = self.people.iter().enumerate().find(|(_, person)| person.call.is_some()) {
            return Some(format!("person{index} waits for {:?}, at {:?}", person.call, person.conn));
        }
        let first = self.disks[0].standing.as_ref()?;
        let differing = self.disks.iter().position(|disk| {
            disk.standing.as_ref().is_none_or(|other| (&other.vector, other.digest) != (&first.vector, first.digest))
        });
        if let Some(host) = differing {
            let standings: Vec<_> = self.disks.iter().map(|disk| disk.standing.as_ref()).collect();
            return Some(format!("host {host} differs from host 0: {standings:#?}"));
        }
        None
    }

    /// One master directs; in a cluster without masters, one process of each host.
    fn directors_astray(&self) -> Option<Vec<gaggle::id::ProcessId>> {
        let groups: Vec<Vec<gaggle::id::ProcessId>> = if self.topology.has_masters() {
            vec![self.holders(Duty::Direct, |_| true)]
        } else {
            (0..self.disks.len()).map(|host| self.holders(Duty::Direct, |at| at == host)).collect()
        };
        groups.into_iter().find(|group| group.len() != 1)
    }

    fn holders(&self, duty: Duty, at: impl Fn(usize) -> bool) -> Vec<gaggle::id::ProcessId> {
        let holds = |node: &Node| node.snapshot().duties.contains(&duty);
        let procs = self.procs.iter().filter(|proc| at(proc.host) && proc.node.as_ref().is_some_and(holds));
        procs.map(|proc| proc.id).collect()
    }

    /// Feeds that have not been told yet what they must tell.
    pub(crate) fn feeds_behind(&self) -> Option<String> {
        let model = Model::of(&self.entries(0));
        for (index, person) in self.people.iter().enumerate() {
            let Some(state) = person.feed.as_ref().filter(|_| person.edges_certain) else { continue };
            let timeline = model.timeline(UserId::of(&person.key));
            let untold: Vec<_> =
                timeline.into_iter().filter(|id| !state.before.contains(id) && !state.told.contains(id)).collect();
            if !untold.is_empty() {
                return Some(format!("P8: person{index}'s feed at {:?} was not told {untold:?}", state.cursor));
            }
        }
        None
    }

    /// Everything that a host holds, whether its log still has it or not.
    fn entries(&self, host: usize) -> Vec<Entry> {
        let held = self.disks[host].vector();
        self.archive.values().filter(|entry| held.holds(entry.id)).cloned().collect()
    }

    /// Compares what the hosts hold with what was acknowledged, and with the model.
    pub(crate) fn check_end(&mut self) {
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
                let what = format!("P1: person{index}'s acknowledged {lost:?} is lost");
                self.fail(what);
                return;
            }
        }
        let model = Model::of(&entries);
        for host in 0..self.disks.len() {
            for person in 0..self.people.len() {
                self.compare_timeline(&model, host, person);
                self.compare_name(&model, host, person);
            }
        }
    }

    /// Whether an entry is what this request made. One that confirms a name is answered with the one that registered it.
    fn carries(&self, id: EntryId, user: UserId, request: &RequestId) -> bool {
        self.archive.get(&id).is_some_and(|entry| {
            entry.user == user && (entry.request == *request || matches!(entry.op, Op::Register { .. }))
        })
    }

    /// P5: a name belongs to its first claim, and everybody else who claimed it has a suffix.
    fn compare_name(&mut self, model: &Model, host: usize, person: usize) {
        let user = UserId::of(&self.people[person].key);
        let answer = query::answer(&self.seen_rows(host), &self.disks[host].vector(), &Query::WhoAmI { user });
        let Ok(Answer::WhoAmI { name, registered, .. }) = answer else { return };
        let owns = model.owners.get(&registered.folded()).is_some_and(|(_, owner)| *owner == user);
        if owns == name.contains('~') {
            let owner = model.owners.get(&registered.folded());
            self.fail(format!("P5: host {host} shows person{person} ({user}) as {name}, whose owner is {owner:?}"));
        }
    }

    fn compare_timeline(&mut self, model: &Model, host: usize, person: usize) {
        let user = UserId::of(&self.people[person].key);
        let disk = &self.disks[host];
        let query =
            Query::Timeline { user, of: None, limit: gaggle::limits::ANSWER_POSTS_MAX, since: None, before: None };
        let found = match query::answer(&self.seen_rows(host), &disk.vector(), &query) {
            Ok(Answer::Posts { posts, .. }) => posts,
            Ok(Answer::WhoAmI { .. } | Answer::Names { .. }) => Vec::new(),
            Err(_) if !self.people[person].registered => return,
            Err(refusal) => {
                self.fail(format!("host {host} refuses person{person} a timeline: {refusal:?}"));
                return;
            }
        };
        let found: Vec<RequestId> = found.into_iter().map(|post| post.id).collect();
        let expected = model.timeline(user);
        let newest = &expected[expected.len().saturating_sub(found.len().max(1))..];
        let whole = expected.len() <= usize::try_from(gaggle::limits::ANSWER_POSTS_MAX).unwrap_or(usize::MAX);
        if found != newest || (whole && found.len() != expected.len()) {
            self.fail(format!("P2: host {host} shows person{person} {found:?}, and the entries say {expected:?}"));
        }
    }
}
