//! What has been seen, and the person's own writes that too few hosts hold.

use std::collections::{BTreeMap, VecDeque};

use crate::id::{EntryId, HostId, Origin, RequestId, Seq, Token};
use crate::service::intake::WriteOp;
use crate::topology::AckLevel;
use crate::wire::client::Written;

/// Own writes with too few copies that are remembered; beyond, the oldest is forgotten.
const DOUBTFUL_MAX: usize = 256;
/// From so many copies on, no single host's loss loses a write.
const COPIES_SAFE: u32 = 2;

/// A write of this person that was acknowledged with fewer copies than asked for.
#[derive(Debug, Clone)]
pub(super) struct Doubtful {
    pub(super) id: RequestId,
    pub(super) op: WriteOp,
    pub(super) ack: AckLevel,
    entry: EntryId,
}

/// What has been seen.
#[derive(Debug)]
pub(super) struct Seen {
    /// All of it: saved for later sessions, whatever is missing now.
    full: Token,
    /// The part that can be had, once a server has said that something is missing.
    reduced: Option<Token>,
    /// Hosts that have said that something is missing, since one had all or nobody did.
    lacking: Vec<HostId>,
    /// Up to where missing entries have been told of.
    told: BTreeMap<Origin, Seq>,
    doubtful: VecDeque<Doubtful>,
}

impl Seen {
    pub(super) fn new(token: Token) -> Self {
        Self { full: token, reduced: None, lacking: Vec::new(), told: BTreeMap::new(), doubtful: VecDeque::new() }
    }

    /// For later sessions.
    pub(super) fn token(&self) -> &Token {
        &self.full
    }

    /// For requests.
    pub(super) fn asking(&self) -> &Token {
        self.reduced.as_ref().unwrap_or(&self.full)
    }

    pub(super) fn merge(&mut self, token: &Token) {
        self.full.merge(token);
        if let Some(reduced) = &mut self.reduced {
            reduced.merge(token);
            if reduced.vector.covers(&self.full.vector) {
                self.reduced = None;
            }
        }
    }

    /// Takes in the token of an answer to who asked with `asked`.
    pub(super) fn supersede(&mut self, asked: &Token, answer: &Token) {
        self.full.supersede(asked, answer);
        if let Some(reduced) = &mut self.reduced {
            reduced.supersede(asked, answer);
        }
        self.merge(answer);
    }

    /// A host lacks something. Says whether it had not said so yet.
    pub(super) fn note_lacking(&mut self, host: HostId) -> bool {
        let is_news = !self.lacking.contains(&host);
        if is_news {
            self.lacking.push(host);
        }
        is_news
    }

    /// Who lacks something, this host included.
    pub(super) fn lacking_with(&self, host: Option<HostId>) -> Vec<HostId> {
        self.lacking.iter().copied().chain(host).collect()
    }

    /// A host had all that was asked with.
    pub(super) fn on_satisfied(&mut self) {
        self.lacking.clear();
    }

    /// From now on asks with what can be had. Says whether people do not know of these gaps yet.
    pub(super) fn reduce(&mut self, part: Token, gaps: &[(EntryId, EntryId)]) -> Gaps {
        self.reduced = Some(part);
        self.lacking.clear();
        let mut news = Gaps::Known;
        for (_, last) in gaps {
            let told = self.told.entry(last.origin).or_default();
            if last.seq > *told {
                *told = last.seq;
                news = Gaps::New;
            }
        }
        news
    }

    /// Remembers a write that too few hosts hold, and forgets one that enough do.
    pub(super) fn note_written(&mut self, id: &RequestId, op: &WriteOp, written: &Written) {
        self.doubtful.retain(|doubtful| doubtful.id != *id);
        if written.copies >= COPIES_SAFE || written.ack == AckLevel::Host {
            return;
        }
        if self.doubtful.len() == DOUBTFUL_MAX {
            self.doubtful.pop_front();
        }
        let entry = written.accepted.entry;
        self.doubtful.push_back(Doubtful { id: id.clone(), op: op.clone(), ack: written.ack, entry });
    }

    /// Own writes among what is missing, oldest first.
    pub(super) fn doubtful_in(&self, gaps: &[(EntryId, EntryId)]) -> Vec<Doubtful> {
        let is_missing = |entry: EntryId| {
            gaps.iter()
                .any(|(first, last)| entry.origin == first.origin && entry.seq >= first.seq && entry.seq <= last.seq)
        };
        self.doubtful.iter().filter(|doubtful| is_missing(doubtful.entry)).cloned().collect()
    }
}

/// Whether people have been told of gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gaps {
    Known,
    New,
}
