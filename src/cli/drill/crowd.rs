//! The load of a drill: people who post, each with one post under way, and the gaps between their answers.

use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::context::Place;
use crate::cli::drill::ground::Ground;
use crate::cli::drill::history::{Findings, Said, check};
use crate::cli::drill::now;
use crate::cli::failure::Failure;
use crate::cli::session::{Person, Session, notice_words};
use crate::client::{Identity, Notices, WriteOp};
use crate::id::{RequestId, UserName, Vector};
use crate::limits;

/// The pause after an error.
const ERROR_PAUSE: Duration = Duration::from_millis(20);
/// How long everybody's next answers are waited for.
const ANSWERS_WAIT: Duration = Duration::from_secs(60);
/// Answers that everybody has between two faults, so that each gap has one cause.
const ANSWERS_BETWEEN: u64 = 10;
/// What clients were told of their ways, in the folder.
const LOG: &str = "clients.log";
/// How often they are looked for.
const LOOK_EVERY: Duration = Duration::from_millis(5);
/// How long a post may take to be shown everywhere before it counts as lost.
const SHOWN_WAIT: Duration = Duration::from_secs(30);

/// What is known of one person.
#[derive(Debug)]
struct Tally {
    said: Said,
    answers: u64,
    last: Instant,
    /// Since the gaps were last begun anew.
    longest: Duration,
}

type Shared = Arc<Mutex<Tally>>;

/// People who post.
#[derive(Debug)]
pub(super) struct Crowd {
    tallies: Vec<Shared>,
    stop: CancellationToken,
    posting: JoinSet<Result<Session, Failure>>,
}

fn name(number: usize) -> String {
    format!("drill-{number}")
}

/// A new person of this name: a key, a connection, a name.
pub(super) async fn log_in(ground: &Ground, place: &Place, name: &str) -> Result<Session, Failure> {
    let name: UserName = name.parse().map_err(|error| Failure::usage(format!("{error}")))?;
    let identity = Identity::generate().map_err(|error| Failure::identity(error.to_string()))?;
    let session = Session::open(ground.context(), place, Person::Stranger(identity)).await?;
    session.login(name).await?;
    Ok(session)
}

impl Crowd {
    /// Logs them in; they begin to post, each this long after the answer to the last.
    pub(super) async fn start(ground: &Ground, place: &Place, count: usize, pace: Duration) -> Result<Self, Failure> {
        let mut sessions = Vec::new();
        for number in 0..count {
            sessions.push(log_in(ground, place, &name(number)).await?);
        }
        let (stop, mut posting) = (CancellationToken::new(), JoinSet::new());
        let log = Arc::new(Mutex::new(File::create(ground.folder().join(LOG)).ok()));
        let mut tallies = Vec::new();
        for (number, session) in sessions.into_iter().enumerate() {
            let fresh = Tally { said: Said::default(), answers: 0, last: now(), longest: Duration::ZERO };
            let tally = Arc::new(Mutex::new(fresh));
            crate::cli::spawn(note_moves(session.notices(), name(number), Arc::clone(&log)));
            let task = post(session, number, pace, Arc::clone(&tally), stop.clone());
            posting.spawn(task);
            tallies.push(tally);
        }
        Ok(Self { tallies, stop, posting })
    }

    /// Gaps that end from now on count.
    pub(super) fn begin_gaps(&self) {
        self.tallies.iter().for_each(|tally| lock(tally).longest = Duration::ZERO);
    }

    /// Each person's longest gap that has ended since.
    pub(super) fn gaps(&self) -> Vec<Duration> {
        self.tallies.iter().map(|tally| lock(tally).longest).collect()
    }

    /// Waits until everybody had some more answers.
    pub(super) async fn answered(&self) -> Result<(), Failure> {
        let before: Vec<u64> = self.tallies.iter().map(|tally| lock(tally).answers).collect();
        let deadline = now() + ANSWERS_WAIT;
        let has_more = |(tally, before): (&Shared, &u64)| lock(tally).answers >= before + ANSWERS_BETWEEN;
        while !self.tallies.iter().zip(&before).all(has_more) {
            if now() > deadline {
                return Err(Failure::failed("some clients have no answer for a minute"));
            }
            tokio::time::sleep(LOOK_EVERY).await;
        }
        Ok(())
    }

    /// Stops, and tells what each person said.
    pub(super) async fn finish(mut self) -> Result<Vec<Said>, Failure> {
        self.stop.cancel();
        while let Some(joined) = self.posting.join_next().await {
            joined.map_err(|error| Failure::failed(format!("a client ended: {error}")))??.close().await;
        }
        Ok(self.tallies.iter().map(|tally| lock(tally).said.clone()).collect())
    }
}

/// Keeps what the client library tells of a person's ways, for who looks for the cause of a pause; ends with the session.
async fn note_moves(mut notices: Notices, name: String, log: Arc<Mutex<Option<File>>>) {
    while let Some(notice) = notices.next().await {
        let (_, words) = notice_words(&notice);
        // A log that cannot be written is missed by nobody else. Held for a line, never across an await.
        if let Some(log) = log.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            let _ = writeln!(log, "{} {name} | {words}", jiff::Timestamp::now());
        }
    }
}

fn lock(tally: &Shared) -> MutexGuard<'_, Tally> {
    // A plain mutex: held for a few assignments, never across an await.
    tally.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn post(
    session: Session,
    person: usize,
    pace: Duration,
    tally: Shared,
    stop: CancellationToken,
) -> Result<Session, Failure> {
    let mut number = 0;
    while !stop.is_cancelled() {
        let refused = |error| Failure::failed(format!("{error}"));
        let id: RequestId = format!("{}/{number}", name(person)).parse().map_err(refused)?;
        let text = number.to_string().parse().map_err(|error| Failure::failed(format!("{error}")))?;
        let result = session.write(id, WriteOp::Post { text }, None).await;
        let at = now();
        let pause = {
            let mut tally = lock(&tally);
            tally.said.posts = number + 1;
            match result {
                Ok(_) => {
                    tally.longest = tally.longest.max(at - tally.last);
                    tally.last = at;
                    tally.answers += 1;
                    pace
                }
                Err(failure) => {
                    tally.said.errors.insert(number, failure.message);
                    ERROR_PAUSE
                }
            }
        };
        number += 1;
        tokio::time::sleep(pause).await;
    }
    Ok(session)
}

/// What all hosts show of what was said, each host asked for itself.
pub(super) async fn check_hosts(ground: &Ground, place: &Place, said: &[Said]) -> Result<Findings, Failure> {
    let mut findings = Findings::default();
    for (number, host) in ground.topology().hosts.iter().enumerate() {
        let mut context = ground.context().clone();
        context.global.via = Some(host.id);
        let identity = Identity::generate().map_err(|error| Failure::identity(error.to_string()))?;
        let session = Session::open(&context, place, Person::Stranger(identity)).await?;
        let reader = format!("reader-{number}").parse().map_err(|error| Failure::failed(format!("{error}")))?;
        session.login(reader).await?;
        for (person, said) in said.iter().enumerate() {
            findings += check_person(&session, person, said).await?;
        }
        session.close().await;
    }
    Ok(findings)
}

/// A host may be behind for a moment, but never wrong.
async fn check_person(session: &Session, person: usize, said: &Said) -> Result<Findings, Failure> {
    let deadline = now() + SHOWN_WAIT;
    loop {
        let findings = check(said, shown(session, person).await?);
        if findings.lost == 0 || now() > deadline {
            return Ok(findings);
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// The numbers of the posts of a person, as they are shown.
async fn shown(session: &Session, person: usize) -> Result<Vec<Option<u64>>, Failure> {
    let (name, limit) = (name(person), limits::TIMELINE_POSTS_MAX);
    let prefix = format!("{name}/");
    let mut numbers = Vec::new();
    let mut since = Vector::new();
    loop {
        let page = session.timeline(Some(name.clone()), limit, Some(since)).await?;
        let count = page.posts.len();
        numbers.extend(page.posts.iter().map(|post| {
            let number = post.id.as_str().strip_prefix(&prefix)?.parse().ok()?;
            // The text says the number, too: a post with another one's words was made by nobody.
            (post.author == name && post.text == format!("{number}")).then_some(number)
        }));
        if count < usize::try_from(limit).unwrap_or(usize::MAX) {
            return Ok(numbers);
        }
        since = page.cursor;
    }
}
