//! The verbs' view of the client library: calls in the verbs' words, failures with exit statuses, and a token that is
//! on disk before an answer is printed, so that the next command sees no less.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::task::JoinHandle;

use crate::cli::context::{Context, Place};
use crate::cli::failure::{Failure, Kind};
use crate::cli::output::Out;
use crate::cli::profile::Profile;
use crate::client::{
    Client, ClientError, ClientOptions, ClusterReport, ClusterStatus, Entrance, Feed, Identity, ListPart, Notice,
    Notices, Standby, TimelinePage, TimelineRequest, WriteOp, Written, new_request_id,
};
use crate::id::{HostId, ProcessId, RequestId, Token, UserId, UserName, Vector};
use crate::topology::AckLevel;

/// How long the goodbye may take: the servers find out by themselves as well.
const GOODBYE_WAIT: Duration = Duration::from_millis(300);
/// What a feed has shown is kept this often.
const KEEP_EVERY: Duration = Duration::from_secs(1);

/// For whom a session is.
#[derive(Debug)]
pub(crate) enum Person {
    /// For nobody: `status` and `drain` need no name.
    Nobody,
    /// For somebody without a profile: the load of `bench`.
    Stranger(Identity),
    /// For somebody without a profile who has seen something elsewhere.
    Traveller(Identity, Token),
    /// For the owner of a profile, which keeps the token.
    Owner(Identity, Profile),
}

/// A session with the cluster. Clones share it.
#[derive(Debug, Clone)]
pub(crate) struct Session(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    client: Client,
    profile: Option<Profile>,
    /// What its owner had seen before.
    began: Token,
    out: Out,
    /// Said once: what was seen could not be kept.
    said: AtomicBool,
    /// The hosts of the cluster: what `--ack all` means.
    hosts: u32,
    /// Writes without an answer. A plain mutex: held for one insertion, never across an await.
    pending: Mutex<BTreeSet<RequestId>>,
}

/// A write that was acknowledged.
#[derive(Debug, Clone)]
pub(crate) struct Done {
    /// The server's answer.
    pub(crate) written: Written,
    /// What this session has seen with it.
    pub(crate) token: Token,
    /// The hosts of the cluster.
    pub(crate) hosts: u32,
}

/// Who somebody is, and who answers.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    /// The name as it is shown.
    pub(crate) name: String,
    /// The person's id.
    pub(crate) user: UserId,
    /// The host that answers.
    pub(crate) host: Option<HostId>,
    /// Its process.
    pub(crate) process: Option<ProcessId>,
}

/// An id for a request that a person gave none.
pub(crate) fn new_id() -> RequestId {
    new_request_id()
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let kind = match &error {
            ClientError::Refused(refusal) => return refusal.clone().into(),
            ClientError::NoProcess { .. } => Kind::Unreachable,
            ClientError::Unknown { .. } => Kind::OutcomeUnknown,
            ClientError::Identity { .. } => Kind::Identity,
            ClientError::Protocol { .. } | ClientError::Here(_) | ClientError::Closed => Kind::Failed,
        };
        let mut failure = Self::new(kind, error.to_string());
        failure.hint = error.hint();
        if let ClientError::Unknown { id, .. } = &error {
            failure.id = Some(id.as_str().to_owned());
        }
        failure
    }
}

/// The name of a notice in `--json`, and its words.
pub(crate) fn notice_words(notice: &Notice) -> (&'static str, String) {
    match notice {
        Notice::Reconnecting => ("reconnecting", "the server is silent: looking for another way".into()),
        Notice::Moved { host, process } => ("moved", format!("served by {process} of {host} now")),
        Notice::Missing { gaps } => {
            let runs: Vec<String> = gaps
                .iter()
                .map(|(first, last)| format!("{} {} to {}", first.origin, first.seq.0, last.seq.0))
                .collect();
            let runs = runs.join(", ");
            ("missing", format!("no host in reach holds all that you have seen ({runs}); going on without it"))
        }
    }
}

impl Session {
    /// Finds a way into the cluster.
    pub(crate) async fn open(context: &Context, place: &Place, person: Person) -> Result<Self, Failure> {
        let mut rows: Vec<_> = place.entrances.iter().collect();
        // Masters are asked first; the sort keeps the file's order among equals.
        rows.sort_by_key(|row| row.role);
        let entrances: Vec<Entrance> = rows
            .iter()
            .filter_map(|row| Some(Entrance { id: row.id, addr: row.addr, key: row.public_key()? }))
            .collect();
        let mut options = ClientOptions::new(entrances);
        options.standby = Standby::Next;
        options.via = context.via(place)?;
        options.timeout = context.global.timeout;
        let profile = match person {
            Person::Nobody => None,
            Person::Stranger(identity) => {
                options.identity = Some(identity);
                None
            }
            Person::Traveller(identity, seen) => {
                options.identity = Some(identity);
                options.token = seen;
                None
            }
            Person::Owner(identity, profile) => {
                options.identity = Some(identity);
                options.token = profile.token()?;
                options.first = profile.file.director;
                Some(profile)
            }
        };
        let hosts = match &place.loaded {
            Some(loaded) => loaded.topology.hosts.len(),
            None => place.entrances.iter().map(|row| row.host).collect::<BTreeSet<_>>().len(),
        };
        let began = options.token.clone();
        let client = Client::connect(options).await?;
        let hosts = u32::try_from(hosts).unwrap_or(u32::MAX);
        let (out, said, pending) = (context.out, AtomicBool::new(false), Mutex::new(BTreeSet::new()));
        Ok(Self(Arc::new(Inner { client, profile, began, out, said, hosts, pending })))
    }

    /// Registers the name, or confirms it.
    pub(crate) async fn login(&self, name: UserName) -> Result<Account, Failure> {
        let done = self.write(new_id(), WriteOp::Register { name: name.clone() }, None).await;
        let done = done.map_err(|failure| {
            let unknown = failure.kind == Kind::OutcomeUnknown;
            if unknown { failure.hint(format!("log in again: gaggle login {name}")) } else { failure }
        })?;
        let accepted = done.written.accepted;
        Ok(self.account(accepted.name, accepted.user))
    }

    fn account(&self, name: String, user: UserId) -> Account {
        let served_by = self.0.client.served_by();
        Account { name, user, host: served_by.map(|(host, _)| host), process: served_by.map(|(_, process)| process) }
    }

    /// Writes, and keeps the token before the answer is known to anybody.
    pub(crate) async fn write(&self, id: RequestId, op: WriteOp, ack: Option<AckLevel>) -> Result<Done, Failure> {
        self.pending(|pending| pending.insert(id.clone()));
        let result = self.0.client.write(id.clone(), op, ack).await;
        self.pending(|pending| pending.remove(&id));
        let written = result?;
        let token = self.0.client.token();
        if let Some(profile) = &self.0.profile {
            self.0.kept(profile.merge_token(&self.0.began, &token).map(|_| ()));
        }
        Ok(Done { written, token, hosts: self.0.hosts })
    }

    /// Writes without waiting. On one thread, writes go out in the order of these calls.
    pub(crate) fn begin_write(
        &self,
        id: RequestId,
        op: WriteOp,
        ack: Option<AckLevel>,
    ) -> JoinHandle<Result<Done, Failure>> {
        let session = self.clone();
        super::spawn(async move { session.write(id, op, ack).await })
    }

    fn pending<T>(&self, change: impl FnOnce(&mut BTreeSet<RequestId>) -> T) -> T {
        change(&mut self.0.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The first write that has no answer yet, and how many there are.
    pub(crate) fn unanswered(&self) -> Option<(RequestId, usize)> {
        self.pending(|pending| pending.first().cloned().map(|first| (first, pending.len())))
    }

    /// Who the profile's owner is.
    pub(crate) async fn who_am_i(&self) -> Result<Account, Failure> {
        let me = self.0.client.who_am_i().await?;
        Ok(self.account(me.name, me.user))
    }

    /// A part of LIST.
    pub(crate) async fn names(&self, part: ListPart) -> Result<Vec<String>, Failure> {
        Ok(self.0.client.list(part).await?)
    }

    /// A timeline.
    pub(crate) async fn timeline(
        &self,
        of: Option<String>,
        limit: u32,
        since: Option<Vector>,
    ) -> Result<TimelinePage, Failure> {
        Ok(self.0.client.timeline(TimelineRequest { of, limit, since }).await?)
    }

    /// The live feed.
    pub(crate) async fn follow(&self, since: Vector) -> Feed {
        self.0.client.follow(since).await
    }

    /// The cluster's status.
    pub(crate) async fn status(&self) -> Result<ClusterStatus, Failure> {
        Ok(self.0.client.status().await?)
    }

    /// The same, with what hosts report.
    pub(crate) async fn report(&self) -> Result<ClusterReport, Failure> {
        Ok(self.0.client.report().await?)
    }

    /// Drains a process.
    pub(crate) async fn drain(&self, process: ProcessId) -> Result<(), Failure> {
        Ok(self.0.client.drain(process).await?)
    }

    /// What has been seen.
    pub(crate) fn token(&self) -> Token {
        self.0.client.token()
    }

    /// What happens and a person may want to know.
    pub(crate) fn notices(&self) -> Notices {
        self.0.client.notices()
    }

    /// The director that answered last.
    pub(crate) fn director(&self) -> Option<ProcessId> {
        self.0.client.director()
    }

    /// Says notices on standard error for as long as the session lives.
    pub(crate) fn say_notices(&self, out: Out) -> JoinHandle<()> {
        let mut notices = self.notices();
        super::spawn(async move {
            while let Some(notice) = notices.next().await {
                let (code, words) = notice_words(&notice);
                out.notice(code, &words);
            }
        })
    }

    /// Keeps, now and then, what has been seen without a write: a feed may run until its process is killed.
    pub(crate) fn keep_token(&self) -> JoinHandle<()> {
        // Not the session itself, which must be able to end.
        let (weak, mut kept) = (Arc::downgrade(&self.0), Token::default());
        super::spawn(async move {
            loop {
                tokio::time::sleep(KEEP_EVERY).await;
                let Some(inner) = weak.upgrade() else { return };
                let token = inner.client.token();
                if token != kept
                    && let Some(profile) = &inner.profile
                    && profile.merge_token(&inner.began, &token).is_ok()
                {
                    kept = token;
                }
            }
        })
    }

    /// Keeps what has been seen, and says goodbye.
    pub(crate) async fn close(self) {
        let token = self.0.client.token();
        let director = self.0.client.director();
        if let Some(profile) = &self.0.profile {
            self.0.kept(keep(profile, &self.0.began, &token, director));
        }
        if let Some(inner) = Arc::into_inner(self.0) {
            let _ = tokio::time::timeout(GOODBYE_WAIT, inner.client.close()).await;
        }
    }
}

impl Inner {
    /// What the cluster has answered is done, whether this machine can keep what was seen or not: as a failure it would
    /// say that nothing was stored, and people would post again.
    fn kept(&self, result: Result<(), Failure>) {
        let Err(failure) = result else { return };
        if !self.said.swap(true, Ordering::Relaxed) {
            let message =
                format!("what you have seen is not kept, so that the next command may show less: {}", failure.message);
            self.out.notice("not-kept", &message);
        }
    }
}

/// A profile whose login was refused has no folder any more, and nothing to keep.
fn keep(profile: &Profile, began: &Token, token: &Token, director: Option<ProcessId>) -> Result<(), Failure> {
    if !profile.is_there() {
        return Ok(());
    }
    profile.merge_token(began, token)?;
    if director.is_some() && director != profile.file.director {
        let mut changed = profile.clone();
        changed.file.director = director;
        changed.save()?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorCode, Refusal};

    #[test]
    fn the_clients_errors_have_the_statuses_of_the_contract() {
        let errors = [
            ClientError::NoProcess { why: "x".into() },
            ClientError::Unknown { id: "i".parse().unwrap(), why: "x".into() },
            ClientError::Refused(Refusal::new(ErrorCode::UnknownUser, "x")),
            ClientError::Identity { process: "M1".parse().unwrap(), why: "x".into() },
            ClientError::Protocol { process: "M1".parse().unwrap(), why: "x".into() },
            ClientError::Here("x".into()),
            ClientError::Closed,
        ];
        for error in errors {
            let status = error.exit_status();
            let failure = Failure::from(error);
            assert_eq!(failure.kind.exit_status(), status, "{failure:?}");
            assert_eq!(failure.id.is_some(), failure.kind == Kind::OutcomeUnknown);
        }
    }
}
