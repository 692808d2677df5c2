//! Who holds what: how many copies an entry has, and what may be shown.
//!
//! Readers are shown, and tokens name, only entries that as many hosts hold durably as the cluster's level asks
//! (Kafka's high watermark), or as can be had while others are late. Otherwise killing a host leaves clients that have
//! seen what no living host has. Pure bookkeeping; the primary feeds it.
//!
//! A host holds what it says, or proves by its entries, and nothing else: what it says is closed under what comes before,
//! and so is what enough hosts hold, and what is shown (P4).

use std::collections::BTreeMap;

use crate::core::feeds::Lack;
use crate::core::retention::Retention;
use crate::id::{EntryId, HostId, Origin, Seq, Vector};
use crate::service::retired::Retired;
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
    shown: Vector,
    retired: Retired,
    /// Hosts that did not have an entry in time, each with that entry: until they acknowledge it, nothing waits for them.
    late: BTreeMap<HostId, EntryId>,
}

impl Copies {
    /// A primary that knows only what its own store holds.
    pub(crate) fn new(me: HostId, hosts: Vec<HostId>, level: AckLevel, own: Vector) -> Self {
        let (others, shown, retired, late) = (BTreeMap::new(), Vector::new(), Retired::default(), BTreeMap::new());
        let mut copies = Self { me, hosts, level, own, others, shown, retired, late };
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
        let others = self.others.values().filter(|vector| vector.holds(entry)).count();
        u32::from(self.own.holds(entry)) + u32::try_from(others).unwrap_or(u32::MAX)
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

    /// What may be done about something that is not shown here, while these other hosts are up.
    pub(crate) fn lack(&self, wanted: &Vector, up: impl Fn(HostId) -> bool) -> Lack {
        if self.own.covers(wanted) {
            Lack::Soon
        } else if self.others.iter().any(|(host, vector)| up(*host) && vector.covers(wanted)) {
            Lack::Elsewhere
        } else {
            Lack::Nowhere
        }
    }

    /// Whether some of what this host was told of has been lost with a host's disk: all hosts are known, and none holds
    /// more of it than this one.
    pub(crate) fn nobody_has(&self, told: &Vector) -> bool {
        let lost = |origin: Origin| self.others.values().all(|vector| vector.get(origin) <= self.own.get(origin));
        self.all_known() && told.iter().any(|(origin, seq)| seq > self.own.get(origin) && lost(origin))
    }

    /// Where origins end, by entries that this host holds.
    pub(crate) fn retired(&self) -> &Retired {
        &self.retired
    }

    /// The store knows where origins end.
    pub(crate) fn on_retired(&mut self, retired: &Retired) {
        if self.retired != *retired {
            self.retired.clone_from(retired);
        }
    }

    /// Leaves out what every host's copy of the rest implies: the loss of one disk then takes nothing from the meaning.
    pub(crate) fn shorten(&self, vector: &mut Vector) {
        if !self.retired.is_empty() && self.all_known() {
            self.retired.shorten(vector, |by| self.others.values().all(|held| held.holds(by)));
        }
    }

    /// The same of a cursor of a line, which may stand before entries whose followers it holds.
    pub(crate) fn shorten_line(&self, cursor: &mut Vector) {
        self.retired.lower(cursor);
        self.shorten(cursor);
    }

    /// An origin of an earlier incarnation of this host that has come to its end: every host holds as much of it as this
    /// one, and that has not been said yet.
    pub(crate) fn ended(&self, present: Origin) -> Option<(Origin, Seq)> {
        let former = |origin: Origin| origin.host == self.me && origin != present;
        let everywhere =
            |origin, last| self.all_known() && self.others.values().all(|vector| vector.get(origin) == last);
        let mut ended = self.own.iter().filter(|(origin, last)| former(*origin) && everywhere(*origin, *last));
        ended.find(|(origin, last)| !self.retired.ends(*origin, *last))
    }

    /// Whether each other host has told what it holds.
    fn all_known(&self) -> bool {
        self.others.len() + 1 >= self.hosts.len()
    }

    /// How far the log may be cut now.
    pub(crate) fn next_cut(&self, retention: Retention, cut: &Vector) -> Option<Vector> {
        retention.next_cut(&self.own, cut, &self.others, self.host_count(), &self.retired)
    }

    /// This host committed.
    pub(crate) fn on_committed(&mut self, own: &Vector) {
        self.own.merge(own);
        self.reckon();
    }

    /// Entries came in, to be counted with the next commit, that prove what their makers held: nothing leaves a host
    /// before it is durable there. Each names only what was new to its maker since its last, so it proves nothing where
    /// more is missing of what its maker is known to hold, as after a loss of its disk.
    pub(crate) fn on_proved(&mut self, proved: &BTreeMap<Origin, Vector>) {
        for (origin, vector) in proved.iter().filter(|(origin, _)| origin.host != self.me) {
            let known = self.others.entry(origin.host).or_default();
            if known.get(*origin) >= self.own.get(*origin) {
                let mut whole = vector.clone();
                self.retired.complete(&mut whole);
                known.merge(&whole);
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

    /// An entry has not got the copies of its level in time: nothing waits any more for the hosts that lack it.
    pub(crate) fn on_missed(&mut self, entry: EntryId, level: AckLevel) {
        if self.settles(entry, level) {
            return;
        }
        let others = self.hosts.iter().filter(|host| **host != self.me);
        let lacking = others.filter(|host| !self.others.get(host).is_some_and(|vector| vector.holds(entry)));
        for host in lacking {
            self.late.entry(*host).or_insert(entry);
        }
        self.reckon();
    }

    /// Shows what has its copies. What is shown stays shown.
    fn reckon(&mut self) {
        let need = usize::try_from(self.need(self.level).min(self.in_time())).unwrap_or(usize::MAX);
        for (origin, own) in self.own.iter() {
            self.shown.raise(origin, self.held_by(need, origin, own));
        }
    }

    /// The highest seq of an origin that this host and enough others hold.
    fn held_by(&self, need: usize, origin: Origin, own: Seq) -> Seq {
        let mut held: Vec<Seq> = self.others.values().map(|vector| vector.get(origin).min(own)).collect();
        held.push(own);
        held.sort_unstable_by(|a, b| b.cmp(a));
        held.get(need.saturating_sub(1)).copied().unwrap_or(Seq::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::retired::Retirement;

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
        let both: Vector = [(question, Seq(1)), (answer, Seq(1))].into_iter().collect();
        copies.on_proved(&[(answer, both.clone())].into_iter().collect());
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

    /// Entries of one run come in.
    fn receive(copies: &mut Copies, last: EntryId) {
        copies.on_proved(&[(last.origin, vector(&[last]))].into_iter().collect());
        let mut own = copies.own().clone();
        own.raise(last.origin, last.seq);
        copies.on_committed(&own);
    }

    #[test]
    fn a_received_entry_has_two_copies_at_once() {
        let mut copies = three();
        receive(&mut copies, entry("b", 2));
        assert_eq!(copies.shown(), &vector(&[entry("b", 2)]));
        assert_eq!(copies.count(entry("b", 2)), 2);
    }

    #[test]
    fn who_lost_its_disk_holds_no_more_of_its_old_log_than_it_says() {
        let mut copies = three();
        receive(&mut copies, entry("b", 2));
        for word in [Vector::new(), vector(&[entry("c", 1)])] {
            copies.on_held(host("b"), &word);
            assert_eq!(copies.count(entry("b", 2)), 1);
        }
        receive(&mut copies, entry("b", 3));
        assert_eq!(copies.count(entry("b", 3)), 1, "another host has sent it");
        assert_eq!(copies.shown(), &vector(&[entry("b", 2)]));
    }

    #[test]
    fn a_new_primary_shows_an_answer_no_sooner_than_its_question() {
        let both = vector(&[entry("a", 1), entry("b", 1)]);
        let hosts = ["a", "b", "c"].map(host).to_vec();
        let mut copies = Copies::new(host("a"), hosts, AckLevel::Peer, both.clone());
        assert!(copies.shown().is_empty(), "what the maker of the answer holds is not known yet");
        // What came between is not known either.
        receive(&mut copies, entry("b", 2));
        assert!(copies.shown().is_empty());
        copies.on_held(host("b"), &both);
        assert_eq!(copies.shown(), &both);
    }

    #[test]
    fn what_was_told_is_lost_when_all_are_known_and_none_holds_more() {
        let mut copies = three();
        let told = vector(&[entry("a", 1), entry("b", 2)]);
        copies.on_committed(&vector(&[entry("a", 1), entry("b", 1)]));
        copies.on_held(host("b"), &vector(&[entry("a", 1)]));
        assert!(!copies.nobody_has(&told), "c may have it");
        copies.on_held(host("c"), &vector(&[entry("b", 2)]));
        assert!(!copies.nobody_has(&told));
        copies.on_held(host("c"), &vector(&[entry("b", 1), entry("c", 7)]));
        assert!(copies.nobody_has(&told));
        assert!(!copies.nobody_has(&vector(&[entry("a", 1), entry("b", 1), entry("c", 7)])), "c has it");
    }

    #[test]
    fn what_only_a_host_that_is_down_holds_cannot_be_had_elsewhere() {
        let mut copies = three();
        let seen = vector(&[entry("b", 2)]);
        copies.on_held(host("b"), &seen);
        assert_eq!(copies.lack(&seen, |_| true), Lack::Elsewhere);
        assert_eq!(copies.lack(&seen, |up| up != host("b")), Lack::Nowhere);
        receive(&mut copies, entry("b", 2));
        assert_eq!(copies.lack(&seen, |_| false), Lack::Soon);
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

    fn renewed(incarnation: u32, seq: u64) -> EntryId {
        EntryId { origin: Origin { host: host("a"), incarnation }, seq: Seq(seq) }
    }

    #[test]
    fn an_origin_has_ended_when_every_host_holds_as_much_of_it() {
        let (old, new) = (renewed(1, 5), renewed(2, 1));
        let mut copies = three();
        copies.on_committed(&vector(&[old, new, entry("b", 3)]));
        let ended = |copies: &Copies| copies.ended(new.origin);
        assert_eq!(ended(&copies), None, "the others have not told what they hold");
        copies.on_held(host("b"), &vector(&[old, entry("b", 3)]));
        copies.on_held(host("c"), &vector(&[renewed(1, 4)]));
        assert_eq!(ended(&copies), None);
        copies.on_held(host("c"), &vector(&[renewed(1, 6)]));
        assert_eq!(ended(&copies), None, "there is more of it");
        copies.on_held(host("c"), &vector(&[old]));
        assert_eq!(ended(&copies), Some((old.origin, old.seq)));
        assert_eq!(copies.ended(old.origin), None, "the present one does not end");
        let said = Retirement { hlc: crate::time::Hlc(1), by: new, origin: old.origin, last: old.seq };
        copies.on_retired(&[said].into_iter().collect());
        assert_eq!(ended(&copies), None);
    }

    #[test]
    fn what_one_disk_could_lose_implies_nothing() {
        let (old, end) = (renewed(1, 5), renewed(2, 1));
        let mut copies = three();
        let said = Retirement { hlc: crate::time::Hlc(1), by: end, origin: old.origin, last: old.seq };
        copies.on_retired(&[said].into_iter().collect());
        let all = vector(&[old, end]);
        copies.on_committed(&all);
        let told = |copies: &Copies| {
            let mut told = all.clone();
            copies.shorten(&mut told);
            told
        };
        copies.on_held(host("b"), &all);
        assert_eq!(told(&copies), all);
        copies.on_held(host("c"), &all);
        assert_eq!(told(&copies), vector(&[end]));
        copies.on_held(host("c"), &vector(&[old]));
        assert_eq!(told(&copies), all, "its disk was lost");
    }

    #[test]
    fn an_entry_that_only_names_the_end_of_an_origin_proves_all_of_it() {
        let (old, end, answer) = (renewed(1, 5), renewed(2, 1), entry("b", 1));
        let mut copies = three();
        let said = Retirement { hlc: crate::time::Hlc(1), by: end, origin: old.origin, last: old.seq };
        copies.on_retired(&[said].into_iter().collect());
        copies.on_committed(&vector(&[old, end]));
        copies.on_proved(&[(answer.origin, vector(&[end, answer]))].into_iter().collect());
        copies.on_committed(&vector(&[old, end, answer]));
        assert_eq!(copies.shown(), &vector(&[old, end, answer]));
    }
}
