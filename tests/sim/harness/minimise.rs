//! Cuts a run that fails down to what it needs to fail: delta debugging over its faults, its people and its length.
//!
//! First whole kinds of faults go, then faults, then people, then time, over and over until nothing more can go alone. A
//! smaller run counts only if it fails in the same manner. Chance has a part of its own for each fault and each person
//! ([`super::dice`]), so what stays comes at the same times, with the same victims and choices; but the network and the
//! disks draw as they are used, so a smaller run is a run of its own, not a part of the first.

use std::collections::BTreeSet;
use std::panic::AssertUnwindSafe;

use super::faults::{Fault, Kind};
use super::history::Promise;
use super::world::World;
use super::{Options, run};

/// How a run failed, as far as two runs are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Manner {
    Broke(Promise),
    /// A broken belief of the node itself; only a build that unwinds lives on to tell.
    Panicked,
}

/// How a run fails; none if it does not.
pub(crate) fn manner(options: &Options) -> Option<Manner> {
    match std::panic::catch_unwind(AssertUnwindSafe(|| run(options.clone()))) {
        Ok(outcome) => outcome.failure.map(|failure| Manner::Broke(failure.breach.promise)),
        Err(_) => Some(Manner::Panicked),
    }
}

/// The faults that a run is to have, and its people.
pub(crate) fn plan(options: &Options) -> (Vec<Fault>, Vec<usize>) {
    let world = World::new(options.clone());
    let people = 0..world.people.len();
    let come = people.filter(|person| options.who.as_ref().is_none_or(|only| only.contains(person)));
    (world.faults.plan.iter().copied().collect(), come.collect())
}

/// A run that cannot be made smaller by one step.
#[derive(Debug)]
pub(crate) struct Minimised {
    pub(crate) options: Options,
    pub(crate) manner: Manner,
    /// How many runs it took.
    pub(crate) runs: usize,
}

/// Makes a run smaller as long as it fails as it did; none if it does not fail.
pub(crate) fn minimise(options: Options) -> Option<Minimised> {
    let manner = manner(&options)?;
    let mut smaller = Minimised { options, manner, runs: 1 };
    loop {
        let runs = smaller.size();
        smaller.drop_kinds();
        smaller.drop_faults();
        smaller.drop_people();
        smaller.shorten();
        if smaller.size() == runs {
            return Some(smaller);
        }
    }
}

/// Simulated time goes in steps of this.
const STEP: u64 = 500_000;

impl Minimised {
    fn size(&self) -> (usize, usize, u64) {
        let (faults, people) = plan(&self.options);
        (faults.len(), people.len(), self.options.calls_until)
    }

    /// Whether this fails in the same manner; if so, it is the run to go on with.
    fn take(&mut self, options: Options) -> bool {
        self.runs += 1;
        let same = manner(&options) == Some(self.manner);
        if same {
            self.options = options;
        }
        same
    }

    fn drop_kinds(&mut self) {
        let (faults, _) = plan(&self.options);
        let mut kinds: Vec<Kind> = Vec::new();
        for fault in &faults {
            if !kinds.contains(&fault.kind) {
                kinds.push(fault.kind);
            }
        }
        reduce(&kinds, |kept| {
            let faults = faults.iter().filter(|fault| kept.contains(&fault.kind)).map(|fault| fault.index);
            self.take(Options { faults: Some(faults.collect()), ..self.options.clone() })
        });
    }

    fn drop_faults(&mut self) {
        let faults: Vec<usize> = plan(&self.options).0.iter().map(|fault| fault.index).collect();
        reduce(&faults, |kept| {
            self.take(Options { faults: Some(kept.iter().copied().collect()), ..self.options.clone() })
        });
    }

    fn drop_people(&mut self) {
        let people = plan(&self.options).1;
        reduce(&people, |kept| {
            let who: BTreeSet<usize> = kept.iter().copied().collect();
            self.take(Options { who: Some(who), ..self.options.clone() })
        });
    }

    /// Ends the run as early as it still fails.
    fn shorten(&mut self) {
        let (mut fine, mut fails) = (0, self.options.calls_until.div_ceil(STEP));
        while fine + 1 < fails {
            let middle = fine.midpoint(fails);
            if self.take(self.options.clone().until(middle * STEP)) {
                fails = middle;
            } else {
                fine = middle;
            }
        }
    }
}

/// Delta debugging: the items without which `fails` says no, having asked about ever smaller parts. No single one of
/// them can go.
fn reduce<T: Clone>(items: &[T], mut fails: impl FnMut(&[T]) -> bool) -> Vec<T> {
    let mut items = items.to_vec();
    let mut parts = 2;
    while !items.is_empty() {
        parts = parts.min(items.len());
        let size = items.len().div_ceil(parts);
        let without = |at: usize| [&items[..at], &items[(at + size).min(items.len())..]].concat();
        let smaller = (0..items.len()).step_by(size).map(without).find(|kept| fails(kept));
        match smaller {
            Some(kept) => {
                items = kept;
                parts = 2.max(parts - 1);
            }
            None if size == 1 => break,
            None => parts *= 2,
        }
    }
    items
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::Mutant;

    #[test]
    fn what_is_needed_stays_and_nothing_else() {
        let items: Vec<u32> = (0..100).collect();
        for needed in [&[] as &[u32], &[0], &[99], &[3, 4, 50], &[0, 25, 50, 75, 99]] {
            let mut asked = 0;
            let kept = reduce(&items, |kept| {
                asked += 1;
                needed.iter().all(|item| kept.contains(item))
            });
            assert_eq!(kept, needed);
            assert!(asked < 150, "{needed:?} took {asked}");
        }
    }

    /// Two of three will do, so that what goes first decides what stays.
    #[test]
    fn nothing_can_go_alone_from_what_stays() {
        let fails = |kept: &[u32]| kept.iter().filter(|item| [1, 5, 9].contains(item)).count() >= 2;
        let kept = reduce(&(0..10).collect::<Vec<u32>>(), fails);
        assert_eq!(kept.len(), 2);
        assert!(fails(&kept));
    }

    /// A seed that a mutant fails keeps fewer faults, and what is left fails alike, again and again. How few depends on
    /// the run: every change of the node makes others.
    #[test]
    fn a_failing_seed_comes_down_to_fewer_faults_and_replays() {
        const FAULTS_DRAWN: usize = 8;
        for mutant in [Mutant::NoFence, Mutant::FenceOutside, Mutant::NoCausalGate] {
            let options = |seed: u64| Options { mutant: Some(mutant), ..Options::new(seed) };
            let drew_more = |options: &Options| plan(options).0.len() >= FAULTS_DRAWN;
            let failing = (0..200).map(options).find(|options| drew_more(options) && manner(options).is_some());
            let failing = failing.unwrap();
            let found = minimise(failing.clone()).unwrap();
            assert_eq!(manner(&failing), Some(found.manner), "{mutant:?}");
            assert_eq!(manner(&found.options), Some(found.manner), "{mutant:?}");
            let (faults, _) = plan(&found.options);
            let drawn = plan(&failing).0;
            println!("{mutant:?}: {} of {} faults", faults.len(), drawn.len());
            assert!(faults.len() < drawn.len(), "{mutant:?}: {faults:?}");
            let kept = drawn.into_iter().filter(|fault| faults.contains(fault)).count();
            assert_eq!(kept, faults.len(), "{mutant:?}: what is left is not as it was drawn");
            assert_eq!(run(found.options.clone()), run(found.options), "{mutant:?}");
        }
    }
}
