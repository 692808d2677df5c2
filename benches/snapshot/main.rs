//! What a snapshot costs: `cargo bench --bench snapshot` (`-- --help` for more).
//!
//! Fills the stores of two hosts of the reference topology with the same posts, and leaves the third host's folder
//! empty; the log is short, so that only a snapshot helps. Measures the two ends of a snapshot alone (reading, merging),
//! and then the whole between real processes: how long until the empty host holds everything, the memory of the
//! processes at both ends, and the latency of people's posts before it and meanwhile. With `--log` the log is long, and
//! the same is measured of catching up from the log.
//!
//! All happens in a temporary folder. Nothing is asserted: the figures are for people.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on has nothing to say")]
#![expect(clippy::disallowed_methods, reason = "a measurement reads the clock")]

mod fill;
mod mesh;
mod people;

use std::time::{Duration, Instant};

use clap::Parser;
use gaggle::id::{Epoch, HostId, Seq, Vector};
use gaggle::limits;
use gaggle::service::ledger::{Write, WriteId, WriterMark, Wrote};
use gaggle::service::snapshot::{self, Chunk, Part};
use gaggle::store::{LmdbStore, Store, StoreIdentity};
use gaggle::time::Wall;
use tempfile::TempDir;

/// Measures a snapshot.
#[expect(clippy::struct_excessive_bools, reason = "flags of a command")]
#[derive(Debug, Clone, Parser)]
struct Arguments {
    /// Posts that the snapshot holds.
    #[arg(long, default_value_t = 1_000_000)]
    posts: u64,
    /// Their authors.
    #[arg(long, default_value_t = 1_000)]
    people: u64,
    /// Characters of a post.
    #[arg(long, default_value_t = 120)]
    chars: usize,
    /// People who post meanwhile, each one post after the other.
    #[arg(long, default_value_t = 8)]
    clients: usize,
    /// How long each of them waits after an answer, in milliseconds.
    #[arg(long, default_value_t = 10)]
    pause_ms: u64,
    /// How long the latency is measured before the empty host starts, in seconds.
    #[arg(long, default_value_t = 8)]
    before: u64,
    /// The first of eleven UDP ports.
    #[arg(long, default_value_t = 22_000)]
    port: u16,
    /// Keep the log whole: the empty host catches up from it.
    #[arg(long)]
    log: bool,
    /// Measure the two ends alone, without processes.
    #[arg(long)]
    alone: bool,
    /// Said by `cargo bench`.
    #[arg(long, hide = true)]
    bench: bool,
}

/// What a snapshot is.
struct Size {
    rows: u64,
    bytes: u64,
}

const MARK_PID: u32 = 1;

fn main() {
    let arguments = Arguments::parse();
    let folder = TempDir::with_prefix("gaggle-snapshot-").unwrap();
    let begun = Instant::now();
    let filled: Vec<LmdbStore> = std::thread::scope(|scope| {
        let fill = |host| {
            let (arguments, folder) = (&arguments, folder.path());
            scope.spawn(move || fill::fill(arguments, folder, host))
        };
        let threads = ["lenss1", "lenss3"].map(fill);
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    println!("filled two stores with {} posts in {:.1} s", arguments.posts, begun.elapsed().as_secs_f64());
    let size = measure_ends(&filled[1]);
    drop(filled);
    if !arguments.alone {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(mesh::measure(&arguments, folder.path(), &size));
    }
}

fn identity(host: HostId) -> StoreIdentity {
    StoreIdentity { cluster: "lenss".to_owned(), host }
}

/// Opens a host's folder and takes an epoch.
fn open(folder: &std::path::Path, host: HostId) -> (LmdbStore, Epoch) {
    let store = LmdbStore::open(folder, &identity(host)).unwrap();
    let epoch = store.take_epoch(&WriterMark { process: "W0".parse().unwrap(), pid: MARK_PID }).unwrap().epoch;
    (store, epoch)
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}

fn rate(bytes: u64, took: Duration) -> f64 {
    megabytes(bytes) / took.as_secs_f64().max(1e-9)
}

/// Reads all of a store as a relay does, and merges it into an empty one as a primary does, each chunk in a commit of
/// its own.
fn measure_ends(from: &LmdbStore) -> Size {
    let folder = TempDir::with_prefix("gaggle-snapshot-").unwrap();
    let (into, epoch) = open(folder.path(), "empty".parse().unwrap());
    let mut size = Size { rows: 0, bytes: 0 };
    let (mut reading, mut merging) = (Duration::ZERO, Duration::ZERO);
    let (mut longest_read, mut longest_merge) = (Duration::ZERO, Duration::ZERO);
    let mut at = Some(Vec::new());
    let mut id = 0;
    let vector: Vector = [(fill::origin(), Seq(u64::MAX - 1))].into_iter().collect();
    while let Some(place) = at {
        let started = Instant::now();
        let chunk = read(from, &place);
        reading += started.elapsed();
        longest_read = longest_read.max(started.elapsed());
        size.bytes += u64::try_from(chunk.bytes.len()).unwrap();
        size.rows += chunk.rows;
        let started = Instant::now();
        id += 1;
        let part = Part { at: place, bytes: chunk.bytes, next: chunk.next.clone(), vector: vector.clone() };
        let done = into.commit(epoch, Wall(0), vec![(WriteId(id), Write::Rows(part))]).unwrap();
        assert_eq!(done.outcomes, [(WriteId(id), Wrote::Done)]);
        merging += started.elapsed();
        longest_merge = longest_merge.max(started.elapsed());
        at = chunk.next;
    }
    println!("\n{:8} {:>9} {:>9} {:>8} {:>9} {:>10}", "ALONE", "ROWS", "MB", "S", "MB/S", "WORST MS");
    for (what, took, worst) in [("read", reading, longest_read), ("merge", merging, longest_merge)] {
        println!(
            "{what:8} {:>9} {:>9.1} {:>8.2} {:>9.1} {:>10.2}",
            size.rows,
            megabytes(size.bytes),
            took.as_secs_f64(),
            rate(size.bytes, took),
            worst.as_secs_f64() * 1e3
        );
    }
    size
}

fn read(from: &LmdbStore, at: &[u8]) -> Chunk {
    let mut chunk = None;
    from.read(&mut |rows| chunk = Some(snapshot::read_chunk(rows, at, limits::SNAPSHOT_BYTES_MAX))).unwrap();
    chunk.unwrap()
}
