//! A drill, as an operator runs it: what it says, and that it leaves nothing behind.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::process::Command;
use tokio::time::{Instant, sleep, timeout};

use crate::harness::cli::{self, GAGGLE};
use crate::harness::{LOOK, PATIENCE};

/// The reference topology: only a model, whose ports and folders a drill does not use.
const TOPOLOGY: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/topology/lenss.toml");

/// A drill whose temporary folder is below this one.
fn drill(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(GAGGLE);
    command.args(["drill", "--json", "--topology", TOPOLOGY]).args(arguments);
    command.env("TMPDIR", folder).env("GAGGLE_HOME", folder.join("home")).env_remove("GAGGLE_TOPOLOGY");
    command
}

/// What is left in the folder of folders.
fn left_in(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// The processes that run with a topology in this folder.
fn running_in(folder: &Path) -> Vec<String> {
    let folder = folder.to_str().unwrap();
    let pids = std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let command_of = |pid: String| std::fs::read(format!("/proc/{pid}/cmdline")).ok();
    let commands = pids.filter(|pid| pid.parse::<u32>().is_ok()).filter_map(command_of);
    let texts = commands.map(|bytes| String::from_utf8_lossy(&bytes).replace('\0', " "));
    texts.filter(|text| text.contains(&format!("--topology {folder}"))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_kills_lose_nothing_and_leave_nothing_behind() {
    let folder = TempDir::with_prefix("gaggle-it-").unwrap();
    let ended = cli::run(&mut drill(folder.path(), &["kill", "--times", "2", "--clients", "4"]), "").await;
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert_eq!(ended.out.lines().count(), 1, "{ended:?}");
    let figures = ended.json();
    let zero = ["lost", "doubled", "disordered", "invented", "errors"].map(|key| &figures[key]);
    assert_eq!(zero, [&json!(0); 5], "{ended:?}");
    let said = ["v", "fault", "times", "clients", "digests"].map(|key| figures[key].clone());
    assert_eq!(said, [json!(1), json!("kill"), json!(2), json!(4), json!("equal")], "{ended:?}");
    let times = ["p50_ms", "p99_ms", "max_ms", "whole_p50_ms", "whole_max_ms", "client_p50_ms"];
    assert!(times.iter().all(|key| figures[*key].as_f64().is_some_and(|ms| ms > 0.0)), "{ended:?}");
    // Each of four people had an answer before, between and after the faults.
    assert!(figures["posts"].as_u64().unwrap() >= 3 * 4, "{ended:?}");
    // Two hosts have clients, and each lost its primary.
    let struck = |turn: u32, id: &str| ended.err.contains(&format!("kill {turn}/2 {id}:"));
    assert!(struck(1, "W5") || struck(1, "W8"), "{ended:?}");
    assert_eq!((left_in(folder.path()), running_in(folder.path())), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_interrupted_drill_ends_what_it_started() {
    let folder = TempDir::with_prefix("gaggle-it-").unwrap();
    let mut command = drill(folder.path(), &["calm", "--times", "10000", "--clients", "2"]);
    let mut child = command.kill_on_drop(true).spawn().unwrap();
    let deadline = Instant::now() + PATIENCE;
    while running_in(folder.path()).len() < 10 {
        assert!(Instant::now() < deadline, "the processes do not start: {:?}", running_in(folder.path()));
        sleep(LOOK).await;
    }
    let pid = Pid::from_raw(i32::try_from(child.id().unwrap()).unwrap()).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    let status = timeout(PATIENCE, child.wait()).await.expect("an end").unwrap();
    assert_eq!(status.code(), Some(130));
    assert_eq!((left_in(folder.path()), running_in(folder.path())), (vec![], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_makes_no_sense_is_refused_before_anything_starts() {
    let folder = TempDir::with_prefix("gaggle-it-").unwrap();
    for arguments in
        [&["kill", "--process", "W99"][..], &["host", "--process", "W5"], &["fire"], &["kill", "--times", "0"]]
    {
        let ended = cli::run(&mut drill(folder.path(), arguments), "").await;
        assert_eq!((ended.status, ended.out.as_str()), (Some(2), ""), "{ended:?}");
        let error: Value = serde_json::from_str(&ended.err).unwrap();
        assert_eq!(error["error"], "usage", "{ended:?}");
    }
    assert_eq!(left_in(folder.path()), Vec::<String>::new());
}
