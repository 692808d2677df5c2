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

/// What a drill's networks, disks and clocks take of a machine.
const ROOMS: &str = "ip link set lo up && nft add table bridge drill && mount -t tmpfs none /dev/shm";
/// What delays take besides.
const DETOURS: &str = "ip tuntap add dev detour mode tap && nft 'table netdev drill { chain detours { type filter hook ingress device detour priority 0; fwd to detour; }; }'";
/// Before a command that is to find no TAP devices.
const HIDE_TAP: &str = "mount --bind /dev/null /dev/net/tun && exec \"$0\" \"$@\"";

/// A command that runs a script in namespaces of its own.
fn in_rooms(namespaces: &[&str], script: &str) -> std::process::Command {
    let user: &[&str] = if rustix::process::geteuid().is_root() { &[] } else { &["--user", "--map-root-user"] };
    let mut command = std::process::Command::new("unshare");
    command.args(user).args(namespaces).args(["sh", "-c", script]);
    command
}

/// Why this machine does not let a drill have these, if it does not.
fn refusal_of(script: &str) -> Option<String> {
    match in_rooms(&["--net", "--mount"], script).output() {
        Ok(output) if output.status.success() => None,
        Ok(output) => Some(String::from_utf8_lossy(&output.stderr).into_owned()),
        Err(error) => Some(format!("unshare: {error}")),
    }
}

/// A drill whose temporary folder is below this one.
fn drill(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(GAGGLE);
    command.args(["drill", "--json", "--topology", TOPOLOGY]).args(arguments);
    command.env("TMPDIR", folder).env("GAGGLE_HOME", folder.join("home")).env_remove("GAGGLE_TOPOLOGY");
    command
}

/// What must be 0 in each drill.
const WRONG: [&str; 8] = ["lost", "doubled", "disordered", "invented", "untold", "twice", "stale", "errors"];

/// Nothing is wrong, and not because nobody looked: two followers were told each post, once.
fn assert_clean(ended: &cli::Ended) -> Value {
    assert_eq!(ended.status, Some(0), "{ended:?}");
    let figures = ended.json();
    assert_eq!(WRONG.map(|key| &figures[key]), [&json!(0); 8], "{ended:?}");
    let count = |key: &str| figures[key].as_u64().unwrap();
    assert!(count("posts") > 0, "{ended:?}");
    assert_eq!(count("told"), 2 * count("posts"), "{ended:?}");
    figures
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
    let figures = assert_clean(&ended);
    assert_eq!(ended.out.lines().count(), 1, "{ended:?}");
    // Each of four people has looked at one of the first posts.
    assert!(figures["looks"].as_u64().unwrap() >= 4, "{ended:?}");
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

/// One of each, with nothing lost and nothing left behind, not even a network or a mount.
async fn breaks_and_mends(fault: &str, arguments: &[&str]) {
    if let Some(why) = refusal_of(ROOMS) {
        return eprintln!("SKIPPED: no drill of {fault}, because this machine gives it no namespaces: {why}");
    }
    let folder = TempDir::with_prefix("gaggle-it-").unwrap();
    let arguments: Vec<&str> = [fault, "--clients", "4"].into_iter().chain(arguments.iter().copied()).collect();
    let ended = cli::run(&mut drill(folder.path(), &arguments), "").await;
    let figures = assert_clean(&ended);
    assert_eq!((&figures["fault"], &figures["digests"]), (&json!(fault), &json!("equal")), "{ended:?}");
    assert!(figures["times"].as_u64().is_some_and(|times| times > 0), "{ended:?}");
    assert_eq!((left_in(folder.path()), running_in(folder.path())), (vec![], vec![]));
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.contains(folder.path().to_str().unwrap()), "{mounts}");
    let links = std::fs::read_to_string("/proc/self/net/dev").unwrap();
    assert!(!links.contains("wire:") && !links.contains("switch:"), "{links}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hosts_that_are_cut_from_each_other_come_together_again() {
    breaks_and_mends("partition", &["--times", "3"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_packets_lose_no_post() {
    breaks_and_mends("loss", &["--times", "1"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn packets_that_overtake_each_other_cost_nobody_a_post() {
    if let Some(why) = refusal_of(DETOURS) {
        return eprintln!("SKIPPED: no drill of delay, because this machine has no detours: {why}");
    }
    breaks_and_mends("delay", &["--times", "2"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_machine_lacks_is_named_and_left_out_of_chaos() {
    if let Some(why) = refusal_of(&format!("{ROOMS} && {DETOURS}")) {
        return eprintln!("SKIPPED: nothing to hide from a drill of delay: {why}");
    }
    let folder = TempDir::with_prefix("gaggle-it-").unwrap();
    let without_tap = |arguments: &[&str]| {
        let drill = drill(folder.path(), arguments);
        let mut command = in_rooms(&["--mount"], HIDE_TAP);
        command.arg(drill.as_std().get_program()).args(drill.as_std().get_args());
        for (name, value) in drill.as_std().get_envs() {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        }
        Command::from(command)
    };
    let named = cli::run(&mut without_tap(&["delay", "--times", "1"]), "").await;
    assert_eq!((named.status, named.out.as_str()), (Some(1), ""), "{named:?}");
    let error: Value = serde_json::from_str(&named.err).unwrap();
    assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("/dev/net/tun")), "{named:?}");
    let chaos = cli::run(&mut without_tap(&["chaos", "--seconds", "1", "--clients", "1"]), "").await;
    assert_eq!(chaos.status, Some(0), "{chaos:?}");
    assert!(chaos.err.contains("delay is left out"), "{chaos:?}");
    assert!(!chaos.err.contains("loss is left out"), "{chaos:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn full_disks_of_each_host_cost_nobody_a_post() {
    breaks_and_mends("disk", &["--times", "3"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn chaos_is_seeded_and_tells_of_each_kind() {
    breaks_and_mends("chaos", &["--seconds", "10", "--seed", "3"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clocks_jump_where_the_library_is() {
    let folder = TempDir::with_prefix("gaggle-it-").unwrap();
    let named = cli::run(&mut drill(folder.path(), &["clock", "--times", "1", "--clients", "1"]), "").await;
    if named.status == Some(1) && (named.err.contains("libfaketime") || refusal_of(ROOMS).is_some()) {
        // What is missing is named, with what to do, before anything starts.
        let error: Value = serde_json::from_str(&named.err).unwrap();
        assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("install")), "{named:?}");
        return eprintln!("SKIPPED: no drill of clocks: {}", error["message"]);
    }
    breaks_and_mends("clock", &["--times", "2"]).await;
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
    let lines = [
        &["kill", "--process", "W99"][..],
        &["host", "--process", "W5"],
        &["fire"],
        &["kill", "--times", "0"],
        &["kill", "--seed", "1"],
        &["chaos", "--times", "1"],
    ];
    for arguments in lines {
        let ended = cli::run(&mut drill(folder.path(), arguments), "").await;
        assert_eq!((ended.status, ended.out.as_str()), (Some(2), ""), "{ended:?}");
        let error: Value = serde_json::from_str(&ended.err).unwrap();
        assert_eq!(error["error"], "usage", "{ended:?}");
    }
    assert_eq!(left_in(folder.path()), Vec::<String>::new());
}
