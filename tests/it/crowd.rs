//! Many people at once.

use std::collections::BTreeSet;

use gaggle::id::RequestId;
use tokio::task::JoinSet;

use crate::harness::load::{check_hosts, post};
use crate::harness::{Cluster, HOSTS, History, Person, Ups, Watcher};

/// Who joins whom: a mutual pair, a ring of three, a clique of five.
fn friendships() -> Vec<(usize, usize)> {
    let mut pairs = vec![(0, 1), (1, 0), (2, 3), (3, 4), (4, 2)];
    let clique = 5..10;
    pairs.extend(
        clique.clone().flat_map(|from| clique.clone().map(move |to| (from, to))).filter(|(from, to)| from != to),
    );
    pairs
}

/// So many posts, one after the other.
async fn post_many(person: Person, count: usize) -> (Person, History) {
    let mut history = History::default();
    for number in 0..count {
        history.0.push(post(&person, format!("{} says {number}", person.name)).await);
    }
    (person, history)
}

/// Lets everybody post at once; the people come back in their order.
async fn all_post(people: Vec<Person>, count: usize) -> (Vec<Person>, History) {
    let mut posting = JoinSet::new();
    for (place, person) in people.into_iter().enumerate() {
        posting.spawn(async move { (place, post_many(person, count).await) });
    }
    let mut all = posting.join_all().await;
    all.sort_by_key(|(place, _)| *place);
    let (people, histories): (Vec<_>, Vec<_>) = all.into_iter().map(|(_, done)| done).unzip();
    (people, History(histories.into_iter().flat_map(|history| history.0).collect()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_people_post_at_once_and_all_timelines_are_complete_and_in_one_order() {
    let cluster = Cluster::start(Ups::One).await;
    let mut people = Vec::new();
    for number in 0..10 {
        people.push(Person::login_at(&cluster, &format!("person-{number}"), HOSTS[1 + number % 2]).await);
    }
    for (from, to) in friendships() {
        people[from].join(&people[to].name).await;
    }
    let watcher = Person::login(&cluster, "watcher").await;
    for person in &people {
        watcher.join(&person.name).await;
    }

    let (people, history) = all_post(people, 22).await;
    history.assert_no_errors();
    check_hosts(&cluster, &history, &watcher).await;
    for (place, person) in people.iter().enumerate() {
        let mut authors: BTreeSet<&str> = BTreeSet::from([person.name.as_str()]);
        authors
            .extend(friendships().iter().filter(|(from, _)| *from == place).map(|(_, to)| people[*to].name.as_str()));
        let theirs = history.0.iter().filter(|record| authors.contains(record.author.as_str()));
        check_hosts(&cluster, &History(theirs.cloned().collect()), person).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_hundred_people_chat_at_once() {
    const PEOPLE: usize = 200;
    const POSTS: usize = 5;
    let cluster = Cluster::start(Ups::One).await;
    let mut logins = JoinSet::new();
    let entrances = cluster.entrances();
    for number in 0..PEOPLE {
        let entrances = entrances.clone();
        logins.spawn(async move { (number, Person::login_with(entrances, &format!("person-{number}")).await) });
    }
    let mut people = logins.join_all().await;
    people.sort_by_key(|(number, _)| *number);
    let people: Vec<Person> = people.into_iter().map(|(_, person)| person).collect();

    // Everybody watches the next one, and oneself.
    let names: Vec<String> = people.iter().map(|person| person.name.clone()).collect();
    let mut starting = JoinSet::new();
    for (place, person) in people.into_iter().enumerate() {
        let next = names[(place + 1) % PEOPLE].clone();
        starting.spawn(async move { (place, Watcher::start(person, &[next]).await) });
    }
    let mut watchers = starting.join_all().await;
    watchers.sort_by_key(|(place, _)| *place);
    let everybody = u32::try_from(PEOPLE).unwrap();
    cluster
        .wait("all logged in", |status| status.hosts.iter().map(|host| host.sessions).sum::<u32>() >= everybody)
        .await;

    let mut chatting = JoinSet::new();
    for (place, watcher) in watchers {
        chatting.spawn(async move {
            let mut history = History::default();
            for number in 0..POSTS {
                history.0.push(post(&watcher.person, format!("{place} says {number}")).await);
            }
            (place, watcher, history)
        });
    }
    let mut chatted = chatting.join_all().await;
    chatted.sort_by_key(|(place, ..)| *place);
    let said: Vec<History> = chatted.iter().map(|(_, _, history)| history.clone()).collect();
    said.iter().for_each(History::assert_no_errors);
    for (place, mut watcher, own) in chatted {
        let both = History([own.0, said[(place + 1) % PEOPLE].0.clone()].concat());
        let awaited: BTreeSet<RequestId> = both.acknowledged();
        both.check(&watcher.take(&awaited).await).unwrap();
    }
    let all = History(said.into_iter().flat_map(|history| history.0).collect());
    cluster.wait_converged(&all.vector()).await;
}
