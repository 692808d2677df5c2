//! How a fault is done, and undone: each deed ends with everything put right that is not the cluster's to mend.

use std::time::Duration;

use crate::cli::drill::clock::READ_AFTER;
use crate::cli::drill::fault::Deed;
use crate::cli::drill::ground::{Ground, Watch};
use crate::cli::drill::network::Drops;
use crate::cli::failure::Failure;
use crate::id::{HostId, ProcessId};
use crate::runtime::supervise::Blow;

/// How long a process is stopped, and how long a calm second is.
const STOPPED: Duration = Duration::from_secs(1);
/// How long packets are dropped: writes have long gone on with fewer copies then, and hosts are taken for down.
const DROPPED: Duration = Duration::from_secs(3);
/// How long packets are late.
const DELAYED: Duration = Duration::from_secs(3);
/// How long a disk stays full after `status` has said so.
const FULL: Duration = Duration::from_secs(1);
/// How long a clock is wrong: all have read it, and a host that was killed has started with it.
const WRONG: Duration = Duration::from_secs(4);

/// Strikes.
pub(super) async fn strike(ground: &Ground, watch: &mut Watch, deed: &Deed) -> Result<(), Failure> {
    match deed {
        Deed::Rest => tokio::time::sleep(STOPPED).await,
        Deed::Kill(ids) => ground.strike(ids, Blow::Kill).await?,
        Deed::Stop(ids) => stop(ground, ids).await?,
        Deed::Fell(ids) => fell(ground, ids).await?,
        Deed::Drop(drops) => {
            let network = ground.terrain().breakable()?;
            network.drop_only(drops).await?;
            tokio::time::sleep(DROPPED).await;
            network.drop_only(&Drops::Nothing).await?;
        }
        Deed::Delay(delay) => ground.terrain().breakable()?.delay(*delay, DELAYED).await?,
        Deed::Fill(host, restarted) => fill(ground, watch, *host, restarted).await?,
        Deed::Jump(host, seconds, restarted) => jump(ground, *host, *seconds, restarted).await?,
    }
    Ok(())
}

async fn stop(ground: &Ground, ids: &[ProcessId]) -> Result<(), Failure> {
    let before: Vec<_> = ids.iter().map(|id| ground.pid(*id)).collect();
    ground.strike(ids, Blow::Stop).await?;
    tokio::time::sleep(STOPPED).await;
    for (id, before) in ids.iter().zip(before) {
        // It may have been killed because it held the store's lock: then it is back already, or will be.
        if ground.pid(*id) == before {
            let _ = ground.strike(&[*id], Blow::Continue).await;
        }
    }
    Ok(())
}

/// As a power cut: none of them sees another one die, and says so.
async fn fell(ground: &Ground, ids: &[ProcessId]) -> Result<(), Failure> {
    // If one is dead already, the others are stopped all the same, and must not stay so.
    let stopped = ground.strike(ids, Blow::Stop).await;
    stopped.and(ground.strike(ids, Blow::Kill).await)
}

/// In chaos some may be dead already, which is as good.
async fn fell_who_lives(ground: &Ground, ids: &[ProcessId]) {
    if !ids.is_empty() {
        let _ = fell(ground, ids).await;
    }
}

async fn fill(ground: &Ground, watch: &mut Watch, host: HostId, restarted: &[ProcessId]) -> Result<(), Failure> {
    let disk = ground.terrain().disks().get(&host);
    let disk = disk.ok_or_else(|| Failure::failed(format!("the disk of {host} cannot be filled")))?;
    disk.fill().await?;
    fell_who_lives(ground, restarted).await;
    // What fits into free pages is still taken; then there is an end.
    let noticed = ground.alarmed(watch, &format!("the disk of {host} is full")).await;
    if noticed.is_ok() {
        tokio::time::sleep(FULL).await;
    }
    disk.free().await.and(noticed)
}

async fn jump(ground: &Ground, host: HostId, seconds: i64, restarted: &[ProcessId]) -> Result<(), Failure> {
    let Some(clocks) = ground.terrain().clocks() else { return Err(Failure::failed("the clocks cannot jump")) };
    clocks.set(host, seconds)?;
    tokio::time::sleep(READ_AFTER).await;
    fell_who_lives(ground, restarted).await;
    tokio::time::sleep(WRONG.saturating_sub(READ_AFTER)).await;
    clocks.set(host, 0)
}
