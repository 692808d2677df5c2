//! Exhaustive models of the two protocols that keep the promises: who may write on a host ([`election`]) and what an
//! acknowledgement, an answer and a name of an entry mean between hosts ([`replication`]).
//!
//! Every state within the bounds is visited; each model also has variants that are wrong on purpose, and a test fails
//! if the checker finds nothing wrong with them: a model that cannot fail proves nothing. Bounds, sizes and the
//! shortest counterexamples stand in `docs/models.md`; `cargo test --test models -- --nocapture` prints them anew.

#![expect(clippy::unwrap_used, reason = "test code: a missing discovery is the failure")]

mod election;
mod replication;

use std::fmt::Debug;
use std::hash::Hash;

use stateright::{Checker, HasDiscoveries, Model};

/// Visits every state: what must always hold does, and what must be possible is.
fn holds<M>(name: &str, model: M)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let checker = model.checker().threads(2).spawn_bfs().join();
    println!("{name}: {} states, at most {} steps", checker.unique_state_count(), checker.max_depth());
    checker.assert_properties();
}

/// Finds the shortest way to break this promise, which takes so many steps.
fn breaks<M>(name: &str, model: M, property: &'static str, steps: usize)
where
    M: Model + Clone + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    let mut shortest: Option<Vec<M::Action>> = None;
    let mut states = 0;
    loop {
        let wanted = HasDiscoveries::AnyOf([property].into());
        // The checker keeps the last counterexample of the block of states in which it found the first: ask again
        // for a shorter one until there is none. (The first state has depth 1, and what has this depth is skipped.)
        let depth = shortest.as_ref().map_or(usize::MAX, |actions| actions.len() + 1);
        let checker = model.clone().checker().finish_when(wanted).target_max_depth(depth).spawn_bfs().join();
        states += checker.unique_state_count();
        match checker.discovery(property) {
            Some(found) => shortest = Some(found.into_actions()),
            None => break,
        }
    }
    assert!(shortest.is_some(), "{name}: nothing breaks {property:?} in {states} states");
    let actions = shortest.unwrap();
    println!("{name}: breaks {property:?} in {} steps ({states} states): {actions:?}", actions.len());
    assert_eq!(actions.len(), steps, "{name}: the shortest counterexample has changed; so must docs/models.md");
}
