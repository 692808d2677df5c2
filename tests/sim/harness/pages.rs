//! Pages: instead of a timeline, some people read all posts of one author, a few at a time, each page from a cursor of the
//! one before, over failovers and at whichever host they are.
//!
//! They have chance of their own: a run without them is what the seed made before there were any.

use gaggle::wire::client::RequestBody;

use super::dice::Dice;
use super::history::{PAGE_POSTS, Walk, Want};
use super::world::World;
use super::{Choice, Mutant, Options};

/// The part of a seed's chance that has people page: far from all others.
const PAGES: u64 = 1 << 35;

/// The chance of one person to page, and whether anybody does in this run.
pub(crate) fn dice_of(options: &Options, person: u64) -> Option<Dice> {
    let share = match options.pages {
        Choice::Always => 1_000,
        Choice::Drawn if options.mutant == Some(Mutant::PassesOver) => 1_000,
        Choice::Drawn if options.mutant.is_none() => 500,
        Choice::Drawn | Choice::Never => 0,
    };
    Dice::of(options.seed, PAGES).chance(share).then(|| Dice::of(options.seed, PAGES + 1 + person))
}

impl World {
    /// A page instead of a timeline, perhaps: the next one, or the first one of somebody else.
    pub(crate) fn draw_page(&mut self, person: usize) -> Want {
        if self.people[person].pages.is_none() {
            return Want::Timeline;
        }
        let joined = self.history.people[person].joined.keys().copied();
        let named = joined.chain([person]).filter(|author| !self.history.shares_name(*author));
        let authors: Vec<usize> = named.collect();
        let Some(dice) = &mut self.people[person].pages else { return Want::Timeline };
        if authors.is_empty() || dice.chance(400) {
            return Want::Timeline;
        }
        let other = authors[dice.index(authors.len())];
        let walk = &mut self.history.people[person].walk;
        if dice.chance(200) || walk.as_ref().is_none_or(|walk| !authors.contains(&walk.of)) {
            *walk = Some(Walk::of(other));
        }
        walk.as_ref().map_or(Want::Timeline, |walk| Want::Page { of: walk.of, since: walk.cursor.clone() })
    }
}

/// The request for a page of what this name has posted.
pub(crate) fn request(name: String, since: gaggle::id::Vector) -> RequestBody {
    let limit = u32::try_from(PAGE_POSTS).unwrap_or(u32::MAX);
    RequestBody::Timeline { of: Some(name), limit, since: Some(since), before: None }
}
