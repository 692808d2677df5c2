//! People, over the client library.

use std::collections::BTreeSet;

use gaggle::client::{
    Client, ClientError, ClientOptions, Entrance, Identity, ShownPost, TimelineRequest, WriteOp, Written,
    new_request_id,
};
use gaggle::id::{RequestId, Vector};
use gaggle::limits;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use super::PATIENCE;
use super::cluster::Cluster;

/// Somebody who is logged in.
#[derive(Debug)]
pub(crate) struct Person {
    pub(crate) name: String,
    pub(crate) client: Client,
    identity: Identity,
}

impl Person {
    /// Registers the name, at whichever host the cluster says.
    pub(crate) async fn login(cluster: &Cluster, name: &str) -> Self {
        Self::login_with(cluster.entrances(), name).await
    }

    /// As `login`, by these ways in.
    pub(crate) async fn login_with(entrances: Vec<Entrance>, name: &str) -> Self {
        Self::open(entrances, name, Identity::generate().unwrap(), None).await
    }

    /// Registers the name at this host.
    pub(crate) async fn login_at(cluster: &Cluster, name: &str, host: &str) -> Self {
        Self::open(cluster.entrances(), name, Identity::generate().unwrap(), Some(host)).await
    }

    /// The same person on another device, at this host.
    pub(crate) async fn again_at(&self, cluster: &Cluster, host: &str) -> Self {
        Self::open(cluster.entrances(), &self.name, self.identity.clone(), Some(host)).await
    }

    async fn open(entrances: Vec<Entrance>, name: &str, identity: Identity, via: Option<&str>) -> Self {
        let (client, registered) = Self::claim(entrances, name, &identity, via).await;
        registered.unwrap();
        Self { name: name.to_owned(), client, identity }
    }

    /// Asks this host for a name, and tells what it says.
    pub(crate) async fn claim_at(cluster: &Cluster, name: &str, host: &str) -> Result<Written, ClientError> {
        Self::claim(cluster.entrances(), name, &Identity::generate().unwrap(), Some(host)).await.1
    }

    async fn claim(
        entrances: Vec<Entrance>,
        name: &str,
        identity: &Identity,
        via: Option<&str>,
    ) -> (Client, Result<Written, ClientError>) {
        let mut options = ClientOptions::new(entrances);
        options.identity = Some(identity.clone());
        options.via = via.map(|host| host.parse().unwrap());
        let client = Client::connect(options).await.unwrap();
        let op = WriteOp::Register { name: name.parse().unwrap() };
        let registered = client.write(new_request_id(), op, None).await;
        (client, registered)
    }

    pub(crate) async fn post(&self, id: RequestId, text: &str) -> Result<Written, ClientError> {
        self.client.write(id, WriteOp::Post { text: text.parse().unwrap() }, None).await
    }

    pub(crate) async fn join(&self, name: &str) {
        self.client.write(new_request_id(), WriteOp::Join { name: name.to_owned() }, None).await.unwrap();
    }

    /// All of the timeline.
    pub(crate) async fn timeline(&self) -> Vec<ShownPost> {
        self.page(None).await.0
    }

    /// What came after this cursor.
    pub(crate) async fn since(&self, cursor: Vector) -> Vec<ShownPost> {
        self.page(Some(cursor)).await.0
    }

    async fn page(&self, since: Option<Vector>) -> (Vec<ShownPost>, Vector) {
        let request = TimelineRequest { of: None, limit: limits::TIMELINE_POSTS_MAX, since };
        let page = self.client.timeline(request).await.unwrap();
        (page.posts, page.cursor)
    }

    /// The host that answers now.
    pub(crate) fn host(&self) -> Option<String> {
        self.client.served_by().map(|(host, _)| host.to_string())
    }
}

/// Somebody who joined others and watches their posts live.
#[derive(Debug)]
pub(crate) struct Watcher {
    pub(crate) person: Person,
    shown: mpsc::UnboundedReceiver<ShownPost>,
    /// Ends with the watcher.
    _task: JoinSet<()>,
}

impl Watcher {
    pub(crate) async fn start(person: Person, joined: &[String]) -> Self {
        for name in joined {
            person.join(name).await;
        }
        let (_, cursor) = person.page(None).await;
        let mut feed = person.client.follow(cursor).await;
        let (sender, shown) = mpsc::unbounded_channel();
        let mut task = JoinSet::new();
        task.spawn(async move {
            while let Some(post) = feed.next().await {
                // A feed waits out every failover: a refusal is an error that somebody saw.
                if sender.send(post.expect("a feed without an error")).is_err() {
                    return;
                }
            }
        });
        Self { person, shown, _task: task }
    }

    /// What the feed has shown, up to the last of these; each must come, and nothing twice.
    pub(crate) async fn take(&mut self, awaited: &BTreeSet<RequestId>) -> Vec<ShownPost> {
        let (mut posts, mut seen) = (Vec::new(), BTreeSet::new());
        while !awaited.is_subset(&seen) {
            let Ok(post) = timeout(PATIENCE, self.shown.recv()).await else {
                let missing: Vec<_> = awaited.difference(&seen).collect();
                panic!("the feed has a gap: {} of {} are missing: {missing:?}", missing.len(), awaited.len());
            };
            let post = post.expect("a feed that goes on");
            assert!(seen.insert(post.id.clone()), "the feed told a post twice: {post:?}");
            posts.push(post);
        }
        posts
    }
}
