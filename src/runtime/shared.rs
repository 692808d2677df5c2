//! What every network task of a process needs: who we are, whom we know, and where happenings go.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::event::Event;
use crate::core::io::Rank;
use crate::id::{ClientId, FeedId, HostId, ProcessId, PublicKey};
use crate::net::{CertBook, NodeEndpoint};
use crate::topology::Topology;
use crate::wire::client::ServerFrame;
use crate::wire::peer::PeerHello;

/// Shared by all network tasks of one process; nothing in it changes but counters and the book of keys.
pub(super) struct Shared {
    /// Our port.
    pub(super) endpoint: NodeEndpoint,
    /// Who is in the cluster.
    pub(super) topology: Topology,
    /// Ourselves.
    pub(super) me: ProcessId,
    /// Our host.
    pub(super) host: HostId,
    /// What we say first to peers.
    pub(super) hello: PeerHello,
    /// The driver.
    pub(super) events: mpsc::Sender<Event>,
    /// The driver, for all that comes of clients: it waits behind everything else.
    pub(super) asks: mpsc::Sender<Event>,
    /// Owner of the tasks.
    pub(super) tasks: TaskTracker,
    /// Ends them.
    pub(super) cancel: CancellationToken,
    /// Read now and then by many tasks, for a moment each: no task could own it without becoming a bottleneck, and
    /// no lock is held across an await.
    pub(super) book: Mutex<CertBook>,
    /// Numbers clients and feeds.
    pub(super) numbers: AtomicU64,
}

impl Shared {
    /// The key that this process of the topology must prove.
    pub(super) fn key_of(&self, id: ProcessId) -> Option<PublicKey> {
        self.book().find_key(id)
    }

    /// The process of the topology whose key this is.
    pub(super) fn process_of(&self, key: &PublicKey) -> Option<ProcessId> {
        self.book().find_process(key).filter(|id| *id != self.me && self.topology.process(*id).is_some())
    }

    /// What a client's key may do. The folder is not read again for it: strangers come all the time.
    pub(super) fn rank_of(&self, key: Option<&PublicKey>) -> Rank {
        match key.and_then(|key| self.book().process(key)) {
            Some(_) => Rank::Operator,
            None => Rank::Person,
        }
    }

    /// A number for a client.
    pub(super) fn next_client(&self) -> ClientId {
        ClientId(self.numbers.fetch_add(1, Ordering::Relaxed))
    }

    /// A number for a feed.
    pub(super) fn next_feed(&self) -> FeedId {
        FeedId(self.numbers.fetch_add(1, Ordering::Relaxed))
    }

    /// What we say first to clients.
    pub(super) fn greeting(&self) -> ServerFrame {
        ServerFrame::Hello {
            versions: self.hello.versions,
            cluster: self.topology.cluster.clone(),
            process: self.me,
            host: self.host,
        }
    }

    fn book(&self) -> MutexGuard<'_, CertBook> {
        // A task that panicked in between has left a map of keys that is whole.
        self.book.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
