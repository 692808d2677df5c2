//! Free ports: a block of numbers for each cluster.
//!
//! They lie below the range from which the kernel gives ports away: a port of a process that is dead for a moment must
//! not become some client's. A TCP listener on the first number of a block, which UDP does not see, reserves the block
//! among all test programs of this machine, and the kernel gives it back however a test ends.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::time::Duration;

use tokio::time::Instant;

const FIRST: u16 = 10_000;
const BLOCK: u16 = 16;
const BLOCKS: u16 = 600;
/// How long the kernel may take to end killed processes.
const END_WAIT: Duration = Duration::from_secs(10);

/// A block of ports.
#[derive(Debug)]
pub(crate) struct Ports {
    reserved: TcpListener,
}

impl Ports {
    /// Reserves a block of which every UDP port is free.
    pub(crate) fn reserve() -> Self {
        let start = u16::try_from(std::process::id() % u32::from(BLOCKS)).unwrap();
        for number in 0..BLOCKS {
            let first = FIRST + (start + number) % BLOCKS * BLOCK;
            let Ok(reserved) = TcpListener::bind((Ipv4Addr::LOCALHOST, first)) else { continue };
            let ports = Self { reserved };
            if ports.are_free() {
                return ports;
            }
        }
        panic!("no block of free ports from {FIRST} on");
    }

    /// The port of this number, from 1.
    pub(crate) fn get(&self, number: u16) -> u16 {
        assert!((1..BLOCK).contains(&number), "a block has {BLOCK} ports");
        self.reserved.local_addr().unwrap().port() + number
    }

    fn are_free(&self) -> bool {
        (1..BLOCK).all(|number| UdpSocket::bind((Ipv4Addr::LOCALHOST, self.get(number))).is_ok())
    }

    /// Waits until no process has any of them: every process of a cluster holds one as long as it lives.
    pub(crate) fn wait_until_free(&self) {
        let deadline = Instant::now() + END_WAIT;
        while !self.are_free() {
            assert!(Instant::now() < deadline || std::thread::panicking(), "a process was left behind");
            if Instant::now() >= deadline {
                return;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}
