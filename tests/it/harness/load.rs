//! People who post, each one post after the other, until told to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
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
    posted: Arc<AtomicUsize>,
    watcher: Watcher,
}

impl Load {
    /// Logs so many people in, and one who watches them all; they begin to post.
    pub(crate) async fn start(cluster: &Cluster, count: usize) -> Self {
        let mut people = Vec::new();
        for number in 0..count {
            people.push(Person::login(cluster, &format!("poster-{number}")).await);
        }
        let names: Vec<String> = people.iter().map(|person| person.name.clone()).collect();
        let watcher = Watcher::start(Person::login(cluster, "watcher").await, &names).await;
        let posted = Arc::new(AtomicUsize::new(0));
        let stop = CancellationToken::new();
        let mut posting = JoinSet::new();
        for person in people {
            posting.spawn(post_until(person, stop.clone(), Arc::clone(&posted)));
        }
        Self { stop, posting, posted, watcher }
    }

    /// Waits until so many more posts were answered.
    pub(crate) async fn wait_for_posts(&self, more: usize) {
        let (wanted, deadline) = (self.posted.load(Ordering::Relaxed) + more, Instant::now() + PATIENCE);
        while self.posted.load(Ordering::Relaxed) < wanted {
            assert!(Instant::now() < deadline, "nobody gets an answer");
            sleep(LOOK).await;
        }
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
        let live = self.watcher.take(&history.acknowledged()).await;
        history.check(&live).unwrap_or_else(|error| panic!("the feed: {error}"));
        check_hosts(cluster, &history, &self.watcher.person).await;
        (history, people)
    }
}

/// Every host must come to show this history to somebody who joined all, and all hosts in one order.
pub(crate) async fn check_hosts(cluster: &Cluster, history: &History, reader: &Person) {
    let vector = history.vector();
    cluster.wait_converged(&vector).await;
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
                Err(error) => panic!("{host}: {error}\n{:#?}", cluster.status().await),
            }
        }
    }
    let ids = |place: usize| timelines[place].1.iter().map(|post| &post.id).collect::<Vec<_>>();
    for place in 1..timelines.len() {
        assert_eq!(ids(0), ids(place), "{} and {} differ", timelines[0].0, timelines[place].0);
    }
}

async fn post_until(person: Person, stop: CancellationToken, posted: Arc<AtomicUsize>) -> (Person, Vec<Record>) {
    let mut records = Vec::new();
    while !stop.is_cancelled() {
        let record = post(&person, format!("{} says {}", person.name, records.len())).await;
        records.push(record);
        posted.fetch_add(1, Ordering::Relaxed);
        sleep(PACE).await;
    }
    (person, records)
}

/// Posts and remembers.
pub(crate) async fn post(person: &Person, text: String) -> Record {
    let (id, called) = (new_request_id(), Instant::now());
    let outcome = match person.post(id.clone(), &text).await {
        Ok(written) => Outcome::Acknowledged(Box::new(written)),
        Err(error) => Outcome::Error(error.to_string()),
    };
    Record { author: person.name.clone(), id, text, called, answered: Instant::now(), outcome }
}
