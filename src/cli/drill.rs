//! `drill`: measured failures. A throw-away cluster of its own under the load of a crowd, a fault again and again, the
//! pauses that clients saw, and a check of everything that was said against what every host shows.
//!
//! Nothing outside is touched, and nothing is left behind: [`ground`] owns the processes and their folder, and is ended
//! here whatever happens; if this program is killed, the kernel ends the processes with it. The check is proved on
//! hand-made bad histories beside it ([`history`]), the whole in `tests/it/drill.rs`.

mod crowd;
mod fault;
mod figures;
mod ground;
mod history;

use std::time::{Duration, Instant};

use crate::cli::args::DrillArgs;
use crate::cli::context::{Context, Place};
use crate::cli::failure::{Failure, Kind};
use crate::cli::interrupted;
use crate::client::ClusterStatus;
use crate::id::ProcessId;
use crate::topology::Topology;
use crowd::{Crowd, check_hosts, log_in};
use fault::Fault;
use figures::{Digests, Figures, table};
use ground::{Folder, Ground, Watch};

/// Before each fault. At first, so that the handshakes of the crowd are not measured; then, so that each pause has one
/// cause: a status that is good again does not tell whether each relay has found the new primaries of other hosts, and
/// kills of two hosts' primaries within 230 ms could pause people for 200 ms.
const CALM: Duration = Duration::from_millis(500);

#[expect(clippy::disallowed_methods, reason = "measuring is what this verb is for")]
fn now() -> Instant {
    Instant::now()
}

/// Runs the verb; 8 if a promise was broken.
pub(crate) async fn run(context: &Context, args: &DrillArgs) -> Result<u8, Failure> {
    // One listener from before the first process on: a signal at any moment ends all of them.
    let stop = interrupted();
    tokio::pin!(stop);
    let model = context.topology()?.topology;
    let faults = Fault::chosen(args.fault);
    is_possible(args, &faults, &model)?;
    let mut all = Vec::new();
    for fault in faults {
        let ground = Ground::start(context, &model)?;
        let result = tokio::select! {
            result = measure(context, &ground, fault, args) => result,
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
            let message = format!("{}: {} posts failed; the first: {error}", fault.name(), figures.errors);
            context.out.notice("drill-errors", &message);
        }
        all.push(figures);
    }
    if !context.out.is_json() {
        context.out.line(&table(&all))?;
    }
    Ok(if all.iter().all(Figures::is_clean) { 0 } else { Kind::Degraded.exit_status() })
}

/// Refuses what makes no sense before anything is started.
fn is_possible(args: &DrillArgs, faults: &[Fault], model: &Topology) -> Result<(), Failure> {
    let Some(named) = args.process else { return Ok(()) };
    if !matches!(faults, [Fault::Kill | Fault::Stop]) {
        return Err(Failure::usage("--process goes with kill or stop").hint("gaggle drill --help tells more"));
    }
    if model.process(named).is_none() {
        let known = model.processes().map(|process| process.id.to_string()).collect::<Vec<_>>().join(", ");
        return Err(Failure::usage(format!("the topology has no process {named}")).hint(format!("it has {known}")));
    }
    Ok(())
}

/// A drill under way.
struct Scene<'a> {
    ground: &'a Ground,
    place: Place,
    watch: Watch,
    crowd: Crowd,
    figures: Figures,
}

/// One fault, so many times, and the check.
async fn measure(context: &Context, ground: &Ground, fault: Fault, args: &DrillArgs) -> Result<Figures, Failure> {
    let place = ground.started().await?;
    let mut watch = Watch::new(place.clone());
    ground.whole(&mut watch).await?;
    let crowd = Crowd::start(ground, &place, usize::try_from(args.clients).unwrap_or(1)).await?;
    let figures = Figures::new(fault, args.times, args.clients);
    let mut scene = Scene { ground, place, watch, crowd, figures };
    for turn in 0..args.times {
        tokio::time::sleep(CALM).await;
        scene.crowd.answered().await?;
        let status = ground.busy(&mut scene.watch).await?;
        let victims = fault.victims(&status, turn, args.process)?;
        let names = victims.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ");
        let worst = scene.strike(turn, &victims).await?.as_secs_f64() * 1000.0;
        let of = format!("{} {}/{}", fault.name(), turn + 1, args.times);
        context.out.notice("drill", &format!("{of} {names}: longest gap {worst:.1} ms"));
    }
    scene.check().await
}

impl Scene<'_> {
    /// One fault; the longest gap that anybody saw.
    async fn strike(&mut self, turn: u32, victims: &[ProcessId]) -> Result<Duration, Failure> {
        let (ground, fault) = (self.ground, self.figures.fault);
        if fault == Fault::KillMaster {
            self.figures.login_before.add(login_time(ground, &self.place, &format!("before-{turn}")).await?);
        }
        self.crowd.begin_gaps();
        let struck = now();
        fault.inflict(ground, victims).await?;
        if fault == Fault::KillMaster {
            self.figures.login.add(login_time(ground, &self.place, &format!("during-{turn}")).await?);
        }
        ground.whole(&mut self.watch).await?;
        self.figures.whole.add(struck.elapsed());
        // A gap that has not ended counts as well: everybody has answers before the gaps are read.
        self.crowd.answered().await?;
        let gaps = self.crowd.gaps();
        let worst = gaps.iter().copied().max().unwrap_or_default();
        self.figures.pause.add(worst);
        gaps.into_iter().for_each(|gap| self.figures.each.add(gap));
        Ok(worst)
    }

    /// Everybody stops, and what was said is compared with what is shown.
    async fn check(mut self) -> Result<Figures, Failure> {
        let said = self.crowd.finish().await?;
        let figures = &mut self.figures;
        for said in &said {
            figures.posts += said.posts;
            figures.errors += u64::try_from(said.errors.len()).unwrap_or(u64::MAX);
            figures.first_error = figures.first_error.take().or_else(|| said.errors.values().next().cloned());
        }
        figures.digests = digests(&self.ground.converged(&mut self.watch).await?);
        figures.findings = check_hosts(self.ground, &self.place, &said).await?;
        Ok(self.figures)
    }
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
