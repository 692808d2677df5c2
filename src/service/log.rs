//! Reading the log: the entries of several origins as one stream in causal order.
//!
//! An entry's stamp is above those of all that its host held when it made it, so the order of stamps is an order in
//! which nothing comes before what it depends on: whoever takes such a stream in never has to wait within it.

use std::collections::VecDeque;

use crate::id::{EntryId, Origin, Seq};
use crate::limits;
use crate::service::keys;
use crate::service::ledger::{self, EntryRun, LogChunk};
use crate::service::rows::{Rows, Table, Walk};
use crate::time::Hlc;

/// Entries read ahead from one origin's log.
const READ_AHEAD: usize = 64;

/// One origin's log from a place on.
struct Strand {
    origin: Origin,
    read: Seq,
    upto: Seq,
    ready: VecDeque<(Hlc, Seq, Vec<u8>)>,
}

impl Strand {
    fn refill(&mut self, rows: &dyn Rows) {
        if !self.ready.is_empty() || self.read >= self.upto {
            return;
        }
        let (upto, ready) = (self.upto, &mut self.ready);
        let mut read = upto;
        walk(rows, self.origin, self.read, &mut |seq, bytes| {
            // The first fields of an entry; bytes that are none were noticed by the store, and end the strand.
            let head = postcard::take_from_bytes::<(EntryId, Hlc)>(bytes);
            let Ok(((_, hlc), _)) = head else { return Walk::Stop };
            if seq > upto || ready.len() >= READ_AHEAD {
                return Walk::Stop;
            }
            ready.push_back((hlc, seq, bytes.to_vec()));
            read = seq;
            Walk::On
        });
        self.read = read;
    }
}

/// Reads entries after each of these places, in causal order: at most so many bytes and `BATCH_RUNS_MAX` runs, but at
/// least one entry.
pub fn read_log(rows: &dyn Rows, after: &[(Origin, Seq)], bytes_max: usize) -> LogChunk {
    let standing = ledger::standing(rows);
    let is_cut = |(origin, seq): &(Origin, Seq)| *seq < standing.cut.get(*origin);
    let cut = after.iter().filter(|place| is_cut(place)).map(|(origin, _)| *origin).collect();
    let mut strands: Vec<Strand> = after
        .iter()
        .filter(|place| !is_cut(place))
        .map(|(origin, seq)| Strand {
            origin: *origin,
            read: *seq,
            upto: standing.vector.get(*origin),
            ready: VecDeque::new(),
        })
        .collect();
    let mut runs: Vec<EntryRun> = Vec::new();
    let mut bytes = 0;
    loop {
        strands.iter_mut().for_each(|strand| strand.refill(rows));
        let first = strands.iter_mut().filter(|strand| !strand.ready.is_empty());
        let first = first.min_by_key(|strand| (strand.ready.front().map(|(hlc, ..)| *hlc), strand.origin));
        let Some(strand) = first else { break };
        let Some((_, seq, entry)) = strand.ready.pop_front() else { break };
        if bytes > 0 && bytes + entry.len() > bytes_max {
            break;
        }
        bytes += entry.len();
        let turns = runs.len();
        match runs.last_mut().filter(|run| run.origin == strand.origin) {
            Some(run) => run.entries.push(entry),
            None if turns >= limits::BATCH_RUNS_MAX => break,
            None => runs.push(EntryRun { origin: strand.origin, from: seq, entries: vec![entry] }),
        }
    }
    LogChunk { runs, cut, standing }
}

/// Visits an origin's entries after this place, as long as there is no gap.
pub(super) fn walk(rows: &dyn Rows, origin: Origin, after: Seq, visit: &mut dyn FnMut(Seq, &[u8]) -> Walk) {
    let Some(mut expected) = after.0.checked_add(1).map(Seq) else { return };
    let from = keys::log(EntryId { origin, seq: expected });
    rows.ascend(Table::Log, &from, &keys::end(&keys::origin(origin)), &mut |key, value| {
        if key != keys::log(EntryId { origin, seq: expected }) {
            return Walk::Stop;
        }
        let walk = visit(expected, value);
        expected = Seq(expected.0.saturating_add(1));
        walk
    });
}
