//! Whole hosts that are lost, and come back, with or without their data; and everything at once.

use gaggle::client::ShownPost;
use gaggle::id::{Origin, Vector};
use rustix::process::Signal;
use tokio::time::Instant;

use crate::harness::cluster::signal;
use crate::harness::status::Host;
use crate::harness::{Cluster, Load, Person, Ups};

const PEOPLE: usize = 16;

/// Kills a host under load and starts it again. `meanwhile` happens while it is down.
async fn lose(host: &'static str, meanwhile: impl AsyncFn(&Cluster)) {
    let mut cluster = Cluster::start(Ups::ForEachHost).await;
    let load = Load::start(&cluster, PEOPLE).await;
    load.wait_for_posts(10 * PEOPLE).await;
    let killed = Instant::now();
    cluster.kill_host(host).await;
    cluster.wait("seen as down", |status| !status.host(host).up).await;
    let seen = Instant::now();
    // New people find a way in, to another host.
    let new = Person::login(&cluster, "newcomer").await;
    assert_ne!(new.host().as_deref(), Some(host));
    meanwhile(&cluster).await;
    cluster.start_host(host);
    cluster.wait("back", |status| status.is_healthy()).await;
    let (history, people) = load.finish(&cluster).await;
    let pause = history.longest_pause(killed, seen);
    println!("{host} lost, {} clients, {} posts: longest pause {pause:.1?}", people.len(), history.0.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_serving_host_is_lost_and_comes_back() {
    lose("lenss3", async |_| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_host_of_all_masters_is_lost_and_comes_back() {
    lose("lenss1", async |_| {}).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_whose_data_was_emptied_fetches_it_from_the_others() {
    lose("lenss4", async |cluster| std::fs::remove_dir_all(cluster.path("data/lenss4")).unwrap()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_host_of_one_up_that_dies_as_a_whole_is_started_again_by_itself() {
    let mut cluster = Cluster::start(Ups::One).await;
    let load = Load::start(&cluster, PEOPLE).await;
    let before = cluster.pids_of("lenss3").await;
    cluster.kill_host("lenss3").await;
    cluster
        .wait("back", |status| {
            let renewed = |process: &crate::harness::status::Process| !before.contains(&process.pid) && process.up;
            status.is_healthy() && status.host("lenss3").processes.iter().all(renewed)
        })
        .await;
    load.finish(&cluster).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_stopped_and_started_again() {
    let mut cluster = Cluster::start(Ups::One).await;
    let load = Load::start(&cluster, PEOPLE).await;
    load.wait_for_posts(10 * PEOPLE).await;
    let (history, people) = load.finish(&cluster).await;
    let before = cluster.wait_converged(&history.vector()).await;
    drop(people);
    cluster.stop();
    cluster.start_again().await;
    let after = cluster.wait_converged(&history.vector()).await;
    assert_eq!(before.hosts[0].digest, after.hosts[0].digest);
    assert_eq!(before.hosts[0].vector, after.hosts[0].vector);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_process_outlives_an_up_that_is_killed() {
    let mut cluster = Cluster::start(Ups::One).await;
    let pids: Vec<i32> = cluster.status().await.unwrap().processes().map(|process| process.pid).collect();
    // One that stands still must go, too.
    signal(pids[0], Signal::STOP);
    cluster.kill_ups_only();
    // Whoever adopted them may not have buried them yet.
    let lives = |pid: &&i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    };
    assert_eq!(pids.iter().find(lives), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_is_killed_while_people_post_and_nothing_acknowledged_is_lost() {
    let mut cluster = Cluster::start(Ups::One).await;
    let load = Load::start(&cluster, PEOPLE).await;
    load.wait_for_posts(10 * PEOPLE).await;
    let killed = Instant::now();
    cluster.kill_all();
    cluster.start_again().await;
    let back = Instant::now();
    // The same clients go on, with the requests that had no answer.
    load.wait_for_posts(10 * PEOPLE).await;
    let (history, _people) = load.finish(&cluster).await;
    println!("all killed: longest pause {:.1?}", history.longest_pause(killed, back));
}

/// The origins of a host that a vector names.
fn origins(vector: &Vector, host: &str) -> Vec<Origin> {
    vector.iter().map(|(origin, _)| origin).filter(|origin| origin.host.to_string() == host).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_origin_of_a_lost_disk_leaves_tokens_and_cursors_and_nothing_is_told_twice() {
    let mut cluster = Cluster::start(Ups::ForEachHost).await;
    let ann = Person::login_at(&cluster, "ann", "lenss3").await;
    let bob = Person::login_at(&cluster, "bob", "lenss4").await;
    bob.join("ann").await;
    let mut told = Vec::new();
    for text in ["one", "two"] {
        told.push(ann.post(gaggle::client::new_request_id(), text).await.unwrap().accepted.entry);
    }
    let former = told[0].origin;
    let texts = |posts: Vec<ShownPost>| posts.into_iter().map(|post| post.text).collect::<Vec<_>>();
    let first = bob.timeline().await.remove(0).cursor;
    assert_eq!(origins(&first, "lenss3"), [former]);

    cluster.kill_host("lenss3").await;
    std::fs::remove_dir_all(cluster.path("data/lenss3")).unwrap();
    cluster.start_host("lenss3");
    cluster.wait("back", |status| status.is_healthy()).await;
    // The same person at the host that has begun anew: its next entry is of another origin.
    let again = ann.again_at(&cluster, "lenss3").await;
    let later = again.post(gaggle::client::new_request_id(), "three").await.unwrap().accepted.entry.origin;
    assert_ne!(later, former);
    let named = |host: &Host| host.vector.keys().filter(|named| named.starts_with("lenss3.")).count();
    cluster
        .wait("without the origin that has ended", |status| {
            status.is_healthy() && status.is_converged() && status.hosts.iter().all(|host| named(host) == 1)
        })
        .await;
    // Whoever reads again names it no longer, and goes on where it was, from a cursor of either form.
    let page = bob.timeline().await;
    assert_eq!(origins(&bob.client.token().vector, "lenss3"), [later]);
    assert_eq!(origins(&page[2].cursor, "lenss3"), [later]);
    let cursors: Vec<Vector> = page.iter().map(|post| post.cursor.clone()).collect();
    let all = texts(page);
    assert_eq!(all, ["one", "two", "three"]);
    for (since, after) in [(first, 1)].into_iter().chain(cursors.into_iter().zip(1..)) {
        assert_eq!(texts(bob.since(since).await), all[after..]);
    }
    let shown = bob.timeline().await.pop().unwrap().cursor;
    assert_eq!(texts(bob.since(shown.clone()).await), [""; 0]);
    let mut feed = bob.client.follow(shown).await;
    again.post(gaggle::client::new_request_id(), "four").await.unwrap();
    assert_eq!(feed.next().await.unwrap().unwrap().text, "four");
}
