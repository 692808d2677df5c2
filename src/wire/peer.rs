//! Messages between processes, on streams. The sender is the key that the connection proved, never a field (P10).

use serde::{Deserialize, Serialize};

use crate::id::{Epoch, HostId, Vector};
use crate::service::blocks::LogDigest;
use crate::service::ledger::EntryRun;
use crate::service::snapshot::Part;
use crate::time::Hlc;
use crate::wire::heartbeat::{Duty, HostView};
use crate::wire::report::HostReport;
use crate::wire::{REPORTS, VERSION_OLDEST, Versions};

/// The first frame in each direction of a connection between processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerHello {
    /// What the sender understands.
    pub versions: Versions,
    /// The cluster's name; another cluster's process is refused.
    pub cluster: String,
    /// Drawn at random when the sender started.
    pub run: u64,
    /// The sender's process number.
    pub pid: u32,
    /// A hash of the sender's topology file.
    pub topology: u32,
}

/// Which of a link's two streams a message travels on, so that bulk never delays an election.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Small and urgent.
    Control,
    /// Entries and snapshots.
    Bulk,
}

/// One message between processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum PeerMessage {
    /// The sender suspects the leader and stands for the duty (bully).
    Election {
        /// Which duty.
        duty: Duty,
    },
    /// A better placed process lives and takes over.
    Alive {
        /// Which duty.
        duty: Duty,
    },
    /// The sender has the duty.
    Coordinator {
        /// Which duty.
        duty: Duty,
        /// Its epoch, for `Serve`.
        epoch: Epoch,
    },
    /// The sender gives up its duties and leaves; it is not to be restarted.
    Goodbye,
    /// The sender keeps running, but gives up its duties and takes none (`drain`).
    Drained,
    /// An operator's wish, passed on inside the host: drain yourself.
    Drain,
    /// Relay to sibling: a view that changed.
    View(HostView),
    /// Primary to its relay: this is committed; send it.
    Committed {
        /// The primary's epoch.
        epoch: Epoch,
        /// What is committed.
        vector: Vector,
    },
    /// Relay to its primary: this host holds this much, durably.
    Copies {
        /// Which host.
        host: HostId,
        /// What it holds.
        vector: Vector,
    },
    /// Relay to another host's primary: where do you stand?
    Open {
        /// Drawn by the relay; answers and batches carry it.
        stream: u64,
    },
    /// Primary to another host's relay: the answer to `Open`, and after each commit.
    Held {
        /// As in `Open`.
        stream: u64,
        /// The primary's epoch.
        epoch: Epoch,
        /// What is held durably.
        vector: Vector,
    },
    /// Primary to another host's relay: I do not serve, or lost my place; open anew.
    Closed {
        /// As in `Open`.
        stream: u64,
    },
    /// Relay to another host's primary: entries.
    Batch {
        /// As in `Open`.
        stream: u64,
        /// The sender's clock.
        hlc: Hlc,
        /// The entries, in causal order.
        runs: Vec<EntryRun>,
    },
    /// Not sent any more (see `SnapshotRows`): rows, because the log no longer has what is needed.
    Snapshot {
        /// As in `Open`.
        stream: u64,
        /// Rows in the service's snapshot form.
        chunk: Vec<u8>,
    },
    /// Not sent any more: the last chunk was sent, all of this vector's effects are in the rows.
    SnapshotDone {
        /// As in `Open`.
        stream: u64,
        /// The vector noted before the first chunk was read.
        vector: Vector,
    },
    /// Primary to another host's relay: the oldest part that was not acknowledged is durable.
    SnapshotHeld {
        /// As in `Open`.
        stream: u64,
    },
    /// First primary after its whole host was down, to any process of another host: what do you hold of my host?
    Recall,
    /// The answer: everything that the asked host holds.
    Recalled {
        /// What it holds durably.
        vector: Vector,
    },
    /// Relay to another host's primary: the log no longer has what you lack; the tables can be had.
    SnapshotOffer {
        /// As in `Open`.
        stream: u64,
        /// The log holds each origin from after this place on.
        cut: Vector,
    },
    /// Primary to another host's relay, of all that offer: send the rows from this key on.
    SnapshotWanted {
        /// As in `Open`.
        stream: u64,
        /// The key; empty: the first.
        at: Vec<u8>,
    },
    /// Relay to another host's primary: rows; the next follow without being asked for.
    SnapshotRows {
        /// As in `Open`.
        stream: u64,
        /// The rows.
        part: Part,
    },
    /// Primary to sibling, of their host; relay to another host's relay, of its host; relay to sibling, of another host.
    Report(HostReport),
    /// Relay to another host's primary: the digests of blocks that both hold.
    Digests {
        /// As in `Open`.
        stream: u64,
        /// The digests.
        digests: Vec<LogDigest>,
    },
}

impl PeerMessage {
    /// The first version that knows this form.
    pub fn since(&self) -> u16 {
        match self {
            Self::Election { .. }
            | Self::Alive { .. }
            | Self::Coordinator { .. }
            | Self::Goodbye
            | Self::Drained
            | Self::Drain
            | Self::View(_)
            | Self::Committed { .. }
            | Self::Copies { .. }
            | Self::Open { .. }
            | Self::Held { .. }
            | Self::Closed { .. }
            | Self::Batch { .. }
            | Self::Snapshot { .. }
            | Self::SnapshotDone { .. }
            | Self::SnapshotHeld { .. }
            | Self::SnapshotOffer { .. }
            | Self::SnapshotWanted { .. }
            | Self::SnapshotRows { .. }
            | Self::Recall
            | Self::Recalled { .. } => VERSION_OLDEST,
            Self::Report(_) | Self::Digests { .. } => REPORTS,
        }
    }

    /// The lane that this message travels on.
    pub fn lane(&self) -> Lane {
        match self {
            Self::Batch { .. } | Self::Snapshot { .. } | Self::SnapshotDone { .. } | Self::SnapshotRows { .. } => {
                Lane::Bulk
            }
            Self::Election { .. }
            | Self::Alive { .. }
            | Self::Coordinator { .. }
            | Self::Goodbye
            | Self::Drained
            | Self::Drain
            | Self::View(_)
            | Self::Committed { .. }
            | Self::Copies { .. }
            | Self::Open { .. }
            | Self::Held { .. }
            | Self::Closed { .. }
            | Self::SnapshotHeld { .. }
            | Self::SnapshotOffer { .. }
            | Self::SnapshotWanted { .. }
            | Self::Recall
            | Self::Recalled { .. }
            | Self::Report(_)
            | Self::Digests { .. } => Lane::Control,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{Origin, Seq};

    fn hex(message: &PeerMessage) -> String {
        postcard::to_stdvec(message).unwrap().iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn the_messages_of_a_snapshot_have_these_bytes() {
        let vector: Vector = [(Origin { host: "h1".parse().unwrap(), incarnation: 7 }, Seq(300))].into_iter().collect();
        let (at, bytes) = (vec![1, 2], vec![3]);
        let part = Part { at: at.clone(), bytes, next: Some(vec![4, 5]), vector: vector.clone() };
        // The message's number, the stream (varint); a vector is its length, and for each origin the host's name with its
        // length, the incarnation and the seq; bytes have their length in front.
        let expected = [
            (PeerMessage::SnapshotHeld { stream: 300 }, "0f ac02"),
            (PeerMessage::SnapshotOffer { stream: 300, cut: vector }, "12 ac02 01 026831 07 ac02"),
            (PeerMessage::SnapshotWanted { stream: 300, at }, "13 ac02 020102"),
            (PeerMessage::SnapshotRows { stream: 300, part }, "14 ac02 020102 0103 01 020405 01 026831 07 ac02"),
        ];
        for (message, expected) in expected {
            assert_eq!(hex(&message), expected.replace(' ', ""));
            assert_eq!(postcard::from_bytes(&postcard::to_stdvec(&message).unwrap()), Ok(message));
        }
    }
}
