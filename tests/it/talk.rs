//! Two people on different hosts, on the command line.

use serde_json::{Value, json};

use crate::harness::{Chat, Cluster, Ups, cli};

fn names(list: &Value, part: &str) -> Vec<String> {
    list[part].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()).collect()
}

fn numbered(author: &str, numbers: std::ops::RangeInclusive<u32>) -> Vec<String> {
    numbers.map(|number| format!("{author}: {number}")).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_people_on_different_hosts_see_each_other_live() {
    let cluster = Cluster::start(Ups::One).await;
    let ann = cluster.gaggle(&["login", "ann", "--json", "--via", "lenss3"]).await.json();
    let bob = cluster.gaggle(&["login", "bob", "--json", "--via", "lenss4"]).await.json();
    assert_eq!((&ann["name"], &ann["host"]), (&json!("ann"), &json!("lenss3")));
    assert_eq!((&bob["name"], &bob["host"]), (&json!("bob"), &json!("lenss4")));
    cluster.gaggle(&["join", "bob", "--json", "--as", "ann"]).await.json();
    cluster.gaggle(&["join", "Ann", "--json", "--as", "bob"]).await.json();

    let mut ann = Chat::start(&cluster, "ann", "lenss3");
    let mut bob = Chat::start(&cluster, "bob", "lenss4");
    ann.say("hello, bob").await;
    assert_eq!(ann.next().await, "ann: hello, bob");
    assert_eq!(bob.next().await, "ann: hello, bob");
    bob.say("hello, ann").await;
    assert_eq!(bob.next().await, "bob: hello, ann");
    assert_eq!(ann.next().await, "bob: hello, ann");

    let list = cluster.gaggle(&["list", "--json", "--as", "ann"]).await.json();
    assert_eq!(list, json!({"v": 1, "users": ["ann", "bob"], "joined": ["bob"], "joined_by": ["bob"]}));

    // After LEAVE, bob's posts neither come live nor stand in the timeline; ann's own do.
    cluster.gaggle(&["leave", "bob", "--json", "--as", "ann"]).await.json();
    bob.say("still there?").await;
    assert_eq!(bob.next().await, "bob: still there?");
    ann.say("alone").await;
    assert_eq!(ann.next().await, "ann: alone");
    let list = cluster.gaggle(&["list", "--json", "--as", "bob"]).await.json();
    assert_eq!((names(&list, "joined"), names(&list, "joined_by")), (vec!["ann".to_owned()], vec![]));
    let timeline = cluster.gaggle(&["timeline", "--as", "ann", "--json"]).await;
    assert!(!timeline.out.contains("still there?") && !timeline.out.contains("hello, ann"), "{timeline:?}");
    assert_eq!(ann.end().await, (vec![], Some(0)));
    assert_eq!(bob.next().await, "ann: alone");
    assert_eq!(bob.end().await, (vec![], Some(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_joins_late_sees_what_comes_from_then_on_and_chat_begins_with_the_last_20() {
    let cluster = Cluster::start(Ups::One).await;
    cluster.gaggle(&["login", "ann", "--via", "lenss3"]).await;
    cluster.gaggle(&["login", "bob", "--via", "lenss4"]).await;
    let post = |numbers: std::ops::RangeInclusive<u32>| {
        let lines = numbers.map(|number| format!("{number}\n")).collect::<String>();
        let mut command = cluster.command(&["post", "-", "--as", "ann", "--via", "lenss3", "--ack", "all"]);
        async move { assert_eq!(cli::run(&mut command, &lines).await.status, Some(0)) }
    };
    // All hosts have seen the tenth before he joins: else it might come after his join.
    post(1..=10).await;
    cluster.gaggle(&["join", "ann", "--as", "bob", "--json"]).await.json();
    post(11..=40).await;
    let whole = cluster.gaggle(&["timeline", "--as", "bob", "--via", "lenss4", "--json", "-n", "100"]).await.out;
    let first: Value = serde_json::from_str(whole.lines().next().unwrap()).unwrap();
    assert_eq!((whole.lines().count(), &first["text"]), (30, &json!("11")));

    let mut bob = Chat::start(&cluster, "bob", "lenss4");
    assert_eq!(bob.take(20).await, numbered("ann", 21..=40));
    post(41..=41).await;
    assert_eq!(bob.next().await, "ann: 41");
    assert_eq!(bob.end().await, (vec![], Some(0)));
}
