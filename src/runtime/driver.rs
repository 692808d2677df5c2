//! The driver: the one task that owns the node. It feeds every input, performs every output in order, and sleeps.
//!
//! It never waits for anything but its inputs: messages leave through bounded queues (what overflows is closed, or
//! refused as full), writes go to the writer thread, and reads are short transactions performed here, so that an
//! answer and its epoch come from one moment. Their answers are inputs, too, handled before anything that waits.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio_util::task::TaskTracker;

use super::clock::{Clock, micros};
use super::event::Event;
use super::links::Links;
use super::siblings::{self, Order};
use super::supervise::Wish;
use super::writer::WriteOrder;
use crate::core::io::{Input, Output, Outputs, StoreTrouble};
use crate::core::node::Node;
use crate::error::{ErrorCode, Refusal};
use crate::id::{ClientId, FeedId, Token};
use crate::limits;
use crate::net::FrameSender;
use crate::service::rows::Rows;
use crate::service::{blocks, feed, ledger, log, query, snapshot};
use crate::store::Store;
use crate::time::{Instant, Now};
use crate::wire::client::{FeedFrame, ServerFrame};
use crate::wire::heartbeat::Life;

/// Events taken from the queue at once: timeouts are looked at in between.
const EVENTS_AT_ONCE: usize = 128;

/// Of clients' events fewer: a read may take a millisecond, and whatever else happens meanwhile waits for them.
const ASKS_AT_ONCE: usize = 16;

/// Woken this much later than asked, a process was stopped, or too busy to listen.
const LATE: Duration = Duration::from_millis(200);

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
    /// What clients do: few at a time, behind everything else that waits, so that a crowd of them delays no heartbeat.
    pub(super) asks: mpsc::Receiver<Event>,
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

/// A client's connection.
#[derive(Debug)]
struct Client {
    frames: FrameSender,
    /// Requests that have no answer yet.
    under_way: usize,
}

/// The node and all that leads out of it.
pub(super) struct Driver {
    node: Node,
    clock: Clock,
    /// How long this process did not run when it should have. The node's clock leaves that time out: what it did not
    /// hear meanwhile is nobody's silence, and one that wakes from SIGSTOP must not depose its successor.
    slept: Duration,
    joints: Joints,
    clients: BTreeMap<ClientId, Client>,
    feeds: BTreeMap<FeedId, (ClientId, mpsc::Sender<FeedFrame>)>,
    /// Answers of reads, and consequences of overflows: handled before what waits in the queue.
    next: VecDeque<Input>,
    ending: Option<Ending>,
}

impl Driver {
    pub(super) fn new(node: Node, clock: Clock, joints: Joints) -> Self {
        let (clients, feeds) = (BTreeMap::new(), BTreeMap::new());
        Self { node, clock, slept: Duration::ZERO, joints, clients, feeds, next: VecDeque::new(), ending: None }
    }

    /// Drives until the node ends. `first` are the inputs that come before all others.
    pub(super) async fn run(mut self, first: Vec<Input>) -> Ending {
        self.next.extend(first);
        let mut out = Outputs::new();
        let mut events = Vec::with_capacity(EVENTS_AT_ONCE);
        let mut asks = Vec::with_capacity(ASKS_AT_ONCE);
        self.settle(&mut out);
        let sleep = tokio::time::sleep(limits::PROC_LOOK);
        tokio::pin!(sleep);
        loop {
            if let Some(ending) = self.ending.take() {
                return ending;
            }
            let (asleep_since, due) = (self.now().mono, self.node.poll_timeout());
            if let Some(at) = due {
                let at = self.clock.tokio(at + self.slept);
                if sleep.deadline() != at {
                    sleep.as_mut().reset(at);
                }
            }
            tokio::select! {
                biased;
                () = &mut sleep, if due.is_some() => {}
                _ = self.joints.events.recv_many(&mut events, EVENTS_AT_ONCE) => {}
                _ = self.joints.asks.recv_many(&mut asks, ASKS_AT_ONCE) => {}
            }
            // Some of them each time, whatever else comes: under a steady stream from other hosts they would wait for ever.
            while asks.len() < ASKS_AT_ONCE
                && let Ok(ask) = self.joints.asks.try_recv()
            {
                asks.push(ask);
            }
            self.leave_out(asleep_since, due);
            for event in events.drain(..).chain(asks.drain(..)) {
                self.on_event(event);
                self.settle(&mut out);
            }
            let now = self.now();
            if self.node.poll_timeout().is_some_and(|at| at <= now.mono) {
                self.node.handle_timeout(now, &mut out);
                self.perform_all(&mut out);
                self.settle(&mut out);
            }
        }
    }

    /// Leaves out of the node's clock what a sleep took longer than asked.
    fn leave_out(&mut self, asleep_since: Instant, due: Option<Instant>) {
        let late = lateness(asleep_since, due, self.now().mono);
        if late > LATE {
            tracing::debug!(?late, "woken late");
            self.slept += late;
        }
    }

    /// The node's clocks.
    fn now(&self) -> Now {
        let Now { mono, wall } = self.clock.now();
        Now { mono: Instant::from_micros(mono.as_micros().saturating_sub(micros(self.slept))), wall }
    }

    /// Handles inputs until none is at hand.
    fn settle(&mut self, out: &mut Outputs) {
        while let Some(input) = self.next.pop_front() {
            if self.ending.is_some() {
                return;
            }
            let buried = if let Input::Sibling { process, life: Life::Dead | Life::Left, .. } = &input {
                Some(*process)
            } else {
                None
            };
            self.node.handle_input(self.now(), input, out);
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
            Event::ClientOpened { client, key, rank, frames } => {
                self.clients.insert(client, Client { frames, under_way: 0 });
                self.next.push_back(Input::ClientOpened { client, key, rank });
            }
            Event::Asked { client, request, place } => {
                drop(place);
                self.on_input(Input::Client { client, request });
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
        let known = if let Input::Client { client, request } = &input {
            self.admit(*client, request.number)
        } else if let Input::ClientClosed { client } = &input {
            self.forget_client(*client)
        } else if let Input::FeedWritten { feed } = &input {
            self.feeds.contains_key(feed)
        } else if let Input::FeedClosed { feed } = &input {
            self.feeds.remove(feed).is_some()
        } else {
            true
        };
        if known {
            self.next.push_back(input);
        }
    }

    /// Whether a client's request goes to the node; above the limit it is refused here.
    fn admit(&mut self, id: ClientId, number: u64) -> bool {
        let Some(client) = self.clients.get_mut(&id) else { return false };
        client.under_way += 1;
        if client.under_way <= limits::CLIENT_REQUESTS_MAX {
            return true;
        }
        let refusal = Refusal::new(ErrorCode::Busy, "too many requests wait on one connection: ask again");
        self.reply(id, &ServerFrame::Response { number, token: Token::default(), result: Err(refusal) });
        false
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
            Output::Send { to, message } => self.next.extend(self.joints.links.send(to, &message)),
            Output::Beat { to, heartbeat } => self.joints.links.beat(to, heartbeat),
            Output::Reply { client, frame } => self.reply(client, &frame),
            Output::Feed { feed, frame } => self.feed(feed, frame),
            Output::TakeEpoch => self.order(WriteOrder::TakeEpoch),
            Output::Persist { id, epoch, write } => self.order(WriteOrder::Persist(id, epoch, write)),
            Output::ReadLog { read, after, bytes_max } => {
                self.read(|rows| Input::LogRead { read, chunk: log::read_log(rows, &after, bytes_max) })
            }
            Output::ReadSnapshot { read, at } => self.read(|rows| Input::SnapshotRead {
                read,
                chunk: snapshot::read_chunk(rows, &at, limits::SNAPSHOT_BYTES_MAX),
                standing: ledger::standing(rows),
            }),
            Output::ReadDigests { read, after } => {
                self.read(|rows| Input::DigestsRead { read, digests: blocks::digests(rows, &after) })
            }
            Output::CompareDigests { with, told } => {
                self.read(|rows| Input::DigestsCompared { with, compared: blocks::compare(rows, &told) })
            }
            Output::Query { client, number, shown, query } => self.read(|rows| Input::QueryDone {
                client,
                number,
                epoch: ledger::epoch(rows),
                result: query::answer(rows, &shown, &query),
            }),
            Output::ReadFeeds { read, from, shown, feeds } => self.read(|rows| {
                let (steps, cursor) = feed::advance(rows, &from, &shown, &feeds);
                Input::FeedsRead { read, epoch: ledger::epoch(rows), steps, cursor }
            }),
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

    /// Hands an order to the writer thread; never waits for it.
    fn order(&mut self, order: WriteOrder) {
        match self.joints.writer.try_send(order) {
            Ok(()) => {}
            // True to its word: nothing was stored.
            Err(TrySendError::Full(order)) => self.next.push_back(match order {
                WriteOrder::TakeEpoch => Input::EpochTaken(Err(StoreTrouble::Full)),
                WriteOrder::Persist(id, ..) => Input::Persisted { writes: vec![id], result: Err(StoreTrouble::Full) },
            }),
            Err(TrySendError::Closed(_)) => self.fail("the writer thread is gone"),
        }
    }

    fn reply(&mut self, id: ClientId, frame: &ServerFrame) {
        let Some(client) = self.clients.get_mut(&id) else { return };
        if matches!(frame, ServerFrame::Response { .. }) {
            client.under_way = client.under_way.saturating_sub(1);
        }
        if let Err(error) = client.frames.try_send(frame) {
            // It reads too slowly, or is gone already.
            tracing::debug!(client = id.0, %error, "a client's connection is given up");
            self.forget_client(id);
            self.next.push_back(Input::ClientClosed { client: id });
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
    fn read(&mut self, reader: impl Fn(&dyn Rows) -> Input) {
        let mut answer = None;
        let begun = self.clock.now().mono;
        let read = self.joints.store.read(&mut |rows| answer = Some(reader(rows)));
        let took = self.clock.now().mono.since(begun);
        if took > limits::READ_TRANSACTION_MAX {
            tracing::warn!(?took, "a read was long: freed pages could not be used again meanwhile");
        }
        match read {
            Ok(()) => self.next.extend(answer),
            Err(error) => self.fail(&error.to_string()),
        }
    }

    /// A belief about ourselves broke: the process ends, and its host elects another.
    fn fail(&mut self, reason: &str) {
        self.ending.get_or_insert(Ending::Failed(reason.to_owned()));
    }
}

/// How much longer than asked a sleep took. What was due before it began (an input may bring up something long past)
/// is no measure: the clock must not run backwards.
fn lateness(asleep_since: Instant, due: Option<Instant>, now: Instant) -> Duration {
    due.map_or(Duration::ZERO, |due| now.since(due.max(asleep_since)))
}

#[cfg(test)]
mod tests;
