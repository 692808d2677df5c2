//! Messages between clients and processes.
//!
//! A client opens one bidirectional stream for its requests: `ClientFrame`s one way, `ServerFrame`s the other, any
//! number under way at once, answered in any order. A live feed has a stream of its own: one `Follow` frame, then
//! `FeedFrame`s back.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::error::Refusal;
use crate::id::{Digest, EntryId, Epoch, HostId, ProcessId, Token, Vector};
use crate::service::intake::{Accepted, WriteOp};
use crate::service::query::{Answer, ListPart, ShownPost};
use crate::topology::{AckLevel, Role};
use crate::wire::heartbeat::{Duty, Life};
use crate::wire::report::ClusterReport;
use crate::wire::{REPORTS, VERSION_OLDEST, Versions};

/// Client to process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClientFrame {
    /// The first frame of the request stream.
    Hello {
        /// What the client understands.
        versions: Versions,
    },
    /// A request.
    Request(Request),
    /// The first and only frame of a feed's stream.
    Follow {
        /// What the client has seen; the feed waits until the host holds it.
        token: Token,
        /// The feed begins after this.
        since: Vector,
    },
}

/// A request; answered by the `Response` with the same number.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the client, unique on its connection.
    pub number: u64,
    /// What the client has seen.
    pub token: Token,
    /// What is asked.
    pub body: RequestBody,
}

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum RequestBody {
    /// check and assign: where do I go? Answered by every process; changes follow as `ServerFrame::Assigned`.
    Assign,
    /// How is the cluster?
    Status,
    /// Move a process's duties and clients away.
    Drain {
        /// Which; must be of the asked process's host.
        process: ProcessId,
    },
    /// A write of the connection's person.
    Write {
        /// The idempotency key.
        id: crate::id::RequestId,
        /// What.
        op: WriteOp,
        /// How many copies to wait for; the cluster's level if none.
        ack: Option<AckLevel>,
    },
    /// Who am I?
    WhoAmI,
    /// A page of a part of LIST.
    List {
        /// Which part.
        part: ListPart,
        /// Names after this one.
        after: String,
    },
    /// A timeline.
    Timeline {
        /// The posts that this person made; else one's own timeline.
        of: Option<String>,
        /// At most so many posts.
        limit: u32,
        /// Only what came after this cursor.
        since: Option<Vector>,
        /// Only posts before this stamp.
        before: Option<crate::service::entry::Stamp>,
    },
    /// How is the cluster, with what hosts report?
    Report,
}

impl ClientFrame {
    /// The first version that knows this form.
    pub fn since(&self) -> u16 {
        match self {
            Self::Hello { .. } | Self::Follow { .. } => VERSION_OLDEST,
            Self::Request(request) => match &request.body {
                RequestBody::Assign
                | RequestBody::Status
                | RequestBody::Drain { .. }
                | RequestBody::Write { .. }
                | RequestBody::WhoAmI
                | RequestBody::List { .. }
                | RequestBody::Timeline { .. } => VERSION_OLDEST,
                RequestBody::Report => REPORTS,
            },
        }
    }
}

/// Process to client, on the request stream.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ServerFrame {
    /// The first frame of the request stream.
    Hello {
        /// What the process understands.
        versions: Versions,
        /// The cluster's name.
        cluster: String,
        /// Who answers.
        process: ProcessId,
        /// Its host.
        host: HostId,
    },
    /// The answer to the request with this number.
    Response {
        /// As in the request.
        number: u64,
        /// What has been seen with this answer; merge it into the client's token.
        token: Token,
        /// What became of the request.
        result: Result<Response, Refusal>,
    },
    /// To a connection that asked `Assign`: something changed.
    Assigned(Assignment),
    /// To every connection: whether this process serves has changed. Ask here, or not any more.
    Serving {
        /// Whether this process is its host's primary.
        serving: bool,
        /// The newest epoch that it knows.
        epoch: Epoch,
    },
}

/// What became of a request that was not refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Response {
    /// To `Assign`.
    Assigned(Assignment),
    /// To `Status`.
    Status(Box<ClusterStatus>),
    /// To `Drain`: it is under way.
    Draining,
    /// To `Write`.
    Written(Written),
    /// To `WhoAmI`, `List` and `Timeline`.
    Answer(Answer),
    /// The token names entries that no host in reach holds. The client keeps its token, goes on with the part that
    /// can be had (by asking with `token` as this response gives it), and offers its own lost writes again.
    Missing {
        /// What is missing: origin, and the first and last seq.
        gaps: Vec<(EntryId, EntryId)>,
    },
    /// To `Report`.
    Report(Box<ClusterReport>),
}

/// A write that was acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Written {
    /// The entry.
    pub accepted: Accepted,
    /// How many hosts are known to hold it durably.
    pub copies: u32,
    /// What was asked for.
    pub ack: AckLevel,
    /// The host that answered.
    pub host: HostId,
}

/// Where a client is to go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Assignment {
    /// Who directs, to be asked first next time.
    pub director: Option<ProcessId>,
    /// Hosts in the order in which to try them: the least loaded that serves first.
    pub hosts: Vec<AssignedHost>,
}

/// One host of an assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedHost {
    /// Which.
    pub host: HostId,
    /// Its primary, if one is known.
    pub serving: Option<ProcessId>,
    /// The primary's epoch: a newer one is to be believed.
    pub epoch: Epoch,
    /// Whether it is up and ready for clients.
    pub ready: bool,
    /// Its processes in the order in which they would take over.
    pub processes: Vec<AssignedProcess>,
}

/// One process of an assignment.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AssignedProcess {
    /// Which.
    pub id: ProcessId,
    /// Where.
    pub addr: SocketAddr,
}

/// On a feed's stream, process to client.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum FeedFrame {
    /// Posts in the order of arrival; each `cursor` is what the feed has told up to and with that post.
    Items {
        /// The posts; may be empty, when only the cursor moves.
        posts: Vec<ShownPost>,
        /// Resume from here.
        cursor: Vector,
        /// What has been seen with it.
        token: Token,
    },
    /// The feed ends; resume elsewhere.
    Ended(Refusal),
}

/// The whole cluster as one process knows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterStatus {
    /// The cluster's name.
    pub cluster: String,
    /// What is wrong, each in a line; empty when nothing is.
    pub alarms: Vec<String>,
    /// Every host of the topology.
    pub hosts: Vec<HostStatus>,
}

/// One host's status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostStatus {
    /// Which.
    pub name: HostId,
    /// Whether it is heard of.
    pub up: bool,
    /// Its primary.
    pub serving: Option<ProcessId>,
    /// Its relay.
    pub relaying: Option<ProcessId>,
    /// The director, if it is of this host.
    pub directing: Option<ProcessId>,
    /// The primary's epoch.
    pub epoch: Epoch,
    /// Clients logged in.
    pub sessions: u32,
    /// What it holds.
    pub vector: Vector,
    /// The digest at that vector.
    pub digest: Digest,
    /// Entries that it ever applied.
    pub entries: u64,
    /// Entries that others hold and it lacks.
    pub lag: u64,
    /// Bytes of its store.
    pub disk_bytes: u64,
    /// Its processes.
    pub processes: Vec<ProcessStatus>,
}

/// One process's status.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessStatus {
    /// Which.
    pub id: ProcessId,
    /// What it is meant for.
    pub role: Role,
    /// Where.
    pub addr: SocketAddr,
    /// How it is.
    pub life: Life,
    /// Its operating system's number; 0 if unknown.
    pub pid: u32,
    /// The duties that it holds.
    pub duties: Vec<Duty>,
}
