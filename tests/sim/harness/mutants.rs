//! Known bugs, each put back into the protocol to prove that the simulator finds it.
//!
//! They stand where the simulator performs what the node decides, or hands to it what happened: on the links, at the
//! disks, in people's memory. The node itself is the one that runs for real.

use std::borrow::Cow;

use gaggle::core::io::Output;
use gaggle::id::{HostId, Seq, Vector};
use gaggle::service::entry::Entry;
use gaggle::service::query::{Answer, QueryResult};
use gaggle::service::rows::{Rows, RowsMut, Table, Walk};
use gaggle::wire::RETIREMENTS;
use gaggle::wire::heartbeat::Duty;
use gaggle::wire::peer::PeerMessage;

use super::faults::Kind;
use super::load::Loads;
use super::named;
use super::shape::{Logs, Posts};
use super::world::World;

/// A known bug.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mutant {
    /// The store commits under any epoch (P6).
    NoFence,
    /// The epoch is compared when a write is handed over, not in the transaction that commits it (P6).
    FenceOutside,
    /// A host remembers only the request ids that it took itself (P2).
    LocalRequestIds,
    /// People forget what they have seen (P3).
    NoToken,
    /// Entries are applied in whatever order they come (P4).
    NoCausalGate,
    /// The store answers before it has synced (P1).
    AckBeforeSync,
    /// The relay reads what is not synced yet (P1).
    ServeBeforeSync,
    /// After a restore the host goes on under its old incarnation, whatever others hold (P5).
    OldIncarnation,
    /// A contested name belongs to whoever claimed it last (P5).
    LastClaimWins,
    /// A heartbeat is taken for that of another process (P10).
    WrongSender,
    /// A snapshot names the vector of its end, not of its beginning (P5).
    SnapshotOfTheEnd,
    /// A broken snapshot goes on behind the key at which it should (P5).
    ResumeSkipsAKey,
    /// A stream goes on one entry too late (P7).
    ResumesOneLate,
    /// A run that comes back late from the store stands before those that it waits for ([`super::line`], P7).
    LateRunFirst,
    /// A host does not remember what it was trimmed to: posts that come late are kept (P5).
    ForgetsTheTrim,
    /// Other hosts are sent one host's entries with other bytes, which change nothing else: only digests of the log tell
    /// (P5).
    OtherBytes,
    /// No host learns that all understand the entry which says where an origin ends: tokens grow for ever (P7).
    NeverEnds,
    /// A feed goes on from a cursor as the client gave it, without the origins that it only implies (P8).
    ForgetsTheImplied,
    /// A primary never hears what other hosts hold: each write waits for copies that were made long ago (P1).
    DeafToCopies,
    /// The cursor of a page stands behind posts that had no room in it (P8).
    PassesOver,
}

impl Mutant {
    pub(crate) const ALL: [Self; 20] = [
        Self::NoFence,
        Self::FenceOutside,
        Self::LocalRequestIds,
        Self::NoToken,
        Self::NoCausalGate,
        Self::AckBeforeSync,
        Self::ServeBeforeSync,
        Self::OldIncarnation,
        Self::LastClaimWins,
        Self::WrongSender,
        Self::SnapshotOfTheEnd,
        Self::ResumeSkipsAKey,
        Self::ResumesOneLate,
        Self::LateRunFirst,
        Self::ForgetsTheTrim,
        Self::OtherBytes,
        Self::NeverEnds,
        Self::ForgetsTheImplied,
        Self::DeafToCopies,
        Self::PassesOver,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::NoFence => "no-fence",
            Self::FenceOutside => "fence-outside",
            Self::LocalRequestIds => "local-request-ids",
            Self::NoToken => "no-token",
            Self::NoCausalGate => "no-causal-gate",
            Self::AckBeforeSync => "ack-before-sync",
            Self::ServeBeforeSync => "serve-before-sync",
            Self::OldIncarnation => "old-incarnation",
            Self::LastClaimWins => "last-claim-wins",
            Self::WrongSender => "wrong-sender",
            Self::SnapshotOfTheEnd => "snapshot-of-the-end",
            Self::ResumeSkipsAKey => "resume-skips-a-key",
            Self::ResumesOneLate => "resumes-one-late",
            Self::LateRunFirst => "late-run-first",
            Self::ForgetsTheTrim => "forgets-the-trim",
            Self::OtherBytes => "other-bytes",
            Self::NeverEnds => "never-ends",
            Self::ForgetsTheImplied => "forgets-the-implied",
            Self::DeafToCopies => "deaf-to-copies",
            Self::PassesOver => "passes-over",
        }
    }
}

impl Mutant {
    /// Faults without which it cannot show itself: a hunt always has them.
    pub(crate) fn needs(self) -> &'static [Kind] {
        match self {
            Self::ServeBeforeSync => {
                &[Kind::KillHolder(Duty::Serve), Kind::KillHolder(Duty::Relay), Kind::KillHost, Kind::SlowDisk]
            }
            Self::OldIncarnation => &[Kind::Restore, Kind::Cut, Kind::CutOneWay],
            Self::SnapshotOfTheEnd => &[Kind::LoseDisk, Kind::SlowDisk, Kind::Dark],
            Self::ResumeSkipsAKey => {
                &[Kind::LoseDisk, Kind::SlowDisk, Kind::KillHolder(Duty::Serve), Kind::KillHolder(Duty::Relay)]
            }
            Self::LocalRequestIds | Self::LastClaimWins | Self::ForgetsTheTrim => &[Kind::Cut],
            Self::NoCausalGate => &[Kind::CutOneWay, Kind::Stop],
            Self::NeverEnds => &[Kind::Restore],
            Self::ForgetsTheImplied => &[Kind::Restore, Kind::KillHost, Kind::LoseDisk],
            Self::LateRunFirst => &[Kind::Weather, Kind::SlowDisk, Kind::CutOneWay],
            Self::NoFence
            | Self::FenceOutside
            | Self::NoToken
            | Self::AckBeforeSync
            | Self::WrongSender
            | Self::ResumesOneLate
            | Self::OtherBytes
            | Self::DeafToCopies
            | Self::PassesOver => &[],
        }
    }

    /// The load without which it cannot show itself; none if any will do.
    pub(crate) fn loads(self) -> Option<Loads> {
        (self == Self::LateRunFirst).then_some(Loads::Heavy)
    }

    pub(crate) fn logs(self) -> Logs {
        if matches!(self, Self::SnapshotOfTheEnd | Self::ResumeSkipsAKey) { Logs::Short } else { Logs::Any }
    }

    pub(crate) fn posts(self) -> Posts {
        if self == Self::ForgetsTheTrim { Posts::Few } else { Posts::Any }
    }
}

impl std::str::FromStr for Mutant {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        named(&Self::ALL, Self::name, "mutant", name)
    }
}

impl World {
    pub(crate) fn is(&self, mutant: Mutant) -> bool {
        self.options.mutant == Some(mutant)
    }

    /// What a mutant's process sends instead.
    pub(crate) fn changed_on_its_way(&self, proc: usize, mut message: PeerMessage) -> PeerMessage {
        if self.is(Mutant::NoCausalGate)
            && let PeerMessage::Batch { runs, .. } = &mut message
        {
            for bytes in runs.iter_mut().flat_map(|run| &mut run.entries) {
                if let Ok(entry) = Entry::decode(bytes) {
                    *bytes = Entry { after: Vector::new(), ..entry }.encode();
                }
            }
        }
        if self.is(Mutant::OtherBytes)
            && self.procs[proc].host == 0
            && let PeerMessage::Batch { runs, .. } = &mut message
        {
            let own = runs.iter_mut().filter(|run| run.origin.host == self.topology.hosts[0].id);
            for bytes in own.flat_map(|run| &mut run.entries) {
                if let Ok(mut entry) = Entry::decode(bytes) {
                    // That it comes after the one before it goes without saying.
                    entry.after.set(entry.id.origin, Seq(entry.id.seq.0 - 1));
                    *bytes = entry.encode();
                }
            }
        }
        if self.is(Mutant::NeverEnds)
            && let PeerMessage::Report(report) = &mut message
        {
            report.wire = RETIREMENTS - 1;
        }
        if self.is(Mutant::DeafToCopies)
            && let PeerMessage::Copies { vector, .. } = &mut message
        {
            *vector = Vector::new();
        }
        if self.is(Mutant::OldIncarnation)
            && let PeerMessage::Recalled { vector } = &mut message
        {
            *vector = Vector::new();
        }
        if self.is(Mutant::SnapshotOfTheEnd)
            && let PeerMessage::SnapshotRows { part, .. } = &mut message
            && part.next.is_some()
        {
            // Only the last part's vector counts then.
            part.vector = part.vector.iter().map(|(origin, _)| (origin, Seq(u64::MAX - 1))).collect();
        }
        if self.is(Mutant::ResumeSkipsAKey) {
            // The relay begins behind the key that it was asked for, and says that it did not. No key ends so.
            if let PeerMessage::SnapshotWanted { at, .. } = &mut message
                && !at.is_empty()
            {
                at.push(0);
            }
            if let PeerMessage::SnapshotRows { part, .. } = &mut message {
                part.at.pop_if(|last| *last == 0);
            }
        }
        if self.is(Mutant::ResumesOneLate)
            && let PeerMessage::Batch { runs, .. } = &mut message
            && let Some(run) = runs.first_mut().filter(|run| run.entries.len() > 1)
        {
            run.entries.remove(0);
            run.from = Seq(run.from.0 + 1);
        }
        message
    }

    /// What a mutant's process reads instead.
    pub(crate) fn changed_before_read(&self, mut read: Output) -> Output {
        if self.is(Mutant::ForgetsTheImplied)
            && let Output::ReadFeeds { from, .. } = &mut read
        {
            self.history.retired.shorten(from, |_| true);
        }
        read
    }

    /// What a mutant's process answers instead.
    pub(crate) fn changed_answer(&self, shown: &Vector, mut result: QueryResult) -> QueryResult {
        if self.is(Mutant::PassesOver)
            && let Ok(Answer::Posts { cursor, .. }) = &mut result
        {
            cursor.merge(shown);
        }
        result
    }

    /// Who seems to have sent a datagram.
    pub(crate) fn seeming_sender(&mut self, from: usize, to: usize) -> usize {
        if self.is(Mutant::WrongSender) && self.dice.chance(50) {
            let other = self.dice.index(self.procs.len());
            return if other == to { from } else { other };
        }
        from
    }
}

/// Rows as a mutant's process sees them.
pub(crate) struct Seen<R> {
    rows: R,
    mutant: Option<Mutant>,
    host: HostId,
}

impl<R> Seen<R> {
    pub(crate) fn new(rows: R, mutant: Option<Mutant>, host: HostId) -> Self {
        Self { rows, mutant, host }
    }

    pub(crate) fn into_rows(self) -> R {
        self.rows
    }

    /// Turns the stamp in a key of Names round, so that the last claim comes first; twice is as before.
    fn turned<'a>(&self, table: Table, key: &'a [u8]) -> Cow<'a, [u8]> {
        const USER: usize = 16;
        const STAMP: usize = 28;
        let mut key = Cow::Borrowed(key);
        let turns = self.mutant == Some(Mutant::LastClaimWins) && table == Table::Names;
        if turns && let Some(at) = key.len().checked_sub(STAMP + USER + 1) {
            key.to_mut()[at + 1..at + 1 + STAMP].iter_mut().for_each(|byte| *byte = !*byte);
        }
        key
    }
}

impl<R: Rows> Rows for Seen<R> {
    fn count(&self, table: Table) -> u64 {
        self.rows.count(table)
    }

    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>> {
        let value = self.rows.get(table, &self.turned(table, key))?;
        let forgetful = self.mutant == Some(Mutant::LocalRequestIds) && table == Table::Requests;
        if self.mutant == Some(Mutant::ForgetsTheTrim) && table == Table::Meta && key == b"trim" {
            return None;
        }
        // The value names the hosts of the entries that carry the id.
        let knows = || {
            let name = self.host.to_string();
            value.windows(name.len()).any(|part| part == name.as_bytes())
        };
        (!forgetful || knows()).then_some(value)
    }

    fn ascend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk) {
        self.rows.ascend(table, from, to, &mut |key, value| visit(&self.turned(table, key), value));
    }

    fn descend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk) {
        self.rows.descend(table, from, to, &mut |key, value| visit(&self.turned(table, key), value));
    }
}

impl<R: RowsMut> RowsMut for Seen<R> {
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]) {
        let key = self.turned(table, key);
        self.rows.put(table, &key, value);
    }

    fn delete(&mut self, table: Table, key: &[u8]) {
        let key = self.turned(table, key);
        self.rows.delete(table, &key);
    }
}
