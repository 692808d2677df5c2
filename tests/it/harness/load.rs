//! People who post, each one post after the other, until told to stop.

use std::time::Duration;

use gaggle::client::new_request_id;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use super::cluster::{Cluster, HOSTS};
use super::history::{History, Outcome, Record};
use super::person::{Person, Watcher};
use super::{LOOK, PATIENCE};

/// The pause between an answer and the next post.
const PACE: Duration = Duration::from_millis(20);

/// Somebody watches while others post.
#[derive(Debug)]
pub(crate) struct Load {
    stop: CancellationToken,
    posting: JoinSet<(Person, Vec<Record>)>,
    watcher: Watcher,
}

impl Load {
    /// Logs so many people in, and one who watches them all; they begin to post.
    pub(crate) async fn start(cluster: &Cluster, count: usize) -> Self {
        let mut people = Vec::new();
        for number in 0..count {
            people.push(Person::login(cluster, &format!("poster-{number}")).await);
        }
        let watcher = Watcher::start(Person::login(cluster, "watcher").await, &people).await;
        let stop = CancellationToken::new();
        let mut posting = JoinSet::new();
        for person in people {
            posting.spawn(post_until(person, stop.clone()));
        }
        Self { stop, posting, watcher }
    }

    /// Stops, and checks the history: nobody saw an error, the feed told everything once, and every host shows the
    /// same. Returns the history and the people.
    pub(crate) async fn finish(mut self, cluster: &Cluster) -> (History, Vec<Person>) {
        self.stop.cancel();
        let (mut history, mut people) = (History::default(), Vec::new());
        while let Some(joined) = self.posting.join_next().await {
            let (person, records) = joined.unwrap();
            people.push(person);
            history.0.extend(records);
        }
        history.assert_no_errors();
        self.watcher.take(&history.acknowledged()).await;
        check_hosts(cluster, &history, &self.watcher.person).await;
        (history, people)
    }
}

/// Every host must come to show this history to somebody who joined all, and all hosts in one order.
pub(crate) async fn check_hosts(cluster: &Cluster, history: &History, reader: &Person) {
    cluster.wait_converged().await;
    let mut timelines = Vec::new();
    for host in HOSTS {
        let there = reader.again_at(cluster, host).await;
        let deadline = Instant::now() + PATIENCE;
        loop {
            let shown = there.timeline().await;
            match history.check(&shown) {
                Ok(()) => break timelines.push((host, shown)),
                // It may be behind for a moment, but never wrong.
                Err(error) if error.contains("are missing") && Instant::now() < deadline => sleep(LOOK).await,
                Err(error) => panic!("{host}: {error}"),
            }
        }
    }
    let ids = |place: usize| timelines[place].1.iter().map(|post| &post.id).collect::<Vec<_>>();
    for place in 1..timelines.len() {
        assert_eq!(ids(0), ids(place), "{} and {} differ", timelines[0].0, timelines[place].0);
    }
}

async fn post_until(person: Person, stop: CancellationToken) -> (Person, Vec<Record>) {
    let mut records = Vec::new();
    while !stop.is_cancelled() {
        let record = post(&person, format!("{} says {}", person.name, records.len())).await;
        records.push(record);
        sleep(PACE).await;
    }
    (person, records)
}

/// Posts and remembers.
pub(crate) async fn post(person: &Person, text: String) -> Record {
    let (id, called) = (new_request_id(), Instant::now());
    let outcome = match person.post(id.clone(), &text).await {
        Ok(written) => Outcome::Acknowledged { copies: written.copies },
        Err(error) => Outcome::Error(error.to_string()),
    };
    Record { author: person.name.clone(), id, text, called, answered: Instant::now(), outcome }
}
