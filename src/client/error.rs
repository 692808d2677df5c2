//! Why a call failed, sorted by whose fault it is. Each message is one line: what happened, to what.

use crate::error::Refusal;
use crate::id::{ProcessId, RequestId};

/// Why a call failed. [`ClientError::hint`] says what to do next.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// Nobody could be reached who could answer; a write had no effect.
    #[error("no process answered in time: {why}")]
    NoProcess {
        /// What went wrong last.
        why: String,
    },
    /// A write was sent and not answered in time: it may have its effect, now or later.
    #[error("no answer to the request {id} in time: its outcome is unknown ({why})")]
    Unknown {
        /// Ask again with this id.
        id: RequestId,
        /// What went wrong last.
        why: String,
    },
    /// A process refused the request, which had no effect.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A process does not have the key that is pinned for it, or does not accept ours.
    #[error("{process}: {why}")]
    Identity {
        /// Which.
        process: ProcessId,
        /// What TLS says.
        why: String,
    },
    /// A process speaks in a way that this version does not understand.
    #[error("{process} cannot be understood: {why}")]
    Protocol {
        /// Which.
        process: ProcessId,
        /// What came.
        why: String,
    },
    /// This machine refuses: no socket can be opened, or no way in was given.
    #[error("{0}")]
    Here(String),
    /// The client was closed before an answer came.
    #[error("the client was closed before an answer came")]
    Closed,
}

impl ClientError {
    /// The name in `--json` and in logs.
    pub fn name(&self) -> &'static str {
        match self {
            Self::NoProcess { .. } => "unreachable",
            Self::Unknown { .. } => "outcome-unknown",
            Self::Refused(refusal) => refusal.code.name(),
            Self::Identity { .. } => "identity",
            Self::Protocol { .. } => "protocol",
            Self::Here(_) => "failed",
            Self::Closed => "closed",
        }
    }

    /// The exit status of a command that ends with this error.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::NoProcess { .. } => 6,
            Self::Unknown { .. } => 7,
            Self::Refused(refusal) => refusal.code.exit_status(),
            Self::Identity { .. } => 5,
            Self::Protocol { .. } | Self::Here(_) | Self::Closed => 1,
        }
    }

    /// What to do next, when this error alone tells it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoProcess { .. } => {
                Some("is the cluster up (gaggle up), and is this its topology file (--topology FILE)?".into())
            }
            Self::Unknown { id, .. } => {
                Some(format!("ask again with --id {id}: it has its effect once, however often"))
            }
            Self::Identity { process, .. } => {
                Some(format!("check that the certs folder holds {process}'s present public key"))
            }
            Self::Protocol { .. } => Some("compare the versions of this program and of the cluster".into()),
            Self::Refused(_) | Self::Here(_) | Self::Closed => None,
        }
    }
}
