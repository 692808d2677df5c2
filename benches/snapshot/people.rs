//! People who post while it is measured.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use gaggle::client::{Client, ClientOptions, Entrance, Identity, WriteOp, new_request_id};
use hdrhistogram::Histogram;
use tokio::task::JoinSet;

/// How many phases are told apart: before, during.
pub(crate) const PHASES: usize = 2;

/// A crowd at work; a post counts for the phase in which it began.
pub(crate) struct Crowd {
    phase: Arc<AtomicUsize>,
    posting: JoinSet<[Histogram<u64>; PHASES]>,
}

fn histogram() -> Histogram<u64> {
    Histogram::new(3).unwrap()
}

impl Crowd {
    /// So many people log in at this host and begin to post.
    pub(crate) async fn start(entrances: &[Entrance], host: &str, clients: usize, pause: Duration) -> Self {
        let phase = Arc::new(AtomicUsize::new(0));
        let mut posting = JoinSet::new();
        for number in 0..clients {
            let mut options = ClientOptions::new(entrances.to_vec());
            options.identity = Some(Identity::generate().unwrap());
            options.via = Some(host.parse().unwrap());
            let client = Client::connect(options).await.unwrap();
            let name = WriteOp::Register { name: format!("writer{number}").parse().unwrap() };
            client.write(new_request_id(), name, None).await.unwrap();
            posting.spawn(post(client, Arc::clone(&phase), pause));
        }
        Self { phase, posting }
    }

    /// From now on posts count for this phase; the last one ends the work.
    pub(crate) fn enter(&self, phase: usize) {
        self.phase.store(phase, Ordering::Relaxed);
    }

    /// Ends the work and sums it up, phase by phase.
    pub(crate) async fn finish(mut self) -> [Histogram<u64>; PHASES] {
        self.enter(PHASES);
        let mut sums = [histogram(), histogram()];
        while let Some(measured) = self.posting.join_next().await {
            for (sum, part) in sums.iter_mut().zip(measured.unwrap()) {
                sum.add(part).unwrap();
            }
        }
        sums
    }
}

async fn post(client: Client, phase: Arc<AtomicUsize>, pause: Duration) -> [Histogram<u64>; PHASES] {
    let mut measured = [histogram(), histogram()];
    while let Some(histogram) = measured.get_mut(phase.load(Ordering::Relaxed)) {
        let text = "this was written while a snapshot was on its way".parse().unwrap();
        let began = Instant::now();
        client.write(new_request_id(), WriteOp::Post { text }, None).await.unwrap();
        histogram.record(u64::try_from(began.elapsed().as_micros()).unwrap()).unwrap();
        tokio::time::sleep(pause).await;
    }
    measured
}
