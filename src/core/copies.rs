//! Who holds what: how many copies an entry has, and what may be shown.
//!
//! Readers are shown, and tokens name, only entries that as many hosts hold durably as the cluster's level asks
//! (Kafka's high watermark), or that were acknowledged with fewer because no more could be had. Otherwise killing a host
//! leaves clients that have seen what no living host has. Pure bookkeeping; the primary feeds it.

use std::collections::BTreeMap;

use crate::core::feeds::Lack;
use crate::core::retention::Retention;
use crate::id::{EntryId, HostId, Origin, Seq, Vector};
use crate::topology::AckLevel;

/// What each host holds, as far as this primary knows.
#[derive(Debug)]
pub(crate) struct Copies {
    me: HostId,
    /// Hosts of the topology, this one included.
    hosts: Vec<HostId>,
    level: AckLevel,
    own: Vector,
    others: BTreeMap<HostId, Vector>,
    /// Acknowledged with fewer copies: shown all the same.
    forced: Vector,
    shown: Vector,
    /// Hosts that did not have an entry in time, each with that entry: until they acknowledge it, nothing waits for them.
    late: BTreeMap<HostId, EntryId>,
}

impl Copies {
    /// A primary that knows only what its own store holds.
    pub(crate) fn new(me: HostId, hosts: Vec<HostId>, level: AckLevel, own: Vector) -> Self {
        let mut copies = Self {
            me,
            hosts,
            level,
            own,
            others: BTreeMap::new(),
            forced: Vector::new(),
            shown: Vector::new(),
            late: BTreeMap::new(),
        };
        copies.reckon();
        copies
    }

    /// Copies that a level asks for.
    pub(crate) fn need(&self, level: AckLevel) -> u32 {
        match level {
            AckLevel::Host => 1,
            AckLevel::Peer => self.host_count().min(2),
            AckLevel::All => self.host_count(),
        }
    }

    fn host_count(&self) -> u32 {
        u32::try_from(self.hosts.len()).unwrap_or(u32::MAX)
    }

    /// Hosts known to hold an entry durably.
    pub(crate) fn count(&self, entry: EntryId) -> u32 {
        let mut count = u32::from(self.own.holds(entry));
        let mut origin_counted = entry.origin.host == self.me;
        for (host, vector) in &self.others {
            if vector.holds(entry) {
                count += 1;
                origin_counted |= *host == entry.origin.host;
            }
        }
        // Nothing leaves a host before it is durable there: who made it holds it.
        count + u32::from(!origin_counted)
    }

    /// Whether a write may be answered now: it has its copies, or as many as can be had without the hosts that are late.
    pub(crate) fn settles(&self, entry: EntryId, level: AckLevel) -> bool {
        self.count(entry) >= self.need(level).min(self.in_time())
    }

    /// Hosts that a write may wait for, this one included.
    fn in_time(&self) -> u32 {
        self.host_count().saturating_sub(u32::try_from(self.late.len()).unwrap_or(u32::MAX)).max(1)
    }

    /// What may be shown.
    pub(crate) fn shown(&self) -> &Vector {
        &self.shown
    }

    /// What this host holds.
    pub(crate) fn own(&self) -> &Vector {
        &self.own
    }

    /// What may be done about something that is not shown here.
    pub(crate) fn lack(&self, wanted: &Vector) -> Lack {
        if self.own.covers(wanted) {
            Lack::Soon
        } else if self.others.values().any(|vector| vector.covers(wanted)) {
            Lack::Elsewhere
        } else {
            Lack::Nowhere
        }
    }

    /// How far the log may be cut now.
    pub(crate) fn next_cut(&self, retention: Retention, cut: &Vector) -> Option<Vector> {
        retention.next_cut(&self.own, cut, &self.others, self.host_count())
    }

    /// This host committed.
    pub(crate) fn on_committed(&mut self, own: &Vector) {
        self.own.merge(own);
        self.reckon();
    }

    /// Entries came in that prove what their makers held, to be counted with the next commit. An answer may come here
    /// before its maker's word that it holds the question: shown without it, the answer would be shown alone (P4). What
    /// a host held before it lost its disk proves nothing.
    pub(crate) fn on_proved(&mut self, proved: &BTreeMap<Origin, Vector>) {
        for (origin, vector) in proved.iter().filter(|(origin, _)| origin.host != self.me) {
            let known = self.others.entry(origin.host).or_default();
            let lost = known.get(*origin) == Seq::ZERO && known.iter().any(|(other, _)| other.host == origin.host);
            if !lost {
                known.merge(vector);
            }
        }
    }

    /// Another host told what it holds. A host whose disk was lost may hold less than before: the newest word counts.
    pub(crate) fn on_held(&mut self, host: HostId, vector: &Vector) {
        if host == self.me || self.others.get(&host) == Some(vector) {
            return;
        }
        self.others.insert(host, vector.clone());
        if self.late.get(&host).is_some_and(|entry| vector.holds(*entry)) {
            self.late.remove(&host);
        }
        self.reckon();
    }

    /// An entry has not got the copies of its level in time, and is answered with those that it has.
    pub(crate) fn on_missed(&mut self, entry: EntryId, level: AckLevel) {
        if !self.settles(entry, level) {
            let others = self.hosts.iter().filter(|host| **host != self.me);
            let lacking = others.filter(|host| !self.others.get(host).is_some_and(|vector| vector.holds(entry)));
            for host in lacking {
                self.late.entry(*host).or_insert(entry);
            }
        }
        self.force(entry);
    }

    /// An entry was acknowledged with the copies that it has: it is shown from now on.
    pub(crate) fn force(&mut self, entry: EntryId) {
        if self.own.holds(entry) && !self.shown.holds(entry) {
            self.forced.raise(entry.origin, entry.seq);
            self.shown.raise(entry.origin, entry.seq);
        }
    }

    fn reckon(&mut self) {
        let need = usize::try_from(self.need(self.level).min(self.in_time())).unwrap_or(usize::MAX);
        for (origin, own) in self.own.iter() {
            let seq = self.held_by(need, origin, own);
            self.shown.raise(origin, seq.max(self.forced.get(origin)).min(own));
        }
    }

    /// The highest seq of an origin that this host and enough others hold.
    fn held_by(&self, need: usize, origin: Origin, own: Seq) -> Seq {
        let mut held = vec![own];
        if origin.host != self.me && !self.others.contains_key(&origin.host) {
            held.push(own);
        }
        for (host, vector) in &self.others {
            let seq = vector.get(origin);
            held.push(if *host == origin.host { seq.max(own) } else { seq });
        }
        held.sort_unstable_by(|a, b| b.cmp(a));
        held.get(need.saturating_sub(1)).copied().unwrap_or(Seq::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostId {
        name.parse().unwrap()
    }

    fn entry(name: &str, seq: u64) -> EntryId {
        EntryId { origin: Origin { host: host(name), incarnation: 1 }, seq: Seq(seq) }
    }

    fn vector(entries: &[EntryId]) -> Vector {
        entries.iter().map(|entry| (entry.origin, entry.seq)).collect()
    }

    fn three() -> Copies {
        Copies::new(host("a"), ["a", "b", "c"].map(host).to_vec(), AckLevel::Peer, Vector::new())
    }

    #[test]
    fn an_answer_proves_that_its_maker_holds_the_question() {
        let (question, answer) = (entry("a", 1).origin, entry("b", 1).origin);
        let mut copies = Copies::new(host("a"), vec![host("a"), host("b"), host("c")], AckLevel::Peer, Vector::new());
        let asked: Vector = [(question, Seq(1))].into_iter().collect();
        copies.on_committed(&asked);
        assert_eq!(copies.shown(), &Vector::new());
        copies.on_proved(&[(answer, asked)].into_iter().collect());
        let both: Vector = [(question, Seq(1)), (answer, Seq(1))].into_iter().collect();
        copies.on_committed(&both);
        assert_eq!(copies.shown(), &both);
        // Of a host that has begun anew, an older log proves nothing.
        let mut renewed = Copies::new(host("a"), vec![host("a"), host("b")], AckLevel::Peer, both.clone());
        renewed.on_held(host("b"), &[(Origin { incarnation: 2, ..answer }, Seq(1))].into_iter().collect());
        renewed.on_proved(&[(answer, both)].into_iter().collect());
        assert_eq!(renewed.count(EntryId { origin: question, seq: Seq(1) }), 1);
    }

    #[test]
    fn an_own_entry_is_shown_when_a_peer_holds_it() {
        let mut copies = three();
        copies.on_committed(&vector(&[entry("a", 5)]));
        assert_eq!(copies.count(entry("a", 5)), 1);
        assert!(copies.shown().is_empty());
        copies.on_held(host("b"), &vector(&[entry("a", 3)]));
        assert_eq!(copies.shown(), &vector(&[entry("a", 3)]));
        assert!(copies.settles(entry("a", 3), AckLevel::Peer));
        assert!(!copies.settles(entry("a", 3), AckLevel::All));
    }

    #[test]
    fn a_received_entry_has_two_copies_at_once() {
        let mut copies = three();
        copies.on_committed(&vector(&[entry("b", 2)]));
        assert_eq!(copies.shown(), &vector(&[entry("b", 2)]));
        assert_eq!(copies.count(entry("b", 2)), 2);
    }

    #[test]
    fn after_a_miss_writes_do_not_wait_until_a_peer_acknowledges_it() {
        let mut copies = three();
        copies.on_committed(&vector(&[entry("a", 1)]));
        copies.on_missed(entry("a", 1), AckLevel::Peer);
        assert_eq!(copies.shown(), &vector(&[entry("a", 1)]));
        copies.on_committed(&vector(&[entry("a", 2)]));
        assert!(copies.settles(entry("a", 2), AckLevel::Peer));
        copies.on_held(host("b"), &vector(&[entry("a", 1)]));
        assert!(!copies.settles(entry("a", 2), AckLevel::Peer));
        assert!(copies.shown().holds(entry("a", 2)), "what was shown stays shown");
    }

    #[test]
    fn who_is_late_for_all_is_not_waited_for_and_the_others_are() {
        let mut copies = three();
        copies.on_committed(&vector(&[entry("a", 1)]));
        copies.on_held(host("b"), &vector(&[entry("a", 1)]));
        assert!(!copies.settles(entry("a", 1), AckLevel::All), "c may hold it soon");
        copies.on_missed(entry("a", 1), AckLevel::All);
        copies.on_committed(&vector(&[entry("a", 2)]));
        assert!(!copies.settles(entry("a", 2), AckLevel::All), "b is not late");
        copies.on_held(host("b"), &vector(&[entry("a", 2)]));
        assert!(copies.settles(entry("a", 2), AckLevel::All));
        copies.on_held(host("c"), &vector(&[entry("a", 1)]));
        assert!(!copies.settles(entry("a", 2), AckLevel::All), "c is back");
    }
}
