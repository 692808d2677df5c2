//! QUIC's settings, for each kind of connection, and why.

use std::sync::Arc;
use std::time::Duration;

use quinn::{IdleTimeout, TransportConfig, VarInt};

use crate::limits;

/// Processes are near; the default of 333 ms would make one lost first packet cost a second. A longer way only
/// repeats a packet in vain.
const INITIAL_RTT: Duration = Duration::from_millis(20);
/// Streams from here to there: a link's two lanes, and room for their successors.
const UNI_STREAMS_MAX: u32 = 8;
/// Datagrams that wait, either way: some sixty heartbeats.
const DATAGRAM_BUFFER_BYTES: usize = 64 << 10;
/// Between processes, a packet counts as lost when so many later ones were acknowledged before it, or one was and it is
/// so many round trips old. By the defaults of 3 and 9/8, packets that only overtake each other look like losses; the
/// congestion window shrinks to two packets then, heartbeats wait for it, and living hosts are taken for down. A real
/// loss is noticed a round trip later at most.
const OVERTAKERS_MAX: u32 = 32;
/// See [`OVERTAKERS_MAX`].
const OVERTAKEN_ROUND_TRIPS_MAX: f32 = 2.0;

/// Bytes that one connection may have sent and we have not read, over all its streams; the default is no limit.
const RECEIVE_WINDOW_BYTES: u32 = 8 << 20;

/// What an accepted connection gets before it is known what it is: everything that a peer or a client may use. The
/// shorter idle time of the two ends holds, so a peer's is the dialing side's.
pub(crate) fn accepting() -> Arc<TransportConfig> {
    Arc::new(base(limits::CLIENT_IDLE))
}

/// A dialed peer: no keep-alives, because heartbeats do that and say more.
pub(crate) fn peer() -> Arc<TransportConfig> {
    let mut config = base(limits::PEER_IDLE);
    config.packet_threshold(OVERTAKERS_MAX);
    config.time_threshold(OVERTAKEN_ROUND_TRIPS_MAX);
    Arc::new(config)
}

/// A dialing client: keep-alives, no datagrams, and no streams that the process could open.
pub(crate) fn client() -> Arc<TransportConfig> {
    let mut config = base(limits::CLIENT_IDLE);
    config.keep_alive_interval(Some(limits::CLIENT_IDLE / 3));
    config.datagram_receive_buffer_size(None);
    config.max_concurrent_uni_streams(VarInt::from_u32(0));
    Arc::new(config)
}

/// Path-MTU discovery and segmentation offload stay on: a fixed large MTU hangs, and offload halves the CPU.
fn base(idle: Duration) -> TransportConfig {
    let mut config = TransportConfig::default();
    let idle_ms = u32::try_from(idle.as_millis()).unwrap_or(u32::MAX);
    config.max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(idle_ms))));
    config.keep_alive_interval(None);
    config.max_concurrent_bidi_streams(VarInt::from_u32(limits::STREAMS_MAX));
    config.max_concurrent_uni_streams(VarInt::from_u32(UNI_STREAMS_MAX));
    config.datagram_receive_buffer_size(Some(DATAGRAM_BUFFER_BYTES));
    config.datagram_send_buffer_size(DATAGRAM_BUFFER_BYTES);
    config.receive_window(VarInt::from_u32(RECEIVE_WINDOW_BYTES));
    config.initial_rtt(INITIAL_RTT);
    config
}
