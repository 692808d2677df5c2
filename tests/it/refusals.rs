//! Bad input, each with its exit status and its words.

use std::os::unix::fs::PermissionsExt;

use gaggle::client::{ClientError, Identity};
use gaggle::error::ErrorCode;
use serde_json::Value;

use crate::harness::{Cluster, Person, Status, Ups, cli};

/// Runs a command that must fail so: its exit status, its error's name, and a part of its message.
async fn refused(cluster: &Cluster, arguments: &[&str], status: i32, code: &str, part: &str) {
    let ended = cluster.gaggle(&[arguments, &["--json"]].concat()).await;
    assert_eq!((ended.status, ended.out.as_str()), (Some(status), ""), "{arguments:?}: {ended:?}");
    let line = ended.err.lines().find(|line| line.contains(r#""error":"#));
    let error: Value = serde_json::from_str(line.unwrap_or_else(|| panic!("{arguments:?}: {ended:?}"))).unwrap();
    assert_eq!(error["error"], code, "{arguments:?}: {ended:?}");
    assert!(error["message"].as_str().unwrap().contains(part), "{arguments:?}: {ended:?}");

    let plain = cluster.gaggle(arguments).await;
    assert_eq!((plain.status, plain.out.as_str()), (Some(status), ""), "{arguments:?}: {plain:?}");
    assert!(plain.err.contains(part), "{arguments:?}: {plain:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_people_ask_wrongly_is_refused_and_changes_nothing() {
    let cluster = Cluster::start(Ups::One).await;
    for name in ["bob", "ann"] {
        cluster.gaggle(&["login", name, "--json"]).await.json();
    }
    cluster.gaggle(&["join", "bob", "--json"]).await.json();

    refused(&cluster, &["join", "nobody-here"], 3, "unknown-user", "nobody-here").await;
    refused(&cluster, &["leave", "nobody-here"], 3, "unknown-user", "nobody-here").await;
    refused(&cluster, &["timeline", "--user", "nobody-here"], 3, "unknown-user", "nobody-here").await;
    refused(&cluster, &["join", "BOB"], 4, "already-joined", "bob").await;
    refused(&cluster, &["join", "ann"], 2, "oneself", "").await;
    refused(&cluster, &["leave", "ann"], 4, "not-joined", "ann").await;
    refused(&cluster, &["leave", "ann", "--as", "bob"], 4, "not-joined", "ann").await;

    refused(&cluster, &["login", &"a".repeat(33)], 2, "usage", "32").await;
    refused(&cluster, &["login", ""], 2, "usage", "").await;
    refused(&cluster, &["login", "two words"], 2, "usage", "").await;
    refused(&cluster, &["login", "bell\u{7}"], 2, "usage", "").await;
    refused(&cluster, &["login", "ann~3f2a"], 2, "usage", "").await;
    refused(&cluster, &["post", &"x".repeat(1_001)], 2, "usage", "1001").await;
    refused(&cluster, &["post", ""], 2, "usage", "empty").await;
    refused(&cluster, &["post", "a\u{1b}[31mred"], 2, "usage", "control character").await;
    refused(&cluster, &["post", "two\nlines"], 2, "usage", "one line").await;
    refused(&cluster, &["post", "x", "--id", "with space"], 2, "usage", "").await;
    refused(&cluster, &["post", "x", "--id", &"i".repeat(65)], 2, "usage", "64").await;
    refused(&cluster, &["post", "x", "--ack", "most"], 2, "usage", "most").await;
    refused(&cluster, &["timeline", "-n", "100001"], 2, "usage", "100").await;
    refused(&cluster, &["list", "--as", "carla"], 2, "usage", "carla").await;
    refused(&cluster, &["list", "--via", "lenss9"], 2, "usage", "lenss9").await;
    refused(&cluster, &["drain", "W99"], 2, "usage", "W99").await;

    // What is at a limit, and not over it, is taken.
    cluster.gaggle(&["login", &"z".repeat(32), "--json"]).await.json();
    cluster.gaggle(&["post", &"é".repeat(1_000), "--as", "ann", "--json"]).await.json();
    let list = cluster.gaggle(&["list", "--json", "--as", "ann"]).await.json();
    assert_eq!(list["joined"], serde_json::json!(["bob"]));
    let timeline = cluster.gaggle(&["timeline", "--json", "--as", "ann"]).await;
    assert_eq!(timeline.out.lines().count(), 1, "{timeline:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_not_right_are_refused() {
    let cluster = Cluster::start(Ups::One).await;
    cluster.gaggle(&["login", "ann", "--json"]).await.json();

    // Somebody else's name: another machine is another folder of profiles. Case makes no other name.
    for name in ["ann", "ANN"] {
        let mut command = cluster.command(&["login", name, "--json"]);
        let ended = cli::run(command.env("GAGGLE_HOME", cluster.path("elsewhere")), "").await;
        assert_eq!(ended.status, Some(5), "{ended:?}");
        assert!(ended.err.contains(r#""error":"name-taken""#), "{ended:?}");
    }

    let key = cluster.path("home/profiles/ann/key");
    let good = std::fs::read(&key).unwrap();
    std::fs::write(&key, "no key").unwrap();
    refused(&cluster, &["list"], 5, "identity", "profiles/ann/key").await;
    std::fs::remove_file(&key).unwrap();
    refused(&cluster, &["list"], 5, "identity", "profiles/ann/key").await;
    std::fs::create_dir(&key).unwrap();
    refused(&cluster, &["list"], 5, "identity", "profiles/ann/key").await;
    std::fs::remove_dir(&key).unwrap();
    std::fs::write(&key, good).unwrap();
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    refused(&cluster, &["list"], 5, "identity", "profiles/ann/key").await;
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o600)).unwrap();
    cluster.gaggle(&["list", "--json"]).await.json();
}

/// Who runs a machine has the private keys of its processes, and nobody else drains them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operator_drains_a_process_and_a_stranger_does_not() {
    let cluster = Cluster::start(Ups::One).await;
    let (key, kept) = (cluster.path("certs/private/W5.key"), cluster.path("kept"));
    std::fs::rename(&key, &kept).unwrap();
    refused(&cluster, &["drain", "W5"], 5, "identity", "W5.key").await;
    Identity::load_or_make(&key).unwrap();
    refused(&cluster, &["drain", "W5"], 5, "not-operator", "private key").await;
    std::fs::rename(&kept, &key).unwrap();
    cluster.gaggle(&["drain", "W5", "--json"]).await.json();
    cluster.wait("served by the next", |status| status.host("lenss3").serving.as_deref() == Some("W6")).await;
}

/// A login that is done is known at every host, so that without a partition nobody else gets the name.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_one_host_gave_is_taken_at_the_next_at_once() {
    let cluster = Cluster::start(Ups::One).await;
    let mut known = 0;
    for number in 0..20 {
        let name = format!("person-{number}");
        let (first, second) = if number % 2 == 0 { ("lenss3", "lenss4") } else { ("lenss4", "lenss3") };
        let written = Person::claim_at(&cluster, &name, first).await.unwrap();
        let again = Person::claim_at(&cluster, &name, second).await;
        // A machine that is too busy may have answered for want of time: that looks like a partition, and says so.
        if written.copies == 3 {
            known += 1;
            let Err(ClientError::Refused(refusal)) = again else { panic!("{name} was given twice: {again:?}") };
            assert_eq!(refusal.code, ErrorCode::NameTaken, "{refusal:?}");
        }
    }
    assert!(known > 0, "no login waited for all hosts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_stored_is_done_whatever_becomes_of_the_profile() {
    let cluster = Cluster::start(Ups::One).await;
    cluster.gaggle(&["login", "ann", "--json"]).await.json();
    cluster.gaggle(&["login", "bob", "--json"]).await.json();

    // The token cannot be kept: a failure would say that nothing was stored, and people would post again.
    let lock = cluster.path("home/profiles/bob/lock");
    std::fs::remove_file(&lock).unwrap();
    std::fs::create_dir(&lock).unwrap();
    let ended = cluster.gaggle(&["post", "stored", "--id", "one", "--json"]).await;
    assert_eq!(ended.status, Some(0), "{ended:?}");
    assert!(ended.out.contains(r#""id":"one""#), "{ended:?}");
    assert!(ended.err.contains(r#""notice":"not-kept""#), "{ended:?}");
    std::fs::remove_dir(&lock).unwrap();

    // A profile that is broken does not stop what needs none, nor anybody else; a login mends it, with its old key.
    std::fs::write(cluster.path("home/profiles/bob/profile.toml"), "").unwrap();
    refused(&cluster, &["list"], 2, "usage", "profile.toml").await;
    cluster.gaggle(&["status", "--json"]).await.json();
    cluster.gaggle(&["list", "--as", "ann", "--json"]).await.json();
    assert_eq!(cluster.gaggle(&["profiles", "--json"]).await.out.lines().count(), 2);
    cluster.gaggle(&["login", "bob", "--json"]).await.json();
    let timeline = cluster.gaggle(&["timeline", "--json"]).await;
    assert_eq!(timeline.out.lines().count(), 1, "{timeline:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_cluster_or_with_a_broken_file_commands_say_so() {
    let mut cluster = Cluster::prepare(Ups::One);
    // Nothing has ever run here.
    refused(&cluster, &["status"], 6, "unreachable", "").await;
    refused(&cluster, &["login", "ann"], 6, "unreachable", "").await;
    refused(&cluster, &["list"], 2, "usage", "nobody is logged in").await;
    cluster.start_again().await;
    cluster.gaggle(&["login", "ann", "--json"]).await.json();
    cluster.stop();
    // It has run, and is gone.
    refused(&cluster, &["status", "--timeout", "1"], 6, "unreachable", "").await;
    refused(&cluster, &["list", "--timeout", "1"], 6, "unreachable", "").await;
    refused(&cluster, &["post", "x", "--timeout", "1"], 6, "unreachable", "").await;

    let absent = cluster.path("absent.toml");
    let absent = absent.to_str().unwrap();
    for verb in [&["up"][..], &["node", "W5"], &["status"], &["config", "check", absent]] {
        refused(&cluster, &[verb, &["--topology", absent]].concat(), 2, "usage", "absent.toml").await;
    }
    refused(&cluster, &["node", "W99"], 2, "usage", "W99").await;
    refused(&cluster, &["up", "--host", "lenss9"], 2, "usage", "lenss9").await;

    let broken = cluster.path("broken.toml");
    let at = broken.to_str().unwrap();
    let lenss = cluster.lenss();
    let cases = [
        (lenss.replacen("\"M2\"", "\"M1\"", 1), "M1"),
        (lenss.replacen(&cluster.addr(2), &cluster.addr(1), 1), &cluster.addr(1)),
        (lenss.replacen("role = \"master\"", "role = \"boss\"", 1), "boss"),
        (lenss.replacen("ack = ", "acks = ", 1), "acks"),
        (format!("{lenss}\n[[host]]\nname = \"lonely\"\n"), "lonely"),
        (lenss.replacen("[[host]]", "[[host", 1), "broken.toml:"),
    ];
    for (text, part) in cases {
        std::fs::write(&broken, text).unwrap();
        refused(&cluster, &["config", "check", at], 2, "usage", part).await;
        refused(&cluster, &["up", "--topology", at], 2, "usage", "broken.toml:").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_up_is_refused_and_harms_nobody() {
    let cluster = Cluster::start(Ups::One).await;
    let pids = |status: &Status| status.processes().map(|process| process.pid).collect::<Vec<_>>();
    let before = pids(&cluster.wait("healthy", |status| status.is_healthy()).await);
    refused(&cluster, &["up"], 1, "failed", "runs already").await;
    refused(&cluster, &["node", "W5"], 1, "failed", "runs already").await;

    // Another cluster's file, with the same ports.
    std::fs::create_dir(cluster.path("other")).unwrap();
    let other = cluster.path("other/lenss.toml");
    std::fs::write(&other, cluster.lenss()).unwrap();
    refused(&cluster, &["up", "--topology", other.to_str().unwrap()], 1, "failed", "in use").await;
    let after = pids(&cluster.wait("healthy", |status| status.is_healthy()).await);
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_refuses_writes_keeps_reads_and_heals() {
    let mut cluster = Cluster::prepare(Ups::One);
    if let Err(why) = cluster.start_on_small_disk("lenss3", "16m").await {
        return eprintln!("SKIPPED: no disk can be filled, because this machine does not let us mount one: {why}");
    }
    cluster.gaggle(&["login", "ann", "--json", "--via", "lenss3"]).await.json();
    cluster.gaggle(&["post", "before", "--json", "--via", "lenss3", "--ack", "all"]).await.json();

    let ballast = cluster.inside("data/lenss3/ballast");
    let mut file = std::fs::File::create(&ballast).unwrap();
    while std::io::Write::write_all(&mut file, &[0; 4_096]).is_ok() {}
    drop(file);
    // What still fits into free pages may be taken; then there is an end.
    let mut taken = 0;
    let refusal = loop {
        let ended = cluster.gaggle(&["post", &"x".repeat(1_000), "--json", "--via", "lenss3", "--timeout", "5"]).await;
        if ended.status != Some(0) {
            break ended;
        }
        taken += 1;
        assert!(taken < 1_000, "the disk does not fill up");
    };
    assert_eq!(refusal.status, Some(1), "{refusal:?}");
    assert!(refusal.err.contains(r#""error":"disk-full""#), "{refusal:?}");
    cluster.wait("a full disk", |status| status.alarms.iter().any(|alarm| alarm.contains("lenss3 is full"))).await;

    // Reads go on there, and writes at the other host, where new clients are sent.
    let there = cluster.gaggle(&["timeline", "-n", "2000", "--json", "--via", "lenss3"]).await;
    assert_eq!((there.status, there.out.lines().count()), (Some(0), taken + 1), "{there:?}");
    let elsewhere = cluster.gaggle(&["post", "elsewhere", "--json"]).await.json();
    assert_eq!(elsewhere["host"], "lenss4");

    std::fs::remove_file(&ballast).unwrap();
    cluster.wait("healed", Status::is_healthy).await;
    cluster.gaggle(&["post", "after", "--json", "--via", "lenss3", "--ack", "all"]).await.json();
    let there = cluster.gaggle(&["timeline", "-n", "2000", "--json", "--via", "lenss3"]).await;
    assert_eq!(there.out.lines().count(), taken + 3, "{there:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn folders_and_keys_of_processes_that_cannot_be_used_are_named() {
    let mut cluster = Cluster::start(Ups::One).await;
    cluster.stop();

    // A format that only a later version writes.
    let data = cluster.path("data/lenss3/store/data.mdb");
    let good = std::fs::read(&data).unwrap();
    let mut newer = good.clone();
    let places: Vec<usize> =
        (0..newer.len() - 10).filter(|at| newer[*at..].starts_with(b"format\x00\x00\x00\x01")).collect();
    assert!(!places.is_empty(), "the format is not where it was");
    for at in places {
        newer[at + 9] = 2;
    }
    std::fs::write(&data, newer).unwrap();
    refused(&cluster, &["node", "W5"], 1, "failed", "disk format 2").await;
    refused(&cluster, &["up"], 1, "failed", "disk format 2").await;
    std::fs::write(&data, good).unwrap();

    // Another host's folder.
    let (one, other) = (cluster.path("data/lenss3"), cluster.path("data/lenss4"));
    let aside = cluster.path("data/aside");
    std::fs::rename(&one, &aside).unwrap();
    std::fs::rename(&other, &one).unwrap();
    refused(&cluster, &["node", "W5"], 1, "failed", "lenss4").await;
    std::fs::rename(&one, &other).unwrap();
    std::fs::rename(&aside, &one).unwrap();

    let key = cluster.path("certs/private/W5.key");
    let good = std::fs::read(&key).unwrap();
    std::fs::write(&key, "no key").unwrap();
    refused(&cluster, &["node", "W5"], 5, "identity", "W5.key").await;
    refused(&cluster, &["up"], 5, "identity", "W5.key").await;
    std::fs::write(&key, good).unwrap();
    cluster.start_again().await;
}
