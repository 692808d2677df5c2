//! The QUIC shell: one driver task that performs what the session decides, and one task for each connection and each
//! feed's stream that reads. It decides nothing. One tracker owns all tasks, one token ends them.
//!
//! Every channel is bounded. A feed's reader takes a place in its feed's channel before it hands a frame to the
//! driver, so that the driver never waits for whoever reads a feed, and a slow reader stalls only its own stream.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use uuid::Uuid;

use crate::client::error::ClientError;
use crate::client::handle::Shared;
use crate::client::options::{ClientOptions, Entrance};
use crate::client::session::{
    CallId, ConnId, FeedKey, Input, Login, Output, Outputs, Session, SessionConfig, StreamId, Trouble, TroubleKind,
};
use crate::client::streams::{self, Connection, Dialing};
use crate::id::{ProcessId, Vector};
use crate::limits;
use crate::net::{ClientEndpoint, CloseCode, FrameSender, Identity, Link, SendError};
use crate::service::query::ShownPost;
use crate::time::{Now, Wall};
use crate::wire::client::{ClientFrame, RequestBody, Response};

/// Events handled between two looks at the clock and the timer.
const EVENTS_AT_ONCE: usize = 256;
/// The goodbye goes out at once. What takes longer (80 ms of every command) is QUIC's draining time, in which a packet
/// that comes late would be answered once more; a goodbye that is lost ends at the server's idle time.
const CLOSE_WAIT: Duration = Duration::from_millis(10);
/// A second connection is made when the first one has been good for this long, and the spread more.
const STANDBY_AFTER: Duration = Duration::from_millis(200);
/// See [`STANDBY_AFTER`]: a handshake costs both ends together 2 ms, so a thousand clients cost a host this long.
const STANDBY_SPREAD: Duration = Duration::from_secs(1);

/// What a handle asks of the driver.
#[derive(Debug)]
pub(crate) enum Command {
    /// A request.
    Call { call: CallId, body: RequestBody, deadline: Instant, reply: oneshot::Sender<Result<Response, ClientError>> },
    /// A feed.
    Follow { feed: FeedKey, since: Vector, batches: mpsc::Sender<FeedBatch>, stop: CancellationToken },
}

/// What a feed's reader gets.
#[derive(Debug)]
pub(crate) enum FeedBatch {
    Posts { posts: Vec<ShownPost>, cursor: Vector },
    Refused(ClientError),
}

/// A place in a feed's channel.
pub(crate) type FeedPlace = mpsc::OwnedPermit<FeedBatch>;

/// What the driver's tasks tell it.
#[derive(Debug)]
pub(crate) enum Event {
    /// The request stream is open.
    Connected { conn: ConnId, link: Link, frames: FrameSender },
    /// For the session. A frame of a feed brings its place along.
    Input { input: Input, place: Option<FeedPlace> },
}

/// The end of all tasks of a client.
#[derive(Debug)]
pub(crate) struct Ended(TaskTracker);

impl Ended {
    /// Waits for it.
    pub(crate) async fn wait(&self) {
        self.0.wait().await;
    }
}

/// Any time below this, so that what many clients do at once does not come at once.
fn spread(below: Duration) -> Duration {
    let (_, chance) = Uuid::now_v7().as_u64_pair();
    Duration::from_millis(chance % u64::try_from(below.as_millis()).unwrap_or(u64::MAX).max(1))
}

/// Starts the driver; cancelling `cancel` ends it.
pub(crate) fn start(
    options: ClientOptions,
    shared: Arc<Shared>,
    cancel: CancellationToken,
) -> Result<(mpsc::Sender<Command>, Ended), ClientError> {
    if options.entrances.is_empty() {
        return Err(ClientError::Here("no process is known that could be asked: name a topology file".into()));
    }
    let (endpoint, owned) = match options.endpoint.clone() {
        Some(endpoint) => (endpoint, None),
        None => {
            let endpoint = ClientEndpoint::bind().map_err(|error| ClientError::Here(error.to_string()))?;
            (endpoint.clone(), Some(endpoint))
        }
    };
    let session = Session::new(SessionConfig {
        entrances: options.entrances.iter().map(|entrance| (entrance.id, entrance.addr)).collect(),
        first: options.first,
        via: options.via,
        token: options.token,
        standby: options.standby,
        standby_after: STANDBY_AFTER + spread(STANDBY_SPREAD),
        login: if options.identity.is_some() { Login::Person } else { Login::Anonymous },
    });
    let (commands, commanded) = mpsc::channel(limits::CLIENT_REQUESTS_MAX);
    let (events, happened) = mpsc::channel(limits::INPUTS_WAITING_MAX);
    let tracker = TaskTracker::new();
    let driver = Driver {
        session,
        shared,
        start: Instant::now(),
        cancel,
        tracker: tracker.clone(),
        events,
        endpoint,
        identity: options.identity,
        entrances: options.entrances.into_iter().map(|entrance| (entrance.id, entrance)).collect(),
        conns: BTreeMap::new(),
        calls: BTreeMap::new(),
        feeds: BTreeMap::new(),
        outputs: Vec::new(),
    };
    tracker.spawn(driver.run(commanded, happened, owned));
    tracker.close();
    Ok((commands, Ended(tracker)))
}

/// A connection's shell.
#[derive(Debug)]
struct ConnShell {
    /// Ends its task, wherever it is.
    stop: CancellationToken,
    stands: Option<(Link, FrameSender)>,
}

/// A feed's shell.
#[derive(Debug)]
struct FeedShell {
    batches: mpsc::Sender<FeedBatch>,
    /// Cancelled when its reader is gone.
    stop: CancellationToken,
    /// The task of the present stream.
    stream: Option<(StreamId, CancellationToken)>,
}

#[derive(Debug)]
struct Driver {
    session: Session,
    shared: Arc<Shared>,
    start: Instant,
    cancel: CancellationToken,
    tracker: TaskTracker,
    events: mpsc::Sender<Event>,
    endpoint: ClientEndpoint,
    identity: Option<Identity>,
    entrances: BTreeMap<ProcessId, Entrance>,
    conns: BTreeMap<ConnId, ConnShell>,
    calls: BTreeMap<CallId, oneshot::Sender<Result<Response, ClientError>>>,
    feeds: BTreeMap<FeedKey, FeedShell>,
    outputs: Outputs,
}

impl Driver {
    async fn run(
        mut self,
        mut commanded: mpsc::Receiver<Command>,
        mut happened: mpsc::Receiver<Event>,
        owned: Option<ClientEndpoint>,
    ) {
        let cancel = self.cancel.clone();
        let timer = tokio::time::sleep_until(self.start);
        tokio::pin!(timer);
        let (mut commands, mut events) = (Vec::new(), Vec::new());
        self.input(Input::Start, None);
        loop {
            self.share();
            self.perform();
            // Woken early, the session does nothing: so a timer that has only moved away is left as it is.
            let due = self.session.poll_timeout().map(|at| self.start + Duration::from_micros(at.as_micros()));
            if let Some(due) = due.filter(|due| *due < timer.deadline() || timer.is_elapsed()) {
                timer.as_mut().reset(due);
            }
            tokio::select! {
                () = cancel.cancelled() => break,
                _ = happened.recv_many(&mut events, EVENTS_AT_ONCE) => {}
                count = commanded.recv_many(&mut commands, EVENTS_AT_ONCE) => if count == 0 { break },
                () = &mut timer, if due.is_some() => {
                    let now = self.now();
                    self.session.handle_timeout(now, &mut self.outputs);
                }
            }
            for event in events.drain(..) {
                self.on_event(event);
            }
            for command in commands.drain(..) {
                self.on_command(command);
            }
        }
        self.end(owned).await;
    }

    /// Says goodbye; whoever still waits for an answer learns of the end by the dropped channels.
    async fn end(mut self, owned: Option<ClientEndpoint>) {
        self.cancel.cancel();
        self.calls.clear();
        self.feeds.clear();
        for conn in std::mem::take(&mut self.conns).into_values() {
            if let Some((link, _)) = conn.stands {
                link.close(CloseCode::Goodbye, "");
            }
            conn.stop.cancel();
        }
        if let Some(endpoint) = owned {
            endpoint.close(CloseCode::Goodbye, "");
            endpoint.wait_closed(CLOSE_WAIT).await;
        }
    }

    fn now(&self) -> Now {
        let micros = u64::try_from(self.start.elapsed().as_micros()).unwrap_or(u64::MAX);
        // The session reads no wall clock: its stamps come from the servers.
        Now { mono: crate::time::Instant::from_micros(micros), wall: Wall(0) }
    }

    fn instant(&self, at: Instant) -> crate::time::Instant {
        let since = at.saturating_duration_since(self.start);
        crate::time::Instant::from_micros(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
    }

    fn input(&mut self, input: Input, place: Option<FeedPlace>) {
        let now = self.now();
        let first = self.outputs.len();
        self.session.handle_input(now, input, &mut self.outputs);
        let Some(place) = place else { return };
        // The place is for what this frame brings; at most one batch comes of it.
        let posts = self.outputs[first..].iter().position(|output| matches!(output, Output::FeedPosts { .. }));
        if let Some(index) = posts
            && let Output::FeedPosts { posts, cursor, .. } = self.outputs.remove(first + index)
        {
            self.share();
            place.send(FeedBatch::Posts { posts, cursor });
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Connected { conn, link, frames } => {
                if let Some(shell) = self.conns.get_mut(&conn) {
                    shell.stands = Some((link, frames));
                    self.input(Input::Connected { conn }, None);
                }
            }
            Event::Input { input, place } => {
                if let Input::ConnectFailed { conn, .. } | Input::Disconnected { conn, .. } = &input {
                    self.conns.remove(conn);
                }
                if let Input::FeedDropped { feed } = &input {
                    self.feeds.remove(feed);
                }
                self.input(input, place);
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Call { call, body, deadline, reply } => {
                self.calls.insert(call, reply);
                let deadline = self.instant(deadline);
                self.input(Input::Call { call, body, deadline }, None);
            }
            Command::Follow { feed, since, batches, stop } => {
                self.feeds.insert(feed, FeedShell { batches, stop, stream: None });
                self.input(Input::FeedWant { feed, since }, None);
            }
        }
    }

    /// Shows the outside what has been seen, before any answer that saw it is given.
    fn share(&self) {
        let session = &self.session;
        self.shared.update(|snapshot| {
            if snapshot.token != *session.token() {
                snapshot.token.clone_from(session.token());
            }
            snapshot.director = session.director();
            snapshot.served_by = session.served_by();
        });
    }

    fn perform(&mut self) {
        // Performing may bring on more: a connection whose queue is full has ended.
        while !self.outputs.is_empty() {
            for output in std::mem::take(&mut self.outputs) {
                self.perform_one(output);
            }
        }
    }

    fn perform_one(&mut self, output: Output) {
        match output {
            Output::Dial { conn, process, addr } => self.dial(conn, process, addr),
            Output::Close { conn } => {
                if let Some(shell) = self.conns.remove(&conn) {
                    if let Some((link, _)) = shell.stands {
                        link.close(CloseCode::Goodbye, "");
                    }
                    shell.stop.cancel();
                }
            }
            Output::Send { conn, frame } => self.send(conn, &frame),
            Output::OpenFeed { conn, feed, stream, frame } => self.open_feed(conn, feed, stream, frame),
            Output::CloseFeed { feed, stream } => {
                if let Some(shell) = self.feeds.get_mut(&feed)
                    && let Some((present, stop)) = shell.stream.take_if(|(present, _)| *present == stream)
                {
                    tracing::trace!(stream = present.0, "a feed's stream is closed");
                    stop.cancel();
                }
            }
            // Those of a frame with a place have been taken out before; no others are made.
            Output::FeedPosts { .. } => {}
            Output::FeedRefused { feed, error } => {
                if let Some(shell) = self.feeds.remove(&feed) {
                    // A reader that is so far behind learns of the end by the dropped channel.
                    let _ = shell.batches.try_send(FeedBatch::Refused(error));
                }
            }
            Output::Answer { call, result } => {
                if let Some(reply) = self.calls.remove(&call) {
                    // A caller that has gone wants no answer.
                    let _ = reply.send(result);
                }
            }
            Output::Notice(notice) => {
                // Without listeners nobody is told.
                let _ = self.shared.notices.send(notice);
            }
        }
    }

    fn dial(&mut self, conn: ConnId, process: ProcessId, addr: std::net::SocketAddr) {
        let Some(entrance) = self.entrances.get(&process) else { return };
        let stop = self.cancel.child_token();
        self.conns.insert(conn, ConnShell { stop: stop.clone(), stands: None });
        let dialing = Dialing {
            conn,
            addr,
            key: entrance.key,
            identity: self.identity.clone(),
            endpoint: self.endpoint.clone(),
            events: self.events.clone(),
        };
        let tracker = self.tracker.clone();
        self.tracker.spawn(async move {
            // Dropping the task's parts ends the connection: nothing is left behind.
            stop.run_until_cancelled(Connection::run(dialing, tracker)).await;
        });
    }

    fn send(&mut self, conn: ConnId, frame: &ClientFrame) {
        let Some((link, frames)) = self.conns.get(&conn).and_then(|shell| shell.stands.as_ref()) else { return };
        let why = match frames.try_send(frame) {
            Ok(()) => return,
            // Its reader tells of the end, and why.
            Err(SendError::Ended) => return,
            Err(error @ (SendError::Full | SendError::Frame(_))) => error.to_string(),
        };
        link.close(CloseCode::TooSlow, &why);
        if let Some(shell) = self.conns.remove(&conn) {
            shell.stop.cancel();
        }
        self.input(Input::Disconnected { conn, trouble: Trouble { kind: TroubleKind::Network, why } }, None);
    }

    fn open_feed(&mut self, conn: ConnId, feed: FeedKey, stream: StreamId, frame: ClientFrame) {
        let Some(link) = self.conns.get(&conn).and_then(|shell| shell.stands.as_ref()).map(|(link, _)| link.clone())
        else {
            return self.input(Input::FeedBroken { feed, stream }, None);
        };
        let Some(shell) = self.feeds.get_mut(&feed) else { return };
        let stop = self.cancel.child_token();
        if let Some((_, before)) = shell.stream.replace((stream, stop.clone())) {
            before.cancel();
        }
        let follow = streams::Following {
            feed,
            stream,
            link,
            batches: shell.batches.clone(),
            dropped: shell.stop.clone(),
            events: self.events.clone(),
        };
        self.tracker.spawn(async move {
            stop.run_until_cancelled(follow.run(frame)).await;
        });
    }
}
