//! Clients that send too much, on real connections: what reaches the driver, and what they are told.

use super::super::testing::{End, PATIENCE, pair, soon};
use super::*;
use crate::id::{Origin, Seq, Token, Vector};
use crate::net::{ClientEndpoint, FrameSender, Identity, LinkEnd};
use crate::wire::client::{Request, RequestBody};

/// A client that has said `Hello`.
struct Caller {
    link: Link,
    send: SendStream,
    _receive: RecvStream,
}

impl Caller {
    async fn new(to: &End) -> Self {
        let endpoint = &to.shared.endpoint;
        let (addr, key) = (endpoint.local_addr().unwrap(), endpoint.public_key());
        let identity = Identity::generate().unwrap();
        let link = soon(ClientEndpoint::bind().unwrap().dial(addr, Some(key), Some(&identity))).await.unwrap();
        let (send, receive) = soon(link.open_bi()).await.unwrap();
        let mut caller = Self { link, send, _receive: receive };
        caller.say(&bytes(&ClientFrame::Hello { versions: crate::wire::Versions::OURS })).await;
        caller
    }

    async fn say(&mut self, bytes: &[u8]) {
        soon(self.send.write_all(bytes)).await.unwrap();
    }
}

fn bytes(frame: &ClientFrame) -> Vec<u8> {
    let mut bytes = Vec::new();
    frame::encode(frame, limits::FRAME_BYTES_MAX, &mut bytes).unwrap();
    bytes
}

fn request(number: u64, name: String) -> ClientFrame {
    let body = RequestBody::Timeline { of: Some(name), limit: 1, since: None, before: None };
    ClientFrame::Request(Request { number, token: Token::default(), body })
}

/// A request whose frame has so many bytes.
fn request_of(length: usize) -> Vec<u8> {
    let rest = bytes(&request(1, "n".repeat(1 << 14))).len() - frame::PREFIX_BYTES - (1 << 14);
    let made = bytes(&request(1, "n".repeat(length - rest)));
    assert_eq!(made.len(), frame::PREFIX_BYTES + length);
    made
}

/// The client whose connection is the next to be opened, and where its replies go: the connection ends without it.
async fn opened(end: &mut End) -> (ClientId, FrameSender) {
    let Some(Event::ClientOpened { client, frames, .. }) = soon(end.asks.recv()).await else { panic!("no client") };
    (client, frames)
}

#[tokio::test]
async fn a_clients_frame_over_its_limit_ends_the_connection_and_says_why() {
    let [mut end, _other] = pair();
    let mut caller = Caller::new(&end).await;
    let (client, _frames) = opened(&mut end).await;
    caller.say(&request_of(limits::CLIENT_FRAME_BYTES_MAX)).await;
    assert!(matches!(soon(end.asks.recv()).await, Some(Event::Asked { client: of, .. }) if of == client));
    caller.say(&request_of(limits::CLIENT_FRAME_BYTES_MAX + 1)).await;
    let reason = "a frame of 32769 bytes is over the limit of 32768".to_owned();
    assert_eq!(soon(caller.link.closed()).await, LinkEnd::Peer { code: Some(CloseCode::BadFrame), reason });
    let closed = soon(end.asks.recv()).await;
    assert!(matches!(closed, Some(Event::Input(Input::ClientClosed { client: of })) if of == client), "{closed:?}");
}

#[tokio::test]
async fn a_feeds_first_frame_over_the_limit_ends_the_feed_and_opens_none() {
    let [mut end, _other] = pair();
    let caller = Caller::new(&end).await;
    let (_, _frames) = opened(&mut end).await;
    let origin = |incarnation| Origin { host: end.shared.host, incarnation };
    let since: Vector = (0..9_000).map(|number| (origin(number), Seq(1))).collect();
    let follow = bytes(&ClientFrame::Follow { token: Token::default(), since });
    assert!(follow.len() > limits::CLIENT_FRAME_BYTES_MAX + frame::PREFIX_BYTES);
    let (mut send, mut receive) = soon(caller.link.open_bi()).await.unwrap();
    // It may be stopped before all is written.
    let _ = soon(send.write_all(&follow)).await;
    let answer = soon(async {
        tokio::select! {
            opened = end.asks.recv() => panic!("{opened:?}"),
            answer = receive.read_to_end(100) => answer,
        }
    })
    .await;
    assert!(matches!(answer.as_deref(), Ok([]) | Err(_)), "{answer:?}");
    assert!(end.asks.try_recv().is_err(), "nothing of it reaches the driver");
}

#[tokio::test]
async fn a_client_that_floods_keeps_others_waiting_behind_few_of_its_requests() {
    const FLOOD: u64 = 1_000;
    let [mut end, _other] = pair();
    let mut flooder = Caller::new(&end).await;
    let (flooding, _frames) = opened(&mut end).await;
    let mut other = Caller::new(&end).await;
    let (patient, _others_frames) = opened(&mut end).await;
    let flood: Vec<u8> = (0..FLOOD).flat_map(|number| bytes(&request(number, "bob".into()))).collect();
    flooder.say(&flood).await;
    soon(async {
        while end.asks.len() < limits::CLIENT_INPUTS_WAITING_MAX {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    other.say(&bytes(&request(7, "ann".into()))).await;
    // The driver is busy: no place is given back before the other's request has come to it.
    let mut taken = Vec::new();
    loop {
        let Some(Event::Asked { client, request, place }) = soon(end.asks.recv()).await else { panic!("no request") };
        if client == patient {
            break assert_eq!(request.number, 7);
        }
        assert_eq!(client, flooding);
        taken.push(place);
    }
    assert_eq!(taken.len(), limits::CLIENT_INPUTS_WAITING_MAX);
    // Nothing of the flood is lost, and its order holds.
    let from = u64::try_from(taken.len()).unwrap();
    drop(taken);
    for expected in from..FLOOD {
        let Some(Event::Asked { request, .. }) = soon(end.asks.recv()).await else { panic!("{expected} is missing") };
        assert_eq!(request.number, expected);
    }
}

#[tokio::test]
async fn a_feed_too_many_on_a_connection_is_refused() {
    let [mut end, _other] = pair();
    let caller = Caller::new(&end).await;
    let (client, _frames) = opened(&mut end).await;
    let follow = bytes(&ClientFrame::Follow { token: Token::default(), since: Vector::new() });
    let mut feeds = Vec::new();
    for _ in 0..limits::CLIENT_FEEDS_MAX {
        let (mut send, receive) = soon(caller.link.open_bi()).await.unwrap();
        soon(send.write_all(&follow)).await.unwrap();
        let opened = soon(end.asks.recv()).await;
        assert!(matches!(opened, Some(Event::FeedOpened { client: of, .. }) if of == client), "{opened:?}");
        feeds.push((opened, send, receive));
    }
    let refused = async |end: &mut End| {
        let (mut send, receive) = soon(caller.link.open_bi()).await.unwrap();
        soon(send.write_all(&follow)).await.unwrap();
        let mut reader = FrameReader::new(receive);
        tokio::select! {
            opened = end.asks.recv() => Err(opened),
            frame = reader.read_within::<FeedFrame>(PATIENCE) => Ok(frame),
        }
    };
    let Ok(Ok(FeedFrame::Ended(refusal))) = refused(&mut end).await else { panic!("it is not refused") };
    assert_eq!(refusal.code, ErrorCode::Busy);
    // A feed that has ended makes room.
    drop(feeds.pop());
    let closed = soon(end.asks.recv()).await;
    assert!(matches!(closed, Some(Event::Input(Input::FeedClosed { .. }))), "{closed:?}");
    let opened = soon(async {
        loop {
            if let Err(opened) = refused(&mut end).await {
                break opened;
            }
        }
    });
    assert!(matches!(opened.await, Some(Event::FeedOpened { .. })));
}
