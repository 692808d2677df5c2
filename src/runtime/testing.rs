//! What the tests of several parts share: the network end of a process, whose driver is the test.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::event::Event;
use super::inbound;
use super::shared::Shared;
use crate::id::ProcessId;
use crate::limits;
use crate::net::{CertBook, Identity, NodeEndpoint, certs};
use crate::topology::Topology;
use crate::wire::Versions;
use crate::wire::peer::PeerHello;

/// Longer than anything takes here.
pub(super) const PATIENCE: Duration = Duration::from_secs(20);

/// What is to come, or a test that fails.
pub(super) async fn soon<F: Future>(future: F) -> F::Output {
    timeout(PATIENCE, future).await.expect("it does not come")
}

/// The network end of a process.
pub(super) struct End {
    pub(super) shared: Arc<Shared>,
    pub(super) events: mpsc::Receiver<Event>,
    pub(super) asks: mpsc::Receiver<Event>,
    _certs: Arc<TempDir>,
}

impl Drop for End {
    fn drop(&mut self) {
        self.shared.cancel.cancel();
    }
}

/// W1 and W2, two processes of one host, who know each other's keys and accept whoever comes.
pub(super) fn pair() -> [End; 2] {
    let names: [ProcessId; 2] = ["W1", "W2"].map(|name| name.parse().unwrap());
    let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let endpoints = names.map(|_| NodeEndpoint::bind(here, Identity::generate().unwrap()).unwrap());
    let folder = Arc::new(TempDir::new().unwrap());
    let mut text = "cluster = \"test\"\n[[host]]\nname = \"a\"\n".to_owned();
    for (name, endpoint) in names.iter().zip(&endpoints) {
        certs::publish(folder.path(), *name, &endpoint.public_key()).unwrap();
        let addr = endpoint.local_addr().unwrap();
        text += &format!("[[host.process]]\nid = \"{name}\"\nrole = \"worker\"\naddr = \"{addr}\"\n");
    }
    let topology = Topology::parse(&text, "t.toml").unwrap();
    let mut ends = names.into_iter().zip(endpoints).map(|(me, endpoint)| end(me, endpoint, &topology, &folder));
    std::array::from_fn(|_| ends.next().unwrap())
}

fn end(me: ProcessId, endpoint: NodeEndpoint, topology: &Topology, folder: &Arc<TempDir>) -> End {
    let (events, heard) = mpsc::channel(limits::INPUTS_WAITING_MAX);
    let (asks, asked) = mpsc::channel(limits::INPUTS_WAITING_MAX);
    let cluster = topology.cluster.clone();
    let shared = Arc::new(Shared {
        endpoint,
        topology: topology.clone(),
        me,
        host: "a".parse().unwrap(),
        hello: PeerHello { versions: Versions::OURS, cluster, run: 1, pid: 1, topology: 0 },
        events,
        asks,
        tasks: TaskTracker::new(),
        cancel: CancellationToken::new(),
        book: Mutex::new(CertBook::load(folder.path()).unwrap()),
        numbers: AtomicU64::new(1),
    });
    shared.tasks.spawn(inbound::accept_all(Arc::clone(&shared)));
    End { shared, events: heard, asks: asked, _certs: Arc::clone(folder) }
}
