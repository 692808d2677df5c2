//! Why a connection ended: the codes that we send, and what we learn when the other side, or nobody, ends it.

use quinn::{ConnectionError, VarInt};

macro_rules! close_codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        /// The application codes of a QUIC close. A number is never reused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
        pub enum CloseCode {
            $($(#[$doc])* $name = $number,)*
        }

        impl CloseCode {
            /// Every code, in the order of this list.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The number on the wire.
            pub const fn number(self) -> u32 {
                match self { $(Self::$name => $number,)* }
            }

            /// What a person reads.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// The code of this number, if this version knows it.
            pub fn from_number(number: u64) -> Option<Self> {
                match number { $($number => Some(Self::$name),)* _ => None }
            }
        }
    };
}

close_codes! {
    /// The sender ends in good order.
    Goodbye = 1, "goodbye";
    /// The other side belongs to another cluster.
    WrongCluster = 2, "another cluster";
    /// The key is not the one that may do this, or none was shown.
    WrongIdentity = 3, "wrong identity";
    /// No common wire version.
    Version = 4, "no common version";
    /// Bytes that are not a frame of the expected kind.
    BadFrame = 5, "bad frame";
    /// What waits for the other side has reached its limit.
    TooSlow = 6, "too slow";
    /// This process has no room for the connection.
    Busy = 7, "busy";
    /// Another connection with the same process took this one's place.
    Replaced = 8, "replaced by a newer connection";
}

impl From<CloseCode> for VarInt {
    fn from(code: CloseCode) -> Self {
        Self::from_u32(code.number())
    }
}

impl std::fmt::Display for CloseCode {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.text())
    }
}

/// How a connection ended, sorted by who ended it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkEnd {
    /// This process closed it.
    #[error("closed by this process")]
    Here,
    /// The other side's application closed it.
    #[error("closed by the other side: {}{}", code.map_or("unknown code", CloseCode::text), colon(reason))]
    Peer {
        /// The code, if this version knows it.
        code: Option<CloseCode>,
        /// For people.
        reason: String,
    },
    /// The other side no longer knows the connection: its process was restarted.
    #[error("reset: the other side was restarted")]
    Reset,
    /// Nothing was heard for the idle time.
    #[error("silence")]
    Silence,
    /// The other side's QUIC or TLS gave up, for instance because it refuses our key.
    #[error("refused by the other side's transport: {0}")]
    Refused(String),
    /// The other side broke QUIC or TLS, or showed a key that was not expected.
    #[error("the other side broke the protocol: {0}")]
    Broken(String),
}

/// A reason after its code, if there is one.
fn colon(reason: &str) -> String {
    if reason.is_empty() { String::new() } else { format!(": {reason}") }
}

/// Characters of a reason that are kept: it comes from outside and ends in a log.
const REASON_CHARS_MAX: usize = 200;

impl From<ConnectionError> for LinkEnd {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::LocallyClosed => Self::Here,
            ConnectionError::Reset => Self::Reset,
            ConnectionError::TimedOut => Self::Silence,
            ConnectionError::ApplicationClosed(close) => {
                let reason = String::from_utf8_lossy(&close.reason);
                let reason = reason.chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect();
                Self::Peer { code: CloseCode::from_number(close.error_code.into_inner()), reason }
            }
            ConnectionError::ConnectionClosed(close) => {
                Self::Refused(close.to_string().chars().filter(|c| !c.is_control()).take(REASON_CHARS_MAX).collect())
            }
            ConnectionError::TransportError(error) => Self::Broken(error.to_string()),
            ConnectionError::VersionMismatch => Self::Broken("no common QUIC version".to_owned()),
            ConnectionError::CidsExhausted => Self::Broken("no connection id is free".to_owned()),
        }
    }
}
