//! Frames: a four-byte big-endian length, then that many bytes of postcard.
//!
//! The length is checked against the limit before anything is allocated, and bytes after the message's end are an
//! error: two decoders must never disagree on what a frame says.

use serde::Serialize;
use serde::de::DeserializeOwned;

/// Bytes of the length prefix.
pub const PREFIX_BYTES: usize = 4;

/// Bytes that are not a frame of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The length prefix is over the limit.
    #[error("a frame of {length} bytes is over the limit of {max}")]
    TooLong {
        /// What the prefix says.
        length: usize,
        /// What is allowed.
        max: usize,
    },
    /// The body is not the expected message.
    #[error("a frame that cannot be read: {0}")]
    Malformed(String),
}

/// The body's length, from its prefix.
pub fn body_length(prefix: [u8; PREFIX_BYTES], max: usize) -> Result<usize, FrameError> {
    let length = usize::try_from(u32::from_be_bytes(prefix)).unwrap_or(usize::MAX);
    if length > max { Err(FrameError::TooLong { length, max }) } else { Ok(length) }
}

/// A message without a prefix, for datagrams and for `encode`.
pub fn encode_body<T: Serialize>(message: &T) -> Result<Vec<u8>, FrameError> {
    postcard::to_stdvec(message).map_err(|error| FrameError::Malformed(error.to_string()))
}

/// Appends a message with its prefix.
pub fn encode<T: Serialize>(message: &T, max: usize, into: &mut Vec<u8>) -> Result<(), FrameError> {
    let start = into.len();
    into.extend_from_slice(&[0; PREFIX_BYTES]);
    let buffer = std::mem::take(into);
    *into = postcard::to_extend(message, buffer).map_err(|error| FrameError::Malformed(error.to_string()))?;
    let length = into.len() - start - PREFIX_BYTES;
    let prefix = u32::try_from(length).ok().filter(|_| length <= max);
    match prefix {
        Some(prefix) => {
            into[start..start + PREFIX_BYTES].copy_from_slice(&prefix.to_be_bytes());
            Ok(())
        }
        None => {
            into.truncate(start);
            Err(FrameError::TooLong { length, max })
        }
    }
}

/// Reads a body; every byte must be used.
pub fn decode_body<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, FrameError> {
    let (message, rest) = postcard::take_from_bytes(bytes).map_err(|error| FrameError::Malformed(error.to_string()))?;
    if rest.is_empty() {
        Ok(message)
    } else {
        Err(FrameError::Malformed(format!("{} bytes after its end", rest.len())))
    }
}
