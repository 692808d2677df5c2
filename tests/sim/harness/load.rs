//! How busy a run is: how fast people call, how long commits take, what loss does to streams, and whether calls go on
//! when the faults have ended.
//!
//! A cluster that nobody uses heals by its silences: each stream on which nothing comes is opened anew. So some runs
//! are judged while people go on calling. All of it has chance of its own: a calm run of a seed is what the seed made
//! before there were busy ones.

use super::dice::Dice;
use super::world::World;
use super::{LOOK_EVERY, Mutant, Options, WHOLE_WITHIN, named, seconds};

/// Which loads a run may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Loads {
    Drawn,
    /// Slow people who fall silent, fast disks, and loss that only datagrams feel.
    Calm,
    /// All that makes several transactions with entries of others be under way at once.
    Heavy,
}

impl Loads {
    const ALL: [Self; 3] = [Self::Drawn, Self::Calm, Self::Heavy];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Drawn => "drawn",
            Self::Calm => "calm",
            Self::Heavy => "heavy",
        }
    }
}

impl std::str::FromStr for Loads {
    type Err = String;

    fn from_str(name: &str) -> Result<Self, String> {
        named(&Self::ALL, Self::name, "load", name)
    }
}

/// How fast people call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pace {
    Calm,
    /// For a while there is hardly a thought between two calls, and most of them are posts.
    Busy {
        from: u64,
        until: u64,
    },
}

/// What loss between hosts does to a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Streams {
    Smooth,
    /// What was lost comes again later, and what was sent behind it waits for it.
    Stalling,
}

/// The load of one run.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) pace: Pace,
    pub(crate) streams: Streams,
    /// Bounds of the time that a commit takes, in microseconds.
    pub(crate) commit: (u64, u64),
    /// For how long people go on calling after the faults, at least, in microseconds; 0 if they do not.
    pub(crate) goes_on: u64,
}

/// The part of a seed's chance that draws the load: far from those of the people and of the faults.
const LOAD: u64 = 1 << 33;

/// People think for so long while they go on calling, in microseconds: never is a host silent for a second.
const THINKS: (u64, u64) = (30_000, 150_000);

/// Once each duty has its one holder, what is anywhere is everywhere after this: well below the standstill after which a
/// sender opens a stream anew ([`gaggle::limits::REPLICATION_STANDSTILL`]), so that this hides no bug. 2.5 s did, too.
const SPREADS_WITHIN: u64 = 4_000_000;

impl Load {
    const CALM: Self = Self { pace: Pace::Calm, streams: Streams::Smooth, commit: (200, 1_000), goes_on: 0 };

    pub(crate) fn draw(options: &Options) -> Self {
        let mut dice = Dice::of(options.seed, LOAD);
        let needed = options.mutant.and_then(Mutant::loads);
        let (busy, stalling, slow, lively) = match needed.unwrap_or(options.loads) {
            Loads::Calm => return Self::CALM,
            Loads::Drawn => (80, 300, 250, 400),
            Loads::Heavy => (700, 900, 700, 1_000),
        };
        let from = dice.between(500_000, options.faults_until);
        let until = from + dice.between(300_000, 1_500_000);
        let pace = if dice.chance(busy) { Pace::Busy { from, until } } else { Pace::Calm };
        let streams = if dice.chance(stalling) { Streams::Stalling } else { Streams::Smooth };
        let slowest = dice.between(2_000, 40_000);
        let commit = if dice.chance(slow) { (slowest / 4, slowest) } else { Self::CALM.commit };
        let longest = dice.between(500_000, 4_000_000);
        let goes_on = if dice.chance(lively) { longest } else { 0 };
        Self { pace, streams, commit, goes_on }
    }

    pub(crate) fn is_busy(&self, clock: u64) -> bool {
        matches!(self.pace, Pace::Busy { from, until } if (from..until).contains(&clock))
    }
}

impl World {
    /// Lets people go on calling though the faults have ended: who waited is answered, and what any host held is held
    /// by every host, over and over, each within a bound.
    pub(crate) fn go_on_calling(&mut self) {
        if self.load.goes_on == 0 || self.failure.is_some() {
            return;
        }
        for person in &mut self.people {
            person.think_micros = person.dice.between(THINKS.0, THINKS.1);
        }
        self.note(|| "people go on".to_owned());
        self.calls_until = u64::MAX;
        let (begun, mut sound_at) = (self.clock, None);
        let (mut mark, mut marked_at) = (self.moment().mark(), begun);
        loop {
            let until = self.clock + LOOK_EVERY;
            while self.step(until) {}
            if self.failure.is_some() {
                return;
            }
            let moment = self.moment();
            let (verdict, since, within) = match moment.is_manned() {
                Err(breach) => {
                    sound_at = None;
                    self.history.sound_since = None;
                    (Err(breach), begun, WHOLE_WITHIN)
                }
                Ok(()) => {
                    let sound_at: u64 = *sound_at.get_or_insert(self.clock);
                    (moment.fulfils(&mark), sound_at.max(marked_at), SPREADS_WITHIN)
                }
            };
            match verdict {
                Ok(()) if self.clock >= begun + self.load.goes_on => break,
                Ok(()) => {
                    (mark, marked_at) = (moment.mark(), self.clock);
                    self.history.sound_since.get_or_insert(self.clock);
                }
                Err(mut breach) if self.clock >= since + within || self.clock >= begun + 2 * WHOLE_WITHIN => {
                    breach.what = format!("{} under load: {}", seconds(within), breach.what);
                    return self.judge(Err(breach));
                }
                Err(_) => {}
            }
        }
        self.calls_until = self.clock;
    }
}
