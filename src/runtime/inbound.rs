//! Connections that others opened: whose they are, and what processes say on them.
//!
//! A sender is the key that its connection proved, never a field of a message (P10). Of one sender one connection is
//! listened to at a time, so that what it said on an older one never comes after what it says on a newer one.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use quinn::RecvStream;
use tokio::sync::Mutex as TurnLock;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::clients;
use super::event::Event;
use super::links::{check_hello, lane_byte};
use super::shared::Shared;
use crate::core::io::Input;
use crate::id::ProcessId;
use crate::limits;
use crate::net::{Alpn, CloseCode, FrameReader, FrameWriter, Link, ReadError};
use crate::wire::frame;
use crate::wire::heartbeat::Heartbeat;
use crate::wire::peer::{Lane, PeerHello, PeerMessage};

/// Accepts until the endpoint is closed or the process ends.
pub(super) async fn accept_all(shared: Arc<Shared>) {
    let turns = Arc::new(Turns::default());
    loop {
        let link = tokio::select! {
            () = shared.cancel.cancelled() => return,
            link = shared.endpoint.accept() => link,
        };
        let Some(link) = link else { return };
        match link.alpn() {
            Alpn::Client => drop(shared.tasks.spawn(clients::serve(Arc::clone(&shared), link))),
            Alpn::Peer => drop(shared.tasks.spawn(hear_peer(Arc::clone(&shared), Arc::clone(&turns), link))),
        }
    }
}

/// Who is being listened to: a newer connection of the same process ends an older one, and waits until it has.
#[derive(Debug, Default)]
struct Turns(Mutex<BTreeMap<ProcessId, Turn>>);

#[derive(Debug, Clone, Default)]
struct Turn {
    /// Held while listening.
    lock: Arc<TurnLock<()>>,
    /// Ends whoever holds it.
    newer: CancellationToken,
}

impl Turns {
    fn next(&self, of: ProcessId) -> Turn {
        let mut turns = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let turn = turns.entry(of).or_default();
        turn.newer.cancel();
        turn.newer = CancellationToken::new();
        turn.clone()
    }
}

/// Listens to one process on one connection.
async fn hear_peer(shared: Arc<Shared>, turns: Arc<Turns>, link: Link) {
    let Some(from) = link.peer_key().and_then(|key| shared.process_of(&key)) else {
        tracing::debug!(addr = %link.remote_addr(), "a key that no process of the topology has");
        return link.close(CloseCode::WrongIdentity, "no process of this cluster has this key");
    };
    let greeted = tokio::select! {
        () = shared.cancel.cancelled() => return,
        greeted = timeout(limits::CONNECT_WAIT, greet(&shared, &link)) => greeted,
    };
    let (hello, control) = match greeted {
        Ok(Ok(greeted)) => greeted,
        Ok(Err(reason)) => return tracing::debug!(peer = %from, reason, "no hello"),
        Err(_) => return link.close(CloseCode::BadFrame, "no hello"),
    };
    let turn = turns.next(from);
    let _mine = turn.lock.lock().await;
    if turn.newer.is_cancelled() || shared.events.send(Event::PeerArrived { peer: from, run: hello.run }).await.is_err()
    {
        return;
    }
    let reason = tokio::select! {
        () = shared.cancel.cancelled() => None,
        () = turn.newer.cancelled() => Some((CloseCode::Replaced, String::new())),
        ended = hear_lane(&shared, from, control) => ended,
        ended = hear_bulk(&shared, from, &link) => ended,
        ended = hear_beats(&shared, from, &link) => ended,
    };
    if let Some((code, reason)) = reason {
        tracing::debug!(peer = %from, %code, reason, "no longer listening");
        link.close(code, &reason);
    }
}

/// How listening ended; nothing if the connection, or this process, is gone anyway.
type Ended = Option<(CloseCode, String)>;

/// Hears `Hello` on the control lane and says ours on a stream back.
async fn greet(shared: &Shared, link: &Link) -> Result<(PeerHello, FrameReader<RecvStream>), String> {
    let mut stream = link.accept_uni().await.map_err(|end| end.to_string())?;
    if read_lane(&mut stream).await != Some(Lane::Control) {
        link.close(CloseCode::BadFrame, "the first stream is no control lane");
        return Err("no control lane".to_owned());
    }
    let mut control = FrameReader::new(stream);
    let hello: PeerHello = control.read_within(limits::CONNECT_WAIT).await.map_err(|error| error.to_string())?;
    if let Err((code, reason)) = check_hello(&hello, &shared.hello) {
        link.close(code, reason);
        return Err(reason.to_owned());
    }
    let back = link.open_uni().await.map_err(|error| error.to_string())?;
    let (answer, writer) = FrameWriter::new(back, 1);
    answer.try_send(&shared.hello).map_err(|error| error.to_string())?;
    drop(answer);
    writer.run().await.map_err(|error| error.to_string())?;
    Ok((hello, control))
}

/// The lane that a stream says it is.
async fn read_lane(stream: &mut RecvStream) -> Option<Lane> {
    let mut first = [0];
    timeout(limits::STREAM_WAIT, stream.read_exact(&mut first)).await.ok()?.ok()?;
    [Lane::Control, Lane::Bulk].into_iter().find(|lane| lane_byte(*lane) == first[0])
}

/// Hears the bulk lane once it is opened.
async fn hear_bulk(shared: &Shared, from: ProcessId, link: &Link) -> Ended {
    let mut stream = link.accept_uni().await.ok()?;
    if read_lane(&mut stream).await != Some(Lane::Bulk) {
        return Some((CloseCode::BadFrame, "the second stream is no bulk lane".to_owned()));
    }
    hear_lane(shared, from, FrameReader::new(stream)).await
}

/// Hears a lane to its end. A full driver makes it wait here, and the sender there.
async fn hear_lane(shared: &Shared, from: ProcessId, mut lane: FrameReader<RecvStream>) -> Ended {
    loop {
        match lane.read::<PeerMessage>().await {
            // As a build would that knows no such message.
            Ok(Some(message)) if !shared.hello.versions.knows(message.since()) => {
                return Some((CloseCode::BadFrame, "a message of a version that we did not say we know".to_owned()));
            }
            Ok(Some(message)) => shared.events.send(Event::Input(Input::Peer { from, message })).await.ok()?,
            // The sender is leaving; what it said on its other lane may still be on its way.
            Ok(None) => std::future::pending().await,
            Err(ReadError::Frame(error)) => return Some((CloseCode::BadFrame, error.to_string())),
            Err(ReadError::Cut | ReadError::Ended(_) | ReadError::Silence(_)) => return None,
        }
    }
}

/// Hears heartbeats to the connection's end.
async fn hear_beats(shared: &Shared, from: ProcessId, link: &Link) -> Ended {
    loop {
        let bytes = link.read_datagram().await.ok()?;
        if bytes.len() > limits::HEARTBEAT_BYTES_MAX {
            return Some((CloseCode::BadFrame, "a heartbeat over the limit".to_owned()));
        }
        match frame::decode_body::<Heartbeat>(&bytes) {
            Ok(heartbeat) => shared.events.send(Event::Input(Input::Heartbeat { from, heartbeat })).await.ok()?,
            Err(error) => return Some((CloseCode::BadFrame, error.to_string())),
        }
    }
}
