//! The faults: who is struck, and how.

use std::time::Duration;

use crate::cli::args::Drill;
use crate::cli::drill::ground::Ground;
use crate::cli::failure::{Failure, Kind};
use crate::client::{ClusterStatus, HostStatus};
use crate::id::ProcessId;
use crate::runtime::supervise::Blow;

/// How long a process is stopped, and how long a calm second is.
const STOPPED: Duration = Duration::from_secs(1);

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    Calm,
    Kill,
    KillRelay,
    KillMaster,
    Stop,
    Host,
}

impl Fault {
    /// What the person asked for.
    pub(super) fn chosen(drill: Drill) -> Vec<Self> {
        match drill {
            Drill::Calm => vec![Self::Calm],
            Drill::Kill => vec![Self::Kill],
            Drill::KillRelay => vec![Self::KillRelay],
            Drill::KillMaster => vec![Self::KillMaster],
            Drill::Stop => vec![Self::Stop],
            Drill::Host => vec![Self::Host],
            Drill::All => vec![Self::Calm, Self::Kill, Self::KillRelay, Self::KillMaster, Self::Stop, Self::Host],
        }
    }

    /// As on the command line.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Calm => "calm",
            Self::Kill => "kill",
            Self::KillRelay => "kill-relay",
            Self::KillMaster => "kill-master",
            Self::Stop => "stop",
            Self::Host => "host",
        }
    }

    /// Who is struck the nth time, in a cluster that is whole.
    pub(super) fn victims(
        self,
        status: &ClusterStatus,
        turn: u32,
        named: Option<ProcessId>,
    ) -> Result<Vec<ProcessId>, Failure> {
        if let Some(named) = named {
            return Ok(vec![named]);
        }
        let with_clients: Vec<&HostStatus> = status.hosts.iter().filter(|host| host.sessions > 0).collect();
        let all: Vec<&HostStatus> = status.hosts.iter().collect();
        let in_turn = |hosts: &[&HostStatus]| {
            let place = usize::try_from(turn).unwrap_or(0) % hosts.len().max(1);
            hosts.get(place).map(|host| (*host).clone())
        };
        let found = match self {
            Self::Calm => Some(Vec::new()),
            Self::Kill | Self::Stop => in_turn(&with_clients).and_then(|host| host.serving).map(|id| vec![id]),
            Self::KillRelay => in_turn(&all).and_then(|host| host.relaying).map(|id| vec![id]),
            Self::KillMaster => status.hosts.iter().find_map(|host| host.directing).map(|id| vec![id]),
            Self::Host => in_turn(&with_clients).map(|host| host.processes.iter().map(|process| process.id).collect()),
        };
        found.ok_or_else(|| Failure::new(Kind::Degraded, format!("nobody is there for the fault {}", self.name())))
    }

    /// Strikes.
    pub(super) async fn inflict(self, ground: &Ground, victims: &[ProcessId]) -> Result<(), Failure> {
        match self {
            Self::Calm => tokio::time::sleep(STOPPED).await,
            Self::Kill | Self::KillRelay | Self::KillMaster => ground.strike(victims, Blow::Kill).await?,
            Self::Stop => {
                let before: Vec<_> = victims.iter().map(|id| ground.pid(*id)).collect();
                ground.strike(victims, Blow::Stop).await?;
                tokio::time::sleep(STOPPED).await;
                for (id, before) in victims.iter().zip(before) {
                    // It may have been killed because it held the store's lock: then it is back already, or will be.
                    if ground.pid(*id) == before {
                        let _ = ground.strike(&[*id], Blow::Continue).await;
                    }
                }
            }
            Self::Host => {
                // As a power cut: none of them sees another one die, and says so.
                ground.strike(victims, Blow::Stop).await?;
                ground.strike(victims, Blow::Kill).await?;
            }
        }
        Ok(())
    }
}
