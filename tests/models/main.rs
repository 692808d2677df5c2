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

/// Finds the shortest way to break this promise.
fn breaks<M>(name: &str, model: M, property: &'static str)
where
    M: Model + Send + Sync + 'static,
    M::State: Clone + Debug + Hash + PartialEq + Send + Sync + 'static,
    M::Action: Clone + Debug + PartialEq + Send + Sync + 'static,
{
    // One thread: only then is the first counterexample the shortest, and the same each time.
    let wanted = HasDiscoveries::AnyOf([property].into());
    let checker = model.checker().threads(1).finish_when(wanted).spawn_bfs().join();
    let found = checker.discovery(property);
    assert!(found.is_some(), "{name}: nothing breaks {property:?} in {} states", checker.unique_state_count());
    let actions = found.unwrap().into_actions();
    let states = checker.unique_state_count();
    println!("{name}: breaks {property:?} in {} steps ({states} states): {actions:?}", actions.len());
}
