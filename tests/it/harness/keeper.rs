//! `gaggle up`, or one `gaggle node`, kept by a shell that ends it when this program is gone, however it went.
//!
//! The shell waits at the other end of a pipe that this program holds: when the pipe is closed, by us or by the kernel,
//! it kills `up`, which takes its children along. (A parent-death signal would need unsafe code here.)

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// `$!` is `up`. Its standard output is not the shell's, so that its end is seen there.
const SCRIPT: &str = r#"trap '' INT TERM HUP
"$@" & echo $!; exec >&-
read -r _; kill -9 $! 2>&-; wait $!"#;

/// A running `gaggle up`, or `gaggle node`.
#[derive(Debug)]
pub(crate) struct Up {
    keeper: Child,
    pid: Pid,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Up {
    /// Starts it, as the last arguments of `wrapper`, which must become it; standard error goes to `log`.
    pub(crate) fn start(wrapper: &[String], topology: &Path, hosts: &[&str], log: PathBuf) -> Self {
        let mut words: Vec<&str> = wrapper.iter().map(String::as_str).collect();
        words.extend([super::cli::GAGGLE, "up", "--json"]);
        words.extend(hosts.iter().flat_map(|host| ["--host", host]));
        Self::keep(&words, topology, log)
    }

    /// Starts one process of the topology, as these words say before its name.
    pub(crate) fn node(program: &[String], topology: &Path, id: &str, log: PathBuf) -> Self {
        let words: Vec<&str> = program.iter().map(String::as_str).chain(["node", id]).collect();
        Self::keep(&words, topology, log)
    }

    fn keep(words: &[&str], topology: &Path, log: PathBuf) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "sh"]).args(words).arg("--topology").arg(topology);
        let errors = File::options().create(true).append(true).open(&log).unwrap();
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(errors);
        command.env_remove("GAGGLE_TOPOLOGY").env("GAGGLE_HOME", topology.with_file_name("nobody"));
        let mut keeper = command.spawn().unwrap();
        let mut out = BufReader::new(keeper.stdout.take().unwrap());
        let mut pid = String::new();
        out.read_line(&mut pid).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        let (sender, lines) = channel();
        std::thread::Builder::new()
            .name("up".into())
            .spawn(move || {
                for line in out.lines().map_while(Result::ok) {
                    if sender.send(line).is_err() {
                        return;
                    }
                }
            })
            .unwrap();
        Self { keeper, pid, lines, log }
    }

    /// Waits for the line `ready`.
    pub(crate) fn wait_ready(&self, patience: Duration) {
        match self.lines.recv_timeout(patience) {
            Ok(line) => assert!(line.contains(r#""ready":true"#), "{line}"),
            Err(RecvTimeoutError::Timeout) => panic!("up did not get ready in {patience:?}\n{}", self.log_tail()),
            Err(RecvTimeoutError::Disconnected) => panic!("up ended\n{}", self.log_tail()),
        }
    }

    /// The pid of `up`.
    pub(crate) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// Sends `up` a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid, signal).unwrap();
    }

    /// Waits for the end of `up` itself; tells its exit status.
    pub(crate) fn wait(mut self, patience: Duration) -> Option<i32> {
        match self.lines.recv_timeout(patience) {
            Err(RecvTimeoutError::Disconnected) => {}
            other => panic!("up did not end: {other:?}\n{}", self.log_tail()),
        }
        self.end()
    }

    fn end(&mut self) -> Option<i32> {
        drop(self.keeper.stdin.take());
        self.keeper.wait().unwrap().code()
    }

    /// The last lines that it and its processes logged.
    pub(crate) fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(100)..].join("\n")
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        self.end();
    }
}
