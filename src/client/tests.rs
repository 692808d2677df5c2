//! The client against small servers on real QUIC: each has a script of what it does with a request.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::*;
use crate::id::{EntryId, Epoch, HostId, Origin, ProcessId, RequestId, Seq, Token, Vector};
use crate::limits;
use crate::net::{CloseCode, FrameReader, FrameWriter, Identity, Link, NodeEndpoint};
use crate::service::entry::Stamp;
use crate::service::intake::{Accepted, WriteOp};
use crate::service::query::{Answer, ListPart, ShownPost};
use crate::time::Hlc;
use crate::topology::AckLevel;
use crate::wire::Versions;
use crate::wire::client::{
    AssignedHost, AssignedProcess, Assignment, ClientFrame, FeedFrame, RequestBody, Response, ServerFrame, Written,
};

const PATIENCE: Duration = Duration::from_secs(20);

fn host(name: &str) -> HostId {
    name.parse().unwrap()
}

fn origin() -> Origin {
    Origin { host: host("h"), incarnation: 1 }
}

fn vector(seq: u64) -> Vector {
    [(origin(), Seq(seq))].into_iter().collect()
}

fn shown(seq: u64) -> ShownPost {
    ShownPost {
        id: format!("p{seq}").parse().unwrap(),
        author: "bob".into(),
        stamp: Stamp { hlc: Hlc(seq), origin: origin() },
        seq: Seq(seq),
        text: "x".into(),
        cursor: vector(seq),
    }
}

/// What the servers share: one log, as if it were replicated at once.
#[derive(Debug, Default)]
struct World {
    assignment: Mutex<Option<Assignment>>,
    writes: Mutex<Vec<RequestId>>,
    posts: AtomicU64,
}

impl World {
    /// Takes a write once, however often it comes.
    fn write(&self, id: RequestId) -> u64 {
        let mut writes = self.writes.lock().unwrap();
        let place = writes.iter().position(|known| *known == id).unwrap_or_else(|| {
            writes.push(id);
            writes.len() - 1
        });
        u64::try_from(place).unwrap() + 1
    }

    fn answer(&self, body: RequestBody) -> Response {
        match body {
            RequestBody::Write { id, .. } => {
                let entry = EntryId { origin: origin(), seq: Seq(self.write(id)) };
                let user = crate::id::UserId([0; 16]);
                let accepted = Accepted { entry, hlc: Hlc(1), user, name: "ann".into() };
                Response::Written(Written { accepted, copies: 2, ack: AckLevel::Peer, host: host("h") })
            }
            RequestBody::List { after, .. } => {
                let (name, next) = if after.is_empty() { ("ann", Some("ann")) } else { ("bob", None) };
                Response::Answer(Answer::Names { names: vec![name.into()], next: next.map(str::to_owned) })
            }
            RequestBody::Timeline { limit, since, before, .. } => {
                // As the service does: `more` means that the answer's own limit cut it short of what was asked for.
                let all = self.posts.load(Ordering::Relaxed);
                let page = u64::from(limit.min(limits::ANSWER_POSTS_MAX));
                let end = before.map_or(all, |before| before.hlc.0 - 1);
                let begin = since.as_ref().map_or(end.saturating_sub(page), |since| since.get(origin()).0);
                let end = end.min(begin + page);
                let rest = if since.is_some() { end < all } else { begin > 0 };
                let more = rest && end - begin < u64::from(limit);
                let posts = (begin + 1..=end).map(shown).collect();
                let cursor = vector(if since.is_some() { end } else { all });
                Response::Answer(Answer::Posts { posts, more, cursor })
            }
            RequestBody::Assign => Response::Assigned(self.assignment.lock().unwrap().clone().unwrap()),
            RequestBody::Status | RequestBody::Report | RequestBody::Drain { .. } | RequestBody::WhoAmI => {
                Response::Draining
            }
        }
    }
}

/// A process of one host, `h`.
struct Server {
    id: ProcessId,
    endpoint: NodeEndpoint,
    entrance: Entrance,
    stop: CancellationToken,
}

impl Server {
    fn start(name: &str, world: &Arc<World>, tasks: &TaskTracker) -> Self {
        let local = SocketAddr::from(([127, 0, 0, 1], 0));
        let endpoint = NodeEndpoint::bind(local, Identity::generate().unwrap()).unwrap();
        let id = name.parse().unwrap();
        let entrance = Entrance { id, addr: endpoint.local_addr().unwrap(), key: endpoint.public_key() };
        let stop = CancellationToken::new();
        let (accepting, world) = (endpoint.clone(), Arc::clone(world));
        let (ends, inner, tracker) = (stop.clone(), stop.clone(), tasks.clone());
        tasks.spawn(ends.run_until_cancelled_owned(async move {
            while let Some(link) = accepting.accept().await {
                let stop = inner.clone();
                tracker.spawn(stop.run_until_cancelled_owned(serve(id, link, Arc::clone(&world), tracker.clone())));
            }
        }));
        Self { id, endpoint, entrance, stop }
    }

    /// Goes silent, as a stopped process does: its kernel still takes packets.
    fn hang(&self) {
        self.stop.cancel();
    }

    fn end(&self) {
        self.stop.cancel();
        self.endpoint.close(CloseCode::Goodbye, "");
    }
}

/// Serves each stream of a connection, as what its first frame makes it.
async fn serve(id: ProcessId, link: Link, world: Arc<World>, tasks: TaskTracker) {
    let mut streams = JoinSet::new();
    while let Ok((send, receive)) = link.accept_bi().await {
        let (frames, writer) = FrameWriter::new(send, 4_096);
        tasks.spawn(writer.run());
        let (world, mut reader) = (Arc::clone(&world), FrameReader::new(receive));
        streams.spawn(async move {
            while let Ok(Some(frame)) = reader.read::<ClientFrame>().await {
                let reply = match frame {
                    ClientFrame::Hello { .. } => ServerFrame::Hello {
                        versions: Versions::OURS,
                        cluster: "c".into(),
                        process: id,
                        host: host("h"),
                    },
                    ClientFrame::Request(request) => {
                        let result = Ok(world.answer(request.body));
                        let count = u64::try_from(world.writes.lock().unwrap().len()).unwrap();
                        let token = Token { vector: vector(count), hlc: Hlc(1) };
                        ServerFrame::Response { number: request.number, token, result }
                    }
                    ClientFrame::Follow { since, .. } => {
                        let mut told = since.get(origin()).0;
                        loop {
                            while told < world.posts.load(Ordering::Relaxed) {
                                told += 1;
                                let token = Token { vector: vector(told), hlc: Hlc(1) };
                                let frame = FeedFrame::Items { posts: vec![shown(told)], cursor: vector(told), token };
                                if frames.send(&frame).await.is_err() {
                                    return;
                                }
                            }
                            tokio::time::sleep(Duration::from_millis(1)).await;
                        }
                    }
                };
                if frames.send(&reply).await.is_err() {
                    return;
                }
            }
        });
    }
}

/// Says that this process serves the only host.
fn assign(world: &World, serving: &Server, all: &[&Server], epoch: u64) {
    let processes = all.iter().map(|one| AssignedProcess { id: one.id, addr: one.entrance.addr }).collect();
    let one = AssignedHost { host: host("h"), serving: Some(serving.id), epoch: Epoch(epoch), ready: true, processes };
    *world.assignment.lock().unwrap() = Some(Assignment { director: None, hosts: vec![one] });
}

fn options(servers: &[&Server]) -> ClientOptions {
    let mut options = ClientOptions::new(servers.iter().map(|server| server.entrance).collect());
    options.identity = Some(Identity::generate().unwrap());
    options.timeout = PATIENCE;
    options
}

fn post() -> WriteOp {
    WriteOp::Post { text: "hello".parse().unwrap() }
}

#[tokio::test]
async fn a_client_writes_and_reads_in_as_many_answers_as_it_takes() {
    let (world, tasks) = (Arc::new(World::default()), TaskTracker::new());
    let server = Server::start("A", &world, &tasks);
    assign(&world, &server, &[&server], 1);
    world.posts.store(1_234, Ordering::Relaxed);
    let client = Client::connect(options(&[&server])).await.unwrap();
    let written = client.write(new_request_id(), post(), None).await.unwrap();
    assert_eq!(written.accepted.entry.seq, Seq(1));
    assert_eq!(client.token().vector, vector(1));
    assert_eq!(client.served_by(), Some((host("h"), server.id)));
    assert_eq!(client.director(), Some(server.id));
    assert_eq!(client.list(ListPart::Users).await.unwrap(), ["ann", "bob"]);

    let ask = |limit, since| TimelineRequest { of: None, limit, since };
    let page = client.timeline(ask(1_100, None)).await.unwrap();
    let seqs: Vec<_> = page.posts.iter().map(|post| post.seq.0).collect();
    assert_eq!(seqs, (135..=1_234).collect::<Vec<_>>());
    assert_eq!(page.cursor, vector(1_234));
    let page = client.timeline(ask(1_100, Some(vector(4)))).await.unwrap();
    let seqs: Vec<_> = page.posts.iter().map(|post| post.seq.0).collect();
    assert_eq!(seqs, (5..=1_104).collect::<Vec<_>>());
    assert_eq!(page.cursor, vector(1_104));
    timeout(PATIENCE, client.close()).await.unwrap();
    server.end();
}

/// Writes under load, and a feed, over a change of the server; `fail` is how the first one goes.
async fn fail_over(standby: Standby, fail: fn(&Server)) {
    let (world, tasks) = (Arc::new(World::default()), TaskTracker::new());
    let first = Server::start("A", &world, &tasks);
    let second = Server::start("B", &world, &tasks);
    assign(&world, &first, &[&first, &second], 1);
    world.posts.store(50, Ordering::Relaxed);
    let mut options = options(&[&first, &second]);
    options.standby = standby;
    let client = Arc::new(Client::connect(options).await.unwrap());
    let mut notices = client.notices();
    let mut feed = client.follow(Vector::new()).await;
    for seq in 1..=50 {
        assert_eq!(timeout(PATIENCE, feed.next()).await.unwrap().unwrap().unwrap().seq, Seq(seq));
    }
    client.write(new_request_id(), post(), None).await.unwrap();
    assign(&world, &second, &[&first, &second], 2);
    fail(&first);
    let mut writes = JoinSet::new();
    for _ in 0..100 {
        let client = Arc::clone(&client);
        writes.spawn(async move { client.write(new_request_id(), post(), None).await });
    }
    world.posts.store(100, Ordering::Relaxed);
    while let Some(done) = timeout(PATIENCE, writes.join_next()).await.unwrap() {
        done.unwrap().unwrap();
    }
    assert_eq!(world.writes.lock().unwrap().len(), 101);
    for seq in 51..=100 {
        assert_eq!(timeout(PATIENCE, feed.next()).await.unwrap().unwrap().unwrap().seq, Seq(seq));
    }
    assert_eq!(client.served_by(), Some((host("h"), second.id)));
    assert_eq!(notices.next().await, Some(Notice::Reconnecting));
    assert_eq!(notices.next().await, Some(Notice::Moved { host: host("h"), process: second.id }));
    second.end();
}

#[tokio::test]
async fn a_server_that_closes_is_replaced_and_nothing_is_lost() {
    fail_over(Standby::None, Server::end).await;
}

#[tokio::test]
async fn a_server_that_hangs_is_replaced_and_nothing_is_lost() {
    fail_over(Standby::Next, Server::hang).await;
}

#[tokio::test]
async fn nobody_there_is_said_in_time() {
    let (world, tasks) = (Arc::new(World::default()), TaskTracker::new());
    let server = Server::start("A", &world, &tasks);
    let mut options = options(&[&server]);
    server.end();
    options.timeout = Duration::from_millis(300);
    let error = Client::connect(options).await.unwrap_err();
    assert_eq!(error.exit_status(), 6, "{error}");
}

#[tokio::test]
async fn a_thief_at_a_processs_address_is_named() {
    let (world, tasks) = (Arc::new(World::default()), TaskTracker::new());
    let server = Server::start("A", &world, &tasks);
    let mut options = options(&[&server]);
    options.entrances[0].key = Identity::generate().unwrap().public_key();
    options.timeout = Duration::from_millis(500);
    let error = Client::connect(options).await.unwrap_err();
    assert_eq!(error.exit_status(), 5, "{error}");
    server.end();
}

#[tokio::test]
async fn many_clients_share_a_socket() {
    let (world, tasks) = (Arc::new(World::default()), TaskTracker::new());
    let server = Server::start("A", &world, &tasks);
    assign(&world, &server, &[&server], 1);
    let endpoint = crate::net::ClientEndpoint::bind().unwrap();
    let mut clients = JoinSet::new();
    let begin = tokio::time::Instant::now();
    for _ in 0..64 {
        let mut options = options(&[&server]);
        options.endpoint = Some(endpoint.clone());
        clients.spawn(async move {
            let client = Client::connect(options).await.unwrap();
            for _ in 0..20 {
                client.list(ListPart::Users).await.unwrap();
            }
            client.close().await;
        });
    }
    while let Some(done) = timeout(PATIENCE, clients.join_next()).await.unwrap() {
        done.unwrap();
    }
    println!("64 clients, 2560 requests: {:?}", begin.elapsed());
    server.end();
}
