//! Clients' connections: one request stream, and a stream for each live feed, so that a slow reader stalls only itself.
//!
//! A connection's tasks decode and write; what is asked and answered is the node's business. The driver holds the
//! sending ends of both kinds of streams: dropping one ends the stream, and dropping the first ends the connection.

use std::sync::Arc;
use std::time::Duration;

use quinn::{RecvStream, SendStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;

use super::event::Event;
use super::shared::Shared;
use crate::core::io::Input;
use crate::error::{ErrorCode, Refusal};
use crate::id::{ClientId, FeedId};
use crate::limits;
use crate::net::{CloseCode, FrameReader, FrameWriter, Link, ReadError};
use crate::wire::client::{ClientFrame, FeedFrame};
use crate::wire::frame;

/// Frames that may wait for a feed: one, until it is written, and the word that it ends.
const FEED_FRAMES_WAITING_MAX: usize = 2;
/// How long what was written last may travel before the connection is closed.
const LINGER: Duration = Duration::from_millis(200);

/// Serves one connection to its end.
pub(super) async fn serve(shared: Arc<Shared>, link: Link) {
    let cancel = shared.cancel.clone();
    let (code, reason) = tokio::select! {
        () = cancel.cancelled() => end(CloseCode::Goodbye),
        ended = converse(&shared, &link) => ended,
    };
    link.close(code, &reason);
}

/// Why a conversation ended, for programs and for people.
type Ended = (CloseCode, String);

/// An end whose code says all.
const fn end(code: CloseCode) -> Ended {
    (code, String::new())
}

/// The conversation, from `Hello` on; answers with the reason for its end.
async fn converse(shared: &Arc<Shared>, link: &Link) -> Ended {
    let Ok(Ok((send, recv))) = timeout(limits::CONNECT_WAIT, link.accept_bi()).await else {
        return (CloseCode::BadFrame, "no stream for requests".to_owned());
    };
    let mut reader = FrameReader::with_max(recv, limits::CLIENT_FRAME_BYTES_MAX);
    match reader.read_within::<ClientFrame>(limits::CONNECT_WAIT).await {
        Ok(ClientFrame::Hello { versions }) if shared.hello.versions.common(versions).is_some() => {}
        Ok(ClientFrame::Hello { .. }) => return end(CloseCode::Version),
        Ok(ClientFrame::Request(_) | ClientFrame::Follow { .. }) => {
            return (CloseCode::BadFrame, "the first frame is no hello".to_owned());
        }
        Err(error) => return (CloseCode::BadFrame, error.to_string()),
    }
    let (frames, writer) = FrameWriter::with_wait(send, limits::CLIENT_FRAMES_WAITING_MAX, limits::CLIENT_IDLE);
    if frames.try_send(&shared.greeting()).is_err() {
        return end(CloseCode::Busy);
    }
    let client = shared.next_client();
    let key = link.peer_key();
    let opened = Event::ClientOpened { client, key, rank: shared.rank_of(key.as_ref()), frames };
    if shared.asks.send(opened).await.is_err() {
        return end(CloseCode::Goodbye);
    }
    let ended = tokio::select! {
        ended = hear_requests(shared, client, reader) => ended,
        code = hear_feeds(shared, client, link) => end(code),
        written = writer.run() => match written {
            // The driver let go, and everything was written: let it arrive.
            Ok(()) => {
                let _ = timeout(LINGER, link.closed()).await;
                end(CloseCode::Goodbye)
            }
            Err(error) => (CloseCode::TooSlow, error.to_string()),
        },
        _ = link.closed() => end(CloseCode::Goodbye),
    };
    let _ = shared.asks.send(Event::Input(Input::ClientClosed { client })).await;
    ended
}

async fn hear_requests(shared: &Shared, client: ClientId, mut reader: FrameReader<RecvStream>) -> Ended {
    let places = Arc::new(Semaphore::new(limits::CLIENT_INPUTS_WAITING_MAX));
    loop {
        match reader.read::<ClientFrame>().await {
            // As a build would that knows no such request.
            Ok(Some(frame)) if !shared.hello.versions.knows(frame.since()) => {
                return (CloseCode::BadFrame, "a request of a version that we did not say we know".to_owned());
            }
            Ok(Some(ClientFrame::Request(request))) => {
                let Ok(place) = Arc::clone(&places).acquire_owned().await else { return end(CloseCode::Goodbye) };
                if shared.asks.send(Event::Asked { client, request, place }).await.is_err() {
                    return end(CloseCode::Goodbye);
                }
            }
            Ok(Some(ClientFrame::Hello { .. } | ClientFrame::Follow { .. })) => {
                return (CloseCode::BadFrame, "no request".to_owned());
            }
            Err(ReadError::Frame(error)) => return (CloseCode::BadFrame, error.to_string()),
            // It asks nothing more, and may still wait for answers.
            Ok(None) => std::future::pending().await,
            Err(ReadError::Cut | ReadError::Ended(_) | ReadError::Silence(_)) => return end(CloseCode::Goodbye),
        }
    }
}

async fn hear_feeds(shared: &Arc<Shared>, client: ClientId, link: &Link) -> CloseCode {
    let room = Arc::new(Semaphore::new(limits::CLIENT_FEEDS_MAX));
    loop {
        let Ok((send, recv)) = link.accept_bi().await else { return CloseCode::Goodbye };
        let place = Arc::clone(&room).try_acquire_owned().ok();
        let (shared, cancel) = (Arc::clone(shared), shared.cancel.clone());
        drop(shared.tasks.clone().spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = serve_feed(&shared, client, place, (send, recv)) => {}
            }
        }));
    }
}

/// Serves one feed's stream to its end.
async fn serve_feed(
    shared: &Shared,
    client: ClientId,
    place: Option<OwnedSemaphorePermit>,
    (mut send, recv): (SendStream, RecvStream),
) {
    let mut reader = FrameReader::with_max(recv, limits::CLIENT_FRAME_BYTES_MAX);
    let Ok(ClientFrame::Follow { token, since }) = reader.read_within(limits::CONNECT_WAIT).await else { return };
    let Some(_place) = place else {
        let refusal = Refusal::new(ErrorCode::Busy, "too many live feeds on one connection: close one");
        let _ = write(&mut send, &FeedFrame::Ended(refusal)).await;
        return;
    };
    let (frames, mut waiting) = mpsc::channel(FEED_FRAMES_WAITING_MAX);
    let feed = shared.next_feed();
    if shared.asks.send(Event::FeedOpened { client, feed, token, since, frames }).await.is_err() {
        return;
    }
    let stopped = send.stopped();
    tokio::select! {
        () = write_feed(shared, feed, &mut send, &mut waiting) => {}
        _ = stopped => {}
        // Nothing more is to come from the client but the end of its side, which is no end of the feed.
        () = broken(&mut reader) => {}
    }
    let _ = send.finish();
    let _ = shared.asks.send(Event::Input(Input::FeedClosed { feed })).await;
}

/// Writes frames until the driver lets go or the client wants no more. There is no time limit: a reader that pauses
/// stalls only its own stream, and one that vanished is found by its connection's idle time.
async fn write_feed(shared: &Shared, feed: FeedId, send: &mut SendStream, waiting: &mut mpsc::Receiver<FeedFrame>) {
    while let Some(frame) = waiting.recv().await {
        let last = matches!(frame, FeedFrame::Ended(_));
        if write(send, &frame).await.is_none() || last {
            return;
        }
        if shared.asks.send(Event::Input(Input::FeedWritten { feed })).await.is_err() {
            return;
        }
    }
}

async fn write(send: &mut SendStream, message: &FeedFrame) -> Option<()> {
    let mut bytes = Vec::new();
    if let Err(error) = frame::encode(message, limits::FRAME_BYTES_MAX, &mut bytes) {
        tracing::error!(%error, "a feed's frame cannot be sent");
        return None;
    }
    send.write_all(&bytes).await.ok()
}

/// Returns when the client's side of a feed is reset, or says something that it must not.
async fn broken(reader: &mut FrameReader<RecvStream>) {
    if let Ok(None) = reader.read::<ClientFrame>().await {
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests;
