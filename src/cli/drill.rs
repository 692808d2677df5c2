//! `drill`: measured failures. A throw-away cluster of its own under the load of a crowd, a fault again and again, the
//! pauses that clients saw, and a check of everything that was said against what every host shows and live feeds told.
//!
//! Nothing outside is touched, and nothing is left behind: [`ground`] owns the processes and their folder, and is ended
//! here whatever happens; if this program is killed, the kernel ends the processes with it. Networks, disks and clocks
//! are broken in namespaces of the drill's own ([`room`]). The check is proved on hand-made bad histories beside it
//! ([`history`]), the whole in `tests/it/drill.rs`.

mod blow;
mod clock;
mod crowd;
mod delay;
mod disk;
mod fault;
mod figures;
mod ground;
mod history;
mod network;
mod readers;
mod room;
mod terrain;
mod travel;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

use crate::cli::args::DrillArgs;
use crate::cli::context::{Context, Place};
use crate::cli::failure::{Failure, Kind};
use crate::cli::interrupted;
use crate::client::ClusterStatus;
use crate::id::HostId;
use crate::topology::Topology;
use crowd::{Crowd, check_hosts, log_in};
pub(crate) use fault::Fault;
use fault::Plan;
use figures::{Digests, Figures, table};
use ground::{Folder, Ground, Watch};
use room::Need;

/// Before each fault. At first, so that the handshakes of the crowd are not measured; then, so that each pause has one
/// cause: a status that is good again does not tell whether each relay has found the new primaries of other hosts, and
/// kills of two hosts' primaries within 230 ms could pause people for 200 ms.
const CALM: Duration = Duration::from_millis(500);
/// In chaos the rest is random, up to this.
const CHAOS_CALM_MS: u32 = 1_000;
/// In chaos one fault of so many comes with another one.
const CHAOS_TWO: u32 = 4;
/// Between an answer and the next post: nearly a closed loop, and yet two cores have room for ten processes.
const PACE: Duration = Duration::from_millis(2);
/// The same in chaos, so that an hour of it can still be checked.
const CHAOS_PACE: Duration = Duration::from_millis(20);

#[expect(clippy::disallowed_methods, reason = "measuring is what this verb is for")]
fn now() -> Instant {
    Instant::now()
}

/// Runs the verb; 8 if a promise was broken.
pub(crate) async fn run(context: &Context, args: &DrillArgs) -> Result<u8, Failure> {
    let model = context.topology()?.topology;
    is_possible(args, &model)?;
    let equipment = Equipment::of(args).await?;
    if !equipment.needs().is_empty() && !room::is_inside() {
        return Err(room::enter());
    }
    for (fault, why) in &equipment.left_out {
        let hint = why.hint.as_deref().map(|hint| format!(" ({hint})")).unwrap_or_default();
        context.out.notice("drill-left-out", &format!("{} is left out: {}{hint}", fault.name(), why.message));
    }
    // One listener from before the first process on: a signal at any moment ends all of them.
    let stop = interrupted();
    tokio::pin!(stop);
    let mut all = Vec::new();
    for fault in equipment.faults.clone() {
        let ground = Ground::start(context, &model, &equipment.needs_of(fault)).await?;
        let result = tokio::select! {
            result = measure(context, &ground, fault, &equipment, args) => result,
            () = &mut stop => Err(Failure::new(Kind::Interrupted, "interrupted")),
        };
        let folder = match &result {
            Ok(figures) if figures.is_clean() => Folder::Remove,
            Err(failure) if failure.kind == Kind::Interrupted => Folder::Remove,
            Ok(_) | Err(_) => Folder::Keep,
        };
        if let Some(kept) = ground.end(folder).await {
            let message = format!("the data and the log of the processes are kept in {}", kept.display());
            context.out.notice("drill-kept", &message);
        }
        let figures = result?;
        if context.out.is_json() {
            context.out.object(&figures.to_json())?;
        }
        if let Some(error) = &figures.first_error {
            let message = format!("{}: {} calls failed; the first: {error}", fault.name(), figures.errors);
            context.out.notice("drill-errors", &message);
        }
        all.push(figures);
    }
    if !context.out.is_json() {
        context.out.line(&table(&all))?;
    }
    Ok(if all.iter().all(Figures::is_clean) { 0 } else { Kind::Degraded.exit_status() })
}

/// What can be done on this machine, of what was asked for.
#[derive(Debug)]
struct Equipment {
    faults: Vec<Fault>,
    /// What chaos is made of.
    of_chaos: Vec<Fault>,
    left_out: Vec<(Fault, Failure)>,
}

impl Equipment {
    /// A fault that was named must be possible; of several, those that are not are left out.
    async fn of(args: &DrillArgs) -> Result<Self, Failure> {
        let mut faults = args.fault.chosen();
        let chaos = faults == [Fault::Chaos];
        let wanted = if chaos { Fault::of_chaos(|_| true) } else { faults.clone() };
        let (mut met, mut left_out) = (BTreeSet::new(), Vec::new());
        for fault in wanted {
            let Some(need) = fault.need() else { continue };
            match need.is_met().await {
                Ok(()) => drop(met.insert(need)),
                Err(why) if chaos || args.fault == Fault::All => left_out.push((fault, why)),
                Err(why) => return Err(why),
            }
        }
        faults.retain(|fault| left_out.iter().all(|(left, _)| left != fault));
        let of_chaos = if chaos { Fault::of_chaos(|need| met.contains(&need)) } else { Vec::new() };
        Ok(Self { faults, of_chaos, left_out })
    }

    fn needs(&self) -> BTreeSet<Need> {
        self.faults.iter().flat_map(|fault| self.needs_of(*fault)).collect()
    }

    fn needs_of(&self, fault: Fault) -> BTreeSet<Need> {
        let parts = if fault == Fault::Chaos { self.of_chaos.as_slice() } else { &[fault] };
        parts.iter().filter_map(|fault| fault.need()).collect()
    }
}

/// Refuses what makes no sense before anything is started.
fn is_possible(args: &DrillArgs, model: &Topology) -> Result<(), Failure> {
    let refused = |what: &str| Err(Failure::usage(what).hint("gaggle drill --help tells more"));
    let chaos = args.fault == Fault::Chaos;
    if !chaos && (args.seconds.is_some() || args.seed.is_some()) {
        return refused("--seconds and --seed go with chaos");
    }
    if chaos && args.times.is_some() {
        return refused("chaos lasts --seconds, and --times goes with the others");
    }
    if args.fault == Fault::Partition && model.hosts.len() < 2 {
        return refused("one host alone cannot be cut from others: name a topology with more");
    }
    let Some(named) = args.process else { return Ok(()) };
    if !matches!(args.fault, Fault::Kill | Fault::Stop) {
        return refused("--process goes with kill or stop");
    }
    if model.process(named).is_none() {
        let known = model.processes().map(|process| process.id.to_string()).collect::<Vec<_>>().join(", ");
        return Err(Failure::usage(format!("the topology has no process {named}")).hint(format!("it has {known}")));
    }
    Ok(())
}

/// A drill under way.
struct Scene<'a> {
    context: &'a Context,
    ground: &'a Ground,
    place: Place,
    watch: Watch,
    crowd: Crowd,
    figures: Figures,
}

/// One fault, so many times, and the check.
async fn measure(
    context: &Context,
    ground: &Ground,
    fault: Fault,
    equipment: &Equipment,
    args: &DrillArgs,
) -> Result<Figures, Failure> {
    let place = ground.started().await?;
    let mut watch = Watch::new(place.clone());
    ground.whole(&mut watch).await?;
    let pace = if fault == Fault::Chaos { CHAOS_PACE } else { PACE };
    let crowd = Crowd::start(ground, &place, usize::try_from(args.clients).unwrap_or(1), pace).await?;
    let figures = Figures::new(fault, args.clients);
    let mut scene = Scene { context, ground, place, watch, crowd, figures };
    if fault == Fault::Chaos {
        scene.chaos(&equipment.of_chaos, args).await?;
        return scene.check().await;
    }
    let times = args.times();
    for turn in 0..times {
        let status = scene.rested(CALM).await?;
        let plan = match args.process {
            Some(named) => Plan::of_process(fault, named),
            None => fault.plan(&status, turn, &scene.disks())?,
        };
        scene.strike(turn, &plan, &format!("{}/{times} {}", turn + 1, plan.what)).await?;
    }
    scene.check().await
}

impl Scene<'_> {
    /// Faults at random until the time is up.
    async fn chaos(&mut self, of: &[Fault], args: &DrillArgs) -> Result<(), Failure> {
        let seed = args.seed.unwrap_or_else(rand_seed);
        self.figures.seed = Some(seed);
        self.context.out.notice("drill", &format!("chaos with --seed {seed}"));
        let mut chance = ChaCha8Rng::seed_from_u64(seed);
        let end = now() + args.seconds();
        let mut turn = 0;
        while now() < end {
            let rest = Duration::from_millis(u64::from(chance.next_u32() % CHAOS_CALM_MS));
            let status = self.rested(rest).await?;
            let mut plan = || random(of, &mut chance).plan(&status, chance.next_u32(), &self.disks());
            let (one, other) = (plan()?, plan()?);
            let family = |plan: &Plan| plan.fault.need();
            let two = chance.next_u32() % CHAOS_TWO == 0 && family(&one) != family(&other);
            let plan = if two { one.and(other) } else { one };
            self.strike(turn, &plan, &format!("{} {} {}", turn + 1, plan.fault.name(), plan.what)).await?;
            turn += 1;
        }
        Ok(())
    }

    fn disks(&self) -> Vec<HostId> {
        self.ground.terrain().disks().keys().copied().collect()
    }

    /// The cluster after a rest, whole and busy.
    async fn rested(&mut self, rest: Duration) -> Result<ClusterStatus, Failure> {
        tokio::time::sleep(rest).await;
        self.crowd.answered().await?;
        self.ground.busy(&mut self.watch).await
    }

    /// One fault, until all is well again; says the longest gap that anybody saw.
    async fn strike(&mut self, turn: u32, plan: &Plan, of: &str) -> Result<(), Failure> {
        let ground = self.ground;
        if plan.fault == Fault::KillMaster {
            self.figures.login_before.add(login_time(ground, &self.place, &format!("before-{turn}")).await?);
        }
        self.crowd.begin_gaps();
        let struck = now();
        let first = blow::strike(ground, &mut self.watch, &plan.deed);
        match &plan.also {
            None => first.await?,
            Some(also) => {
                let mut watch = Watch::new(self.place.clone());
                let (first, second) = tokio::join!(first, blow::strike(ground, &mut watch, also));
                first.and(second)?;
            }
        }
        if plan.fault == Fault::KillMaster {
            self.figures.login.add(login_time(ground, &self.place, &format!("during-{turn}")).await?);
        }
        ground.whole(&mut self.watch).await?;
        self.figures.whole.add(struck.elapsed());
        // A gap that has not ended counts as well: everybody has answers before the gaps are read.
        self.crowd.answered().await?;
        let gaps = self.crowd.gaps();
        let worst = gaps.iter().copied().max().unwrap_or_default();
        self.figures.add(plan.fault, worst);
        gaps.into_iter().for_each(|gap| self.figures.each.add(gap));
        let (name, worst) = (self.figures.fault.name(), worst.as_secs_f64() * 1000.0);
        self.context.out.notice("drill", &format!("{name} {of}: longest gap {worst:.1} ms"));
        Ok(())
    }

    /// Everybody stops, and what was said is compared with what is shown.
    async fn check(mut self) -> Result<Figures, Failure> {
        let (said, heard) = self.crowd.finish().await?;
        let figures = &mut self.figures;
        for said in &said {
            figures.posts += said.posts;
            figures.errors += u64::try_from(said.errors.len()).unwrap_or(u64::MAX);
            figures.first_error = figures.first_error.take().or_else(|| said.errors.values().next().cloned());
        }
        figures.errors += u64::try_from(heard.errors.len()).unwrap_or(u64::MAX);
        figures.first_error = figures.first_error.take().or_else(|| heard.errors.into_iter().next());
        (figures.told, figures.looks) = (heard.told, heard.looks);
        if let Some(wrong) = heard.first_wrong {
            let message = format!("{}: readers were shown what is wrong; the first: {wrong}", figures.fault.name());
            self.context.out.notice("drill-readers", &message);
        }
        figures.digests = digests(&self.ground.converged(&mut self.watch).await?);
        figures.findings = check_hosts(self.ground, &self.place, &said).await?;
        figures.findings += heard.findings;
        Ok(self.figures)
    }
}

fn random(of: &[Fault], chance: &mut ChaCha8Rng) -> Fault {
    let place = usize::try_from(chance.next_u32()).unwrap_or(0) % of.len().max(1);
    of.get(place).copied().unwrap_or(Fault::Kill)
}

/// A seed that nobody chose.
fn rand_seed() -> u64 {
    uuid::Uuid::now_v7().as_u64_pair().1 & u64::from(u32::MAX)
}

/// How long a new person takes from nothing to a name.
async fn login_time(ground: &Ground, place: &Place, name: &str) -> Result<Duration, Failure> {
    let began = now();
    let session = log_in(ground, place, name).await?;
    let took = began.elapsed();
    session.close().await;
    Ok(took)
}

fn digests(status: &ClusterStatus) -> Digests {
    let mut digests = status.hosts.iter().map(|host| host.digest);
    let first = digests.next();
    if digests.all(|digest| Some(digest) == first) { Digests::Equal } else { Digests::Different }
}
