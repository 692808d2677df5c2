//! Frames on a stream: a reader that loses nothing when it is cancelled, and a writer that folds what waits.

use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::{Semaphore, TryAcquireError, mpsc};
use tokio::time::timeout;

use crate::limits;
use crate::net::close::LinkEnd;
use crate::wire::frame::{self, FrameError, PREFIX_BYTES};

/// Bytes asked for at a time: memory grows as bytes arrive, never because a prefix says so.
const READ_BYTES: usize = 16 << 10;
/// A buffer that once held a large frame is given back above this.
const BUFFER_KEPT_BYTES: usize = 256 << 10;
/// Bytes folded into one write.
const WRITE_BYTES: usize = 64 << 10;
/// Bytes that may wait on one stream, whatever their number: a thousand answers of a megabyte would fill the memory.
const WAITING_BYTES_MAX: usize = 4 * limits::FRAME_BYTES_MAX;

const _: () = assert!(limits::FRAME_BYTES_MAX + PREFIX_BYTES < WAITING_BYTES_MAX);

/// A frame that did not come.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The other side sent something else: close with [`crate::net::CloseCode::BadFrame`].
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The stream ended, or was reset, in the middle of a frame or before one that was needed.
    #[error("the stream was cut")]
    Cut,
    /// The connection has ended.
    #[error("the connection has ended: {0}")]
    Ended(LinkEnd),
    /// Nothing came in the time given.
    #[error("nothing came for {0:?}")]
    Silence(Duration),
}

/// A frame that could not be queued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// It is over the limit, or cannot be encoded: our own mistake.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// As many frames, or bytes, wait as may: the other side is too slow.
    #[error("too much waits to be written")]
    Full,
    /// The writer has ended; its task knows why.
    #[error("the stream has ended")]
    Ended,
}

/// Bytes that could not be written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WriteError {
    /// The other side takes nothing: close with [`crate::net::CloseCode::TooSlow`].
    #[error("the other side took nothing for {0:?}")]
    Silence(Duration),
    /// The other side wants no more on this stream.
    #[error("the other side stopped the stream")]
    Stopped,
    /// The connection has ended.
    #[error("the connection has ended: {0}")]
    Ended(LinkEnd),
}

/// Reads frames from a stream.
#[derive(Debug)]
pub struct FrameReader<R> {
    stream: R,
    max: usize,
    /// Bytes that have come; those before `start` have been used.
    buffer: Vec<u8>,
    start: usize,
}

impl<R: AsyncRead + Unpin> FrameReader<R> {
    /// Frames of at most [`limits::FRAME_BYTES_MAX`].
    pub fn new(stream: R) -> Self {
        Self::with_max(stream, limits::FRAME_BYTES_MAX)
    }

    /// Frames of at most `max` bytes, for a stream on which less is expected.
    pub fn with_max(stream: R, max: usize) -> Self {
        Self { stream, max, buffer: Vec::new(), start: 0 }
    }

    /// The next frame; none when the stream has ended in good order. Cancel-safe: bytes of a frame that has not come
    /// whole stay in the buffer.
    pub async fn read<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ReadError> {
        loop {
            if let Some(message) = self.take()? {
                return Ok(Some(message));
            }
            self.make_room();
            match self.stream.read_buf(&mut self.buffer).await {
                Ok(0) if self.waiting().is_empty() => return Ok(None),
                Ok(0) => return Err(ReadError::Cut),
                Ok(_) => {}
                Err(error) => return Err(read_error(&error)),
            }
        }
    }

    /// As [`Self::read`], for a frame that must come soon, such as a `Hello`.
    pub async fn read_within<T: DeserializeOwned>(&mut self, wait: Duration) -> Result<T, ReadError> {
        match timeout(wait, self.read()).await {
            Ok(Ok(Some(message))) => Ok(message),
            Ok(Ok(None)) => Err(ReadError::Cut),
            Ok(Err(error)) => Err(error),
            Err(_) => Err(ReadError::Silence(wait)),
        }
    }

    fn waiting(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// Decodes the first frame if it has come whole.
    fn take<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ReadError> {
        let Some((prefix, rest)) = self.waiting().split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
        let length = frame::body_length(*prefix, self.max)?;
        let Some(body) = rest.get(..length) else { return Ok(None) };
        let message = frame::decode_body(body)?;
        self.start += PREFIX_BYTES + length;
        Ok(Some(message))
    }

    /// Drops what has been used, and leaves room for one more read.
    fn make_room(&mut self) {
        if self.start == self.buffer.len() {
            self.buffer.clear();
            if self.buffer.capacity() > BUFFER_KEPT_BYTES {
                self.buffer.shrink_to(READ_BYTES);
            }
        } else if self.start > 0 {
            self.buffer.drain(..self.start);
        }
        self.start = 0;
        self.buffer.reserve(READ_BYTES);
    }
}

/// What quinn says, out of its disguise as an I/O error.
fn read_error(error: &std::io::Error) -> ReadError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<quinn::ReadError>()) {
        Some(quinn::ReadError::ConnectionLost(end)) => ReadError::Ended(end.clone().into()),
        Some(_) | None => ReadError::Cut,
    }
}

fn write_error(error: &std::io::Error) -> WriteError {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<quinn::WriteError>()) {
        Some(quinn::WriteError::ConnectionLost(end)) => WriteError::Ended(end.clone().into()),
        Some(_) | None => WriteError::Stopped,
    }
}

/// Queues frames for a [`FrameWriter`]. Clones feed the same stream; when the last is gone, the stream ends in order.
#[derive(Debug, Clone)]
pub struct FrameSender {
    queue: mpsc::Sender<Vec<u8>>,
    /// A permit for each byte that may yet wait; the writer gives them back, and closes it at its end.
    room: Arc<Semaphore>,
    max: usize,
}

impl FrameSender {
    /// Queues a message, or says at once that it cannot.
    pub fn try_send<T: Serialize>(&self, message: &T) -> Result<(), SendError> {
        self.try_send_encoded(self.encode(message)?)
    }

    /// Queues a message, waiting for room. Cancelled while it waits, it has queued nothing.
    pub async fn send<T: Serialize>(&self, message: &T) -> Result<(), SendError> {
        let frame = self.encode(message)?;
        let place = self.queue.reserve().await.map_err(|_| SendError::Ended)?;
        self.room.acquire_many(permits(&frame)).await.map_err(|_| SendError::Ended)?.forget();
        place.send(frame);
        Ok(())
    }

    /// Queues frames that are encoded already (see [`Self::encode`]): one encoding for many streams.
    pub fn try_send_encoded(&self, frame: Vec<u8>) -> Result<(), SendError> {
        let place = self.queue.try_reserve().map_err(|error| match error {
            mpsc::error::TrySendError::Full(()) => SendError::Full,
            mpsc::error::TrySendError::Closed(()) => SendError::Ended,
        })?;
        let room = self.room.try_acquire_many(permits(&frame)).map_err(|error| match error {
            TryAcquireError::NoPermits => SendError::Full,
            TryAcquireError::Closed => SendError::Ended,
        })?;
        room.forget();
        place.send(frame);
        Ok(())
    }

    /// A message with its prefix.
    pub fn encode<T: Serialize>(&self, message: &T) -> Result<Vec<u8>, SendError> {
        let mut bytes = Vec::new();
        frame::encode(message, self.max, &mut bytes)?;
        Ok(bytes)
    }

    /// Waits until the writer has ended.
    pub async fn ended(&self) {
        self.queue.closed().await;
    }
}

/// More than the whole room is never asked for: frames are far below it.
fn permits(frame: &[u8]) -> u32 {
    u32::try_from(frame.len()).unwrap_or(u32::MAX)
}

/// Writes queued frames to a stream. Run it in a task of its own.
#[derive(Debug)]
pub struct FrameWriter<W> {
    stream: W,
    queue: mpsc::Receiver<Vec<u8>>,
    room: Arc<Semaphore>,
    wait: Duration,
}

impl<W> Drop for FrameWriter<W> {
    fn drop(&mut self) {
        // Who waits for room must learn that none will come.
        self.room.close();
    }
}

impl<W: AsyncWrite + Unpin> FrameWriter<W> {
    /// A writer whose queue holds `waiting_max` frames and whose writes may take [`limits::STREAM_WAIT`].
    pub fn new(stream: W, waiting_max: usize) -> (FrameSender, Self) {
        Self::with_wait(stream, waiting_max, limits::STREAM_WAIT)
    }

    /// As [`Self::new`], with another patience: a feed's reader may pause for longer.
    pub fn with_wait(stream: W, waiting_max: usize, wait: Duration) -> (FrameSender, Self) {
        let (sender, queue) = mpsc::channel(waiting_max);
        let room = Arc::new(Semaphore::new(WAITING_BYTES_MAX));
        let sender = FrameSender { queue: sender, room: Arc::clone(&room), max: limits::FRAME_BYTES_MAX };
        (sender, Self { stream, queue, room, wait })
    }

    /// Writes until every sender is gone, and then ends the stream; or until it cannot.
    pub async fn run(mut self) -> Result<(), WriteError> {
        while let Some(mut folded) = self.queue.recv().await {
            while folded.len() < WRITE_BYTES {
                let Ok(next) = self.queue.try_recv() else { break };
                folded.extend_from_slice(&next);
            }
            // In parts, so that the time limit is one on progress and not on a large frame.
            for part in folded.chunks(WRITE_BYTES) {
                self.write(part).await?;
                self.room.add_permits(part.len());
            }
        }
        self.stream.shutdown().await.map_err(|error| write_error(&error))
    }

    async fn write(&mut self, part: &[u8]) -> Result<(), WriteError> {
        match timeout(self.wait, self.stream.write_all(part)).await {
            Ok(written) => written.map_err(|error| write_error(&error)),
            Err(_) => Err(WriteError::Silence(self.wait)),
        }
    }
}
