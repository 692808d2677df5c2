//! What a part of a snapshot told, and nobody holds any more.
//!
//! A part brings rows of all that its sender held when it read them. Entries among them that the receiver does not hold
//! yet come by the sender's log when the snapshot is whole; until then nothing shows their rows, and no request finds its
//! answer in them. But a sender may lose its disk before, with the only copy. Then the rows would stay at the receiver
//! alone, which would never again be equal to the others (P5). So each host remembers how far parts were *ahead* of it,
//! and when nobody has that any more, it walks its requests, some at a time, and takes out what it does not hold.
//!
//! A walk at the wrong time costs work and no data: what is taken out is not held, so it comes again from whoever holds it.

use serde::{Deserialize, Serialize};

use crate::id::{RequestId, UserId, Vector};
use crate::limits;
use crate::service::digested::Digested;
use crate::service::keys;
use crate::service::records::{self, RequestRow};
use crate::service::rows::{Rows, Table, Walk};
use crate::service::rules;
use crate::time::Hlc;

/// How far parts of snapshots told of more than is held.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Ahead {
    /// What the senders held.
    pub(super) vector: Vector,
    /// Requests below this key hold nothing of it any more.
    swept: Vec<u8>,
}

impl Ahead {
    /// A part came that was read at this vector.
    pub(super) fn on_part(&mut self, vector: &Vector) {
        self.vector.merge(vector);
        self.swept.clear();
    }

    /// Forgets what is held by now.
    pub(super) fn on_held(&mut self, held: &Vector) {
        if !self.vector.is_empty() && held.covers(&self.vector) {
            *self = Self::default();
        }
    }

    /// Takes out what is not held, of so many requests at most that one step is a few milliseconds.
    pub(super) fn sweep(&mut self, rows: &mut Digested<'_>, trim: Hlc, held: &Vector) {
        let mut found = Vec::new();
        let (mut looked, mut next) = (0, None);
        rows.ascend(Table::Requests, &self.swept, &[], &mut |key, value| {
            if looked == limits::SWEEP_ROWS_MAX {
                next = Some(key.to_vec());
                return Walk::Stop;
            }
            looked += 1;
            let row = records::decode::<RequestRow>(value).filter(|row| !all_held(row, held));
            found.extend(row.and_then(|row| keys::parse_request(key).map(|(user, id)| (user, id, row))));
            Walk::On
        });
        for (user, id, row) in found {
            take_out(rows, trim, held, user, &id, &row);
        }
        match next {
            Some(key) => self.swept = key,
            None => *self = Self::default(),
        }
    }
}

fn all_held(row: &RequestRow, held: &Vector) -> bool {
    row.entries.iter().all(|known| held.holds(known.id()))
}

/// Leaves of a request what is held.
fn take_out(rows: &mut Digested<'_>, trim: Hlc, held: &Vector, user: UserId, id: &RequestId, row: &RequestRow) {
    let Some(left) = row.clone().held_in(held) else { return rules::remove(rows, user, id, row) };
    // Without it, somebody has used one id for two things, and the log with the other one is cut: it stays as it is.
    let Some(op) = row.operation(rows, trim, user, &left.entries[0]) else { return };
    rules::remove(rows, user, id, row);
    rules::merge(rows, trim, user, id, left.entries, &op);
}
