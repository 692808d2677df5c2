//! The load of a drill: people who post, each with one post under way, and the gaps between their answers. Now and then
//! they look at what they posted, beside the next post, so that no gap holds a read.

use std::fs::File;
use std::io::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::cli::context::Place;
use crate::cli::drill::ground::Ground;
use crate::cli::drill::history::{Findings, Look, Said, check};
use crate::cli::drill::now;
use crate::cli::drill::readers::{FOLLOWERS, Followers, Heard, Readings, follower, lacks_something};
use crate::cli::drill::travel::Traveller;
use crate::cli::failure::Failure;
use crate::cli::session::{Person, Session, notice_words};
use crate::client::{Identity, Notices, ShownPost, WriteOp};
use crate::id::{RequestId, UserName, Vector};
use crate::limits;

/// What names of people who post begin with.
const NAME: &str = "drill-";
/// The pause after an error.
const ERROR_PAUSE: Duration = Duration::from_millis(20);
/// After so many posts a person looks at them.
const LOOK_AFTER: u64 = 50;
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
    /// What the session is told.
    notices: Notices,
}

impl Tally {
    /// Notes whether something that was seen has got out of reach since this was last asked. The post that was answered
    /// last was made without what is before it, or the next one will be.
    fn note_torn(&mut self) {
        if lacks_something(&mut self.notices) {
            self.said.torn.extend([self.said.posts.saturating_sub(1), self.said.posts]);
        }
    }
}

type Shared = Arc<Mutex<Tally>>;

/// People who post, and those who follow them.
#[derive(Debug)]
pub(super) struct Crowd {
    tallies: Vec<Shared>,
    stop: CancellationToken,
    posting: JoinSet<Result<Session, Failure>>,
    followers: Followers,
}

/// The name of somebody who posts.
pub(super) fn name(number: usize) -> String {
    format!("{NAME}{number}")
}

/// Whose name it is.
pub(super) fn person_of(name: &str) -> Option<usize> {
    name.strip_prefix(NAME)?.parse().ok()
}

/// The number of this person's post; none if it is another one's, or has another one's words: that was made by nobody.
pub(super) fn number_of(post: &ShownPost, person: usize) -> Option<u64> {
    let number: u64 = post.text.parse().ok()?;
    let name = name(person);
    (post.author == name && post.id.as_str() == format!("{name}/{number}")).then_some(number)
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
    /// Logs them in; they begin to post, each this long after the answer to the last, when the followers follow.
    pub(super) async fn start(ground: &Ground, place: &Place, count: usize, pace: Duration) -> Result<Self, Failure> {
        let mut sessions = Vec::new();
        for number in 0..count {
            sessions.push(log_in(ground, place, &name(number)).await?);
        }
        let (stop, mut posting) = (CancellationToken::new(), JoinSet::new());
        let log = Arc::new(Mutex::new(File::create(ground.folder().join(LOG)).ok()));
        let (readings, mut readers) = (Readings::default(), Vec::new());
        for number in 0..FOLLOWERS {
            let session = log_in(ground, place, &follower(number)).await?;
            crate::cli::spawn(note_moves(session.notices(), follower(number), Arc::clone(&log)));
            readers.push(session);
        }
        let followers = Followers::start(readers, count, readings.clone(), Traveller::new(ground, place)).await?;
        let mut tallies = Vec::new();
        for (number, session) in sessions.into_iter().enumerate() {
            let (said, notices) = (Said::default(), session.notices());
            let fresh = Tally { said, answers: 0, last: now(), longest: Duration::ZERO, notices };
            let tally = Arc::new(Mutex::new(fresh));
            crate::cli::spawn(note_moves(session.notices(), name(number), Arc::clone(&log)));
            let poster = Poster { session, person: number, tally: Arc::clone(&tally), readings: readings.clone() };
            posting.spawn(poster.run(pace, stop.clone()));
            tallies.push(tally);
        }
        Ok(Self { tallies, stop, posting, followers })
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

    /// Stops, and tells what each person said, and what was read of it.
    pub(super) async fn finish(mut self) -> Result<(Vec<Said>, Heard), Failure> {
        self.stop.cancel();
        while let Some(joined) = self.posting.join_next().await {
            joined.map_err(|error| Failure::failed(format!("a client ended: {error}")))??.close().await;
        }
        let said: Vec<Said> = self.tallies.iter().map(|tally| lock(tally).said.clone()).collect();
        let heard = self.followers.finish(&said).await?;
        Ok((said, heard))
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

/// One of those who post.
#[derive(Clone)]
struct Poster {
    session: Session,
    person: usize,
    tally: Shared,
    readings: Readings,
}

impl Poster {
    async fn run(self, pace: Duration, stop: CancellationToken) -> Result<Session, Failure> {
        let (mut number, mut looking) = (0, JoinSet::new());
        while !stop.is_cancelled() {
            let answered = self.post(number).await?;
            while looking.try_join_next().is_some() {}
            // Beside the next posts, one at a time; not everybody at once.
            let due = number % LOOK_AFTER == u64::try_from(self.person).unwrap_or(0) % LOOK_AFTER;
            if answered == Answered::Yes && due && looking.is_empty() {
                looking.spawn(self.clone().look(number));
            }
            let pause = match answered {
                Answered::Yes => pace,
                Answered::No => ERROR_PAUSE,
            };
            number += 1;
            tokio::time::sleep(pause).await;
        }
        while looking.join_next().await.is_some() {}
        Ok(self.session)
    }

    async fn post(&self, number: u64) -> Result<Answered, Failure> {
        let refused = |error| Failure::failed(format!("{error}"));
        let id: RequestId = format!("{}/{number}", name(self.person)).parse().map_err(refused)?;
        let text = number.to_string().parse().map_err(|error| Failure::failed(format!("{error}")))?;
        lock(&self.tally).said.posts = number + 1;
        let result = self.session.write(id, WriteOp::Post { text }, None).await;
        let at = now();
        let mut tally = lock(&self.tally);
        tally.note_torn();
        match result {
            Ok(_) => {
                tally.longest = tally.longest.max(at - tally.last);
                tally.last = at;
                tally.answers += 1;
                Ok(Answered::Yes)
            }
            Err(failure) => {
                tally.said.errors.insert(number, failure.message);
                Ok(Answered::No)
            }
        }
    }

    /// Whoever had an answer to this post sees it.
    async fn look(self, known: u64) {
        let shown = self.readings.newest(&self.session, &name(self.person), self.person).await;
        let said = {
            let mut tally = lock(&self.tally);
            tally.note_torn();
            tally.said.posts
        };
        if let Some(shown) = shown {
            self.readings.add(Look { person: self.person, known, said: Some(said), shown });
        }
    }
}

/// Whether a post was acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answered {
    Yes,
    No,
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
    let mut numbers = Vec::new();
    let mut since = Vector::new();
    loop {
        let page = session.timeline(Some(name.clone()), limit, Some(since)).await?;
        let count = page.posts.len();
        numbers.extend(page.posts.iter().map(|post| number_of(post, person)));
        if count < usize::try_from(limit).unwrap_or(usize::MAX) {
            return Ok(numbers);
        }
        since = page.cursor;
    }
}
