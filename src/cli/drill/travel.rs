//! A traveller: looks at what a follower knows of, at one host after another, each time in a session of its own that brings
//! along what the follower has seen. A host that does not answer is left out; one that answers must show it, or say that
//! it is missing.
//!
//! Whoever stays where it is, or moves when a host dies, meets hosts that hold all that it has seen nearly always. Who goes
//! elsewhere in the midst of it does not.

use std::time::Duration;

use crate::cli::context::{Context, Place};
use crate::cli::drill::ground::Ground;
use crate::cli::drill::readers::lacks_something;
use crate::cli::failure::{Failure, Kind};
use crate::cli::session::{Person, Session};
use crate::client::{Identity, ShownPost};
use crate::id::Token;

/// How long one look may take, the way there included.
const PATIENCE: Duration = Duration::from_secs(2);

/// The ways to the hosts.
#[derive(Debug, Clone)]
pub(super) struct Traveller {
    /// For each host, what leads there and nowhere else.
    ways: Vec<Context>,
    place: Place,
}

/// What came of a journey.
#[derive(Debug)]
pub(super) enum Journey {
    Shown(Vec<ShownPost>),
    /// The host could not be had, or not all that was seen.
    InVain,
    Failed(Failure),
}

impl Traveller {
    pub(super) fn new(ground: &Ground, place: &Place) -> Self {
        let way = |host| {
            let mut context = ground.context().clone();
            (context.global.via, context.global.timeout) = (Some(host), PATIENCE);
            context
        };
        Self { ways: ground.topology().hosts.iter().map(|host| way(host.id)).collect(), place: place.clone() }
    }

    /// Looks at this person's newest posts at the nth host, with what was seen.
    pub(super) async fn look(&self, nth: usize, seen: Token, whose: String, posts: u32) -> Journey {
        let Some(way) = self.ways.get(nth % self.ways.len().max(1)) else { return Journey::InVain };
        match self.look_by(way, seen, whose, posts).await {
            Ok(journey) => journey,
            Err(failure) if failure.kind == Kind::Unreachable => Journey::InVain,
            Err(failure) => Journey::Failed(failure),
        }
    }

    async fn look_by(&self, way: &Context, seen: Token, whose: String, posts: u32) -> Result<Journey, Failure> {
        let identity = Identity::generate().map_err(|error| Failure::identity(error.to_string()))?;
        let session = Session::open(way, &self.place, Person::Traveller(identity, seen)).await?;
        let mut notices = session.notices();
        let page = session.timeline(Some(whose), posts, None).await;
        let lacks = lacks_something(&mut notices);
        session.close().await;
        Ok(if lacks { Journey::InVain } else { Journey::Shown(page?.posts) })
    }
}
