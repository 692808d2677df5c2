//! Posts that are over a count go at every host, on real processes: also at one that was away meanwhile.

use std::collections::BTreeSet;

use gaggle::client::new_request_id;
use gaggle::id::RequestId;
use tokio::time::{Instant, sleep};

use crate::harness::{Cluster, HOSTS, LOOK, PATIENCE, Person, Status, Ups, Watcher};

/// How many posts are kept.
const KEPT: usize = 10;

/// Waits until this person is shown exactly these.
async fn wait_shown(person: &Person, expected: &[RequestId]) {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let shown: Vec<RequestId> = person.timeline().await.into_iter().map(|post| post.id).collect();
        if shown == expected {
            return;
        }
        assert!(Instant::now() < deadline, "{} is shown {shown:?}, not {expected:?}", person.name);
        sleep(LOOK).await;
    }
}

async fn post(person: &Person, ids: &mut Vec<RequestId>, count: usize) {
    for _ in 0..count {
        let id = new_request_id();
        person.post(id.clone(), "hello").await.unwrap();
        ids.push(id);
    }
}

fn kept(ids: &[RequestId]) -> &[RequestId] {
    &ids[ids.len() - KEPT..]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn posts_over_the_count_go_at_every_host_and_are_not_made_again() {
    let mut cluster = Cluster::prepare(Ups::ForEachHost);
    let limits = format!("\n[log]\nkept = 5\nmax = 10\n[posts]\nmax_count = {KEPT}\n");
    std::fs::write(cluster.topology(), cluster.lenss() + &limits).unwrap();
    cluster.start_again().await;
    let ann = Person::login_at(&cluster, "ann", "lenss3").await;
    let bob = Person::login_at(&cluster, "bob", "lenss4").await;
    let mut watcher = Watcher::start(bob, &["ann".to_owned()]).await;
    let mut ids = Vec::new();
    post(&ann, &mut ids, 40).await;
    // A feed may pass over what is gone before it comes by; it has no error and goes on.
    watcher.take(&BTreeSet::from([ids[39].clone()])).await;
    for host in HOSTS {
        wait_shown(&ann.again_at(&cluster, host).await, kept(&ids)).await;
    }
    wait_shown(&watcher.person, kept(&ids)).await;
    let again = ann.post(ids[0].clone(), "hello").await.unwrap();
    assert!(again.accepted.hlc < ann.timeline().await[0].stamp.hlc, "the first attempt's answer");

    cluster.kill_host("lenss4").await;
    post(&ann, &mut ids, 25).await;
    wait_shown(&ann, kept(&ids)).await;
    cluster.start_host("lenss4");
    cluster.wait("the same state everywhere", |status: &Status| status.is_healthy() && status.is_converged()).await;
    let trims = |status: &Status| status.hosts.iter().map(|host| host.trimmed_before.clone()).collect::<BTreeSet<_>>();
    let one = |status: &Status| trims(status).len() == 1 && !trims(status).contains(&None);
    cluster.wait("every host says up to when posts went", one).await;
    for host in HOSTS {
        wait_shown(&ann.again_at(&cluster, host).await, kept(&ids)).await;
    }
    wait_shown(&watcher.person, kept(&ids)).await;
}
