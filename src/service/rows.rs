//! What the service needs of a store: ordered tables of bytes.
//!
//! A store implements [`Rows`] for a read transaction and [`RowsMut`] for a write transaction; it knows nothing of what
//! the rows mean. Values are handed over without the store's own checksum. An implementation never fails here: a store
//! that meets an I/O error or a bad checksum keeps it aside, answers as if there were no row, and fails the whole
//! transaction at its end, so that nothing is committed or answered from it.

/// The tables, each with its own key space. The number is part of the disk format.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Table {
    /// Epoch, writer, own origin, vector, clock, digests: what the host knows about itself.
    Meta = 0,
    /// origin, seq -> entry: what relays read.
    Log = 1,
    /// user, stamp -> registration; the first counts.
    Users = 2,
    /// folded name, stamp, user -> the claim as LIST shows it; the first owns the name.
    Names = 3,
    /// user, request id -> the entries that carry it.
    Requests = 4,
    /// author, stamp -> post. The first entry with a request id has the effect; its row names the others.
    Posts = 5,
    /// follower, followee, stamp -> join or leave.
    Edges = 6,
    /// followee, follower -> (): the inverse of the edges that stand.
    JoinedBy = 7,
}

impl Table {
    /// Every table, in the order of their numbers.
    pub const ALL: [Self; 8] =
        [Self::Meta, Self::Log, Self::Users, Self::Names, Self::Requests, Self::Posts, Self::Edges, Self::JoinedBy];

    /// Whether the rows are part of the merged state, which the digest covers.
    pub const fn merged(self) -> bool {
        match self {
            Self::Meta | Self::Log => false,
            Self::Users | Self::Names | Self::Requests | Self::Posts | Self::Edges | Self::JoinedBy => true,
        }
    }
}

/// Whether a walk goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// Show me the next row.
    On,
    /// Enough.
    Stop,
}

/// One consistent view of all tables. The service asks for no range with `from > to`, unless `to` is empty.
pub trait Rows {
    /// How many rows a table has. Stores that know it need not count.
    fn count(&self, table: Table) -> u64 {
        let mut count = 0;
        self.ascend(table, &[], &[], &mut |_, _| {
            count += 1;
            Walk::On
        });
        count
    }

    /// The value at a key.
    fn get(&self, table: Table, key: &[u8]) -> Option<Vec<u8>>;

    /// Visits the rows with `from <= key < to` in ascending order (`to` empty: to the end of the table).
    fn ascend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk);

    /// Visits the rows with `from <= key < to` in descending order (`to` empty: from the end of the table).
    fn descend(&self, table: Table, from: &[u8], to: &[u8], visit: &mut dyn FnMut(&[u8], &[u8]) -> Walk);
}

/// A view that can be changed, and sees its own changes.
pub trait RowsMut: Rows {
    /// Writes a row, in place of the one that is there.
    fn put(&mut self, table: Table, key: &[u8], value: &[u8]);

    /// Takes a row out, if it is there.
    fn delete(&mut self, table: Table, key: &[u8]);
}
