//! The driver: the one task that owns the node. It feeds every input, performs every output in order, and sleeps.
//!
//! It never waits for anything but its inputs: messages leave through bounded queues (what overflows is closed, or
//! refused as full), writes go to the writer thread, and reads are short transactions performed here, so that an
//! answer and its epoch come from one moment. Their answers are inputs, too, handled before anything that waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::task::TaskTracker;

use super::clock::Clock;
use super::event::Event;
use super::links::Links;
use super::siblings::{self, Order};
use super::supervise::Wish;
use super::writer::WriteOrder;
use crate::core::io::{Input, Output, Outputs, StoreTrouble};
use crate::core::node::Node;
use crate::id::{ClientId, FeedId};
use crate::limits;
use crate::service::{feed, ledger, query, snapshot};
use crate::store::Store;
use crate::wire::client::{FeedFrame, ServerFrame};
use crate::wire::heartbeat::Life;

/// Events taken from the queue at once: timeouts are looked at in between.
const EVENTS_AT_ONCE: usize = 128;

/// How the driver ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Ending {
    /// The node handed everything over.
    Clean,
    /// It cannot go on.
    Failed(String),
    /// Somebody was impatient.
    Aborted,
}

/// Whether somebody listens to our standard output for restarts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Supervision {
    /// `gaggle up` started us.
    Supervised,
    /// Somebody else keeps us, or nobody.
    Alone,
}

/// What the driver is joined to.
pub(super) struct Joints {
    /// The host's store, for reads.
    pub(super) store: Arc<dyn Store>,
    /// Everything that happens.
    pub(super) events: mpsc::Receiver<Event>,
    /// To the writer thread.
    pub(super) writer: mpsc::Sender<WriteOrder>,
    /// To the siblings' watcher.
    pub(super) watcher: mpsc::Sender<Order>,
    /// Our connections to peers.
    pub(super) links: Links,
    /// Owner of the small tasks.
    pub(super) tasks: TaskTracker,
    /// Who hears of restarts.
    pub(super) supervision: Supervision,
}

/// The node and all that leads out of it.
pub(super) struct Driver {
    node: Node,
    clock: Clock,
    joints: Joints,
    clients: BTreeMap<ClientId, mpsc::Sender<ServerFrame>>,
    feeds: BTreeMap<FeedId, (ClientId, mpsc::Sender<FeedFrame>)>,
    /// Answers of reads, and consequences of overflows: handled before what waits in the queue.
    next: VecDeque<Input>,
    ending: Option<Ending>,
}

impl Driver {
    pub(super) fn new(node: Node, clock: Clock, joints: Joints) -> Self {
        let (clients, feeds) = (BTreeMap::new(), BTreeMap::new());
        Self { node, clock, joints, clients, feeds, next: VecDeque::new(), ending: None }
    }

    /// Drives until the node ends. `first` are the inputs that come before all others.
    pub(super) async fn run(mut self, first: Vec<Input>) -> Ending {
        self.next.extend(first);
        let mut out = Outputs::new();
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        self.settle(&mut out);
        let sleep = tokio::time::sleep(limits::PROC_LOOK);
        tokio::pin!(sleep);
        loop {
            if let Some(ending) = self.ending.take() {
                return ending;
            }
            let due = self.node.poll_timeout();
            if let Some(at) = due {
                let at = self.clock.tokio(at);
                if sleep.deadline() != at {
                    sleep.as_mut().reset(at);
                }
            }
            tokio::select! {
                biased;
                () = &mut sleep, if due.is_some() => {}
                _ = self.joints.events.recv_many(&mut events, EVENTS_AT_ONCE) => {}
            }
            for event in events.drain(..) {
                self.on_event(event);
                self.settle(&mut out);
            }
            let now = self.clock.now();
            if self.node.poll_timeout().is_some_and(|at| at <= now.mono) {
                self.node.handle_timeout(now, &mut out);
                self.perform_all(&mut out);
                self.settle(&mut out);
            }
        }
    }

    /// Handles inputs until none is at hand.
    fn settle(&mut self, out: &mut Outputs) {
        while let Some(input) = self.next.pop_front() {
            if self.ending.is_some() {
                return;
            }
            let buried = match &input {
                Input::Sibling { process, life: Life::Dead | Life::Left, .. } => Some(*process),
                _ => None,
            };
            self.node.handle_input(self.clock.now(), input, out);
            self.perform_all(out);
            if let Some(process) = buried {
                siblings::free_what_it_held(&self.joints.tasks, &self.joints.store);
                // The kernel knows before the network does.
                self.next.extend(self.joints.links.cut(process));
            }
        }
    }

    /// Turns an event into inputs.
    fn on_event(&mut self, event: Event) {
        match event {
            Event::Input(input) => self.on_input(input),
            Event::LinkUp { peer, hello, lanes } => self.next.extend(self.joints.links.on_up(peer, hello, lanes)),
            Event::LinkDown { peer, serial } => self.next.extend(self.joints.links.on_down(peer, serial)),
            Event::PeerArrived { peer, run } => {
                self.next.extend(self.joints.links.on_arrived(peer, run));
                // It may be a sibling that has just written its run file; a full queue will look anyway.
                let _ = self.joints.watcher.try_send(Order::Look);
            }
            Event::ClientOpened { client, key, frames } => {
                self.clients.insert(client, frames);
                self.next.push_back(Input::ClientOpened { client, key });
            }
            Event::FeedOpened { client, feed, token, since, frames } => {
                if self.clients.contains_key(&client) {
                    self.feeds.insert(feed, (client, frames));
                    self.next.push_back(Input::FeedOpened { client, feed, token, since });
                }
            }
            Event::Abort => self.ending = Some(Ending::Aborted),
        }
    }

    /// Keeps the books on clients and feeds: the node hears once of each end, and nothing after it.
    fn on_input(&mut self, input: Input) {
        let known = match &input {
            Input::Client { client, .. } => self.clients.contains_key(client),
            Input::ClientClosed { client } => self.forget_client(*client),
            Input::FeedWritten { feed } => self.feeds.contains_key(feed),
            Input::FeedClosed { feed } => self.feeds.remove(feed).is_some(),
            _ => true,
        };
        if known {
            self.next.push_back(input);
        }
    }

    fn forget_client(&mut self, client: ClientId) -> bool {
        self.feeds.retain(|_, (of, _)| *of != client);
        self.clients.remove(&client).is_some()
    }

    fn perform_all(&mut self, out: &mut Outputs) {
        for output in out.drain(..) {
            self.perform(output);
        }
    }

    fn perform(&mut self, output: Output) {
        match output {
            Output::Send { to, message } => self.next.extend(self.joints.links.send(to, message)),
            Output::Beat { to, heartbeat } => self.joints.links.beat(to, heartbeat),
            Output::Reply { client, frame } => self.reply(client, frame),
            Output::Feed { feed, frame } => self.feed(feed, frame),
            Output::TakeEpoch => {
                if self.joints.writer.try_send(WriteOrder::TakeEpoch).is_err() {
                    self.fail("the writer thread is gone");
                }
            }
            Output::Persist { id, epoch, write } => {
                match self.joints.writer.try_send(WriteOrder::Persist(id, epoch, write)) {
                    Ok(()) => {}
                    // True to its word: nothing was stored.
                    Err(TrySendError::Full(_)) => {
                        self.next.push_back(Input::Persisted { writes: vec![id], result: Err(StoreTrouble::Full) });
                    }
                    Err(TrySendError::Closed(_)) => self.fail("the writer thread is gone"),
                }
            }
            read @ (Output::ReadLog { .. }
            | Output::ReadSnapshot { .. }
            | Output::Query { .. }
            | Output::ReadFeeds { .. }) => self.read(&read),
            Output::Restart { process, after } => match self.joints.supervision {
                Supervision::Supervised => Wish::restart(process, after).say(),
                Supervision::Alone => tracing::info!(%process, "a process of this host is down; nobody supervises it"),
            },
            Output::Kill { process } => {
                if self.joints.watcher.try_send(Order::Kill(process)).is_err() {
                    tracing::warn!(%process, "the watcher is behind: not killed");
                }
            }
            Output::Exit { failure } => {
                self.ending.get_or_insert(failure.map_or(Ending::Clean, Ending::Failed));
            }
        }
    }

    fn reply(&mut self, client: ClientId, frame: ServerFrame) {
        let Some(frames) = self.clients.get(&client) else { return };
        if frames.try_send(frame).is_err() {
            // It reads too slowly, or is gone already.
            self.forget_client(client);
            self.next.push_back(Input::ClientClosed { client });
        }
    }

    fn feed(&mut self, feed: FeedId, frame: FeedFrame) {
        let Some((_, frames)) = self.feeds.get(&feed) else { return };
        if frames.try_send(frame).is_err() {
            self.feeds.remove(&feed);
            self.next.push_back(Input::FeedClosed { feed });
        }
    }

    /// Performs a read in one short transaction; its answer is the next input.
    fn read(&mut self, read: &Output) {
        let mut answer = None;
        let result = self.joints.store.read(&mut |rows| {
            answer = match read {
                Output::ReadLog { read, after, bytes_max } => {
                    Some(Input::LogRead { read: *read, chunk: ledger::read_log(rows, after, *bytes_max) })
                }
                Output::ReadSnapshot { read, at } => {
                    let chunk = snapshot::read_chunk(rows, at, limits::SNAPSHOT_BYTES_MAX);
                    Some(Input::SnapshotRead { read: *read, chunk, standing: ledger::standing(rows) })
                }
                Output::Query { client, number, shown, query } => {
                    let result = query::answer(rows, shown, query);
                    let epoch = ledger::standing(rows).epoch;
                    Some(Input::QueryDone { client: *client, number: *number, epoch, result })
                }
                Output::ReadFeeds { read, from, shown, feeds } => {
                    let (steps, cursor) = feed::advance(rows, from, shown, feeds);
                    Some(Input::FeedsRead { read: *read, epoch: ledger::standing(rows).epoch, steps, cursor })
                }
                _ => None,
            };
        });
        match (result, answer) {
            (Ok(()), Some(answer)) => self.next.push_back(answer),
            (Ok(()), None) => {}
            (Err(error), _) => self.fail(&error.to_string()),
        }
    }

    /// A belief about ourselves broke: the process ends, and its host elects another.
    fn fail(&mut self, reason: &str) {
        self.ending.get_or_insert(Ending::Failed(reason.to_owned()));
    }
}
