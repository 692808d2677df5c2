//! The tasks that read: one for each connection's request stream, one for each feed's stream.

use std::net::SocketAddr;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::client::session::{ConnId, FeedKey, Input, StreamId, Trouble, TroubleKind};
use crate::client::shell::{Event, FeedBatch};
use crate::id::PublicKey;
use crate::limits;
use crate::net::{ClientEndpoint, CloseCode, DialError, FrameReader, FrameWriter, Identity, Link, LinkEnd, ReadError};
use crate::wire::client::{ClientFrame, FeedFrame, ServerFrame};

/// Frames that wait to be written: all that may be under way, twice over, for requests are asked again.
const FRAMES_WAITING_MAX: usize = 2 * limits::CLIENT_REQUESTS_MAX;

/// What a connection is made of.
#[derive(Debug)]
pub(crate) struct Dialing {
    pub(crate) conn: ConnId,
    pub(crate) addr: SocketAddr,
    pub(crate) key: PublicKey,
    pub(crate) identity: Option<Identity>,
    pub(crate) endpoint: ClientEndpoint,
    pub(crate) events: mpsc::Sender<Event>,
}

/// A connection's task: dials, then reads until the end. It tells of exactly one end, unless it is cancelled.
#[derive(Debug)]
pub(crate) struct Connection;

impl Connection {
    pub(crate) async fn run(dialing: Dialing, tracker: TaskTracker) {
        let Dialing { conn, addr, key, identity, endpoint, events } = dialing;
        let link = match endpoint.dial(addr, Some(key), identity.as_ref()).await {
            Ok(link) => link,
            Err(error) => return tell(&events, Input::ConnectFailed { conn, trouble: dial_trouble(&error) }).await,
        };
        let (send, receive) = match link.open_bi().await {
            Ok(streams) => streams,
            Err(error) => {
                let trouble = network(error.to_string());
                return tell(&events, Input::ConnectFailed { conn, trouble }).await;
            }
        };
        let (frames, writer) = FrameWriter::new(send, FRAMES_WAITING_MAX);
        tracker.spawn(write(link.clone(), writer));
        if events.send(Event::Connected { conn, link: link.clone(), frames }).await.is_err() {
            return;
        }
        let mut reader = FrameReader::new(receive);
        let trouble = loop {
            match reader.read::<ServerFrame>().await {
                Ok(Some(frame)) => tell(&events, Input::Frame { conn, frame }).await,
                Ok(None) => break network("it ended the stream".to_owned()),
                Err(error) => break read_trouble(&link, &error),
            }
        };
        link.close(CloseCode::Goodbye, "");
        tell(&events, Input::Disconnected { conn, trouble }).await;
    }
}

/// Writes until the last sender is gone. If it cannot, the connection is of no use: its reader learns that.
async fn write<W: tokio::io::AsyncWrite + Unpin>(link: Link, writer: FrameWriter<W>) {
    if let Err(error) = writer.run().await {
        link.close(CloseCode::TooSlow, &error.to_string());
    }
}

/// What a feed's stream is made of.
#[derive(Debug)]
pub(crate) struct Following {
    pub(crate) feed: FeedKey,
    pub(crate) stream: StreamId,
    pub(crate) link: Link,
    pub(crate) batches: mpsc::Sender<FeedBatch>,
    pub(crate) dropped: CancellationToken,
    pub(crate) events: mpsc::Sender<Event>,
}

impl Following {
    /// Opens the stream, asks, and reads until the end or until nobody reads the feed.
    pub(crate) async fn run(self, frame: ClientFrame) {
        let (feed, stream) = (self.feed, self.stream);
        let input = match self.dropped.run_until_cancelled(self.read(frame)).await {
            Some(()) => Input::FeedBroken { feed, stream },
            None => Input::FeedDropped { feed },
        };
        tell(&self.events, input).await;
    }

    async fn read(&self, frame: ClientFrame) {
        let Ok((send, receive)) = self.link.open_bi().await else { return };
        // The sending half stays open for as long as we read: its end would tell that the feed is not wanted.
        let (frames, writer) = FrameWriter::new(send, 1);
        if frames.try_send(&frame).is_err() {
            return;
        }
        let writing = writer.run();
        tokio::select! {
            _ = writing => {}
            () = self.forward(FrameReader::new(receive)) => {}
        }
        drop(frames);
    }

    async fn forward<R: tokio::io::AsyncRead + Unpin>(&self, mut reader: FrameReader<R>) {
        while let Ok(Some(frame)) = reader.read::<FeedFrame>().await {
            // Its reader is gone: `dropped` is about to say so.
            let Ok(place) = self.batches.clone().reserve_owned().await else { return };
            let input = Input::FeedFrame { feed: self.feed, stream: self.stream, frame };
            if self.events.send(Event::Input { input, place: Some(place) }).await.is_err() {
                return;
            }
        }
    }
}

/// When the driver has ended, nobody need be told.
async fn tell(events: &mpsc::Sender<Event>, input: Input) {
    let _ = events.send(Event::Input { input, place: None }).await;
}

fn network(why: String) -> Trouble {
    Trouble { kind: TroubleKind::Network, why }
}

fn dial_trouble(error: &DialError) -> Trouble {
    let kind = match error {
        DialError::WrongIdentity { .. } => TroubleKind::Identity,
        DialError::Version { .. } => TroubleKind::Protocol,
        DialError::Refused { end, .. } => end_kind(end),
        DialError::Silence { .. } | DialError::Busy { .. } | DialError::Here { .. } => TroubleKind::Network,
    };
    Trouble { kind, why: error.to_string() }
}

fn read_trouble(link: &Link, error: &ReadError) -> Trouble {
    match (error, link.end()) {
        (ReadError::Frame(_), _) => {
            link.close(CloseCode::BadFrame, "");
            Trouble { kind: TroubleKind::Protocol, why: error.to_string() }
        }
        (_, Some(end)) => Trouble { kind: end_kind(&end), why: end.to_string() },
        (ReadError::Ended(end), None) => Trouble { kind: end_kind(end), why: end.to_string() },
        (ReadError::Cut | ReadError::Silence(_), None) => network(error.to_string()),
    }
}

fn end_kind(end: &LinkEnd) -> TroubleKind {
    match end {
        LinkEnd::Peer { code: Some(CloseCode::WrongIdentity | CloseCode::WrongCluster), .. } => TroubleKind::Identity,
        LinkEnd::Peer { code: Some(CloseCode::Version | CloseCode::BadFrame), .. } | LinkEnd::Broken(_) => {
            TroubleKind::Protocol
        }
        LinkEnd::Refused(_) => TroubleKind::Identity,
        LinkEnd::Peer { .. } | LinkEnd::Here | LinkEnd::Reset | LinkEnd::Silence => TroubleKind::Network,
    }
}
