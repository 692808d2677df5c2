//! `bench`: measured load. N people of its own, each with one request under way (a closed loop), through the very client
//! library that everybody uses.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use comfy_table::{Cell, CellAlignment, Table, presets};
use hdrhistogram::Histogram;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use ring::rand::{SecureRandom, SystemRandom};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::cli::args::{BenchArgs, Workload};
use crate::cli::context::{Context, Place};
use crate::cli::failure::Failure;
use crate::cli::output::Out;
use crate::cli::session::{Done, Person, Session, new_id};
use crate::cli::status::trimmed;
use crate::client::{Identity, WriteOp};
use crate::id::UserName;
use crate::limits;
use crate::topology::AckLevel;

/// Handshakes at once: a crowd that comes all at once would measure its own handshakes.
const LOGINS_AT_ONCE: usize = 32;
/// How many of the others each person joins at first.
const JOINED_AT_FIRST: usize = 3;
/// The longest latency that is told apart, in microseconds.
const LATENCY_US_MAX: u64 = 120_000_000;

/// What all clients share.
struct Plan {
    context: Context,
    place: Place,
    run: String,
    workload: Workload,
    ack: AckLevel,
    clients: usize,
}

/// One person of the load.
struct Client {
    plan: Arc<Plan>,
    number: usize,
    session: Session,
    joined: BTreeSet<usize>,
    random: ChaCha8Rng,
    newcomers: usize,
}

/// What was measured.
struct Measured {
    by_op: BTreeMap<&'static str, Histogram<u64>>,
    errors: u64,
    first_error: Option<Failure>,
    copies: Option<u32>,
}

#[expect(clippy::disallowed_methods, reason = "measuring is what this verb is for")]
fn now() -> Instant {
    Instant::now()
}

fn histogram() -> Result<Histogram<u64>, Failure> {
    Histogram::new_with_bounds(1, LATENCY_US_MAX, 3).map_err(|error| Failure::failed(format!("histogram: {error}")))
}

fn seed() -> Result<[u8; 32], Failure> {
    let mut seed = [0; 32];
    SystemRandom::new().fill(&mut seed).map_err(|_| Failure::failed("the operating system gives no randomness"))?;
    Ok(seed)
}

impl Plan {
    fn name(&self, number: usize) -> String {
        format!("bench-{}-{number}", self.run)
    }

    /// A new person: a key, a connection, a name.
    async fn login(&self, name: &str) -> Result<Session, Failure> {
        let name: UserName = name.parse().map_err(|error| Failure::usage(format!("{error}")))?;
        let identity = Identity::generate().map_err(|error| Failure::identity(error.to_string()))?;
        let session = Session::open(&self.context, &self.place, Person::Stranger(identity)).await?;
        session.login(name).await?;
        Ok(session)
    }
}

impl Measured {
    fn new() -> Self {
        Self { by_op: BTreeMap::new(), errors: 0, first_error: None, copies: None }
    }

    fn record(&mut self, op: &'static str, latency: Duration, result: Result<Option<Done>, Failure>) {
        match result {
            Ok(done) => {
                if let Some(done) = done {
                    let copies = done.written.copies;
                    self.copies = Some(self.copies.map_or(copies, |least| least.min(copies)));
                }
                let micros = u64::try_from(latency.as_micros()).unwrap_or(LATENCY_US_MAX);
                if let Some(histogram) = self.op(op) {
                    histogram.saturating_record(micros.max(1));
                }
            }
            Err(failure) => {
                self.errors += 1;
                self.first_error.get_or_insert(failure);
            }
        }
    }

    fn op(&mut self, op: &'static str) -> Option<&mut Histogram<u64>> {
        if !self.by_op.contains_key(op) {
            self.by_op.insert(op, histogram().ok()?);
        }
        self.by_op.get_mut(op)
    }

    fn merge(&mut self, other: Self) {
        for (op, histogram) in &other.by_op {
            if let Some(own) = self.op(op) {
                // The bounds are the same, so nothing can be out of them.
                let _ = own.add(histogram);
            }
        }
        self.errors += other.errors;
        self.first_error = self.first_error.take().or(other.first_error);
        self.copies = match (self.copies, other.copies) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
    }
}

impl Client {
    fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.random.next_u64() % u64::try_from(bound.max(1)).unwrap_or(1)).unwrap_or(0)
    }

    async fn run(mut self, until: Instant) -> Measured {
        let mut measured = Measured::new();
        while now() < until {
            let started = now();
            let (op, result) = match self.plan.workload {
                Workload::Post => ("post", self.post().await.map(Some)),
                Workload::Timeline => ("timeline", self.timeline().await),
                Workload::Retwis => self.mixed().await,
            };
            let failed = result.is_err();
            measured.record(op, started.elapsed(), result);
            if failed {
                // A refusal that comes at once must not become a storm.
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        measured
    }

    async fn mixed(&mut self) -> (&'static str, Result<Option<Done>, Failure>) {
        match self.below(100) {
            0..5 => {
                self.newcomers += 1;
                let name = format!("{}-{}", self.plan.name(self.number), self.newcomers);
                ("login", self.plan.login(&name).await.map(|_| None))
            }
            5..20 if self.plan.clients > 1 => self.join_or_leave().await,
            20..50 => ("post", self.post().await.map(Some)),
            _ => ("timeline", self.timeline().await),
        }
    }

    async fn post(&mut self) -> Result<Done, Failure> {
        let text = format!("{:016x} is what {} says", self.random.next_u64(), self.plan.name(self.number));
        let text = crate::cli::post::parse(&text)?;
        self.session.write(new_id(), WriteOp::Post { text }, Some(self.plan.ack)).await
    }

    async fn timeline(&mut self) -> Result<Option<Done>, Failure> {
        self.session.timeline(None, limits::TIMELINE_POSTS, None).await.map(|_| None)
    }

    async fn join_or_leave(&mut self) -> (&'static str, Result<Option<Done>, Failure>) {
        let other = (self.number + 1 + self.below(self.plan.clients - 1)) % self.plan.clients;
        let name = self.plan.name(other);
        let (word, op) = if self.joined.contains(&other) {
            ("leave", WriteOp::Leave { name })
        } else {
            ("join", WriteOp::Join { name })
        };
        let result = self.session.write(new_id(), op, Some(self.plan.ack)).await;
        if result.is_ok() && !self.joined.remove(&other) {
            self.joined.insert(other);
        }
        (word, result.map(Some))
    }
}

/// Logs everybody in, and lets each join some of the others.
async fn gather(plan: &Arc<Plan>) -> Result<Vec<Client>, Failure> {
    let doors = Arc::new(Semaphore::new(LOGINS_AT_ONCE));
    let mut logins = JoinSet::new();
    for number in 0..plan.clients {
        let (plan, doors) = (Arc::clone(plan), Arc::clone(&doors));
        logins.spawn(async move {
            let _permit = doors.acquire().await;
            let session = plan.login(&plan.name(number)).await?;
            let random = ChaCha8Rng::from_seed(seed()?);
            Ok::<_, Failure>(Client { plan, number, session, joined: BTreeSet::new(), random, newcomers: 0 })
        });
    }
    let clients = all(logins).await?;
    let mut joins = JoinSet::new();
    for mut client in clients {
        joins.spawn(async move {
            for step in 1..=JOINED_AT_FIRST.min(client.plan.clients - 1) {
                let other = (client.number + step) % client.plan.clients;
                let op = WriteOp::Join { name: client.plan.name(other) };
                client.session.write(new_id(), op, Some(client.plan.ack)).await?;
                client.joined.insert(other);
            }
            Ok::<_, Failure>(client)
        });
    }
    all(joins).await
}

async fn all(mut tasks: JoinSet<Result<Client, Failure>>) -> Result<Vec<Client>, Failure> {
    let mut clients = Vec::new();
    while let Some(joined) = tasks.join_next().await {
        clients.push(joined.map_err(|error| Failure::failed(format!("a client ended: {error}")))??);
    }
    Ok(clients)
}

/// Runs the verb.
pub(crate) async fn run(context: &Context, args: &BenchArgs) -> Result<u8, Failure> {
    let run: String = seed()?[..4].iter().map(|byte| format!("{byte:02x}")).collect();
    let plan = Arc::new(Plan {
        context: context.clone(),
        place: context.place()?,
        run,
        workload: args.workload,
        ack: args.ack,
        clients: usize::try_from(args.clients).unwrap_or(1),
    });
    let clients = gather(&plan).await?;
    let started = now();
    let until = started + args.seconds;
    let mut running = JoinSet::new();
    for client in clients {
        running.spawn(client.run(until));
    }
    let mut measured = Measured::new();
    while let Some(joined) = running.join_next().await {
        measured.merge(joined.map_err(|error| Failure::failed(format!("a client ended: {error}")))?);
    }
    report(context.out, args, &measured, started.elapsed())?;
    if let Some(failure) = &measured.first_error {
        let message = format!("{} requests failed; the first: {}", measured.errors, failure.message);
        context.out.notice("bench-errors", &message);
    }
    Ok(0)
}

fn workload_name(workload: Workload) -> &'static str {
    match workload {
        Workload::Post => "post",
        Workload::Timeline => "timeline",
        Workload::Retwis => "retwis",
    }
}

/// To a tenth.
fn tenth(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

#[expect(clippy::cast_precision_loss, reason = "a rate for people: 53 bits are plenty")]
fn rate(count: u64, elapsed: Duration) -> f64 {
    tenth(count as f64 / elapsed.as_secs_f64().max(1e-9))
}

fn line(args: &BenchArgs, measured: &Measured, histogram: &Histogram<u64>, elapsed: Duration) -> Value {
    json!({
        "v": 1,
        "workload": workload_name(args.workload),
        "clients": args.clients,
        "seconds": (elapsed.as_secs_f64() * 1000.0).round() / 1000.0,
        "ops_per_s": rate(histogram.len(), elapsed),
        "p50_us": histogram.value_at_quantile(0.5),
        "p90_us": histogram.value_at_quantile(0.9),
        "p99_us": histogram.value_at_quantile(0.99),
        "p999_us": histogram.value_at_quantile(0.999),
        "max_us": histogram.max(),
        "errors": measured.errors,
        "copies": measured.copies.unwrap_or(0),
        "ack": args.ack.to_string(),
    })
}

fn report(out: Out, args: &BenchArgs, measured: &Measured, elapsed: Duration) -> Result<(), Failure> {
    let mut total = histogram()?;
    for histogram in measured.by_op.values() {
        total.add(histogram).map_err(|error| Failure::failed(format!("histogram: {error}")))?;
    }
    if out.is_json() {
        out.object(&line(args, measured, &total, elapsed))?;
        for (op, histogram) in &measured.by_op {
            let mut value = line(args, measured, histogram, elapsed);
            value["op"] = json!(op);
            out.object(&value)?;
        }
        return Ok(());
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["OP", "OPS/S", "P50 us", "P90 us", "P99 us", "P99.9 us", "MAX us"]);
    let rows = measured.by_op.iter().map(|(op, histogram)| (*op, histogram));
    for (op, histogram) in rows.chain(std::iter::once(("all", &total))) {
        let quantile = |at: f64| histogram.value_at_quantile(at).to_string();
        let numbers = [
            format!("{:.1}", rate(histogram.len(), elapsed)),
            quantile(0.5),
            quantile(0.9),
            quantile(0.99),
            quantile(0.999),
            histogram.max().to_string(),
        ];
        let cells = numbers.into_iter().map(|text| Cell::new(text).set_alignment(CellAlignment::Right));
        table.add_row(std::iter::once(Cell::new(op)).chain(cells));
    }
    let copies = measured.copies.map_or_else(|| "-".to_owned(), |copies| copies.to_string());
    out.line(&format!(
        "{}: {} clients, {:.2} s, ack {}, least copies {copies}, errors {}\n{}",
        workload_name(args.workload),
        args.clients,
        elapsed.as_secs_f64(),
        args.ack,
        measured.errors,
        trimmed(&table)
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measurements_merge_and_have_the_shape_of_the_contract() {
        let mut measured = Measured::new();
        measured.record("timeline", Duration::from_micros(100), Ok(None));
        let mut other = Measured::new();
        other.record("timeline", Duration::from_micros(300), Ok(None));
        other.record("post", Duration::from_micros(5), Err(Failure::failed("x")));
        measured.merge(other);
        assert_eq!((measured.errors, measured.by_op.len(), measured.by_op["timeline"].len()), (1, 1, 2));
        let args =
            BenchArgs { workload: Workload::Retwis, clients: 2, seconds: Duration::from_secs(1), ack: AckLevel::Peer };
        let value = line(&args, &measured, &measured.by_op["timeline"], Duration::from_secs(2));
        let expected = json!({"v": 1, "workload": "retwis", "clients": 2, "seconds": 2.0, "ops_per_s": 1.0,
            "p50_us": 100, "p90_us": 300, "p99_us": 300, "p999_us": 300, "max_us": 300, "errors": 1, "copies": 0,
            "ack": "peer"});
        assert_eq!(value, expected);
    }
}
