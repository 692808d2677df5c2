//! A mutant's queue: runs that the store handed back, in the order of an earlier node.
//!
//! There a run that came back in a later transaction than others of its stream and origin was put in front of them. It
//! waited for them, and they stood behind it. What stands behind another is handed to the store here as if it began
//! where that one begins: the store then says that it waits for what the other waits for.

use gaggle::core::io::Input;
use gaggle::id::{Origin, ProcessId, Seq, Vector};
use gaggle::service::ledger::{EntryRun, WriteId, Wrote};
use gaggle::wire::peer::PeerMessage;

/// A run of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sent {
    from: ProcessId,
    origin: Origin,
    first: Seq,
    last: Seq,
}

#[derive(Debug)]
struct Waiting {
    sent: Sent,
    /// The transaction that handed it back.
    transaction: u64,
    /// Where the run begins that was put in front of it.
    behind: Option<Seq>,
}

/// The runs of all streams into one process.
#[derive(Debug, Default)]
pub(crate) struct Line {
    /// Whose batch the process takes at this moment.
    sender: Option<ProcessId>,
    at_store: Vec<(WriteId, Sent)>,
    waiting: Vec<Waiting>,
    transactions: u64,
}

impl Line {
    /// The process is about to be told this.
    pub(crate) fn on_input(&mut self, input: &Input) {
        self.sender = None;
        if let Input::Peer { from, message: PeerMessage::Batch { .. } } = input {
            self.sender = Some(*from);
        } else if let Input::Peer { from, message: PeerMessage::Open { .. } } = input {
            self.at_store.retain(|(_, sent)| sent.from != *from);
            self.waiting.retain(|waiting| waiting.sent.from != *from);
        } else if let Input::Persisted { result: Ok(committed), .. } = input {
            self.transactions += 1;
            for (id, wrote) in &committed.outcomes {
                let at = self.at_store.iter().position(|(other, _)| other == id);
                if let Some((_, sent)) = at.map(|at| self.at_store.remove(at))
                    && matches!(wrote, Wrote::Waits { .. })
                {
                    self.come_back(sent);
                }
            }
        }
    }

    fn come_back(&mut self, sent: Sent) {
        let same = |other: &Sent| (other.from, other.origin) == (sent.from, sent.origin);
        if self.waiting.iter().any(|waiting| waiting.sent == sent) {
            return;
        }
        for waiting in self.waiting.iter_mut().filter(|waiting| same(&waiting.sent)) {
            if waiting.transaction < self.transactions && waiting.sent.first < sent.first {
                waiting.behind.get_or_insert(sent.first);
            }
        }
        self.waiting.push(Waiting { sent, transaction: self.transactions, behind: None });
    }

    /// The process hands a run to its store, which holds so much.
    pub(crate) fn on_persist(&mut self, id: WriteId, run: &mut EntryRun, held: &Vector) {
        let is = |sent: &Sent| (sent.origin, sent.first, sent.last) == (run.origin, run.from, run.last());
        let sent = match self.sender {
            Some(from) => Sent { from, origin: run.origin, first: run.from, last: run.last() },
            None => {
                // It came back, and may go again: of two streams' same runs the first's comes first.
                let back = self.waiting.iter().filter(|waiting| is(&waiting.sent)).min_by_key(|one| one.sent.from);
                let Some(sent) = back.map(|waiting| waiting.sent) else { return };
                sent
            }
        };
        self.at_store.push((id, sent));
        let Some(at) = self.waiting.iter().position(|waiting| waiting.sent == sent) else { return };
        match self.waiting[at].behind {
            Some(first) if held.get(run.origin).next() < first => run.from = first,
            Some(_) | None => {
                self.waiting.remove(at);
            }
        }
    }
}
