//! Who is told what, in which version.

use super::*;
use crate::core::io::Input;
use crate::core::testing::{at, first, id, standing};
use crate::id::{Epoch, Origin, Seq};
use crate::service::ledger::{Standing, Write};
use crate::time::Hlc;
use crate::wire::heartbeat::Duty;
use crate::wire::peer::PeerHello;

fn hello(versions: Versions) -> PeerHello {
    PeerHello { versions, cluster: "test".into(), run: 2, pid: 2, topology: 0 }
}

/// W1, primary and relay; W2 is up and understands this.
fn served(theirs: Versions) -> Node {
    served_from(theirs, standing(5, Some(origin(1))))
}

fn origin(incarnation: u32) -> Origin {
    Origin { host: "a".parse().unwrap(), incarnation }
}

/// The same, from a store that stands so.
fn served_from(theirs: Versions, standing: Standing) -> Node {
    let (mut node, mut out) = (first(), Outputs::new());
    node.handle_timeout(at(400), &mut out);
    node.handle_input(at(500), Input::EpochTaken(Ok(standing)), &mut out);
    node.handle_input(at(510), Input::Sibling { process: id("W2"), life: Life::Up, pid: 2 }, &mut out);
    node.handle_input(at(520), Input::PeerUp { peer: id("W2"), hello: hello(theirs) }, &mut out);
    assert!(node.serving.term().is_some());
    node
}

/// What W2 is told within three seconds.
fn told(node: &mut Node, from_ms: u64) -> Vec<HostReport> {
    let mut out = Outputs::new();
    for beat in 0..12 {
        node.handle_timeout(at(from_ms + beat * 250), &mut out);
    }
    let reports = out.into_iter().filter_map(|output| {
        if let Output::Send { to, message: PeerMessage::Report(report) } = output
            && to == id("W2")
        {
            Some(report)
        } else {
            None
        }
    });
    reports.collect()
}

#[test]
fn who_knows_reports_is_told_and_who_does_not_is_not() {
    let reports = told(&mut served(Versions::OURS), 1_000);
    assert!(reports.len() >= 2, "{reports:?}");
    assert!(reports.iter().all(|report| report.wire == Versions::OURS.newest), "{reports:?}");
    assert_eq!(told(&mut served(Versions::upto(1)), 1_000), []);
}

#[test]
fn a_host_understands_what_all_its_processes_do() {
    assert_eq!(served(Versions::OURS).own_wire(), crate::wire::VERSION);
    let mut node = served(Versions::upto(1));
    assert_eq!(node.own_wire(), 1);
    let mut out = Outputs::new();
    // Replaced by a newer one; nothing is believed of it before it has said Hello.
    node.handle_input(at(600), Input::PeerDown { peer: id("W2") }, &mut out);
    assert_eq!(node.own_wire(), 1);
    node.handle_input(at(610), Input::PeerUp { peer: id("W2"), hello: hello(Versions::OURS) }, &mut out);
    assert_eq!(node.own_wire(), crate::wire::VERSION);
    // One that does not run writes nothing and reads nothing.
    node.handle_input(at(620), Input::Sibling { process: id("W2"), life: Life::Dead, pid: 0 }, &mut out);
    node.handle_input(at(620), Input::PeerDown { peer: id("W2") }, &mut out);
    assert_eq!(node.own_wire(), crate::wire::VERSION);
}

#[test]
fn a_report_that_is_not_repeated_says_nothing_of_versions_any_more() {
    let mut reports = Reports::new(Versions::OURS, at(0).mono);
    let report =
        |hlc| HostReport { host: "b".parse().unwrap(), at: Hlc(hlc), wire: 2, trim: Hlc(7), differing: vec![] };
    reports.learn(at(100).mono, report(2));
    reports.learn(at(4_000).mono, report(1));
    let wires = |ms| reports.last(at(ms).mono).map(|report| (report.wire, report.trim)).collect::<Vec<_>>();
    assert_eq!(wires(5_000), [(2, Hlc(7))]);
    assert_eq!(wires(5_200), [(1, Hlc(7))], "an older report is no news");
}

#[test]
fn only_the_primary_and_the_relay_of_this_host_are_believed() {
    let mut node = served(Versions::OURS);
    let report = |host: &str| HostReport {
        host: host.parse().unwrap(),
        at: Hlc(1 << 62),
        wire: 9,
        trim: Hlc(7),
        differing: vec![],
    };
    for host in ["a", "b"] {
        node.on_report(at(700), id("W2"), report(host));
    }
    assert!(node.reports.last(at(700).mono).all(|report| report.wire != 9), "W2 neither serves nor relays");
}

#[test]
fn a_difference_is_an_alarm_until_it_is_found_to_be_none() {
    let (mut node, with) = (served(Versions::OURS), "b".parse().unwrap());
    let upto = EntryId { origin: Origin { host: with, incarnation: 7 }, seq: crate::id::Seq(8) };
    let mut ms = 0;
    let mut found = |same: &[EntryId], differing: &[EntryId]| {
        let compared = Compared { same: same.to_vec(), differing: differing.to_vec() };
        ms += 4_000;
        node.handle_input(at(ms), Input::DigestsCompared { with, compared }, &mut Outputs::new());
        let alarms = node.cluster_status(at(ms)).alarms;
        let told = told(&mut node, ms).last().map(|report| report.differing.len());
        (alarms.into_iter().filter(|alarm| alarm.contains("different entries")).collect::<Vec<_>>(), told)
    };
    assert_eq!(found(&[upto], &[]), (vec![], Some(0)));
    let alarm = "a and b hold different entries of b.00000007 in the block that ends at 8".to_owned();
    assert_eq!(found(&[], &[upto]), (vec![alarm.clone()], Some(1)));
    assert_eq!(found(&[], &[]).0, [alarm], "not compared again");
    assert_eq!(found(&[upto], &[]).0, [""; 0]);
}

#[test]
fn a_sibling_knows_what_the_primary_found_and_every_host_what_others_did() {
    let mut node = first();
    let (mut out, b) = (Outputs::new(), "b".parse().unwrap());
    let upto = EntryId { origin: Origin { host: b, incarnation: 7 }, seq: crate::id::Seq(8) };
    node.handle_input(at(1), Input::Sibling { process: id("W2"), life: Life::Up, pid: 2 }, &mut out);
    node.handle_input(
        at(2),
        Input::Peer { from: id("W2"), message: PeerMessage::Coordinator { duty: Duty::Serve, epoch: Epoch(9) } },
        &mut out,
    );
    let differing = vec![Difference { upto, with: b }];
    let report = HostReport { host: "a".parse().unwrap(), at: Hlc(9), wire: 2, trim: Hlc(7), differing };
    node.handle_input(at(3), Input::Peer { from: id("W2"), message: PeerMessage::Report(report.clone()) }, &mut out);
    let all = |node: &Node| node.reports.differences("a".parse().unwrap()).into_iter().collect::<Vec<_>>();
    assert_eq!(all(&node), [("a".parse().unwrap(), b, upto)]);
    // The other host found the same: one pair, one alarm.
    let theirs = HostReport { host: b, differing: vec![Difference { upto, with: report.host }], ..report };
    node.reports.learn(at(4).mono, theirs);
    assert_eq!(all(&node).len(), 1);
}

#[test]
fn no_entry_says_where_an_origin_ends_while_a_process_would_not_understand_it() {
    let present = standing(5, Some(origin(2)));
    let vector = [(origin(1), Seq(9)), (origin(2), Seq(3))].into_iter().collect();
    let renewed = Standing { vector, ..present };
    let said = |theirs: Versions| {
        let (mut node, mut out) = (served_from(theirs, renewed.clone()), Outputs::new());
        for beat in 0..12 {
            node.handle_timeout(at(1_000 + beat * 250), &mut out);
        }
        let writes = out.into_iter().filter_map(|output| {
            let Output::Persist { write: Write::Retire { origin, last }, .. } = output else { return None };
            Some((origin, last))
        });
        writes.collect::<Vec<_>>()
    };
    assert_eq!(said(Versions::upto(RETIREMENTS - 1)), []);
    assert_eq!(said(Versions::OURS), [(origin(1), Seq(9))], "once: it is on its way to the store");
}
