//! What a drill's cluster stands on besides this machine: a network, disks and clocks that can be broken, each only if a
//! fault needs it. What is measured without them is measured on loopback and the real disk.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;

use crate::cli::drill::clock::Clocks;
use crate::cli::drill::disk::{Disk, Wanted};
use crate::cli::drill::network::Network;
use crate::cli::drill::room::Need;
use crate::cli::failure::Failure;
use crate::id::HostId;
use crate::topology::Topology;

/// Whatever of it there is.
#[derive(Debug, Default)]
pub(super) struct Terrain {
    network: Option<Network>,
    disks: BTreeMap<HostId, Disk>,
    clocks: Option<Clocks>,
}

impl Terrain {
    /// Makes what is needed, with the data of the hosts below this folder.
    pub(super) async fn start(topology: &Topology, folder: &Path, needs: &BTreeSet<Need>) -> Result<Self, Failure> {
        let mut terrain = Self::default();
        for need in needs {
            match need {
                // The same network: who needs both is given one.
                Need::Network | Need::Delay if terrain.network.is_some() => {}
                Need::Network | Need::Delay => terrain.network = Some(Network::start(topology).await?),
                Need::Clock => terrain.clocks = Some(Clocks::start(topology, folder)?),
                Need::Disk => {
                    // Where there is more to be seen than full disks, the other hosts keep their real ones.
                    let all = if needs.len() == 1 { topology.hosts.len() } else { 1 };
                    for host in topology.hosts.iter().rev().take(all) {
                        let disk = Disk::mount(folder.join("data").join(host.id.to_string())).await?;
                        terrain.disks.insert(host.id, disk);
                    }
                }
            }
        }
        Ok(terrain)
    }

    /// The network, if it is not loopback.
    pub(super) fn network(&self) -> Option<&Network> {
        self.network.as_ref()
    }

    /// The clocks, if they can jump.
    pub(super) fn clocks(&self) -> Option<&Clocks> {
        self.clocks.as_ref()
    }

    /// The hosts whose disks can be filled.
    pub(super) fn disks(&self) -> &BTreeMap<HostId, Disk> {
        &self.disks
    }

    /// Words before the command of a host's processes.
    pub(super) fn before(&self, host: HostId) -> Vec<OsString> {
        let network = self.network.as_ref().map(|network| network.before(host)).unwrap_or_default();
        let clocks = self.clocks.as_ref().map(|clocks| clocks.before(host)).unwrap_or_default();
        network.into_iter().chain(clocks).collect()
    }

    /// The network that can be broken.
    pub(super) fn breakable(&self) -> Result<&Network, Failure> {
        self.network().ok_or_else(|| Failure::failed("this cluster has no network that can be broken"))
    }

    /// Takes all away, when the processes have ended. Tells what went wrong with data that was wanted.
    pub(super) async fn end(self, wanted: Wanted) -> Result<(), Failure> {
        let mut result = Ok(());
        for disk in self.disks.into_values() {
            result = result.and(disk.end(wanted).await);
        }
        if let Some(network) = self.network {
            network.end().await;
        }
        result
    }
}
