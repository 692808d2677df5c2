//! Versions that follow each other: every process is replaced in turn by one of another program, while people post.
//!
//! `GAGGLE_IT_OLD` names the program of an older version, to start from; without it both are this one, and the test is of
//! a rolling restart. `docs/formats.md` says which versions were tried so.

use std::collections::BTreeMap;

use rustix::process::Signal;

use crate::harness::cli::GAGGLE;
use crate::harness::keeper::Up;
use crate::harness::{Cluster, Load, PATIENCE, Ups};

const PEOPLE: usize = 8;
const PROCESSES: [&str; 10] = ["M1", "M2", "M3", "M4", "W5", "W6", "W7", "W8", "W9", "W10"];

/// The same one at a time, none supervised by anybody but this test.
async fn replace_all_in(order: impl Iterator<Item = &'static str>) {
    let old = std::env::var("GAGGLE_IT_OLD").unwrap_or_else(|_| GAGGLE.to_owned());
    let cluster = Cluster::prepare(Ups::One);
    let node = |program: &str, id| Up::node(program, &cluster.topology(), id, cluster.path(&format!("{id}.log")));
    let mut nodes: BTreeMap<&str, Up> = PROCESSES.into_iter().map(|id| (id, node(&old, id))).collect();
    cluster.wait("healthy", |status| status.is_healthy()).await;
    let load = Load::start(&cluster, PEOPLE).await;
    for id in order {
        load.wait_for_posts(2 * PEOPLE).await;
        let leaving = nodes.remove(id).unwrap();
        let pid = leaving.pid();
        leaving.signal(Signal::TERM);
        assert_eq!(tokio::task::block_in_place(|| leaving.wait(PATIENCE)), Some(0), "{id}");
        nodes.insert(id, node(GAGGLE, id));
        cluster
            .wait(&format!("replaced: {id}"), |status| {
                let process = status.process(id);
                status.is_healthy() && process.up && process.pid != pid
            })
            .await;
    }
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
