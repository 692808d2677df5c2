//! Two processes' links on real connections: what a link bears, and what follows when it is too much.

use super::super::testing::{End, pair, soon};
use super::*;
use crate::id::{Digest, Epoch, Origin, Seq};
use crate::net::LinkEnd;
use crate::service::snapshot::Part;
use crate::time::Hlc;
use crate::wire::heartbeat::{Duty, Fitness, PrimaryStatus};

fn name(id: &str) -> ProcessId {
    id.parse().unwrap()
}

fn open(stream: u64) -> PeerMessage {
    PeerMessage::Open { stream }
}

/// W1's links, with that to W2 up.
async fn linked(end: &mut End) -> Links {
    let mut links = Links::new(Arc::clone(&end.shared));
    assert_eq!(links.send(name("W2"), &open(0)), None, "there is no link yet");
    up(end, &mut links).await;
    links
}

/// Waits until the link to W2 is up.
async fn up(end: &mut End, links: &mut Links) {
    soon(async {
        loop {
            let event = end.events.recv().await.unwrap();
            if let Event::LinkUp { peer, hello, lanes } = event {
                return drop(links.on_up(peer, hello, lanes).unwrap());
            }
            if let Event::LinkDown { peer, serial } = event {
                assert_eq!(links.on_down(peer, serial), None, "it was told before");
            }
        }
    })
    .await;
}

/// Waits until W1 has sent this.
async fn heard(end: &mut End, wanted: &PeerMessage) {
    soon(async {
        loop {
            if let Event::Input(Input::Peer { from, message }) = end.events.recv().await.unwrap() {
                assert_eq!(from, name("W1"));
                if message == *wanted {
                    return;
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn a_link_for_which_too_much_waits_starts_anew() {
    let [mut end, mut other] = pair();
    let mut links = linked(&mut end).await;
    // Nothing is awaited, so nothing is written meanwhile.
    for stream in 1..=limits::PEER_FRAMES_WAITING_MAX {
        assert_eq!(links.send(name("W2"), &open(u64::try_from(stream).unwrap())), None, "{stream}");
    }
    let down = Input::PeerDown { peer: name("W2") };
    assert_eq!(links.send(name("W2"), &open(u64::MAX)), Some(down), "one too many");
    assert_eq!(links.send(name("W2"), &open(u64::MAX)), None, "there is no link: it is asked for again");
    up(&mut end, &mut links).await;
    assert_eq!(links.send(name("W2"), &open(7_777)), None);
    heard(&mut other, &open(7_777)).await;
}

#[tokio::test]
async fn a_process_may_send_frames_that_a_client_may_not() {
    let [mut end, mut other] = pair();
    let mut links = linked(&mut end).await;
    let part = |length| Part { at: Vec::new(), bytes: vec![7; length], next: None, vector: crate::id::Vector::new() };
    let large = PeerMessage::SnapshotRows { stream: 1, part: part(limits::FRAME_BYTES_MAX - 100) };
    assert_eq!(links.send(name("W2"), &large), None);
    heard(&mut other, &large).await;
    let larger = PeerMessage::SnapshotRows { stream: 1, part: part(limits::FRAME_BYTES_MAX) };
    assert_eq!(links.send(name("W2"), &larger), None, "it is our own mistake, and the link goes on");
    assert_eq!(links.send(name("W2"), &open(7)), None);
    heard(&mut other, &open(7)).await;
}

#[tokio::test]
async fn a_processs_frame_over_the_limit_ends_the_connection_and_says_why() {
    let [end, other] = pair();
    let key = other.shared.endpoint.public_key();
    let addr = other.shared.endpoint.local_addr().unwrap();
    let link = soon(end.shared.endpoint.dial_peer(addr, key)).await.unwrap();
    let mut first = Vec::new();
    frame::encode(&end.shared.hello, limits::FRAME_BYTES_MAX, &mut first).unwrap();
    let mut control = open_lane(&link, Lane::Control, &first).await.unwrap();
    let answer: PeerHello =
        FrameReader::new(soon(link.accept_uni()).await.unwrap()).read_within(limits::CONNECT_WAIT).await.unwrap();
    assert_eq!(answer.cluster, "test");
    let length = u32::try_from(limits::FRAME_BYTES_MAX + 1).unwrap();
    soon(control.write_all(&length.to_be_bytes())).await.unwrap();
    let reason = "a frame of 4194305 bytes is over the limit of 4194304".to_owned();
    assert_eq!(soon(link.closed()).await, LinkEnd::Peer { code: Some(CloseCode::BadFrame), reason });
}

/// What a primary tells of itself that holds entries of so many origins, with the longest names and numbers.
fn status(origins: u32) -> PrimaryStatus {
    let origin = |number| Origin { host: "sixteen-letters-".parse().unwrap(), incarnation: u32::MAX - number };
    PrimaryStatus {
        epoch: Epoch(u64::MAX),
        fitness: Fitness::Ready,
        sessions: u32::MAX,
        vector: (0..origins).map(|number| (origin(number), Seq(u64::MAX - 1))).collect(),
        digest: Digest(u128::MAX),
        entries: u64::MAX,
        disk_bytes: u64::MAX,
    }
}

#[test]
fn a_heartbeat_always_fits_its_datagram() {
    for (origins, whole) in [(8, true), (80, false)] {
        let beat = Heartbeat {
            run: u64::MAX,
            hlc: Hlc(u64::MAX),
            duties: vec![Duty::Direct, Duty::Serve, Duty::Relay],
            epoch: Epoch(u64::MAX),
            warm: true,
            primary: Some(status(origins)),
            view: None,
        };
        let (bytes, _) = encode_beat(beat.clone()).unwrap();
        assert!(bytes.len() <= limits::HEARTBEAT_BYTES_MAX);
        let bare = Heartbeat { primary: None, ..beat.clone() };
        assert_eq!(frame::decode_body::<Heartbeat>(&bytes).unwrap(), if whole { beat } else { bare });
    }
}
