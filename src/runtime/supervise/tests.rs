//! The supervisor with shell scripts for children: starts, restarts, ends, and what is told of them.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use super::*;
use crate::topology::{AckLevel, HostSpec, PostsKept, ProcessSpec, Role};

/// A host `h` with processes W1 and W2, and a program that plays them.
fn stage(folder: &Path, script: &str) -> (PathBuf, UpOptions) {
    let program = folder.join("program");
    std::fs::write(&program, format!("#!/bin/sh\ncd {}\nid=$2\n{script}\n", folder.display())).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let host = "h".parse().unwrap();
    let process = |id: &str, port| ProcessSpec {
        id: id.parse().unwrap(),
        host,
        role: Role::Worker,
        addr: ([127, 0, 0, 1], port).into(),
    };
    let topology = Topology {
        cluster: "c".to_owned(),
        hosts: vec![HostSpec { id: host, processes: vec![process("W1", 1), process("W2", 2)] }],
        data: "data".into(),
        certs: "certs".into(),
        ack: AckLevel::Peer,
        log_entries_kept: 1,
        log_entries_max: 2,
        posts: PostsKept::default(),
    };
    let options = UpOptions { topology_path: folder.join("t.toml"), topology, hosts: vec![], before: BTreeMap::new() };
    (program, options)
}

/// The next event that is no line of a log, with the pid taken out.
async fn next(events: &mut mpsc::Receiver<ChildEvent>) -> String {
    loop {
        let event = tokio::time::timeout(Duration::from_secs(20), events.recv()).await.unwrap().unwrap();
        match event {
            ChildEvent::Started { id, .. } => return format!("{id} started"),
            ChildEvent::Died { id, how } => return format!("{id} died: {how}"),
            ChildEvent::Restarting { id, after } => return format!("{id} again after {after:?}"),
            ChildEvent::Failed { id, message, .. } => return format!("{id} failed: {message}"),
            ChildEvent::Ready { .. } | ChildEvent::Line { .. } => {}
        }
    }
}

#[tokio::test]
async fn a_dead_child_is_started_again_when_a_sibling_asks_and_all_end_with_stop() {
    let folder = tempfile::tempdir().unwrap();
    // W1 dies once, after W2 runs; W2 asks for it as soon as it has seen that.
    let script = r#"echo "{\"ready\":\"$id\"}"
        if [ $id = W1 ] && [ ! -e died ]; then
            while [ ! -e w2 ]; do sleep 0.05; done
            touch died; kill -9 $$
        fi
        if [ $id = W2 ]; then
            touch w2
            while [ ! -e died ]; do sleep 0.05; done
            echo '{"restart":"W1","after_ms":100}'
        fi
        trap 'exit 0' TERM
        while :; do sleep 0.05; done"#;
    let (program, options) = stage(folder.path(), script);
    let (supervisor, mut events) = Supervisor::start_program(program, options).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 5 {
        seen.push(next(&mut events).await);
    }
    let expected = ["W1 started", "W2 started", "W1 died: signal: 9 (SIGKILL)", "W1 again after 100ms", "W1 started"];
    assert_eq!(seen, expected);
    supervisor.stop().await;
    let mut last = Vec::new();
    while let Ok(event) = events.try_recv() {
        last.push(event);
    }
    let died = last.iter().filter(|event| matches!(event, ChildEvent::Died { .. })).count();
    assert_eq!(died, 2, "{last:?}");
}

#[tokio::test]
async fn a_host_of_which_nobody_lives_is_started_again_save_who_said_goodbye() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"echo "{\"ready\":\"$id\"}"
        if [ $id = W2 ]; then exit 0; fi
        if [ ! -e died ]; then sleep 0.5; touch died; kill -9 $$; fi
        trap 'exit 0' TERM
        while :; do sleep 0.05; done"#;
    let (program, options) = stage(folder.path(), script);
    let (supervisor, mut events) = Supervisor::start_program(program, options).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 6 {
        seen.push(next(&mut events).await);
    }
    assert_eq!(seen[2], "W2 died: exit status: 0");
    assert_eq!(seen[3..], ["W1 died: signal: 9 (SIGKILL)", "W1 again after 1s", "W1 started"]);
    supervisor.stop().await;
}

#[tokio::test]
async fn who_cannot_start_is_reported_in_its_own_words_and_the_others_are_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"if [ $id = W2 ]; then echo "port 2 is in use" >&2; exit 1; fi
        echo "{\"ready\":\"$id\"}"
        trap 'exit 0' TERM
        while :; do sleep 0.05; done"#;
    let (program, options) = stage(folder.path(), script);
    let (_supervisor, mut events) = Supervisor::start_program(program, options).unwrap();
    let mut seen = Vec::new();
    while seen.len() < 5 {
        seen.push(next(&mut events).await);
    }
    assert_eq!(seen[4], "W2 failed: port 2 is in use");
    assert!(seen.iter().any(|event| event.starts_with("W1 died")), "{seen:?}");
    assert!(events.recv().await.is_none(), "the last event");
}

#[tokio::test]
async fn blows_reach_whom_they_are_for_and_a_stopped_child_says_goodbye_all_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"trap 'exit 0' TERM
        echo "{\"ready\":\"$id\"}"
        while :; do sleep 0.05; done"#;
    let (program, options) = stage(folder.path(), script);
    let (supervisor, mut events) = Supervisor::start_program(program, options).unwrap();
    let (one, other): (ProcessId, ProcessId) = ("W1".parse().unwrap(), "W2".parse().unwrap());
    let mut ready = 0;
    while ready < 2 {
        ready += usize::from(matches!(events.recv().await.unwrap(), ChildEvent::Ready { .. }));
    }
    supervisor.strike(vec![one], Blow::Kill).await.unwrap();
    assert_eq!(next(&mut events).await, "W1 died: signal: 9 (SIGKILL)");
    assert!(supervisor.strike(vec![one], Blow::Continue).await.is_err(), "nobody is there");
    supervisor.strike(vec![other], Blow::Stop).await.unwrap();
    supervisor.stop().await;
    assert_eq!(next(&mut events).await, "W2 died: exit status: 0");
}

#[tokio::test]
async fn the_words_of_a_host_come_before_its_processes_and_become_them() {
    let folder = tempfile::tempdir().unwrap();
    let script = r#"echo "{\"ready\":\"$id\"}"; echo "$WORD $$" >&2
        trap 'exit 0' TERM
        while :; do sleep 0.05; done"#;
    let (program, mut options) = stage(folder.path(), script);
    options.before = [("h".parse().unwrap(), ["env", "WORD=said"].map(OsString::from).to_vec())].into();
    let (supervisor, mut events) = Supervisor::start_program(program, options).unwrap();
    let (mut started, mut said) = (Vec::new(), Vec::new());
    while said.len() < 2 {
        match tokio::time::timeout(Duration::from_secs(20), events.recv()).await.unwrap().unwrap() {
            ChildEvent::Started { pid, .. } => started.push(format!("said {pid}")),
            ChildEvent::Line { text, .. } => said.push(text),
            ChildEvent::Ready { .. } => {}
            event @ (ChildEvent::Died { .. } | ChildEvent::Restarting { .. } | ChildEvent::Failed { .. }) => {
                panic!("{event:?}")
            }
        }
    }
    said.sort();
    started.sort();
    assert_eq!(said, started);
    supervisor.stop().await;
}
