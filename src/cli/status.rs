//! `status`: the cluster in one view. Whether anything in it is not as it should be, the process that answers knows.

use std::time::Duration;

use comfy_table::{Cell, CellAlignment, Table, presets};
use serde_json::{Value, json};

use crate::cli::args::StatusArgs;
use crate::cli::context::Context;
use crate::cli::failure::{Failure, Kind};
use crate::cli::harmless::{harmless, json_line};
use crate::cli::output::{Out, Paint, rfc3339};
use crate::cli::screen::Screen;
use crate::cli::session::{Person, Session};
use crate::client::{ClusterReport, ClusterStatus, Duty, HostReport, HostStatus, Life};
use crate::id::{HostId, ProcessId};
use crate::time::Hlc;

/// `--watch` looks this often.
const WATCH_EVERY: Duration = Duration::from_millis(500);

/// Runs the verb; 8 if something is degraded.
pub(crate) async fn run(context: &Context, args: &StatusArgs) -> Result<u8, Failure> {
    let session = Session::open(context, &context.place()?, Person::Nobody).await?;
    if !args.watch {
        let report = session.report().await?;
        context.out.line(&show(context.out, &report))?;
        return Ok(if report.status.alarms.is_empty() { 0 } else { Kind::Degraded.exit_status() });
    }
    let screen = Screen::of(context.out);
    loop {
        // A cluster that cannot be reached now is what somebody who watches wants to see, and see end.
        match (session.report().await, screen) {
            (Ok(report), None) => context.out.line(&show(context.out, &report))?,
            (Ok(report), Some(screen)) => screen.draw(&show(context.out, &report), &[])?,
            (Err(failure), None) => failure.report(context.out.format()),
            (Err(failure), Some(screen)) => screen.draw(&failure.to_text(), &[])?,
        }
        tokio::time::sleep(WATCH_EVERY).await;
    }
}

fn show(out: Out, report: &ClusterReport) -> String {
    if out.is_json() { json_line(&report_json(report)) } else { status_text(out, &report.status, &report.hosts) }
}

/// What a host reports of itself, if it has.
fn of_host(reports: &[HostReport], host: HostId) -> Option<&HostReport> {
    reports.iter().find(|report| report.host == host)
}

/// The time before which posts are not kept, if any were removed.
fn trimmed_before(report: Option<&HostReport>) -> Option<String> {
    report.filter(|report| report.trim > Hlc::ZERO).map(|report| rfc3339(report.trim.wall()))
}

fn life_text(life: Life) -> &'static str {
    match life {
        Life::Up => "up",
        Life::Stopped => "stopped",
        Life::Dead => "dead",
        Life::Left => "left",
    }
}

fn duty_text(duty: Duty) -> &'static str {
    match duty {
        Duty::Direct => "direct",
        Duty::Serve => "serve",
        Duty::Relay => "relay",
    }
}

fn id_json(id: Option<ProcessId>) -> Value {
    id.map_or(Value::Null, |id| json!(id.to_string()))
}

fn report_json(report: &ClusterReport) -> Value {
    let status = &report.status;
    let hosts = status.hosts.iter().map(|host| host_json(host, of_host(&report.hosts, host.name)));
    let hosts: Vec<Value> = hosts.collect();
    json!({
        "v": 1,
        "cluster": status.cluster,
        "degraded": !status.alarms.is_empty(),
        "alarms": status.alarms,
        "hosts": hosts,
    })
}

fn host_json(host: &HostStatus, report: Option<&HostReport>) -> Value {
    let vector: serde_json::Map<String, Value> =
        host.vector.iter().map(|(origin, seq)| (origin.to_string(), json!(seq.0))).collect();
    let processes: Vec<Value> = host
        .processes
        .iter()
        .map(|process| {
            let duties: Vec<&str> = process.duties.iter().copied().map(duty_text).collect();
            json!({
                "id": process.id.to_string(),
                "role": process.role.to_string(),
                "addr": process.addr.to_string(),
                "up": process.life == Life::Up,
                "life": life_text(process.life),
                "pid": process.pid,
                "duties": duties,
            })
        })
        .collect();
    json!({
        "name": host.name.to_string(),
        "up": host.up,
        "serving": id_json(host.serving),
        "relaying": id_json(host.relaying),
        "directing": id_json(host.directing),
        "epoch": host.epoch.0,
        "sessions": host.sessions,
        "vector": vector,
        "digest": host.digest.to_string(),
        "entries": host.entries,
        "lag": host.lag,
        "disk_bytes": host.disk_bytes,
        "trimmed_before": trimmed_before(report),
        "wire": report.map(|report| report.wire),
        "processes": processes,
    })
}

fn id_text(id: Option<ProcessId>) -> String {
    id.map_or_else(|| "-".to_owned(), |id| id.to_string())
}

/// Bytes as people read them.
pub(crate) fn bytes_text(bytes: u64) -> String {
    let units = [(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    match units.iter().find(|(size, _)| bytes >= *size) {
        Some((size, unit)) => format!("{}.{} {unit}", bytes / size, bytes % size * 10 / size),
        None => format!("{bytes} B"),
    }
}

fn number(value: impl ToString) -> Cell {
    Cell::new(value.to_string()).set_alignment(CellAlignment::Right)
}

/// The status for people.
pub(crate) fn status_text(out: Out, status: &ClusterStatus, reports: &[HostReport]) -> String {
    let state =
        if status.alarms.is_empty() { out.paint(Paint::Good, "healthy") } else { out.paint(Paint::Bad, "degraded") };
    let mut text = format!("{}: {state}\n", harmless(&status.cluster));
    for alarm in &status.alarms {
        text.push_str(&format!("  {} {}\n", out.paint(Paint::Bad, "!"), harmless(alarm)));
    }
    let mut hosts = Table::new();
    hosts.load_preset(presets::NOTHING).set_header([
        "HOST",
        "UP",
        "SERVING",
        "RELAYING",
        "DIRECTING",
        "EPOCH",
        "SESSIONS",
        "ENTRIES",
        "LAG",
        "DISK",
        "DIGEST",
        "WIRE",
        "TRIMMED BEFORE",
    ]);
    for host in &status.hosts {
        let report = of_host(reports, host.name);
        hosts.add_row([
            Cell::new(host.name),
            Cell::new(if host.up { "up" } else { "DOWN" }),
            Cell::new(id_text(host.serving)),
            Cell::new(id_text(host.relaying)),
            Cell::new(id_text(host.directing)),
            number(host.epoch.0),
            number(host.sessions),
            number(host.entries),
            number(host.lag),
            number(bytes_text(host.disk_bytes)),
            Cell::new(host.digest.to_string().chars().take(12).collect::<String>()),
            number(report.map_or_else(|| "-".to_owned(), |report| report.wire.to_string())),
            Cell::new(trimmed_before(report).unwrap_or_else(|| "-".to_owned())),
        ]);
    }
    let mut processes = Table::new();
    processes
        .load_preset(presets::NOTHING)
        .set_header(["PROCESS", "HOST", "ROLE", "ADDRESS", "STATE", "PID", "DUTIES"]);
    for host in &status.hosts {
        for process in &host.processes {
            let duties = process.duties.iter().copied().map(duty_text).collect::<Vec<_>>().join(" ");
            processes.add_row([
                Cell::new(process.id),
                Cell::new(host.name),
                Cell::new(process.role),
                Cell::new(process.addr),
                Cell::new(life_text(process.life)),
                number(process.pid),
                Cell::new(duties),
            ]);
        }
    }
    text.push_str(&format!("\n{}\n\n{}", trimmed(&hosts), trimmed(&processes)));
    text
}

/// A table without the spaces at the ends of its lines.
pub(crate) fn trimmed(table: &Table) -> String {
    table.lines().map(|line| line.trim_end().to_owned()).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::output::Format;
    use crate::client::ProcessStatus;
    use crate::id::{Digest, Epoch, Origin, Seq};
    use crate::topology::Role;

    fn host(name: &str, process: &str) -> HostStatus {
        let origin = Origin { host: "a".parse().unwrap(), incarnation: 1 };
        let id: ProcessId = process.parse().unwrap();
        HostStatus {
            name: name.parse().unwrap(),
            up: true,
            serving: Some(id),
            relaying: Some(id),
            directing: Some(id),
            epoch: Epoch(3),
            sessions: 2,
            vector: [(origin, Seq(7))].into_iter().collect(),
            digest: Digest(5),
            entries: 7,
            lag: 0,
            disk_bytes: 3 << 19,
            processes: vec![ProcessStatus {
                id,
                role: Role::Worker,
                addr: "127.0.0.1:7001".parse().unwrap(),
                life: Life::Up,
                pid: 42,
                duties: vec![Duty::Serve, Duty::Relay],
            }],
        }
    }

    fn cluster() -> ClusterStatus {
        ClusterStatus { cluster: "c".into(), alarms: vec![], hosts: vec![host("a", "A1"), host("b", "B1")] }
    }

    #[test]
    fn the_json_has_the_shape_of_the_contract() {
        let mut status = cluster();
        status.hosts.truncate(1);
        let trim = Hlc::at(crate::time::Wall(1_700_000_000_000_000));
        let report = HostReport { host: status.hosts[0].name, at: Hlc(1), wire: 2, trim, differing: vec![] };
        assert_eq!(
            report_json(&ClusterReport { status, hosts: vec![report] }),
            json!({"v": 1, "cluster": "c", "degraded": false, "alarms": [], "hosts": [{
                "name": "a", "up": true, "serving": "A1", "relaying": "A1", "directing": "A1", "epoch": 3,
                "sessions": 2, "vector": {"a.00000001": 7}, "digest": "00000000000000000000000000000005",
                "entries": 7, "lag": 0, "disk_bytes": 1_572_864, "trimmed_before": "2023-11-14T22:13:20.000000Z",
                "wire": 2, "processes": [{
                    "id": "A1", "role": "worker", "addr": "127.0.0.1:7001", "up": true, "life": "up", "pid": 42,
                    "duties": ["serve", "relay"]}]}]})
        );
    }

    #[test]
    fn an_alarm_degrades() {
        let json = |status: &ClusterStatus| report_json(&ClusterReport { status: status.clone(), hosts: vec![] });
        let mut status = cluster();
        assert_eq!(json(&status)["degraded"], false);
        status.alarms.push("the disk of a is full: free some \u{1b}space".into());
        assert_eq!(json(&status)["degraded"], true);
        assert_eq!(json(&status)["hosts"][0]["wire"], Value::Null, "not reported");
        let text = status_text(Out::new(Format::Text), &status, &[]);
        assert!(text.starts_with("c: degraded\n  ! the disk of a is full: free some \\u{1b}space\n"), "{text}");
    }

    #[test]
    fn people_get_tables() {
        let text = status_text(Out::new(Format::Text), &cluster(), &[]);
        assert!(text.contains("1.5 MiB"), "{text}");
        assert_eq!(text.lines().filter(|line| line.contains("127.0.0.1:7001")).count(), 2);
        assert_eq!((bytes_text(5), bytes_text(2048)), ("5 B".into(), "2.0 KiB".into()));
    }
}
