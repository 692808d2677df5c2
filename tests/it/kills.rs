//! Processes that die or stand still while 16 people post.

use rustix::process::Signal;
use tokio::time::{Duration, Instant, sleep};

use crate::harness::cluster::signal;
use crate::harness::{Cluster, Load, Ups};

const PEOPLE: usize = 16;
/// How long a process is stopped: longer than any patience of its peers.
const STOPPED: Duration = Duration::from_secs(3);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_process_is_killed_in_turn_and_nobody_notices_more_than_a_pause() {
    let cluster = Cluster::start(Ups::One).await;
    let load = Load::start(&cluster, PEOPLE).await;
    let mut windows = Vec::new();
    for id in ["M1", "M2", "M3", "M4", "W5", "W6", "W7", "W8", "W9", "W10"] {
        let before = cluster.wait("healthy", |status| status.is_healthy()).await;
        let pid = before.process(id).pid;
        let duties = before.duties(id);
        let killed = Instant::now();
        signal(pid, Signal::KILL);
        cluster
            .wait(&format!("back: {id}"), |status| {
                let process = status.process(id);
                status.is_healthy() && process.up && process.pid != pid
            })
            .await;
        windows.push((id, duties, killed, Instant::now()));
        // Everybody has got an answer before the next one dies, so that each pause has one cause.
        load.wait_for_posts(2 * PEOPLE).await;
    }
    let (history, _people) = load.finish(&cluster).await;
    println!("kill -9, {PEOPLE} clients, {} posts:", history.0.len());
    for (id, duties, killed, back) in windows {
        let (pause, after) = (history.longest_pause(killed, back), back - killed);
        println!("  {id:4} {duties:14} longest pause {pause:7.1?}, healthy again after {after:7.1?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_serving_primary_that_is_stopped_is_succeeded_and_commits_nothing_when_it_wakes() {
    let cluster = Cluster::start(Ups::One).await;
    let load = Load::start(&cluster, PEOPLE).await;
    let before = cluster.wait("healthy", |status| status.is_healthy()).await;
    let host = before.host("lenss3");
    let (old, epoch) = (host.serving.clone().unwrap(), host.epoch);
    let pid = before.process(&old).pid;
    let stopped = Instant::now();
    signal(pid, Signal::STOP);
    cluster
        .wait("served by a successor", |status| {
            let host = status.host("lenss3");
            host.epoch > epoch && host.serving.as_ref().is_some_and(|serving| *serving != old)
        })
        .await;
    let succeeded = Instant::now();
    sleep(STOPPED.saturating_sub(stopped.elapsed())).await;
    // It may have been killed because it held the store's lock: then it is back under another pid, and runs.
    let woken = cluster.status().await.is_some_and(|status| status.process(&old).pid != pid);
    if !woken {
        signal(pid, Signal::CONT);
    }
    let after = cluster.wait("healthy", |status| status.is_healthy()).await;
    assert_ne!(after.host("lenss3").serving.as_deref(), Some(old.as_str()), "a living successor keeps its duty");
    let (history, _people) = load.finish(&cluster).await;
    let pause = history.longest_pause(stopped, succeeded);
    println!("SIGSTOP of {old} for {STOPPED:?}: longest pause {pause:.1?}, killed meanwhile: {woken}");
}
