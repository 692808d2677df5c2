//! The parts of a process, joined: its driver, and all tasks that it needs.
//!
//! Nothing here knows where a process stands. [`super::process`] puts it on this machine, with its run file and signals
//! and a thread that writes; [`super::embedded`] into another program, whose clock may be a simulated one.

use std::path::Path;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, Mutex};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::clock::Clock;
use super::driver::{Driver, Joints, Supervision};
use super::event::Event;
use super::inbound;
use super::links::Links;
use super::shared::Shared;
use super::siblings::Watcher;
use super::writer::{self, Writing};
use crate::core::io::Input;
use crate::core::node::{Node, NodeConfig};
use crate::id::ProcessId;
use crate::limits;
use crate::net::{CertBook, NodeEndpoint};
use crate::service::ledger::WriterMark;
use crate::store::Store;
use crate::topology::HostSpec;

use crate::wire::peer::PeerHello;

/// What is joined.
pub(super) struct Parts {
    pub(super) config: NodeConfig,
    pub(super) endpoint: NodeEndpoint,
    pub(super) store: Arc<dyn Store>,
    pub(super) book: CertBook,
    pub(super) clock: Clock,
    pub(super) writing: Writing,
    pub(super) supervision: Supervision,
}

/// A process whose tasks run, all but the driver.
pub(super) struct Joined {
    pub(super) driver: Driver,
    /// The driver's first inputs.
    pub(super) first: Vec<Input>,
    /// To the driver.
    pub(super) events: mpsc::Sender<Event>,
    pub(super) tasks: TaskTracker,
    pub(super) cancel: CancellationToken,
}

/// Joins the parts of a process that has these siblings, whose run files are below `data`.
pub(super) fn join(
    parts: Parts,
    host: &HostSpec,
    data: &Path,
    siblings: impl Iterator<Item = ProcessId>,
) -> std::io::Result<Joined> {
    let Parts { config, endpoint, store, book, clock, writing, supervision } = parts;
    let (events, inbox) = mpsc::channel(limits::INPUTS_WAITING_MAX);
    let (asks, asked) = mpsc::channel(limits::INPUTS_WAITING_MAX);
    let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
    let shared = Arc::new(Shared {
        endpoint,
        topology: config.topology.clone(),
        me: config.me,
        host: host.id,
        hello: hello(&config),
        events: events.clone(),
        asks,
        tasks: tasks.clone(),
        cancel: cancel.clone(),
        book: Mutex::new(book),
        numbers: AtomicU64::new(1),
    });
    let mark = WriterMark { process: config.me, pid: config.pid };
    let orders = writer::start(Arc::clone(&store), mark, clock, events.clone(), writing, &tasks)?;
    let mut watcher = Watcher::new(data, host.id, siblings);
    let first = watcher.look();
    let joints = Joints {
        store,
        events: inbox,
        asks: asked,
        writer: orders,
        watcher: watcher.orders(),
        links: Links::new(Arc::clone(&shared)),
        tasks: tasks.clone(),
        supervision,
    };
    tasks.spawn(watcher.run(tasks.clone(), cancel.clone(), events.clone()));
    tasks.spawn(inbound::accept_all(shared));
    let driver = Driver::new(Node::new(config, clock.now()), clock, joints);
    Ok(Joined { driver, first, events, tasks, cancel })
}

fn hello(config: &NodeConfig) -> PeerHello {
    PeerHello {
        versions: config.versions,
        cluster: config.topology.cluster.clone(),
        run: config.run,
        pid: config.pid,
        topology: config.topology_hash,
    }
}
