//! What programs hold: [`Client`], [`Feed`], [`Notices`].

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{Semaphore, broadcast, mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::client::error::ClientError;
use crate::client::options::ClientOptions;
use crate::client::session::{CallId, FeedKey, Notice};
use crate::client::shell::{self, Command, FeedBatch};
use crate::id::{HostId, ProcessId, PublicKey, RequestId, Token, UserId, UserName, Vector};
use crate::limits;
use crate::service::intake::WriteOp;
use crate::service::query::{Answer, ListPart, ShownPost};
use crate::time::Hlc;
use crate::topology::AckLevel;
use crate::wire::client::{ClusterStatus, RequestBody, Response, Written};
use crate::wire::report::ClusterReport;

/// Calls under way at once; one more waits. Below what a server takes on one connection, so that the session's own
/// requests (probes, assignments, writes offered again) always have room.
const CALLS_MAX: usize = limits::CLIENT_REQUESTS_MAX - 128;
/// Notices kept for a reader that is slow; older ones are dropped.
const NOTICES_MAX: usize = 64;
/// Batches of posts that wait for a feed's reader; then the feed's stream stands still.
const FEED_BATCHES_MAX: usize = 16;

/// What others may ask of the session at any time, without waiting for it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    pub(crate) token: Token,
    pub(crate) director: Option<ProcessId>,
    pub(crate) served_by: Option<(HostId, ProcessId)>,
}

/// What the handle and the driver share. A plain mutex: it is held for a copy, never across an await.
#[derive(Debug)]
pub(crate) struct Shared {
    snapshot: Mutex<Snapshot>,
    pub(crate) notices: broadcast::Sender<Notice>,
}

impl Shared {
    fn new(token: Token) -> Self {
        let snapshot = Snapshot { token, ..Snapshot::default() };
        Self { snapshot: Mutex::new(snapshot), notices: broadcast::channel(NOTICES_MAX).0 }
    }

    fn read<T>(&self, read: impl FnOnce(&Snapshot) -> T) -> T {
        read(&self.snapshot.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn update(&self, change: impl FnOnce(&mut Snapshot)) {
        change(&mut self.snapshot.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Who a person is to the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Me {
    /// The name as it is shown, with a suffix if it is contested.
    pub name: String,
    /// The name as it was registered.
    pub registered: UserName,
    /// The person's id.
    pub user: UserId,
    /// The person's key.
    pub key: PublicKey,
    /// When it was registered.
    pub hlc: Hlc,
}

/// Which timeline, and how much of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineRequest {
    /// The posts that this person made; else one's own timeline.
    pub of: Option<String>,
    /// At most so many posts: the newest, or with `since` the first after it.
    pub limit: u32,
    /// Only what came after this cursor.
    pub since: Option<Vector>,
}

/// A timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelinePage {
    /// The posts, oldest first.
    pub posts: Vec<ShownPost>,
    /// A feed, or the next `since`, goes on from here.
    pub cursor: Vector,
}

/// A person's (or an anonymous) session with the cluster. Dropping it ends it; [`Client::close`] does so in order.
///
/// Any number of calls may be under way at once, up to a limit above which they wait. Calls that are made one after
/// the other take effect in that order; calls under way together, in any.
#[derive(Debug)]
pub struct Client {
    commands: mpsc::Sender<Command>,
    shared: Arc<Shared>,
    places: Arc<Semaphore>,
    next: AtomicU64,
    timeout: Duration,
    end: DropGuard,
    ended: shell::Ended,
}

impl Client {
    /// Finds a way in. Returns once somebody has said where to go; the connection to there is then being made, and
    /// calls queue for it. Needs a tokio runtime.
    pub async fn connect(options: ClientOptions) -> Result<Self, ClientError> {
        let timeout = options.timeout;
        let shared = Arc::new(Shared::new(options.token.clone()));
        let cancel = CancellationToken::new();
        let end = cancel.clone().drop_guard();
        let (commands, ended) = shell::start(options, Arc::clone(&shared), cancel)?;
        let client = Self {
            commands,
            shared,
            places: Arc::new(Semaphore::new(CALLS_MAX)),
            next: AtomicU64::new(0),
            timeout,
            end,
            ended,
        };
        client.call(RequestBody::Assign, client.deadline()).await?;
        Ok(client)
    }

    /// Writes. The same id has its effect once, however often it is asked, by whomever it was answered.
    pub async fn write(&self, id: RequestId, op: WriteOp, ack: Option<AckLevel>) -> Result<Written, ClientError> {
        let response = self.call(RequestBody::Write { id, op, ack }, self.deadline()).await?;
        let Response::Written(written) = response else { return Err(unexpected(&response)) };
        Ok(written)
    }

    /// Who the identity is to the service.
    pub async fn who_am_i(&self) -> Result<Me, ClientError> {
        let response = self.call(RequestBody::WhoAmI, self.deadline()).await?;
        let Response::Answer(Answer::WhoAmI { name, registered, key, hlc }) = response else {
            return Err(unexpected(&response));
        };
        Ok(Me { name, registered, user: UserId::of(&key), key, hlc })
    }

    /// All of a part of LIST, sorted without case.
    pub async fn list(&self, part: ListPart) -> Result<Vec<String>, ClientError> {
        let deadline = self.deadline();
        let mut all = Vec::new();
        let mut after = String::new();
        loop {
            let response = self.call(RequestBody::List { part, after }, deadline).await?;
            let Response::Answer(Answer::Names { names, next }) = response else { return Err(unexpected(&response)) };
            all.extend(names);
            match next {
                Some(next) => after = next,
                None => return Ok(all),
            }
        }
    }

    /// A timeline of up to [`limits::TIMELINE_POSTS_MAX`] posts, in as many answers as that takes.
    pub async fn timeline(&self, request: TimelineRequest) -> Result<TimelinePage, ClientError> {
        let deadline = self.deadline();
        let request = TimelineRequest { limit: request.limit.min(limits::TIMELINE_POSTS_MAX), ..request };
        match request.since {
            Some(since) => self.timeline_since(request.of, request.limit, since, deadline).await,
            None => self.timeline_newest(request.of, request.limit, deadline).await,
        }
    }

    /// Pages back: each answer holds posts before those that are here already.
    async fn timeline_newest(
        &self,
        of: Option<String>,
        limit: u32,
        deadline: Instant,
    ) -> Result<TimelinePage, ClientError> {
        let mut pages: Vec<Vec<ShownPost>> = Vec::new();
        let mut wanted = limit;
        let mut before = None;
        let mut newest: Option<Vector> = None;
        loop {
            // All that is still wanted, though no answer holds so much: only then `more` tells that there is a rest.
            let body = RequestBody::Timeline { of: of.clone(), limit: wanted, since: None, before };
            let (posts, more, cursor) = self.posts(body, deadline).await?;
            let cursor = newest.get_or_insert(cursor);
            wanted = wanted.saturating_sub(count(&posts));
            before = posts.first().map(|post| post.stamp);
            let last = posts.is_empty() || !more || wanted == 0;
            pages.push(posts);
            if last {
                let posts = pages.into_iter().rev().flatten().collect();
                return Ok(TimelinePage { posts, cursor: std::mem::take(cursor) });
            }
        }
    }

    /// Pages on: each answer goes on after the last post of the one before.
    async fn timeline_since(
        &self,
        of: Option<String>,
        limit: u32,
        since: Vector,
        deadline: Instant,
    ) -> Result<TimelinePage, ClientError> {
        let mut all: Vec<ShownPost> = Vec::new();
        let mut since = since;
        loop {
            let wanted = limit.saturating_sub(count(&all));
            let body =
                RequestBody::Timeline { of: of.clone(), limit: wanted, since: Some(since.clone()), before: None };
            let (posts, more, cursor) = self.posts(body, deadline).await?;
            let reached = posts.last().map(|post| post.cursor.clone());
            all.extend(posts);
            match reached {
                Some(reached) if more => since = reached,
                Some(_) | None => return Ok(TimelinePage { posts: all, cursor }),
            }
            if count(&all) >= limit {
                return Ok(TimelinePage { posts: all, cursor: since });
            }
        }
    }

    async fn posts(&self, body: RequestBody, deadline: Instant) -> Result<(Vec<ShownPost>, bool, Vector), ClientError> {
        let response = self.call(body, deadline).await?;
        let Response::Answer(Answer::Posts { posts, more, cursor }) = response else {
            return Err(unexpected(&response));
        };
        Ok((posts, more, cursor))
    }

    /// The live feed of one's own timeline, from this cursor on. It has no deadline: it waits out every failover.
    pub async fn follow(&self, since: Vector) -> Feed {
        let feed = FeedKey(self.next.fetch_add(1, Ordering::Relaxed));
        let (sender, batches) = mpsc::channel(FEED_BATCHES_MAX);
        let stop = CancellationToken::new();
        let command = Command::Follow { feed, since: since.clone(), batches: sender, stop: stop.clone() };
        // If the driver has ended, the command and with it the sender is gone, and the feed ends at once.
        let _ = self.commands.send(command).await;
        Feed { batches, ready: Vec::new().into_iter(), cursor: since, reached: None, _stop: stop.drop_guard() }
    }

    /// How the cluster is, as one process knows it.
    pub async fn status(&self) -> Result<ClusterStatus, ClientError> {
        let response = self.call(RequestBody::Status, self.deadline()).await?;
        let Response::Status(status) = response else { return Err(unexpected(&response)) };
        Ok(*status)
    }

    /// The same, with what hosts report: nothing, if that process knows only version 1 of the wire.
    pub async fn report(&self) -> Result<ClusterReport, ClientError> {
        match self.call(RequestBody::Report, self.deadline()).await? {
            Response::Report(report) => Ok(*report),
            Response::Status(status) => Ok(ClusterReport { status: *status, hosts: Vec::new() }),
            other @ (Response::Assigned(_)
            | Response::Draining
            | Response::Written(_)
            | Response::Answer(_)
            | Response::Missing { .. }) => Err(unexpected(&other)),
        }
    }

    /// Moves a process's duties and clients away.
    pub async fn drain(&self, process: ProcessId) -> Result<(), ClientError> {
        let response = self.call(RequestBody::Drain { process }, self.deadline()).await?;
        let Response::Draining = response else { return Err(unexpected(&response)) };
        Ok(())
    }

    /// What has been seen by the calls that were answered. Never falls.
    pub fn token(&self) -> Token {
        self.shared.read(|snapshot| snapshot.token.clone())
    }

    /// Whom to ask first next time.
    pub fn director(&self) -> Option<ProcessId> {
        self.shared.read(|snapshot| snapshot.director)
    }

    /// Who answers requests now; none while another way is looked for.
    pub fn served_by(&self) -> Option<(HostId, ProcessId)> {
        self.shared.read(|snapshot| snapshot.served_by)
    }

    /// What happens from now on and a person may want to know.
    pub fn notices(&self) -> Notices {
        Notices(self.shared.notices.subscribe())
    }

    /// Ends the session and tells the servers so. Calls still under way get [`ClientError::Closed`].
    pub async fn close(self) {
        drop(self.end);
        self.ended.wait().await;
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.timeout
    }

    async fn call(&self, body: RequestBody, deadline: Instant) -> Result<Response, ClientError> {
        let _place = self.places.acquire().await.map_err(|_| ClientError::Closed)?;
        let call = CallId(self.next.fetch_add(1, Ordering::Relaxed));
        let (reply, answer) = oneshot::channel();
        let command = Command::Call { call, body, deadline, reply };
        self.commands.send(command).await.map_err(|_| ClientError::Closed)?;
        answer.await.map_err(|_| ClientError::Closed)?
    }
}

fn count(posts: &[ShownPost]) -> u32 {
    u32::try_from(posts.len()).unwrap_or(u32::MAX)
}

/// An answer to another question: the session does not let these through, so this is our own mistake, or a server's.
fn unexpected(response: &Response) -> ClientError {
    let kind = match response {
        Response::Assigned(_) => "an assignment",
        Response::Status(_) | Response::Report(_) => "a status",
        Response::Draining => "a drain",
        Response::Written(_) => "a write",
        Response::Answer(_) => "a read",
        Response::Missing { .. } => "missing entries",
    };
    ClientError::Here(format!("the server answered another question: {kind}; compare the versions of both sides"))
}

/// A live feed. Dropping it closes it.
#[derive(Debug)]
pub struct Feed {
    batches: mpsc::Receiver<FeedBatch>,
    ready: std::vec::IntoIter<ShownPost>,
    cursor: Vector,
    /// Where the cursor stands when all that is ready has been given.
    reached: Option<Vector>,
    _stop: DropGuard,
}

impl Feed {
    /// The next post, each once, in the order of arrival; none when the client has been closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<Result<ShownPost, ClientError>> {
        loop {
            if let Some(post) = self.ready.next() {
                self.cursor.advance(&post.cursor);
                return Some(Ok(post));
            }
            if let Some(reached) = self.reached.take() {
                self.cursor.advance(&reached);
            }
            match self.batches.recv().await? {
                FeedBatch::Posts { posts, cursor } => {
                    self.ready = posts.into_iter();
                    self.reached = Some(cursor);
                }
                FeedBatch::Refused(error) => return Some(Err(error)),
            }
        }
    }

    /// What has been given so far: another feed, or `--since`, goes on from here.
    pub fn cursor(&self) -> &Vector {
        &self.cursor
    }
}

/// What happens and a person may want to know. Who reads slowly misses the oldest.
#[derive(Debug)]
pub struct Notices(broadcast::Receiver<Notice>);

impl Notices {
    /// The next notice; none when the client has been closed. Cancel-safe.
    pub async fn next(&mut self) -> Option<Notice> {
        loop {
            match self.0.recv().await {
                Ok(notice) => return Some(notice),
                Err(broadcast::error::RecvError::Lagged(_)) => {}
                Err(broadcast::error::RecvError::Closed) => return None,
            }
        }
    }

    /// The next notice, if there is one already.
    pub fn try_next(&mut self) -> Option<Notice> {
        loop {
            match self.0.try_recv() {
                Ok(notice) => return Some(notice),
                Err(broadcast::error::TryRecvError::Lagged(_)) => {}
                Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => return None,
            }
        }
    }
}

/// An id for a new request: a UUIDv7, which begins with the time.
#[expect(clippy::expect_used, reason = "36 hexadecimal digits and hyphens are an id by its rule")]
pub fn new_request_id() -> RequestId {
    uuid::Uuid::now_v7().to_string().parse().expect("a UUID is an id")
}
