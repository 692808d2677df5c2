//! What must hold between hosts and what must be possible, with the bounds, and the ways to break it.

use stateright::Property;

use super::{Budget, Cluster, Host, State, Variant, host_of, names};
use crate::{breaks, holds};

const ONE_NAME: &str = "no two entries have one name";
const SAME_STATE: &str = "hosts with the same vector hold the same entries";
const COPIES: &str = "an acknowledged entry is on as many disks as it says, less those lost";
const SHOWN: &str = "what is shown is durable on as many hosts as the level asks";
const TOKENS: &str = "no token names what no disk held";

pub(super) fn promises() -> Vec<Property<Cluster>> {
    vec![
        Property::always(ONE_NAME, |_, state: &State| state.history.clash.is_none()),
        Property::always(SAME_STATE, |_, state: &State| {
            let pairs = state.hosts.iter().flat_map(|a| state.hosts.iter().map(move |b| (&a.disk, &b.disk)));
            pairs.into_iter().all(|(a, b)| {
                names(&a.vector()).all(|name| b.value(name).is_none_or(|value| Some(value) == a.value(name)))
            })
        }),
        Property::always(COPIES, |_, state: &State| {
            let copies = state.history.acknowledged.iter();
            copies
                .into_iter()
                .all(|(name, count)| usize::from(*count) <= state.disks_with(*name) + usize::from(state.disks_lost))
        }),
        Property::always(SHOWN, |model: &Cluster, state: &State| {
            let terms = state.hosts.iter().filter_map(|host| Some((host, host.term.as_ref()?)));
            terms.into_iter().flat_map(|(host, term)| names(&term.shown).map(move |name| (host, name))).all(
                |(host, name)| {
                    let enough = state.disks_with(name) + usize::from(state.disks_lost) >= model.need;
                    host.disk.value(name).is_some() && (enough || state.history.missed.contains(&name))
                },
            )
        }),
        Property::always(TOKENS, |_, state: &State| {
            let shown = state.hosts.iter().filter_map(|host| host.term.as_ref());
            let mut named = shown.flat_map(|term| names(&term.shown)).chain(state.history.acknowledged.keys().copied());
            named.all(|name| state.history.entries.contains_key(&name))
        }),
    ]
}

pub(super) fn possibilities() -> Vec<Property<Cluster>> {
    vec![
        Property::sometimes("two copies", |_, state: &State| {
            state.history.acknowledged.values().any(|count| *count == 2)
        }),
        Property::sometimes("what a lost disk held comes back under its old origin", |_, state: &State| {
            let back = |host: &Host| {
                host.disk
                    .logs
                    .keys()
                    .any(|origin| host.disk.origin.is_some_and(|now| now > *origin && host_of(now) == host_of(*origin)))
            };
            state.disks_lost > 0 && state.hosts.iter().any(back)
        }),
    ]
}

/// Two hosts of which the first takes writes.
fn pair(variant: Variant) -> Cluster {
    let budget = Budget { writes: 2, faults: 2, disks: 1, misses: 1 };
    Cluster { hosts: 2, writers: 1, variant, need: 2, budget }
}

#[test]
fn two_hosts_keep_their_word() {
    holds("replication, 2 hosts", pair(Variant::Real));
}

#[test]
fn two_hosts_that_both_write_keep_their_word() {
    let budget = Budget { writes: 2, faults: 1, disks: 1, misses: 1 };
    holds("replication, 2 hosts that write", Cluster { writers: 2, budget, ..pair(Variant::Real) });
}

#[test]
fn three_hosts_keep_their_word() {
    let budget = Budget { writes: 1, faults: 1, disks: 1, misses: 0 };
    holds("replication, 3 hosts", Cluster { hosts: 3, budget, ..pair(Variant::Real) });
}

#[test]
fn an_acknowledgement_before_the_sync_counts_a_copy_that_is_none() {
    let alone = Cluster { need: 1, ..pair(Variant::AcknowledgeEarly) };
    breaks("acknowledged before the sync", alone, COPIES, 1);
}

#[test]
fn a_receiver_that_answers_before_the_sync_is_a_copy_that_is_none() {
    breaks("held before the sync", pair(Variant::HeldEarly), COPIES, 5);
}

#[test]
fn what_is_served_before_the_sync_is_shown_with_too_few_copies() {
    breaks("served before the sync", pair(Variant::ServeEarly), SHOWN, 4);
}

#[test]
fn what_is_served_before_the_sync_gives_its_name_away() {
    breaks("served before the sync", pair(Variant::ServeEarly), ONE_NAME, 7);
}

#[test]
fn without_a_watermark_too_much_is_shown() {
    breaks("shown before the watermark", pair(Variant::ShowEarly), SHOWN, 2);
}

#[test]
fn one_incarnation_for_ever_gives_a_name_twice() {
    breaks("one incarnation for ever", pair(Variant::OneIncarnation), ONE_NAME, 8);
}

#[test]
fn one_incarnation_for_ever_lets_hosts_differ() {
    breaks("one incarnation for ever", pair(Variant::OneIncarnation), SAME_STATE, 11);
}

#[test]
fn a_cold_start_that_asks_nobody_gives_a_name_twice() {
    breaks("nobody is asked at a cold start", pair(Variant::NoRecall), ONE_NAME, 11);
}

#[test]
fn a_restore_that_nobody_is_told_of_gives_a_name_twice() {
    breaks("a restore that nobody is told of", pair(Variant::RestoreUntold), ONE_NAME, 9);
}

#[test]
fn warm_before_the_incarnation_is_stored_gives_a_name_twice() {
    breaks("warm before the incarnation is stored", pair(Variant::WarmEarly), ONE_NAME, 12);
}

#[test]
fn an_incarnation_forgotten_on_a_full_disk_gives_a_name_twice() {
    breaks("an incarnation forgotten on a full disk", pair(Variant::BeginForgotten), ONE_NAME, 12);
}
