//! Versions that follow each other: every process is replaced in turn by one of another program, while people post.
//!
//! `GAGGLE_IT_OLD` names the program of an older version, to start from. Without it the old one is this one, told to speak
//! the oldest version of the wire that it knows: it writes nothing newer, and ends a connection on which anything newer
//! comes. `docs/formats.md` says which versions were tried so.

use std::collections::BTreeMap;

use rustix::process::Signal;

use crate::harness::cli::GAGGLE;
use crate::harness::keeper::Up;
use crate::harness::{Cluster, Load, PATIENCE, Status, Ups};

const PEOPLE: usize = 8;

/// What a host says of its processes' wire versions spreads within some seconds, so that all must say it in the end.
const NEWEST: u16 = gaggle::wire::VERSION;
const PROCESSES: [&str; 10] = ["M1", "M2", "M3", "M4", "W5", "W6", "W7", "W8", "W9", "W10"];

/// The same one at a time, none supervised by anybody but this test.
async fn replace_all_in(order: impl Iterator<Item = &'static str>) {
    let first = || ["env".into(), format!("GAGGLE_WIRE={}", gaggle::wire::VERSION_OLDEST), GAGGLE.into()].to_vec();
    let old = std::env::var("GAGGLE_IT_OLD").map_or_else(|_| first(), |old| vec![old]);
    let new = vec![GAGGLE.to_owned()];
    let cluster = Cluster::prepare(Ups::One);
    let node = |program: &[String], id| Up::node(program, &cluster.topology(), id, cluster.path(&format!("{id}.log")));
    let mut nodes: BTreeMap<&str, Up> = PROCESSES.into_iter().map(|id| (id, node(&old, id))).collect();
    cluster.wait("healthy", |status| status.is_healthy()).await;
    let load = Load::start(&cluster, PEOPLE).await;
    for id in order {
        load.wait_for_posts(2 * PEOPLE).await;
        let leaving = nodes.remove(id).unwrap();
        let pid = leaving.pid();
        leaving.signal(Signal::TERM);
        assert_eq!(tokio::task::block_in_place(|| leaving.wait(PATIENCE)), Some(0), "{id}");
        nodes.insert(id, node(&new, id));
        cluster
            .wait(&format!("replaced: {id}"), |status| {
                let process = status.process(id);
                status.is_healthy() && process.up && process.pid != pid
            })
            .await;
    }
    let all = |status: &Status| status.hosts.iter().all(|host| host.wire == Some(NEWEST));
    cluster.wait("every host speaks the newest version", all).await;
    let (history, people) = load.finish(&cluster).await;
    println!("{} processes replaced: {} posts by {} people, no error", PROCESSES.len(), history.0.len(), people.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_process_is_replaced_masters_first_and_nobody_sees_an_error() {
    replace_all_in(PROCESSES.into_iter()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_process_is_replaced_masters_last_and_nobody_sees_an_error() {
    replace_all_in(PROCESSES.into_iter().rev()).await;
}
