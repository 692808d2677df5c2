//! How long the log is kept, and when posts are looked through for those that are too old or too many.
//!
//! The log is cut below what all hosts have, and past a limit anyway.
//! Whoever lacks what was cut takes a snapshot (see [`crate::core::source`]), so a cut costs time, never data. Both
//! limits count entries of one origin. Cuts are small and follow each other, so that none holds the store's lock for
//! long. Pure; the primary asks after each commit.
//!
//! Posts are removed by an entry (see [`crate::service::trim`]) that any primary may make: doubles do no harm. So that
//! they are rare, each host looks at its own interval, which begins anew when anybody's trim comes in.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{HostId, Origin, Seq, Vector};
use crate::limits;
use crate::service::retired::Retired;
use crate::service::trim::Keep;
use crate::time::{Hlc, Instant, Now, Wall};
use crate::topology::PostsKept;

/// What the topology says about the log.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Retention {
    /// Kept although every host has them: a host that was away briefly needs no snapshot.
    pub(crate) kept: u64,
    /// Above this the log is cut although a host may lack them.
    pub(crate) max: u64,
}

impl Retention {
    /// How far each origin's log may be cut now; nothing if it is not worth a transaction. `others` holds what every
    /// other host is known to hold; a host that has not been heard of (there are `hosts` in all) holds nothing.
    pub(crate) fn next_cut(
        self,
        own: &Vector,
        cut: &Vector,
        others: &BTreeMap<HostId, Vector>,
        hosts: u32,
        retired: &Retired,
    ) -> Option<Vector> {
        let newer = retired.newer(own);
        let all_known = u32::try_from(others.len()).is_ok_and(|known| known + 1 >= hosts);
        let moves = own.iter().filter_map(|(origin, held)| {
            let common = if all_known { common(held, origin, others) } else { 0 };
            // What is kept is counted over all incarnations of a host: an origin that has ended goes in the end.
            let kept = self.kept.saturating_sub(newer.get(&origin).copied().unwrap_or(0));
            let enough = common.min(held.0.saturating_sub(kept));
            let target = enough.max(held.0.saturating_sub(self.max));
            let from = cut.get(origin).0;
            let step = match newer.get(&origin) {
                Some(_) => self.step().min(held.0.saturating_sub(from)).max(1),
                None => self.step(),
            };
            (target >= from.saturating_add(step)).then(|| (origin, Seq(target.min(from + limits::CUT_ENTRIES_MAX))))
        });
        let next: Vector = moves.collect();
        (!next.is_empty()).then_some(next)
    }

    /// A log that is short by configuration is cut in short steps.
    fn step(self) -> u64 {
        (self.kept / 8).clamp(1, limits::CUT_ENTRIES_MAX / 8)
    }
}

/// The last seq of an origin that everybody holds.
fn common(own: Seq, origin: Origin, others: &BTreeMap<HostId, Vector>) -> u64 {
    others.values().map(|vector| vector.get(origin)).fold(own, Seq::min).0
}

/// What other hosts say of the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Clocks {
    /// There is no other host, or those that are up agree with this one.
    Agree,
    /// No other host is heard: this one may be wrong by a year.
    Unknown,
    /// They do not agree, or hosts do not agree on what is to be kept.
    Differ,
}

/// Whether the last trim was this host's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Asked {
    No,
    Yes,
}

/// When a primary looks for posts to remove.
#[derive(Debug)]
pub(crate) struct Trimming {
    kept: PostsKept,
    every: Duration,
    next: Instant,
    trim: Hlc,
    asked: Asked,
    rows_min: usize,
}

impl Trimming {
    /// The host with this place among all looks; `trim` is how far it is trimmed.
    pub(crate) fn new(now: Instant, kept: PostsKept, place: u32, trim: Hlc) -> Self {
        let of_age = kept.max_age.map(|age| (age / 64).clamp(Duration::from_secs(1), limits::TRIM_LOOK_MAX));
        let of_count = kept.max_count.map(|_| limits::TRIM_LOOK_COUNT);
        let every = of_age.into_iter().chain(of_count).min().unwrap_or(limits::TRIM_LOOK_MAX) * (place + 1);
        let mut trimming = Self { kept, every, next: now, trim, asked: Asked::No, rows_min: 0 };
        trimming.rest(now);
        trimming
    }

    /// Looks again after the whole interval.
    fn rest(&mut self, now: Instant) {
        self.next = now + self.every;
        self.asked = Asked::No;
        // A share of what is kept, so that steady posting makes few trims.
        let share = self.kept.max_count.filter(|_| self.kept.max_age.is_none()).unwrap_or(0) / 1_024;
        self.rows_min = usize::try_from(share).unwrap_or(usize::MAX).clamp(1, limits::TRIM_ROWS_MAX);
    }

    /// The store is trimmed this far.
    pub(crate) fn on_committed(&mut self, now: Instant, trim: Hlc) {
        if trim <= self.trim {
            return;
        }
        self.trim = trim;
        tracing::info!(before = ?trim.wall(), "posts are trimmed");
        match self.asked {
            Asked::No => self.rest(now),
            // Perhaps there is more than one trim takes.
            Asked::Yes => {
                self.rest(now);
                (self.next, self.rows_min) = (now + limits::TRIM_PAUSE, limits::TRIM_ROWS_MAX);
            }
        }
    }

    /// When the next look is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        (self.kept != PostsKept::default()).then_some(self.next)
    }

    /// Whether a look is due.
    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.poll_timeout().is_some_and(|next| now >= next)
    }

    /// What is to be kept, if a look is due.
    pub(crate) fn on_timeout(&mut self, now: Now, clocks: Clocks) -> Option<Keep> {
        if !self.is_due(now.mono) {
            return None;
        }
        let rows_min = self.rows_min;
        self.rest(now.mono);
        let since = |age: Duration| {
            let micros = u64::try_from(age.as_micros()).unwrap_or(u64::MAX);
            Hlc::at(Wall(now.wall.0.saturating_sub(micros)))
        };
        let since = match clocks {
            Clocks::Agree => self.kept.max_age.map_or(Hlc::ZERO, since),
            Clocks::Unknown => Hlc::ZERO,
            Clocks::Differ => return None,
        };
        if since == Hlc::ZERO && self.kept.max_count.is_none() {
            return None;
        }
        self.asked = Asked::Yes;
        Some(Keep { since, posts: self.kept.max_count, rows_min })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::EntryId;
    use crate::service::retired::Retirement;

    const HOUR: Duration = Duration::from_secs(3_600);

    fn at(seconds: u64) -> Now {
        let micros = seconds * 1_000_000;
        Now { mono: Instant::from_micros(micros), wall: Wall((1 << 50) + micros) }
    }

    fn since(seconds: u64) -> Hlc {
        Hlc::at(Wall((1 << 50) + seconds * 1_000_000))
    }

    #[test]
    fn by_default_nothing_is_looked_through() {
        let mut trimming = Trimming::new(at(0).mono, PostsKept::default(), 0, Hlc::ZERO);
        assert_eq!(trimming.poll_timeout(), None);
        assert_eq!(trimming.on_timeout(at(9_000_000), Clocks::Agree), None);
    }

    #[test]
    fn by_age_only_while_clocks_agree() {
        let kept = PostsKept { max_age: Some(HOUR), max_count: None };
        let mut trimming = Trimming::new(at(0).mono, kept, 0, Hlc::ZERO);
        assert_eq!(trimming.poll_timeout(), Some(Instant::from_micros(56_250_000)));
        assert_eq!(trimming.on_timeout(at(50), Clocks::Agree), None, "not due");
        for (seconds, clocks) in [(100, Clocks::Unknown), (200, Clocks::Differ)] {
            assert_eq!(trimming.on_timeout(at(seconds), clocks), None);
        }
        let keep = Keep { since: Hlc::at(Wall((1 << 50) - 3_300_000_000)), posts: None, rows_min: 1 };
        assert_eq!(trimming.on_timeout(at(300), Clocks::Agree), Some(keep));
    }

    #[test]
    fn a_count_needs_no_clock() {
        let kept = PostsKept { max_age: Some(HOUR), max_count: Some(1 << 20) };
        let mut trimming = Trimming::new(at(0).mono, kept, 0, Hlc::ZERO);
        let keep = Keep { since: Hlc::ZERO, posts: Some(1 << 20), rows_min: 1 };
        assert_eq!(trimming.on_timeout(at(10), Clocks::Unknown), Some(keep));
        let mut trimming = Trimming::new(at(0).mono, PostsKept { max_age: None, ..kept }, 0, Hlc::ZERO);
        assert_eq!(trimming.on_timeout(at(10), Clocks::Agree), Some(Keep { rows_min: 1 << 10, ..keep }));
        assert_eq!(trimming.on_timeout(at(20), Clocks::Differ), None);
    }

    #[test]
    fn who_trimmed_looks_again_soon_and_the_others_begin_their_wait_anew() {
        let kept = PostsKept { max_age: None, max_count: Some(5) };
        let mut first = Trimming::new(at(0).mono, kept, 0, Hlc::ZERO);
        let mut second = Trimming::new(at(0).mono, kept, 1, Hlc::ZERO);
        assert!(first.on_timeout(at(5), Clocks::Agree).is_some());
        first.on_committed(at(5).mono, since(1));
        assert_eq!(first.poll_timeout(), Some(at(5).mono + limits::TRIM_PAUSE));
        let keep = Keep { since: Hlc::ZERO, posts: Some(5), rows_min: limits::TRIM_ROWS_MAX };
        assert_eq!(first.on_timeout(at(6), Clocks::Agree), Some(keep));
        first.on_committed(at(6).mono, since(1));
        assert_eq!(first.poll_timeout(), Some(at(7).mono), "nothing more was to be done");
        second.on_committed(at(6).mono, since(1));
        assert_eq!(second.poll_timeout(), Some(at(8).mono));
    }

    const LIMITS: Retention = Retention { kept: 100, max: 1_000 };

    /// How far logs are cut of which none has ended.
    fn cut(own: &Vector, cut: &Vector, others: &BTreeMap<HostId, Vector>) -> Option<Vector> {
        LIMITS.next_cut(own, cut, others, 3, &Retired::default())
    }

    fn origin() -> Origin {
        Origin { host: "a".parse().unwrap(), incarnation: 1 }
    }

    fn upto(seq: u64) -> Vector {
        [(origin(), Seq(seq))].into_iter().collect()
    }

    fn others(b: u64, c: u64) -> BTreeMap<HostId, Vector> {
        [("b", b), ("c", c)].into_iter().map(|(host, seq)| (host.parse().unwrap(), upto(seq))).collect()
    }

    #[test]
    fn what_everybody_has_is_cut_but_for_what_is_kept() {
        assert_eq!(cut(&upto(500), &Vector::new(), &others(500, 450)), Some(upto(400)));
        assert_eq!(cut(&upto(500), &Vector::new(), &others(500, 90)), Some(upto(90)));
        assert_eq!(cut(&upto(500), &upto(395), &others(500, 500)), None, "not worth a transaction");
    }

    #[test]
    fn a_host_that_is_behind_or_unknown_holds_the_log_up_to_the_limit() {
        assert_eq!(cut(&upto(900), &Vector::new(), &others(900, 0)), None);
        assert_eq!(cut(&upto(900), &Vector::new(), &BTreeMap::new()), None);
        assert_eq!(cut(&upto(1_500), &Vector::new(), &BTreeMap::new()), Some(upto(500)));
    }

    #[test]
    fn one_cut_is_bounded() {
        let far = limits::CUT_ENTRIES_MAX * 3;
        let cut = cut(&upto(far), &Vector::new(), &others(far, far));
        assert_eq!(cut, Some(upto(limits::CUT_ENTRIES_MAX)));
    }

    #[test]
    fn a_log_that_has_ended_goes_as_far_as_later_ones_of_its_host_are_kept() {
        let next = Origin { incarnation: 2, ..origin() };
        let by = EntryId { origin: next, seq: Seq(1) };
        let ended: Retired = [Retirement { hlc: Hlc(1), by, origin: origin(), last: Seq(90) }].into_iter().collect();
        let held = |later| -> Vector { [(origin(), Seq(90)), (next, Seq(later))].into_iter().collect() };
        let next_cut = |later, cut: &Vector| {
            let others = ["b", "c"].map(|host| (host.parse().unwrap(), held(later)));
            LIMITS.next_cut(&held(later), cut, &others.into_iter().collect(), 3, &ended)
        };
        assert_eq!(next_cut(10, &Vector::new()), None, "100 are kept in all");
        assert_eq!(next_cut(60, &Vector::new()), Some(upto(50)));
        assert_eq!(next_cut(100, &upto(50)), Some(upto(90)));
        assert_eq!(next_cut(100, &upto(85)), Some(upto(90)), "however short the rest is");
        assert_eq!(next_cut(100, &upto(90)), None);
    }
}
