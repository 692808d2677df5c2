//! The command line, as people and scripts use it.

use std::process::Stdio;

use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

use super::PATIENCE;
use super::cluster::Cluster;

/// The program under test.
pub(crate) const GAGGLE: &str = env!("CARGO_BIN_EXE_gaggle");

/// How a command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ended {
    pub(crate) status: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Ended {
    /// Its one line of JSON; it must have succeeded.
    pub(crate) fn json(&self) -> Value {
        assert_eq!(self.status, Some(0), "{self:?}");
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

/// Runs a command to its end.
pub(crate) async fn run(command: &mut Command, input: &str) -> Ended {
    command.kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Who has ended already, with an error, reads no input.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes()).await;
    let output = timeout(PATIENCE, child.wait_with_output()).await.expect("a command that ends").unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    Ended { status: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
}

/// `gaggle chat --json` with nobody's terminal.
#[derive(Debug)]
pub(crate) struct Chat {
    child: Child,
    input: ChildStdin,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Chat {
    /// Begins it for this profile, at this host.
    pub(crate) fn start(cluster: &Cluster, name: &str, host: &str) -> Self {
        let mut command = cluster.command(&["chat", "--json", "--as", name, "--via", host]);
        command.kill_on_drop(true).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let input = child.stdin.take().unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Self { child, input, lines }
    }

    /// Types a line.
    pub(crate) async fn say(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
    }

    /// The next post that is shown, as `author: text`.
    pub(crate) async fn next(&mut self) -> String {
        let line = timeout(PATIENCE, self.lines.next_line()).await.expect("a post").unwrap().expect("a line");
        let post: Value = serde_json::from_str(&line).unwrap();
        format!("{}: {}", post["author"].as_str().unwrap(), post["text"].as_str().unwrap())
    }

    /// So many posts.
    pub(crate) async fn take(&mut self, count: usize) -> Vec<String> {
        let mut posts = Vec::new();
        while posts.len() < count {
            posts.push(self.next().await);
        }
        posts
    }

    /// Ends the input; tells what was still shown, and the exit status.
    pub(crate) async fn end(mut self) -> (Vec<String>, Option<i32>) {
        drop(self.input);
        let mut rest = Vec::new();
        while let Some(line) = timeout(PATIENCE, self.lines.next_line()).await.expect("an end").unwrap() {
            rest.push(line);
        }
        (rest, self.child.wait().await.unwrap().code())
    }
}
