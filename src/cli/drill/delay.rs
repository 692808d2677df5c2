//! Packets that are late, each by another time, so that they overtake each other: whatever comes to the switch goes out
//! at one more of its ports, a TAP device whose other end the drill itself holds, and comes back in there when its time
//! has come. The kernel's own means for it (netem) is in few kernels of virtual machines.
//!
//! Nothing of it is there while nothing is delayed: the switch is as fast as ever. No packet is lost to it, unless more
//! are under way than `FRAMES_MAX`.

use std::collections::BTreeMap;
use std::io;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tokio::task::JoinHandle;
use tokio_tun::Tun;
use tokio_util::sync::CancellationToken;

use crate::cli::drill::now;
use crate::cli::failure::Failure;

/// What the port is called.
pub(super) const PORT: &str = "detour";
/// Packets under way, and as many that the drill has not taken yet: thrice what two cores send in the longest delay.
const FRAMES_MAX: usize = 16_384;
/// More than any frame of a wire has.
const FRAME_BYTES_MAX: usize = 2_048;

/// How late packets are: each draws its own time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Delay {
    pub(super) from_ms: u32,
    pub(super) to_ms: u32,
}

impl Delay {
    fn draw(self, chance: &mut ChaCha8Rng) -> Duration {
        let micros = 1_000 * (self.to_ms - self.from_ms) + 1;
        Duration::from_micros(u64::from(1_000 * self.from_ms + chance.next_u32() % micros))
    }
}

/// The device, and who carries packets from it and back.
#[derive(Debug)]
pub(super) struct Detour {
    carrying: JoinHandle<io::Result<()>>,
    over: CancellationToken,
}

impl Detour {
    /// Makes the device, in the drill's own network namespace: it is to be moved to the switch's.
    pub(super) fn start(delay: Delay) -> Result<Self, Failure> {
        let built = Tun::builder().name(PORT).tap().build().map(|mut queues| queues.pop());
        let failed = |error: String| Failure::failed(format!("cannot make a TAP device: {error}"));
        let tap = built.map_err(|error| failed(error.to_string()))?.ok_or_else(|| failed("it has no queue".into()))?;
        let over = CancellationToken::new();
        let carrying = crate::cli::spawn(carry(tap, delay, over.clone()));
        Ok(Self { carrying, over })
    }

    /// Ends with the last packet, when no more come. The device goes with it.
    pub(super) async fn end(self) -> Result<(), Failure> {
        self.over.cancel();
        let carried = self.carrying.await.map_err(io::Error::other).flatten();
        carried.map_err(|error| Failure::failed(format!("packets were lost on their way through the drill: {error}")))
    }
}

async fn carry(tap: Tun, delay: Delay, over: CancellationToken) -> io::Result<()> {
    let mut chance = ChaCha8Rng::seed_from_u64(0);
    let mut frame = vec![0; FRAME_BYTES_MAX];
    let mut number = 0_u64;
    // By the time of going back; of the same time, in their order.
    let mut under_way = BTreeMap::<(Instant, u64), Vec<u8>>::new();
    loop {
        while let Some(first) = under_way.first_entry().filter(|first| first.key().0 <= now()) {
            tap.send(&first.remove()).await?;
        }
        let next = under_way.first_key_value().map(|((due, _), _)| *due);
        tokio::select! {
            // Before the end, what has come already.
            biased;
            read = tap.recv(&mut frame) => {
                let bytes = read?;
                if under_way.len() < FRAMES_MAX {
                    number += 1;
                    under_way.insert((now() + delay.draw(&mut chance), number), frame[..bytes].to_vec());
                }
            }
            () = tokio::time::sleep_until(next.unwrap_or_else(now).into()), if next.is_some() => {}
            () = over.cancelled(), if next.is_none() => return Ok(()),
        }
    }
}

/// Commands of `ip` that plug the device into the switch. It learns nothing, so that every address stays at its wire,
/// and nothing is sent there that was not diverted.
pub(super) fn plug() -> String {
    format!(
        "link set {PORT} master switch\n\
         link set {PORT} type bridge_slave learning off flood off mcast_flood off bcast_flood off\n\
         link set {PORT} txqueuelen {FRAMES_MAX}\nlink set {PORT} up\n"
    )
}

/// Commands of `nft` that divert what comes in at these ports.
pub(super) fn divert(ports: &[String]) -> String {
    let ports = ports.join(", ");
    format!(
        "table netdev drill {{ chain detours {{ type filter hook ingress devices = {{ {ports} }} priority 0; \
         ip protocol udp fwd to {PORT}; }}; }}\n"
    )
}

/// Commands of `nft` that end that.
pub(super) const REJOIN: &str = "delete table netdev drill\n";

/// A command of the shell, for a namespace of its own, that fails where packets cannot be diverted to such a device.
pub(super) fn trial() -> String {
    format!("ip tuntap add dev {PORT} mode tap && nft '{}'", divert(&[PORT.to_owned()]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_differ_within_their_bounds() {
        let (delay, mut chance) = (Delay { from_ms: 10, to_ms: 30 }, ChaCha8Rng::seed_from_u64(1));
        let drawn: Vec<_> = (0..1_000).map(|_| delay.draw(&mut chance)).collect();
        let millis = |millis| Duration::from_millis(millis);
        assert!(drawn.iter().all(|time| (millis(10)..=millis(30)).contains(time)), "{drawn:?}");
        assert!(drawn.iter().any(|time| *time < millis(12)) && drawn.iter().any(|time| *time > millis(28)));
    }
}
