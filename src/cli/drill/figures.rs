//! What a drill found, and how it is said.

use std::collections::BTreeMap;
use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Value, json};

use crate::cli::drill::fault::Fault;
use crate::cli::drill::history::Findings;
use crate::cli::status::trimmed;

/// A distribution of times.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Times(Vec<Duration>);

impl Times {
    pub(super) fn add(&mut self, time: Duration) {
        let place = self.0.partition_point(|other| *other <= time);
        self.0.insert(place, time);
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn count(&self) -> usize {
        self.0.len()
    }

    /// In milliseconds, to a tenth: the smallest time that so many percent are not above. Of 50 times, 99 % is the
    /// longest.
    fn percent(&self, percent: usize) -> f64 {
        let place = (self.0.len() * percent).div_ceil(100).max(1) - 1;
        let time = self.0.get(place).copied().unwrap_or_default();
        (time.as_secs_f64() * 10_000.0).round() / 10.0
    }
}

/// One fault's figures.
#[derive(Debug)]
pub(super) struct Figures {
    pub(super) fault: Fault,
    pub(super) clients: u32,
    /// What the faults of chaos were drawn with.
    pub(super) seed: Option<u64>,
    /// The longest gap of any client, for each fault.
    pause: Times,
    /// The same for each kind, which in chaos are several.
    kinds: BTreeMap<Fault, Times>,
    /// The longest gap of each client, for each fault.
    pub(super) each: Times,
    /// From the blow until all is whole again.
    pub(super) whole: Times,
    /// How long somebody takes to log in at the moment of the blow.
    pub(super) login: Times,
    /// The same just before.
    pub(super) login_before: Times,
    pub(super) posts: u64,
    pub(super) errors: u64,
    pub(super) first_error: Option<String>,
    pub(super) findings: Findings,
    /// Posts that live feeds told.
    pub(super) told: u64,
    /// Looks at newest posts that were judged.
    pub(super) looks: u64,
    /// Whether hosts with the same entries had the same digest.
    pub(super) digests: Digests,
}

/// Whether hosts with the same entries have the same state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Digests {
    Equal,
    Different,
}

impl Digests {
    fn name(self) -> &'static str {
        match self {
            Self::Equal => "equal",
            Self::Different => "different",
        }
    }
}

impl Figures {
    /// None yet.
    pub(super) fn new(fault: Fault, clients: u32) -> Self {
        Self {
            fault,
            clients,
            seed: None,
            pause: Times::default(),
            kinds: BTreeMap::new(),
            each: Times::default(),
            whole: Times::default(),
            login: Times::default(),
            login_before: Times::default(),
            posts: 0,
            errors: 0,
            first_error: None,
            findings: Findings::default(),
            told: 0,
            looks: 0,
            digests: Digests::Equal,
        }
    }

    /// A fault of this kind paused somebody for so long.
    pub(super) fn add(&mut self, kind: Fault, worst: Duration) {
        self.pause.add(worst);
        self.kinds.entry(kind).or_default().add(worst);
    }

    /// Whether every promise was kept.
    pub(super) fn is_clean(&self) -> bool {
        self.errors == 0 && self.findings.is_clean() && self.digests == Digests::Equal
    }

    /// For programs.
    pub(super) fn to_json(&self) -> Value {
        let Findings { lost, doubled, disordered, invented, untold, twice, stale } = self.findings;
        let mut value = json!({
            "v": 1,
            "fault": self.fault.name(),
            "times": self.pause.count(),
            "clients": self.clients,
            "p50_ms": self.pause.percent(50),
            "p99_ms": self.pause.percent(99),
            "max_ms": self.pause.percent(100),
            "client_p50_ms": self.each.percent(50),
            "client_p99_ms": self.each.percent(99),
            "whole_p50_ms": self.whole.percent(50),
            "whole_max_ms": self.whole.percent(100),
            "posts": self.posts,
            "lost": lost,
            "doubled": doubled,
            "disordered": disordered,
            "invented": invented,
            "told": self.told,
            "untold": untold,
            "twice": twice,
            "looks": self.looks,
            "stale": stale,
            "errors": self.errors,
            "digests": self.digests.name(),
        });
        if let Some(seed) = self.seed {
            let kind = |(fault, times): (&Fault, &Times)| {
                let [p50, p99, max] = [50, 99, 100].map(|percent| times.percent(percent));
                let times = json!({"times": times.count(), "p50_ms": p50, "p99_ms": p99, "max_ms": max});
                (fault.name(), times)
            };
            value["seed"] = json!(seed);
            value["kinds"] = Value::Object(self.kinds.iter().map(kind).collect());
        }
        if !self.login.is_empty() {
            value["login_p50_ms"] = json!(self.login.percent(50));
            value["login_p99_ms"] = json!(self.login.percent(99));
            value["login_max_ms"] = json!(self.login.percent(100));
            value["login_before_p50_ms"] = json!(self.login_before.percent(50));
            value["login_before_max_ms"] = json!(self.login_before.percent(100));
        }
        value
    }
}

/// For people.
pub(super) fn table(all: &[Figures]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header([
        "FAULT",
        "TIMES",
        "P50 ms",
        "P99 ms",
        "WORST ms",
        "CLIENT P50",
        "CLIENT P99",
        "WHOLE P50",
        "POSTS",
        "LOST",
        "DOUBLED",
        "DISORDERED",
        "UNTOLD",
        "TWICE",
        "STALE",
        "ERRORS",
        "DIGESTS",
    ]);
    for figures in all {
        let of = |times: &Times, percent: usize| format!("{:.1}", times.percent(percent));
        let numbers = [
            figures.pause.count().to_string(),
            of(&figures.pause, 50),
            of(&figures.pause, 99),
            of(&figures.pause, 100),
            of(&figures.each, 50),
            of(&figures.each, 99),
            of(&figures.whole, 50),
            figures.posts.to_string(),
            figures.findings.lost.to_string(),
            figures.findings.doubled.to_string(),
            (figures.findings.disordered + figures.findings.invented).to_string(),
            figures.findings.untold.to_string(),
            figures.findings.twice.to_string(),
            figures.findings.stale.to_string(),
            figures.errors.to_string(),
            figures.digests.name().to_owned(),
        ];
        let cells = numbers.into_iter().map(|text| Cell::new(text).set_alignment(CellAlignment::Right));
        table.add_row(std::iter::once(Cell::new(figures.fault.name())).chain(cells));
        for (kind, times) in figures.kinds.iter().filter(|_| figures.seed.is_some()) {
            let numbers = [times.count().to_string(), of(times, 50), of(times, 99), of(times, 100)];
            let cells = numbers.into_iter().map(|text| Cell::new(text).set_alignment(CellAlignment::Right));
            table.add_row(std::iter::once(Cell::new(format!("  {}", kind.name()))).chain(cells));
        }
    }
    let mut text = trimmed(&table);
    for figures in all.iter().filter(|figures| !figures.login.is_empty()) {
        let (during, before) = (&figures.login, &figures.login_before);
        text.push_str(&format!(
            "\na login at the moment of {}: p50 {:.1} ms, p99 {:.1} ms, worst {:.1} ms (just before: p50 {:.1} ms, worst {:.1} ms)",
            Fault::KillMaster.name(),
            during.percent(50),
            during.percent(99),
            during.percent(100),
            before.percent(50),
            before.percent(100),
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_times_that_were_measured() {
        let mut times = Times::default();
        assert_eq!(times.percent(50).to_bits(), 0.0_f64.to_bits());
        for millis in [50, 10, 40, 20, 30] {
            times.add(Duration::from_millis(millis));
        }
        let of = |percent| format!("{:.1}", times.percent(percent));
        assert_eq!((of(50), of(99), of(100), of(1)), ("30.0".into(), "50.0".into(), "50.0".into(), "10.0".into()));
    }

    #[test]
    fn one_broken_promise_is_enough() {
        let clean = || Figures::new(Fault::Kill, 1);
        assert!(clean().is_clean());
        let broken = [
            Figures { errors: 1, ..clean() },
            Figures { digests: Digests::Different, ..clean() },
            Figures { findings: Findings { lost: 1, ..Findings::default() }, ..clean() },
            Figures { findings: Findings { doubled: 1, ..Findings::default() }, ..clean() },
            Figures { findings: Findings { untold: 1, ..Findings::default() }, ..clean() },
            Figures { findings: Findings { twice: 1, ..Findings::default() }, ..clean() },
            Figures { findings: Findings { stale: 1, ..Findings::default() }, ..clean() },
        ];
        assert!(broken.iter().all(|figures| !figures.is_clean()));
        assert!(table(&broken).contains("different"));
    }

    #[test]
    fn chaos_tells_of_each_kind() {
        let mut figures = Figures { seed: Some(7), ..Figures::new(Fault::Chaos, 1) };
        figures.add(Fault::Kill, Duration::from_millis(20));
        figures.add(Fault::Loss, Duration::from_millis(40));
        figures.add(Fault::Kill, Duration::from_millis(30));
        let value = figures.to_json();
        assert_eq!((&value["times"], &value["max_ms"], &value["seed"]), (&json!(3), &json!(40.0), &json!(7)));
        assert_eq!(value["kinds"]["kill"], json!({"times": 2, "p50_ms": 20.0, "p99_ms": 30.0, "max_ms": 30.0}));
        assert!(table(&[figures]).contains("  loss"));
    }
}
