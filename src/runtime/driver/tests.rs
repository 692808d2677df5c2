//! The driver's books on clients, and its clock.

use tokio::io::DuplexStream;

use super::super::testing::{End, PATIENCE, pair};
use super::*;
use crate::core::io::Rank;
use crate::core::node::NodeConfig;
use crate::net::{FrameReader, FrameWriter};
use crate::store::MemoryStore;
use crate::wire::client::{Request, RequestBody};

/// A driver that is fed by hand.
struct Rig {
    driver: Driver,
    _end: End,
}

impl Rig {
    fn new() -> Self {
        let [end, _] = pair();
        // Not run: nothing comes by these, and nobody takes what is put in.
        let (events, asks) = (mpsc::channel(1).1, mpsc::channel(1).1);
        let (writer, watcher) = (mpsc::channel(1).0, mpsc::channel(1).0);
        let joints = Joints {
            store: Arc::new(MemoryStore::new()),
            events,
            asks,
            writer,
            watcher,
            links: Links::new(Arc::clone(&end.shared)),
            tasks: end.shared.tasks.clone(),
            supervision: Supervision::Alone,
        };
        let clock = Clock::start();
        let topology = end.shared.topology.clone();
        let config = NodeConfig {
            topology,
            topology_hash: 0,
            me: end.shared.me,
            run: 1,
            pid: 1,
            seed: 1,
            versions: crate::wire::Versions::OURS,
            block: 4,
        };
        Self { driver: Driver::new(Node::new(config, clock.now()), clock, joints), _end: end }
    }

    /// A client's connection: who writes to it, and who reads what is written.
    fn open(&mut self, client: u64) -> (FrameWriter<DuplexStream>, FrameReader<DuplexStream>) {
        let (near, far) = tokio::io::duplex(1 << 20);
        let (frames, writer) = FrameWriter::with_wait(near, limits::CLIENT_FRAMES_WAITING_MAX, PATIENCE);
        let client = ClientId(client);
        self.driver.on_event(Event::ClientOpened { client, key: None, rank: Rank::Person, frames });
        self.driver.next.clear();
        (writer, FrameReader::new(far))
    }

    /// The driver takes a request; whether the node is to see it.
    fn ask(&mut self, client: u64, number: u64) -> bool {
        let request = Request { number, token: Token::default(), body: RequestBody::WhoAmI };
        let place = Arc::new(tokio::sync::Semaphore::new(1)).try_acquire_owned().unwrap();
        self.driver.on_event(Event::Asked { client: ClientId(client), request, place });
        self.driver.next.drain(..).any(|input| matches!(input, Input::Client { .. }))
    }
}

fn answer(number: u64) -> ServerFrame {
    let refusal = Refusal::new(ErrorCode::NotJoined, "no");
    ServerFrame::Response { number, token: Token::default(), result: Err(refusal) }
}

#[tokio::test]
async fn a_request_too_many_on_a_connection_is_refused_and_the_node_hears_nothing_of_it() {
    let mut rig = Rig::new();
    let (writer, mut reader) = rig.open(1);
    let writing = writer.run();
    tokio::pin!(writing);
    let _other = rig.open(2);
    let max = u64::try_from(limits::CLIENT_REQUESTS_MAX).unwrap();
    assert!((0..max).all(|number| rig.ask(1, number)));
    assert!(!rig.ask(1, max));
    assert!(rig.ask(2, 0), "another connection has its own");
    let frame = tokio::select! {
        _ = &mut writing => panic!("nothing is written"),
        frame = reader.read_within::<ServerFrame>(PATIENCE) => frame,
    };
    let Ok(ServerFrame::Response { number, result: Err(refusal), .. }) = frame else { panic!("{frame:?}") };
    assert_eq!((number, refusal.code), (max, ErrorCode::Busy));
    assert!(!rig.ask(1, max + 1));
    rig.driver.reply(ClientId(1), &answer(0));
    assert!(rig.ask(1, max + 2), "an answer makes room");
}

#[tokio::test]
async fn a_client_that_reads_too_slowly_is_given_up() {
    let mut rig = Rig::new();
    let (writer, _reader) = rig.open(1);
    let _other = rig.open(2);
    for number in 0..u64::try_from(limits::CLIENT_FRAMES_WAITING_MAX).unwrap() {
        rig.driver.reply(ClientId(1), &answer(number));
        assert_eq!(rig.driver.next, [], "{number}");
    }
    rig.driver.reply(ClientId(1), &answer(u64::MAX));
    assert_eq!(rig.driver.next, [Input::ClientClosed { client: ClientId(1) }]);
    rig.driver.next.clear();
    rig.driver.reply(ClientId(1), &answer(u64::MAX));
    assert_eq!(rig.driver.next, [], "it is told once");
    assert!(!rig.ask(1, 0) && rig.ask(2, 0));
    // Nothing more comes for its writer, which ends the connection.
    assert_eq!(writer.run().await, Ok(()));
}

#[test]
fn only_the_sleep_itself_counts_as_lateness() {
    let at = Instant::from_micros;
    assert_eq!(lateness(at(100), Some(at(150)), at(160)), Duration::from_micros(10));
    assert_eq!(lateness(at(100), Some(at(150)), at(120)), Duration::ZERO, "woken by an event");
    assert_eq!(lateness(at(100), Some(at(3)), at(101)), Duration::from_micros(1), "due long ago");
    assert_eq!(lateness(at(100), None, at(900)), Duration::ZERO);
}
