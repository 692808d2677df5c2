//! The readers of a drill: followers, who have joined everybody who posts before the first post and follow the live feed
//! from there until the end; and looks at somebody's newest posts: theirs, at their host and at others
//! ([`travel`](crate::cli::drill::travel)), and the posters' own.
//!
//! Nothing is judged here: what was told and shown is kept, and [`history`](crate::cli::drill::history) judges it when all
//! is over. A feed may be silent for as long as a fault lasts, or longer; only at the end it must have told everything.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cli::drill::crowd::{name, number_of, person_of};
use crate::cli::drill::history::{Findings, Look, Said, check_feed, check_look};
use crate::cli::drill::now;
use crate::cli::drill::travel::{Journey, Traveller};
use crate::cli::failure::Failure;
use crate::cli::session::{Session, new_id};
use crate::client::{ClientError, Feed, Notice, Notices, ShownPost, WriteOp};

/// How many follow.
pub(super) const FOLLOWERS: usize = 2;
/// Between a follower's looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Between its looks at another host.
const TRAVEL_EVERY: Duration = Duration::from_millis(500);
/// Posts that a look asks for.
const LOOK_POSTS: u32 = 5;
/// How long a name that was just registered may be unknown on another host.
const JOIN_WAIT: Duration = Duration::from_secs(10);
/// How long a feed may take to tell everything once all faults are over.
const TOLD_WAIT: Duration = Duration::from_secs(30);
/// A feed that was silent for so long at the end has told what it had to tell: a repeat may come behind the last post.
const SILENCE: Duration = Duration::from_millis(200);

/// What was read.
#[derive(Debug, Default)]
struct Log {
    looks: Vec<Look>,
    /// What reads and feeds were answered with instead.
    errors: Vec<String>,
}

/// What everybody reads, kept until the end.
#[derive(Debug, Clone, Default)]
pub(super) struct Readings(Arc<Mutex<Log>>);

/// What the readers found.
#[derive(Debug, Default)]
pub(super) struct Heard {
    pub(super) findings: Findings,
    /// Posts that feeds told.
    pub(super) told: u64,
    /// Looks that were judged.
    pub(super) looks: u64,
    pub(super) errors: Vec<String>,
    /// The first thing that is wrong, for who looks for its cause.
    pub(super) first_wrong: Option<String>,
}

impl Heard {
    fn add(&mut self, findings: Findings, of: impl FnOnce() -> String) {
        if !findings.is_clean() {
            self.first_wrong.get_or_insert_with(of);
        }
        self.findings += findings;
    }
}

impl Readings {
    fn log(&self) -> MutexGuard<'_, Log> {
        // A plain mutex: held for one insertion, never across an await.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn add(&self, look: Look) {
        self.log().looks.push(look);
    }

    fn fail(&self, who: &str, what: &str, why: impl std::fmt::Display) {
        self.log().errors.push(format!("{who}: {what}: {why}"));
    }

    /// Looks at a person's newest posts; an error counts, and shows nothing.
    pub(super) async fn newest(&self, session: &Session, who: &str, person: usize) -> Option<Vec<Option<u64>>> {
        match session.timeline(Some(name(person)), LOOK_POSTS, None).await {
            Ok(page) => Some(page.posts.iter().map(|post| number_of(post, person)).collect()),
            Err(failure) => {
                self.fail(who, "a read", failure.message);
                None
            }
        }
    }
}

/// People who read what everybody posts.
#[derive(Debug)]
pub(super) struct Followers {
    readings: Readings,
    /// What everybody said, once they have stopped.
    over: watch::Sender<Option<Arc<Vec<Said>>>>,
    following: JoinSet<(Session, Vec<Told>)>,
}

/// What a feed told of a person; none for what is no post of anybody's.
type Told = Vec<Option<u64>>;

impl Followers {
    /// Lets them join all of so many posters, and follow.
    pub(super) async fn start(
        sessions: Vec<Session>,
        posters: usize,
        readings: Readings,
        traveller: Traveller,
    ) -> Result<Self, Failure> {
        let (over, _) = watch::channel(None);
        let mut following = JoinSet::new();
        for (number, session) in sessions.into_iter().enumerate() {
            for person in 0..posters {
                join(&session, name(person)).await?;
            }
            // Nobody has posted yet: this cursor is before the first post, and after the last join.
            let cursor = session.timeline(None, LOOK_POSTS, None).await?.cursor;
            let feed = session.follow(cursor).await;
            let (readings, traveller) = (readings.clone(), traveller.clone());
            let follower = Follower { name: follower(number), session, readings, traveller, over: over.subscribe() };
            following.spawn(follower.run(feed, posters, number));
        }
        Ok(Self { readings, over, following })
    }

    /// Waits until the feeds have told all that was said, and judges what was read.
    pub(super) async fn finish(mut self, said: &[Said]) -> Result<Heard, Failure> {
        self.over.send_replace(Some(Arc::new(said.to_vec())));
        let mut heard = Heard::default();
        while let Some(joined) = self.following.join_next().await {
            let (session, told) = joined.map_err(|error| Failure::failed(format!("a follower ended: {error}")))?;
            session.close().await;
            for (person, (told, said)) in told.into_iter().zip(said).enumerate() {
                heard.told += u64::try_from(told.len()).unwrap_or(u64::MAX);
                let findings = check_feed(said, told);
                heard.add(findings, || format!("what a feed told of {}: {findings:?}", name(person)));
            }
        }
        let log = std::mem::take(&mut *self.readings.log());
        for look in &log.looks {
            heard.looks += 1;
            let findings = said.get(look.person).map(|said| check_look(said, look)).unwrap_or_default();
            heard.add(findings, || format!("{look:?}"));
        }
        heard.errors = log.errors;
        Ok(heard)
    }
}

/// The name of a follower.
pub(super) fn follower(number: usize) -> String {
    format!("follower-{number}")
}

/// A name that was registered at another host may not be known at this one yet.
async fn join(session: &Session, whom: String) -> Result<(), Failure> {
    let deadline = now() + JOIN_WAIT;
    loop {
        let op = WriteOp::Join { name: whom.clone() };
        match session.write(new_id(), op, None).await {
            Ok(_) => return Ok(()),
            Err(failure) if now() > deadline => return Err(failure),
            Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
}

/// One of them.
struct Follower {
    name: String,
    session: Session,
    readings: Readings,
    traveller: Traveller,
    over: watch::Receiver<Option<Arc<Vec<Said>>>>,
}

/// The newest post of each person that a session knows of. A plain mutex, held for an assignment.
#[derive(Debug)]
struct Known(Mutex<Vec<Option<u64>>>);

impl Known {
    fn all(&self) -> MutexGuard<'_, Vec<Option<u64>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, person: usize) -> Option<u64> {
        self.all().get(person).copied().flatten()
    }

    fn raise(&self, person: usize, number: Option<u64>) {
        if let Some(known) = self.all().get_mut(person) {
            *known = number.max(*known);
        }
    }
}

impl Follower {
    async fn run(self, feed: Feed, posters: usize, seed: usize) -> (Session, Vec<Told>) {
        let known = Known(Mutex::new(vec![None; posters]));
        let random = ChaCha8Rng::seed_from_u64(u64::try_from(seed).unwrap_or(0));
        let looking = self.look(&known, posters, random.clone());
        let (told, (), ()) =
            tokio::join!(self.follow(feed, &known, posters), looking, self.travel(&known, posters, random));
        (self.session, told)
    }

    /// Follows until everybody has stopped, and then until everything is told.
    async fn follow(&self, mut feed: Feed, known: &Known, posters: usize) -> Vec<Told> {
        let mut told = vec![Told::new(); posters];
        let mut over = self.over.clone();
        loop {
            tokio::select! {
                next = feed.next() => if !self.take(next, known, &mut told) { return told },
                // Its sender lives until this has ended.
                _ = over.changed() => break,
            }
        }
        let (deadline, said) = (now() + TOLD_WAIT, over.borrow().clone().unwrap_or_default());
        while now() < deadline {
            match tokio::time::timeout(SILENCE, feed.next()).await {
                Ok(next) => {
                    if !self.take(next, known, &mut told) {
                        break;
                    }
                }
                Err(_) => {
                    let lacks = |(said, told): (&Said, &Told)| check_feed(said, told.iter().copied()).untold > 0;
                    if !said.iter().zip(&told).any(lacks) {
                        break;
                    }
                }
            }
        }
        told
    }

    /// Keeps what a feed gave; says whether it goes on.
    fn take(&self, next: Option<Result<ShownPost, ClientError>>, known: &Known, told: &mut [Told]) -> bool {
        match next {
            Some(Ok(post)) => {
                let author = person_of(&post.author).filter(|person| *person < told.len());
                // What is of nobody is counted with the first: it was invented.
                let number = author.and_then(|person| number_of(&post, person));
                if let Some(told) = told.get_mut(author.unwrap_or(0)) {
                    told.push(number);
                }
                if let Some(person) = author {
                    known.raise(person, number);
                }
                true
            }
            Some(Err(error)) => {
                self.readings.fail(&self.name, "the feed", error);
                false
            }
            None => {
                self.readings.fail(&self.name, "the feed", "it ended");
                false
            }
        }
    }

    /// Looks at somebody now and then, until everybody has stopped.
    async fn look(&self, known: &Known, posters: usize, mut random: ChaCha8Rng) {
        let (mut over, mut notices) = (self.over.clone(), self.session.notices());
        let mut lacks = false;
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                _ = over.changed() => return,
            }
            let person = anybody(&mut random, posters);
            let before = known.of(person);
            let shown = self.readings.newest(&self.session, &self.name, person).await;
            lacks |= lacks_something(&mut notices);
            let Some(shown) = shown else { continue };
            let newest = shown.iter().flatten().max().copied();
            // What this session knows of may be in nobody's reach, now and after each of its next moves.
            if let Some(known) = before.filter(|_| !lacks) {
                self.readings.add(Look { person, known, said: None, shown });
            }
            known.raise(person, newest);
        }
    }

    /// Looks at somebody now and then, at one host after another, until everybody has stopped.
    async fn travel(&self, known: &Known, posters: usize, mut random: ChaCha8Rng) {
        let mut over = self.over.clone();
        for nth in 0.. {
            tokio::select! {
                () = tokio::time::sleep(TRAVEL_EVERY) => {}
                _ = over.changed() => return,
            }
            let person = anybody(&mut random, posters);
            // What is known is in the token, which is looked at later.
            let Some(known) = known.of(person) else { continue };
            match self.traveller.look(nth, self.session.token(), name(person), LOOK_POSTS).await {
                Journey::Shown(posts) => {
                    let shown = posts.iter().map(|post| number_of(post, person)).collect();
                    self.readings.add(Look { person, known, said: None, shown });
                }
                Journey::InVain => {}
                Journey::Failed(failure) => self.readings.fail(&self.name, "a read elsewhere", failure.message),
            }
        }
    }
}

/// One of those who post.
fn anybody(random: &mut ChaCha8Rng, posters: usize) -> usize {
    usize::try_from(random.next_u32()).unwrap_or(0) % posters.max(1)
}

/// Whether a session was told meanwhile that something it has seen is in nobody's reach.
pub(super) fn lacks_something(notices: &mut Notices) -> bool {
    std::iter::from_fn(|| notices.try_next()).filter(|notice| matches!(notice, Notice::Missing { .. })).count() > 0
}
