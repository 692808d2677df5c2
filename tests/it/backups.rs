//! A backup of a host that is made under load, and put back after its disk was lost.

use std::path::Path;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::harness::{Cluster, LOOK, Load, PATIENCE, Ups};

const PEOPLE: usize = 8;
const HOST: &str = "lenss3";

/// Asks for a restore that must be refused; tells why it was.
async fn refused(cluster: &Cluster, file: &str, host: &str, status: i32) -> String {
    let ended = cluster.gaggle(&["backup", "restore", file, "--host", host, "--json"]).await;
    assert_eq!(ended.status, Some(status), "{ended:?}");
    let error: Value = serde_json::from_str(&ended.err).unwrap();
    error["message"].as_str().unwrap().to_owned()
}

/// The names in a folder.
fn names(folder: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backup_made_under_load_is_restored_and_the_host_fetches_the_rest() {
    let mut cluster = Cluster::start(Ups::ForEachHost).await;
    let load = Load::start(&cluster, PEOPLE).await;
    load.wait_for_posts(10 * PEOPLE).await;
    let several = cluster.gaggle(&["backup", "create", "file", "--json"]).await;
    assert_eq!(several.status, Some(2), "{several:?}");
    let made = cluster.gaggle(&["backup", "create", "file", "--host", HOST, "--json"]).await.json();
    assert_eq!((made["backup"].as_str(), made["host"].as_str()), (Some("created"), Some(HOST)));
    let verified = cluster.gaggle(&["backup", "verify", "file", "--json"]).await.json();
    assert_eq!((&verified["digest"], &verified["rows"]), (&made["digest"], &made["rows"]));
    let again = cluster.gaggle(&["backup", "create", "file", "--host", HOST]).await;
    assert_eq!(again.status, Some(1), "{again:?}");

    load.wait_for_posts(10 * PEOPLE).await;
    let origin = |name: &str| name.starts_with(&format!("{HOST}."));
    let former: String = made["vector"].as_object().unwrap().keys().find(|name| origin(name)).unwrap().clone();
    assert!(refused(&cluster, "file", HOST, 1).await.contains("processes of lenss3 live"));
    let (data, moved) = (cluster.path("data/lenss3"), cluster.path("moved"));
    cluster.kill_host(HOST).await;
    cluster.wait("seen as down", |status| !status.host(HOST).up).await;
    // The kernel may need a moment to end the last of them.
    let deadline = Instant::now() + PATIENCE;
    while !refused(&cluster, "file", HOST, 1).await.contains("holds a store already") {
        assert!(Instant::now() < deadline, "somebody of {HOST} lives");
        sleep(LOOK).await;
    }
    std::fs::rename(&data, &moved).unwrap();
    assert!(refused(&cluster, "file", "lenss4", 2).await.contains("is a backup of lenss/lenss3"));
    assert!(refused(&cluster, "file", "lenss9", 2).await.contains("no host lenss9"));
    assert!(!data.exists());
    let restored = cluster.gaggle(&["backup", "restore", "file", "--host", HOST, "--json"]).await.json();
    assert_eq!(restored["digest"], made["digest"]);
    assert_eq!(names(&data), ["store"]);

    cluster.start_host(HOST);
    cluster.wait("back", |status| status.is_healthy()).await;
    load.wait_for_posts(10 * PEOPLE).await;
    // Nobody saw an error, and every host shows everything, in one order.
    let (history, _people) = load.finish(&cluster).await;
    cluster.wait_converged(&history.vector()).await;
    let renewed = |name: &String| origin(name) && *name != former;
    cluster
        .wait("of a new incarnation", |status| {
            status.is_healthy() && status.is_converged() && status.host(HOST).vector.keys().any(renewed)
        })
        .await;
    assert!(refused(&cluster, "file", HOST, 1).await.contains("processes of lenss3 live"));
}
