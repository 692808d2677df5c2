//! A client that does not read its feed: only that feed waits.

use std::cell::Cell;
use std::rc::Rc;
use std::time::Duration;

use gaggle::id::PublicKey;
use gaggle::limits;
use gaggle::net::{FrameReader, FrameWriter, Identity, Link, RecvStream, SendStream};
use tokio::time::{Instant, sleep};

use crate::world::{addr_of, client, node, pass, pass_until, world};

/// Frames of a feed, in all well above what a stream may have under way and below what a connection may.
const FRAMES: u32 = 250;
const FRAME_BYTES: usize = 16 << 10;
/// What a person's client asks for on its first stream, or on any other.
const FEED: u8 = 0;
const CALLS: u8 = 1;
/// How long the slow reader does not read. A feed's writer has more patience.
const ASLEEP: Duration = Duration::from_secs(6);
const PATIENCE: Duration = Duration::from_secs(60);
/// There and back, behind what a feed has under way: far below any wait for a feed's reader.
const SOON: Duration = Duration::from_millis(250);

/// How far a reader has come, as the onlooker sees it.
#[derive(Debug, Clone, Default)]
struct Progress {
    calls: Rc<Cell<u32>>,
    read: Rc<Cell<u32>>,
    written: Rc<Cell<u32>>,
}

/// Serves a feed, or echoes calls, on every stream.
async fn serve(link: Link, written: Rc<Cell<u32>>) {
    while let Ok((send, receive)) = link.accept_bi().await {
        tokio::task::spawn_local(serve_stream(send, receive, Rc::clone(&written)));
    }
}

async fn serve_stream(send: SendStream, receive: RecvStream, written: Rc<Cell<u32>>) {
    let mut reader = FrameReader::new(receive);
    let Ok(Some(kind)) = reader.read::<u8>().await else { return };
    let (sender, writer) = FrameWriter::with_wait(send, 1, PATIENCE);
    let answering = async move {
        if kind == FEED {
            for number in 0..FRAMES {
                sender.send(&(number, vec![0_u8; FRAME_BYTES])).await.unwrap();
                written.set(number + 1);
            }
        }
        while let Ok(Some(call)) = reader.read::<u32>().await {
            sender.send(&call).await.unwrap();
        }
    };
    let (_, written) = tokio::join!(answering, writer.run());
    written.unwrap();
}

async fn ask(link: &Link, kind: u8) -> (gaggle::net::FrameSender, FrameReader<RecvStream>) {
    let (send, receive) = link.open_bi().await.unwrap();
    let (sender, writer) = FrameWriter::new(send, 4);
    tokio::task::spawn_local(writer.run());
    sender.send(&kind).await.unwrap();
    (sender, FrameReader::new(receive))
}

/// A client that calls all the time, and reads its feed after a while.
async fn read(pinned: PublicKey, person: Identity, asleep: Duration, progress: Progress) -> turmoil::Result {
    let client = client().await;
    let link = client.dial(addr_of("server"), Some(pinned), Some(&person)).await.unwrap();
    let (_feed, mut frames) = ask(&link, FEED).await;
    let reading = async {
        sleep(asleep).await;
        for expected in 0..FRAMES {
            let (number, _) = frames.read::<(u32, Vec<u8>)>().await.unwrap().unwrap();
            assert_eq!(number, expected);
            progress.read.set(number + 1);
        }
    };
    let (calls, mut answers) = ask(&link, CALLS).await;
    let calling = async {
        for number in 0.. {
            let asked = Instant::now();
            calls.send(&number).await.unwrap();
            assert_eq!(answers.read::<u32>().await.unwrap(), Some(number));
            assert!(asked.elapsed() < SOON, "call {number} took {:?}", asked.elapsed());
            progress.calls.set(number + 1);
            sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::join!(reading, calling);
    Ok(())
}

#[test]
fn a_slow_reader_of_a_feed_stalls_only_that_feed() {
    let mut sim = world(20);
    let identity = Identity::generate().unwrap();
    let pinned = identity.public_key();
    let (slow, quick) = (Progress::default(), Progress::default());
    let people = [("slow", ASLEEP, slow.clone()), ("quick", Duration::ZERO, quick.clone())]
        .map(|(name, asleep, progress)| (name, asleep, progress, Identity::generate().unwrap()));
    let written: Vec<_> =
        people.iter().map(|(.., progress, person)| (person.public_key(), Rc::clone(&progress.written))).collect();
    sim.host("server", move || {
        let (identity, written) = (identity.clone(), written.clone());
        async move {
            let node = node(identity).await;
            while let Some(link) = node.accept().await {
                let of = written.iter().find(|(key, _)| link.peer_key() == Some(*key)).unwrap();
                tokio::task::spawn_local(serve(link, Rc::clone(&of.1)));
            }
            Ok(())
        }
    });
    for (name, asleep, progress, person) in people {
        sim.host(name, move || read(pinned, person.clone(), asleep, progress.clone()));
    }
    let seen = quick.clone();
    pass_until(&mut sim, ASLEEP - Duration::from_secs(2), "the quick reader has all", || seen.read.get() == FRAMES);
    let (stalled, calls) = (slow.written.get(), slow.calls.get());
    assert!(stalled < FRAMES, "the slow reader's feed waits");
    pass(&mut sim, Duration::from_secs(1));
    assert_eq!((slow.written.get(), slow.read.get()), (stalled, 0), "and waits");
    assert!(slow.calls.get() > calls + 20, "its calls do not: {} after {calls}", slow.calls.get());
    let seen = slow.clone();
    pass_until(&mut sim, ASLEEP + limits::CLIENT_IDLE, "the slow reader has all", || seen.read.get() == FRAMES);
}
