//! How long the log is kept: it is cut below what all hosts have, and past a limit anyway.
//!
//! Whoever lacks what was cut takes a snapshot (see [`crate::core::source`]), so a cut costs time, never data. Both
//! limits count entries of one origin. Cuts are small and follow each other, so that none holds the store's lock for
//! long. Pure; the primary asks after each commit.

use std::collections::BTreeMap;

use crate::id::{HostId, Origin, Seq, Vector};
use crate::limits;

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
    ) -> Option<Vector> {
        let all_known = u32::try_from(others.len()).is_ok_and(|known| known + 1 >= hosts);
        let moves = own.iter().filter_map(|(origin, held)| {
            let common = if all_known { common(held, origin, others) } else { 0 };
            let enough = common.min(held.0.saturating_sub(self.kept));
            let target = enough.max(held.0.saturating_sub(self.max));
            let (from, step) = (cut.get(origin).0, self.step());
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

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Retention = Retention { kept: 100, max: 1_000 };

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
        assert_eq!(LIMITS.next_cut(&upto(500), &Vector::new(), &others(500, 450), 3), Some(upto(400)));
        assert_eq!(LIMITS.next_cut(&upto(500), &Vector::new(), &others(500, 90), 3), Some(upto(90)));
        assert_eq!(LIMITS.next_cut(&upto(500), &upto(395), &others(500, 500), 3), None, "not worth a transaction");
    }

    #[test]
    fn a_host_that_is_behind_or_unknown_holds_the_log_up_to_the_limit() {
        assert_eq!(LIMITS.next_cut(&upto(900), &Vector::new(), &others(900, 0), 3), None);
        assert_eq!(LIMITS.next_cut(&upto(900), &Vector::new(), &BTreeMap::new(), 3), None);
        assert_eq!(LIMITS.next_cut(&upto(1_500), &Vector::new(), &BTreeMap::new(), 3), Some(upto(500)));
    }

    #[test]
    fn one_cut_is_bounded() {
        let far = limits::CUT_ENTRIES_MAX * 3;
        let cut = LIMITS.next_cut(&upto(far), &Vector::new(), &others(far, far), 3);
        assert_eq!(cut, Some(upto(limits::CUT_ENTRIES_MAX)));
    }
}
