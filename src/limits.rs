//! Every maximum and every interval, each with its unit and its reason, in one place (P9).
//!
//! What happens at a limit is typed: a refusal ([`crate::error::ErrorCode`]), a closed connection, or, for what this
//! process itself makes, an assertion. Relations between limits are checked when this file is compiled.

use std::time::Duration;

/// Characters of a post: a screenful; people write less.
pub const POST_CHARS_MAX: usize = 1_000;
/// Hosts of a topology: a heartbeat names one host in turn, so more would spread too slowly.
pub const HOSTS_MAX: usize = 16;
/// Processes of a host: each watches every other, so the cost grows with the square.
pub const HOST_PROCESSES_MAX: usize = 16;
/// Bytes of one frame on a stream, its length prefix left out. Above: the connection is closed.
pub const FRAME_BYTES_MAX: usize = 4 << 20;
/// Bytes of one frame of a client: a post, a token and a cursor. Above: the connection is closed.
pub const CLIENT_FRAME_BYTES_MAX: usize = 32 << 10;
/// Origins that a client's token or cursor names: sixteen for each host. Each is looked up at every commit while the
/// request waits, so longer ones are refused.
pub const TOKEN_ORIGINS_MAX: usize = 16 * HOSTS_MAX;
/// Bytes of one encoded origin and its seq: a host's name, a number of five bytes, one of ten.
const ORIGIN_BYTES_MAX: usize = 17 + 5 + 10;
/// Bytes of one heartbeat: fits the smallest QUIC datagram that every path carries.
pub const HEARTBEAT_BYTES_MAX: usize = 1_000;
/// Bytes of entries in one replication batch: large enough that a sync is shared, small enough to stay a blink.
pub const BATCH_BYTES_MAX: usize = 512 << 10;
/// Batches sent to one host and not yet acknowledged; those that bring what it lacks of others may be as many again.
pub const BATCHES_IN_FLIGHT_MAX: usize = 8;
/// Runs of entries in one batch: where origins take turns, each turn is a run, and each run a write at the receiver.
pub const BATCH_RUNS_MAX: usize = 256;
/// Runs that wait at a receiver for what they depend on, for each sender. Above: the stream is opened anew.
pub const RUNS_WAITING_MAX: usize = 2 * BATCHES_IN_FLIGHT_MAX * BATCH_RUNS_MAX;
/// Bytes of one encoded entry: a post of 1,000 four-byte characters and its ids.
pub const ENTRY_BYTES_MAX: usize = 8 << 10;
/// Requests that a client may have waiting on one connection. Above: `Busy`.
pub const CLIENT_REQUESTS_MAX: usize = 1_024;
/// Live feeds on one connection. Above: `Busy`.
pub const CLIENT_FEEDS_MAX: usize = 16;
/// Client connections of one process. Above: refused before the handshake.
pub const CLIENTS_MAX: usize = 8_192;
/// Writes that wait for the store or for copies, in one process. Above: `Busy`.
pub const WRITES_WAITING_MAX: usize = 65_536;
/// Requests that wait for the host to hold their token.
pub const TOKEN_WAITS_MAX: usize = 16_384;
/// Inputs that wait for the driver; the sender of one more waits.
pub const INPUTS_WAITING_MAX: usize = 4_096;
/// Of these, requests of one client's connection: others wait behind that many of its at most.
pub const CLIENT_INPUTS_WAITING_MAX: usize = 32;
/// Frames that wait to be written to one peer. Above: dropped, and the link starts anew.
pub const PEER_FRAMES_WAITING_MAX: usize = 1_024;
/// Responses that wait to be written to one client. Above: the connection is closed.
pub const CLIENT_FRAMES_WAITING_MAX: usize = 4_096;
/// Posts of one `timeline` call.
pub const TIMELINE_POSTS_MAX: u32 = 100_000;
/// Posts of one answer: the client asks again for more, so that no frame nears its limit.
pub const ANSWER_POSTS_MAX: u32 = 500;
/// Bytes of posts in one answer or feed item.
pub const ANSWER_BYTES_MAX: usize = 1 << 20;
/// Names in one answer of LIST; the client asks again for more.
pub const ANSWER_NAMES_MAX: u32 = 10_000;
/// Posts that CHAT and `timeline` show unless told.
pub const TIMELINE_POSTS: u32 = 20;
/// Entries that one read for feeds walks through.
pub const FEED_ENTRIES_MAX: usize = 1_024;
/// Posts that a feed is told at once when a join arrives after them; older ones are only in the timeline. A partition
/// makes as many; together with a full answer they fit in a frame.
pub const FEED_LATE_POSTS_MAX: usize = 500;
/// Bidirectional streams of a connection (4,096 cost 370 kB each connection, 100 cost 38 kB).
pub const STREAMS_MAX: u32 = 100;
/// Handshakes under way before clients are asked to prove their address (QUIC Retry).
pub const HANDSHAKES_MAX: usize = 64;
/// UDP socket buffers, bytes.
pub const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// Writes folded into one transaction: bounds how long the writer thread holds its lock.
pub const COMMIT_WRITES_MAX: usize = 4_096;
/// Entries of one origin that leave the log at once: a few milliseconds of the store's lock.
pub const CUT_ENTRIES_MAX: u64 = 8_192;
/// Entries of one origin that have one digest: a comparison costs next to nothing, and names a place in the log.
pub const LOG_BLOCK_ENTRIES: u64 = 1_024;
/// Digests that are kept of one origin: more entries than a host under load lags behind, so that it is compared as well.
pub const LOG_BLOCKS_KEPT: u64 = 64;
/// Origins whose digests are told to another host at once.
pub const LOG_DIGESTS_ORIGINS_MAX: usize = 16;
/// Digests of one message; what is above is not looked at.
pub const LOG_DIGESTS_MAX: usize = 1_024;
/// Blocks of the log that a host remembers to differ from another's: the first ones tell enough.
pub const LOG_DIFFERENCES_MAX: usize = 16;
/// Rows that one trim of posts removes, but for what comes late: some tens of milliseconds of the store's lock.
pub const TRIM_ROWS_MAX: usize = 8_192;
/// Requests that are looked through at once for what nobody holds any more: some milliseconds of the store's lock.
pub const SWEEP_ROWS_MAX: usize = 8_192;
/// Bytes by which the store may grow while a process of the host is stopped: then it is killed, because it probably holds a
/// read, which keeps all pages that were freed since from being used again.
pub const STOPPED_GROWTH_MAX: u64 = 256 << 20;
/// Bytes by which the store may grow before the slots of readers that died are looked for: a backup that is killed leaves
/// one, and no death of a process of the host tells of it. A look costs microseconds.
pub const STALE_GROWTH_MAX: u64 = 16 << 20;
/// Bytes of rows that a backup puts under one checksum, but for a longer row.
pub const BACKUP_CHUNK_BYTES: usize = 256 << 10;
/// Bytes of one frame of a backup: no row is near it. Above: refused, and nothing is allocated.
pub const BACKUP_FRAME_BYTES_MAX: usize = 16 << 20;
/// Bytes of the rows in which a host tells of itself: some hundred for each origin that there ever was. A backup's are
/// held in memory while it is checked.
pub const BACKUP_META_BYTES_MAX: u64 = 16 << 20;
/// Bytes of rows that a restore writes in one transaction: each waits for two syncs.
pub const RESTORE_BATCH_BYTES: usize = 8 << 20;
/// The size of the LMDB map, bytes: address space, not disk.
pub const STORE_BYTES_MAX: usize = 1 << 38;
/// Rows of one part of a snapshot are bounded by these bytes: a read of half a millisecond, which is done where the
/// sender's other work is.
pub const SNAPSHOT_BYTES_MAX: usize = 128 << 10;
/// Parts of a snapshot sent to one host and not yet on its disk: 2 MiB. What has come is merged in one commit, so this
/// bounds how long the receiver's writer holds its lock (about 30 ms: 3 us a row), and the memory of a snapshot at both
/// ends. Less would sync more often: each commit waits for two syncs.
pub const SNAPSHOT_PARTS_IN_FLIGHT_MAX: usize = 16;
/// Bytes of a key at which a snapshot goes on: a user and a request id are shorter.
pub const SNAPSHOT_KEY_BYTES_MAX: usize = 128;

/// Relays of different hosts: half of what finds a dead host in under 200 ms.
pub const HEARTBEAT_RELAYS: Duration = Duration::from_millis(25);
/// Masters of different hosts.
pub const HEARTBEAT_MASTERS: Duration = Duration::from_millis(50);
/// Inside a host, where the kernel tells of deaths (all at 25 ms would cost 10 % of a core when idle).
pub const HEARTBEAT_SIBLINGS: Duration = Duration::from_millis(250);
/// A look at the state of siblings that run, for SIGSTOP.
pub const PROC_LOOK: Duration = Duration::from_millis(50);
/// A sibling that is neither dead nor stopped is deposed only after this silence.
pub const SIBLING_SILENCE: Duration = Duration::from_secs(1);
/// Silence between hosts is never suspicious below this; at full load gaps of 150 ms are normal.
pub const HOST_SILENCE_FLOOR: Duration = Duration::from_millis(150);
/// Silence between hosts is always suspicious above this.
pub const HOST_SILENCE_CEILING: Duration = Duration::from_millis(2_000);
/// Without a death, a duty moves at most once in this time.
pub const DUTY_HOLD: Duration = Duration::from_secs(2);
/// Clients are not told that a host lacks a primary before it has lacked one for this long: an election takes a tenth.
pub const SUCCESSION_WAIT: Duration = Duration::from_millis(40);
/// How long a candidate waits for a better one to answer, and then for it to take over.
pub const ELECTION_WAIT: Duration = Duration::from_millis(300);
/// A write waits this long for its copies; then the answer says how many there are.
pub const COPIES_WAIT: Duration = Duration::from_millis(500);
/// A request waits this long for its token; then the client is sent elsewhere, or told what is missing.
pub const TOKEN_WAIT: Duration = Duration::from_millis(300);
/// Other origins' entries are sent when the receiver has lacked them for this long.
pub const FORWARD_AFTER: Duration = Duration::from_millis(200);
/// A snapshot is offered again after this while its receiver takes none, or one from elsewhere; and one of which
/// nothing more comes for this long is taken from whoever offers it next.
pub const SNAPSHOT_SILENCE: Duration = Duration::from_secs(1);
/// A receiver that has not answered for this long is asked anew where it stands.
pub const REPLICATION_SILENCE: Duration = Duration::from_secs(1);
/// A stream is opened anew, with a warning, when its receiver talks but acknowledges nothing of what is in flight for this
/// long: one that is in order needs less for a batch, unless it waits for a host that it is cut off from. Then each
/// time this doubles.
pub const REPLICATION_STANDSTILL: Duration = Duration::from_secs(10);
/// The longest that it becomes.
pub const REPLICATION_STANDSTILL_MAX: Duration = Duration::from_secs(640);
/// How long the first primary after a stop of its whole host waits for the other hosts' answers.
pub const RECALL_WAIT: Duration = Duration::from_millis(1_000);
/// A holder of the store's write lock that runs or waits for the disk is killed after this.
pub const LOCK_HOLDER_WAIT: Duration = Duration::from_secs(5);
/// First and longest pause before a dead process is started again.
pub const RESTART_BACKOFF: Duration = Duration::from_millis(100);
/// The longest pause before a restart.
pub const RESTART_BACKOFF_MAX: Duration = Duration::from_secs(5);
/// A process that lived this long is restarted without backoff.
pub const RESTART_FORGIVEN: Duration = Duration::from_secs(10);
/// A client asks the next director when this one is silent (as RFC 8305 does).
pub const DIRECTOR_STAGGER: Duration = Duration::from_millis(30);
/// A client with a request under way looks for another way when its server is silent for this long.
/// Of a server that is far away, as its answers show, it is expected to be silent for longer.
pub const SERVER_SILENCE: Duration = Duration::from_millis(300);
/// However far away it is: people would notice more, and a server that is further away is hardly of use.
pub const SERVER_SILENCE_MAX: Duration = Duration::from_secs(1);
/// How long one attempt to connect may take.
pub const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// An idle connection between processes ends after this; heartbeats keep the living ones.
pub const PEER_IDLE: Duration = Duration::from_secs(3);
/// A client's idle connection ends after this; its keep-alives are three times faster.
pub const CLIENT_IDLE: Duration = Duration::from_secs(15);
/// Opening a stream, writing to a peer: longer means that the link is broken.
pub const STREAM_WAIT: Duration = Duration::from_secs(2);
/// The least age at which posts may be removed: less would take them before a partition lets everybody see them.
pub const POSTS_AGE_MIN: Duration = Duration::from_secs(3_600);
/// Longest time between two looks for posts to remove; where a short age is kept, a part of it.
pub const TRIM_LOOK_MAX: Duration = Duration::from_secs(600);
/// Time between two looks for posts to remove, where a count is kept: as long as nothing is over it, a look costs nothing.
pub const TRIM_LOOK_COUNT: Duration = Duration::from_secs(1);
/// Time from one trim of many to the next: others commit meanwhile.
pub const TRIM_PAUSE: Duration = Duration::from_millis(100);
/// Posts are removed by their age only while no host's clock differs by more: they cannot be had back.
pub const TRIM_SKEW_MAX: Duration = Duration::from_secs(60);
/// Request ids are remembered for this long (of stamps).
pub const REQUEST_MEMORY: Duration = Duration::from_secs(7 * 24 * 3600);
/// A post's id is forgotten this much later: however clocks differ, no request with it is taken any more by then.
pub const REQUEST_MEMORY_MARGIN: Duration = Duration::from_secs(24 * 3600);
/// A host that lacks more entries than this is named in `status`: under load a second's worth is normal.
pub const LAG_ALARM: u64 = 20_000;
/// Clocks that differ by more raise an alarm.
pub const CLOCK_SKEW_MAX: Duration = Duration::from_millis(500);
/// A comparison of clocks says nothing any more after this: who hears other hosts compares several times a second.
pub const CLOCK_SKEW_MEMORY: Duration = Duration::from_secs(2);
/// Hosts report on themselves this often, besides their heartbeats: nothing of it is urgent.
pub const REPORT_EVERY: Duration = Duration::from_secs(1);
/// What a host reported of its processes says nothing any more after this: some may have been lost, and some replaced.
pub const REPORT_MEMORY: Duration = Duration::from_secs(5);
/// No read transaction should last longer, and one that does is logged: an old reader keeps pages from being used again.
pub const READ_TRANSACTION_MAX: Duration = Duration::from_secs(1);

const _: () = assert!(BATCH_BYTES_MAX + ENTRY_BYTES_MAX + 4_096 < FRAME_BYTES_MAX);
const _: () = assert!(SNAPSHOT_BYTES_MAX + ENTRY_BYTES_MAX + 4_096 < FRAME_BYTES_MAX);
const _: () = assert!(BACKUP_CHUNK_BYTES * 2 + ENTRY_BYTES_MAX < BACKUP_FRAME_BYTES_MAX);
const _: () = assert!(LOG_BLOCK_ENTRIES * LOG_BLOCKS_KEPT > 2 * LAG_ALARM);
const _: () = assert!(LOG_DIGESTS_MAX as u64 == LOG_DIGESTS_ORIGINS_MAX as u64 * LOG_BLOCKS_KEPT);
const _: () = assert!(SNAPSHOT_PARTS_IN_FLIGHT_MAX < PEER_FRAMES_WAITING_MAX);
const _: () = assert!(POST_CHARS_MAX * 4 + 512 < ENTRY_BYTES_MAX);
const _: () = assert!(2 * TOKEN_ORIGINS_MAX * ORIGIN_BYTES_MAX + ENTRY_BYTES_MAX < CLIENT_FRAME_BYTES_MAX);
const _: () = assert!(ANSWER_BYTES_MAX + ENTRY_BYTES_MAX < FRAME_BYTES_MAX);
const _: () = assert!(ANSWER_BYTES_MAX + FEED_LATE_POSTS_MAX * (POST_CHARS_MAX * 4 + 1_024) < FRAME_BYTES_MAX);
const _: () = assert!(HEARTBEAT_RELAYS.as_millis() * 4 < HOST_SILENCE_FLOOR.as_millis());
const _: () = assert!(HEARTBEAT_SIBLINGS.as_millis() * 3 < SIBLING_SILENCE.as_millis());
const _: () = assert!(SIBLING_SILENCE.as_millis() < DUTY_HOLD.as_millis());
const _: () = assert!(SERVER_SILENCE.as_millis() < SERVER_SILENCE_MAX.as_millis());
const _: () = assert!(REPORT_EVERY.as_millis() * 3 < REPORT_MEMORY.as_millis());
const _: () = assert!(REPLICATION_SILENCE.as_millis() * 10 <= REPLICATION_STANDSTILL.as_millis());
// A look that is due waits for the end of the recall, and must not wake the process until then.
const _: () = assert!(RECALL_WAIT.as_millis() <= TRIM_LOOK_COUNT.as_millis());
const _: () = assert!(TOKEN_WAIT.as_millis() < COPIES_WAIT.as_millis());
