//! A cluster of the real runtime: drivers, links, clients' sessions, all over real QUIC in simulated time.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use gaggle::client::{Client, ClientOptions, Entrance, TimelineRequest, WriteOp, new_request_id};
use gaggle::id::HostId;
use gaggle::limits;
use gaggle::net::certs::{self, CertBook};
use gaggle::net::{Identity, NodeEndpoint};
use gaggle::runtime::NodeOptions;
use gaggle::runtime::embedded::{Ground, run_embedded};
use gaggle::store::{MemoryStore, Store};
use gaggle::topology::Topology;
use turmoil::Sim;

use crate::world::{PORT, client, node, pass, pass_until, world};

const HOSTS: [&str; 3] = ["a", "b", "c"];
const PERSON: &str = "person";
const POSTS: usize = 120;
const BETWEEN_POSTS: Duration = Duration::from_millis(100);

/// Three hosts of one process each, and the folder of their public keys.
struct Cluster {
    topology: Topology,
    entrances: Vec<Entrance>,
    /// Gone with the cluster.
    _certs: tempfile::TempDir,
}

impl Cluster {
    fn start(sim: &mut Sim<'_>) -> Self {
        let mut text = String::from("cluster = \"sim\"\ndata = \"data\"\ncerts = \"certs\"\nack = \"peer\"\n");
        for host in HOSTS {
            let addr = sim.lookup(host);
            text += &format!("[[host]]\nname = \"{host}\"\n");
            text += &format!("[[host.process]]\nid = \"W{host}\"\nrole = \"worker\"\naddr = \"{addr}:{PORT}\"\n");
        }
        let topology = Topology::parse(&text, "sim.toml").unwrap();
        let certs = tempfile::tempdir().unwrap();
        let identities: Vec<_> = topology.processes().map(|_| Identity::generate().unwrap()).collect();
        let mut entrances = Vec::new();
        for (process, identity) in topology.processes().zip(&identities) {
            let key = identity.public_key();
            certs::publish(certs.path(), process.id, &key).unwrap();
            entrances.push(Entrance { id: process.id, addr: process.addr, key });
        }
        for (process, identity) in topology.processes().zip(identities) {
            let options = NodeOptions { topology: topology.clone(), base: certs.path().to_owned(), id: process.id };
            let book = CertBook::load(certs.path()).unwrap();
            // What is committed survives a crash, as on a disk.
            let store: Arc<dyn Store> = Arc::new(MemoryStore::new());
            sim.host(process.host.to_string(), move || {
                let (options, identity, book, store) =
                    (options.clone(), identity.clone(), book.clone(), Arc::clone(&store));
                async move {
                    let endpoint: NodeEndpoint = node(identity).await;
                    run_embedded(&options, Ground { endpoint, store, book }).await?;
                    Ok(())
                }
            });
        }
        Self { topology, entrances, _certs: certs }
    }

    async fn options(entrances: Vec<Entrance>, person: &Identity, via: Option<HostId>) -> ClientOptions {
        let mut options = ClientOptions::new(entrances);
        options.identity = Some(person.clone());
        options.endpoint = Some(client().await);
        options.via = via;
        options
    }
}

/// What the onlooker knows of the person.
#[derive(Debug, Clone, Default)]
struct Progress {
    acknowledged: Rc<Cell<usize>>,
    served_by: Rc<Cell<Option<HostId>>>,
    shown: Rc<RefCell<Vec<Shown>>>,
}

/// The person's timeline, as a host shows it.
type Shown = (HostId, Vec<String>);

/// Posts one after the other, and then reads all at each host.
async fn post_and_read(entrances: Vec<Entrance>, hosts: Vec<HostId>, progress: Progress) -> turmoil::Result {
    let person = Identity::generate()?;
    let session = Client::connect(Cluster::options(entrances.clone(), &person, None).await).await?;
    session.write(new_request_id(), WriteOp::Register { name: "ann".parse()? }, None).await?;
    for number in 0..POSTS {
        let post = WriteOp::Post { text: text(number).parse()? };
        session.write(new_request_id(), post, None).await?;
        progress.acknowledged.set(number + 1);
        progress.served_by.set(session.served_by().map(|(host, _)| host));
        tokio::time::sleep(BETWEEN_POSTS).await;
    }
    let token = session.token();
    for host in hosts {
        let mut options = Cluster::options(entrances.clone(), &person, Some(host)).await;
        options.token = token.clone();
        let reader = Client::connect(options).await?;
        let request = TimelineRequest { of: None, limit: limits::TIMELINE_POSTS_MAX, since: None };
        let page = reader.timeline(request).await?;
        progress.shown.borrow_mut().push((host, page.posts.into_iter().map(|post| post.text).collect()));
        reader.close().await;
    }
    session.close().await;
    Ok(())
}

fn text(number: usize) -> String {
    format!("post {number}")
}

#[test]
fn a_person_posts_through_a_cut_and_a_crash_and_nothing_is_lost_or_doubled() {
    const LIMIT: Duration = Duration::from_secs(60);
    let mut sim = world(30);
    let cluster = Cluster::start(&mut sim);
    let hosts: Vec<HostId> = cluster.topology.hosts.iter().map(|host| host.id).collect();
    let progress = Progress::default();
    sim.client(PERSON, post_and_read(cluster.entrances.clone(), hosts.clone(), progress.clone()));
    let seen = progress.clone();
    pass_until(&mut sim, LIMIT, "posts are answered", || seen.acknowledged.get() >= 20);
    // The host that serves the person is cut from everybody.
    let cut = progress.served_by.get().unwrap().to_string();
    let others: Vec<&str> = HOSTS.into_iter().chain([PERSON]).filter(|host| *host != cut).collect();
    let before = progress.acknowledged.get();
    for other in &others {
        sim.partition(cut.as_str(), *other);
    }
    pass_until(&mut sim, LIMIT, "another host serves", || seen.acknowledged.get() > before + 1);
    let second = progress.served_by.get().unwrap().to_string();
    assert_ne!(second, cut);
    pass(&mut sim, Duration::from_secs(5));
    for other in &others {
        sim.repair(cut.as_str(), *other);
    }
    pass(&mut sim, Duration::from_secs(2));
    // The one that serves now crashes.
    let crashed = progress.served_by.get().unwrap().to_string();
    let before = progress.acknowledged.get();
    assert!(before < POSTS - 10, "{before}: the crash must come in between");
    sim.crash(crashed.as_str());
    pass_until(&mut sim, LIMIT, "another host serves", || seen.acknowledged.get() > before + 1);
    sim.bounce(crashed.as_str());
    pass_until(&mut sim, LIMIT, "every host has been read", || seen.shown.borrow().len() == hosts.len());
    let all: Vec<String> = (0..POSTS).map(text).collect();
    for (host, posts) in progress.shown.borrow().iter() {
        assert_eq!(*posts, all, "at {host}");
    }
    println!("cut off {cut}, crashed {crashed}, {:?} in all", sim.elapsed());
}
