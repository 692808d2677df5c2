//! The codes that a caller may meet, listed once: number, name, text, what to do, and the exit status of a command.
//!
//! A number is never reused, and a name is part of the contract of `--json`.

use serde::{Deserialize, Serialize};

/// What a caller that gets this code should do with its request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Advice {
    /// Ask the same process again, with the same id.
    Retry,
    /// Ask another process or host, with the same id.
    Elsewhere,
    /// Asking again changes nothing.
    Never,
}

macro_rules! error_codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal, $advice:ident, $exit:literal;)*) => {
        /// Why a request was refused.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "u16", into = "u16")]
        pub enum ErrorCode {
            $($(#[$doc])* $name = $number,)*
        }

        impl ErrorCode {
            /// Every code, in the order of this list.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The name in `--json` and in logs.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)* }
            }

            /// What to do with the request.
            pub const fn advice(self) -> Advice {
                match self { $(Self::$name => Advice::$advice,)* }
            }

            /// The exit status of a command that ends with this code.
            pub const fn exit_status(self) -> u8 {
                match self { $(Self::$name => $exit,)* }
            }
        }

        impl TryFrom<u16> for ErrorCode {
            type Error = UnknownCode;
            fn try_from(number: u16) -> Result<Self, UnknownCode> {
                match number { $($number => Ok(Self::$name),)* _ => Err(UnknownCode(number)) }
            }
        }
    };
}

error_codes! {
    /// This process is not its host's primary (any more).
    NotServing = 1, "not-serving", Elsewhere, 6;
    /// The host is behind what the token has seen, and may catch up.
    Behind = 2, "behind", Elsewhere, 6;
    /// A queue or table of this process is full.
    Busy = 3, "busy", Retry, 1;
    /// The disk is full: nothing was stored.
    DiskFull = 4, "disk-full", Elsewhere, 1;
    /// Nobody has this name.
    UnknownUser = 5, "unknown-user", Never, 3;
    /// The person is joined already.
    AlreadyJoined = 6, "already-joined", Never, 4;
    /// The person is not joined.
    NotJoined = 7, "not-joined", Never, 4;
    /// Nobody joins or leaves oneself.
    Oneself = 8, "oneself", Never, 2;
    /// The name belongs to another key.
    NameTaken = 9, "name-taken", Never, 5;
    /// This key is registered under another name.
    OtherName = 10, "other-name", Never, 5;
    /// The key has not been registered.
    NotRegistered = 11, "not-registered", Never, 5;
    /// The id was used for another request.
    IdReused = 12, "id-reused", Never, 2;
    /// The id is older than ids are remembered.
    TooOld = 13, "too-old", Never, 2;
    /// The message could not be read, or is not understood by this version.
    BadRequest = 14, "bad-request", Never, 2;
    /// The process is leaving.
    Leaving = 15, "leaving", Elsewhere, 6;
    /// No process of the topology has this id.
    UnknownProcess = 16, "unknown-process", Never, 2;
    /// The caller has not shown who it is.
    NotLoggedIn = 17, "not-logged-in", Never, 5;
    /// The caller may not do what only operators may.
    NotOperator = 18, "not-operator", Never, 5;
}

/// A number that this version does not know.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("unknown error code {0}")]
pub struct UnknownCode(u16);

impl From<ErrorCode> for u16 {
    fn from(code: ErrorCode) -> Self {
        code as Self
    }
}

/// A typed refusal, as it crosses the wire.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What a program looks at.
    pub code: ErrorCode,
    /// What a person reads: what happened, to what.
    pub message: String,
}

impl Refusal {
    /// A refusal with its message.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_used_once() {
        let mut names: Vec<_> = ErrorCode::ALL.iter().map(|code| code.name()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), ErrorCode::ALL.len());
        for code in ErrorCode::ALL {
            assert_eq!(ErrorCode::try_from(u16::from(*code)), Ok(*code));
        }
        assert_eq!(ErrorCode::try_from(0), Err(UnknownCode(0)));
    }
}
