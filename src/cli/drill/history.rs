//! What one person said in a drill; what a host shows of it, what a live feed told of it, and what was read meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;

/// One person's posts, numbered from 0; each was called when the one before had its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// How many.
    pub(super) posts: u64,
    /// Those that were not acknowledged, with what the client saw: they may have their effect, or not.
    pub(super) errors: BTreeMap<u64, String>,
    /// Where the person was told that no host in reach holds all that the person has seen: posts below such a number may
    /// be unknown where those from there on are made, and are shown and told there later.
    pub(super) torn: BTreeSet<u64>,
}

impl Said {
    /// Whether a later post may be known where an earlier one is not.
    fn is_torn_between(&self, earlier: u64, later: u64) -> bool {
        self.torn.iter().any(|at| (earlier + 1..=later).contains(at))
    }
}

/// One look at somebody's newest posts, in a session that knows of one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Look {
    /// Whose posts.
    pub(super) person: usize,
    /// The newest one that was acknowledged or shown in this session before it asked.
    pub(super) known: u64,
    /// How many the author had said when the answer came, if the author asked.
    pub(super) said: Option<u64>,
    /// The numbers of the posts in the answer, none for what is no number.
    pub(super) shown: Vec<Option<u64>>,
}

/// What is wrong with what hosts show and feeds tell; each post that is wrong on two of them counts twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Findings {
    /// Acknowledged, and not there.
    pub(super) lost: u64,
    /// There more than once.
    pub(super) doubled: u64,
    /// Behind a later post of the same author.
    pub(super) disordered: u64,
    /// Nobody said it.
    pub(super) invented: u64,
    /// Acknowledged, and never told by a live feed.
    pub(super) untold: u64,
    /// Told more than once by a live feed.
    pub(super) twice: u64,
    /// Looks that showed less than their session knew.
    pub(super) stale: u64,
}

impl Findings {
    /// Whether all is as it should be.
    pub(super) fn is_clean(self) -> bool {
        self == Self::default()
    }
}

impl AddAssign for Findings {
    fn add_assign(&mut self, other: Self) {
        self.lost += other.lost;
        self.doubled += other.doubled;
        self.disordered += other.disordered;
        self.invented += other.invented;
        self.untold += other.untold;
        self.twice += other.twice;
        self.stale += other.stale;
    }
}

/// Checks one host's timeline of one person: the numbers of the posts as shown, none for what is no number.
pub(super) fn check(said: &Said, shown: impl IntoIterator<Item = Option<u64>>) -> Findings {
    let mut findings = Findings::default();
    let mut seen = BTreeSet::new();
    let mut last = None;
    for number in shown {
        let Some(number) = number.filter(|number| *number < said.posts) else {
            findings.invented += 1;
            continue;
        };
        if !seen.insert(number) {
            findings.doubled += 1;
        } else if last > Some(number) {
            findings.disordered += 1;
        }
        last = last.max(Some(number));
    }
    findings.lost = lacking(said, &seen);
    findings
}

/// How many acknowledged posts are not among these.
fn lacking(said: &Said, seen: &BTreeSet<u64>) -> u64 {
    let missing = |number: &u64| !said.errors.contains_key(number) && !seen.contains(number);
    u64::try_from((0..said.posts).filter(missing).count()).unwrap_or(u64::MAX)
}

/// Checks what one feed told of one person whom its reader had joined before the first post. A feed has the order of
/// arrival, which is an author's own order unless the author went on without what was said before.
pub(super) fn check_feed(said: &Said, told: impl IntoIterator<Item = Option<u64>>) -> Findings {
    let mut findings = Findings::default();
    let mut seen = BTreeSet::new();
    for number in told {
        let Some(number) = number.filter(|number| *number < said.posts) else {
            findings.invented += 1;
            continue;
        };
        let later = seen.range(number + 1..).next().copied();
        if !seen.insert(number) {
            findings.twice += 1;
        } else if let Some(later) = later
            // What has no answer is seen by nobody, and the next post does not wait for it.
            && !said.errors.contains_key(&number)
            && !said.is_torn_between(number, later)
        {
            findings.disordered += 1;
        }
    }
    findings.untold = lacking(said, &seen);
    findings
}

/// Checks one look at this person's posts: the one that is known is there, unless all that are there came after it.
pub(super) fn check_look(said: &Said, look: &Look) -> Findings {
    let shown: BTreeSet<u64> = look.shown.iter().flatten().copied().filter(|number| *number < said.posts).collect();
    let is_there = shown.first().is_some_and(|first| *first > look.known) || shown.contains(&look.known);
    // The author may have gone on without it; with nothing shown, without anything.
    let torn = match (look.said, shown.range(..look.known).next_back()) {
        (Some(said_by_then), _) => said.is_torn_between(look.known, said_by_then),
        (None, Some(newest)) => said.is_torn_between(*newest, look.known),
        (None, None) => false,
    };
    let invented = look.shown.len() - look.shown.iter().flatten().filter(|number| **number < said.posts).count();
    Findings {
        stale: u64::from(!is_there && !torn),
        invented: u64::try_from(invented).unwrap_or(u64::MAX),
        ..Findings::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_a_bad_history_is_found() {
        let said = Said { posts: 4, errors: [(2, "no answer".to_owned())].into(), torn: BTreeSet::new() };
        let of = |numbers: &[u64]| check(&said, numbers.iter().copied().map(Some));
        assert_eq!(of(&[0, 1, 3]), Findings::default());
        assert_eq!(of(&[0, 1, 2, 3]), Findings::default(), "its outcome was unknown");
        assert_eq!(of(&[0, 3]), Findings { lost: 1, ..Findings::default() });
        assert_eq!(of(&[0, 1, 2, 2, 3]), Findings { doubled: 1, ..Findings::default() });
        assert_eq!(of(&[1, 0, 3]), Findings { disordered: 1, ..Findings::default() });
        assert_eq!(of(&[0, 1, 3, 4]), Findings { invented: 1, ..Findings::default() });
        assert_eq!(check(&said, [Some(0), None, Some(1), Some(3)]), Findings { invented: 1, ..Findings::default() });
    }

    /// Three posts were said, then one without an answer, then two more.
    fn six() -> Said {
        Said { posts: 6, errors: [(3, "no answer".to_owned())].into(), torn: BTreeSet::new() }
    }

    #[test]
    fn each_kind_of_a_bad_feed_is_found() {
        let said = six();
        let of = |numbers: &[u64]| check_feed(&said, numbers.iter().copied().map(Some));
        assert_eq!(of(&[0, 1, 2, 4, 5]), Findings::default());
        assert_eq!(of(&[0, 1, 2, 3, 4, 5]), Findings::default(), "its outcome was unknown");
        assert_eq!(of(&[0, 1, 2, 4, 5, 3]), Findings::default(), "it arrived late, and nobody had waited for it");
        assert_eq!(of(&[]), Findings { untold: 5, ..Findings::default() });
        assert_eq!(of(&[0, 1, 4, 5]), Findings { untold: 1, ..Findings::default() });
        assert_eq!(of(&[0, 1, 2, 1, 4, 5]), Findings { twice: 1, ..Findings::default() });
        assert_eq!(of(&[0, 1, 2, 3, 3, 4, 5]), Findings { twice: 1, ..Findings::default() }, "whatever its outcome");
        assert_eq!(of(&[0, 2, 1, 4, 5]), Findings { disordered: 1, ..Findings::default() });
        assert_eq!(of(&[4, 0, 1, 2, 5]), Findings { disordered: 3, ..Findings::default() });
        assert_eq!(of(&[0, 1, 2, 4, 5, 6]), Findings { invented: 1, ..Findings::default() });
        assert_eq!(check_feed(&said, [Some(0), None]), Findings { untold: 4, invented: 1, ..Findings::default() });
    }

    #[test]
    fn an_author_who_went_on_without_a_post_is_told_out_of_order_there_only() {
        let said = Said { torn: [2].into(), ..six() };
        let of = |numbers: &[u64]| check_feed(&said, numbers.iter().copied().map(Some));
        assert_eq!(of(&[2, 4, 5, 0, 1]), Findings::default());
        assert_eq!(of(&[1, 0, 2, 4, 5]), Findings { disordered: 1, ..Findings::default() }, "both before");
        assert_eq!(of(&[0, 1, 4, 2, 5]), Findings { disordered: 1, ..Findings::default() }, "both after");
        assert_eq!(of(&[2, 4, 5, 0]), Findings { untold: 1, ..Findings::default() }, "late is not never");
    }

    #[test]
    fn a_look_that_shows_less_than_is_known_is_found() {
        let look =
            |said, shown: &[u64]| Look { person: 0, known: 4, said, shown: shown.iter().copied().map(Some).collect() };
        let stale = Findings { stale: 1, ..Findings::default() };
        // An author's own look, and a reader's.
        for by in [Some(5), None] {
            let of = |shown: &[u64]| check_look(&six(), &look(by, shown));
            assert_eq!(of(&[2, 4]), Findings::default());
            assert_eq!(of(&[4, 5]), Findings::default(), "more was said meanwhile");
            assert_eq!(of(&[5]), Findings::default(), "so much that no more fits");
            assert_eq!(of(&[1, 2]), stale);
            assert_eq!(of(&[]), stale);
            assert_eq!(of(&[2, 5]), stale, "a hole is no progress");
            assert_eq!(of(&[4, 6]), Findings { invented: 1, ..Findings::default() });
            assert_eq!(check_look(&six(), &Look { shown: vec![Some(4), None], ..look(by, &[]) }).invented, 1);
        }
    }

    #[test]
    fn a_look_across_what_was_lost_may_show_less() {
        let look =
            |said, shown: &[u64]| Look { person: 0, known: 2, said, shown: shown.iter().copied().map(Some).collect() };
        let stale = Findings { stale: 1, ..Findings::default() };
        let torn = |at| Said { torn: [at].into(), ..six() };
        // The author went on without post 2 while looking.
        assert_eq!(check_look(&torn(3), &look(Some(3), &[0, 1])), Findings::default());
        assert_eq!(check_look(&torn(3), &look(Some(4), &[])), Findings::default());
        // Long ago, and not yet.
        assert_eq!(check_look(&torn(1), &look(Some(3), &[0, 1])), stale);
        assert_eq!(check_look(&torn(5), &look(Some(3), &[0, 1])), stale);
        // A reader has seen post 2 all the same: only an earlier post offered again may take its place.
        assert_eq!(check_look(&torn(2), &look(None, &[0, 1])), Findings::default());
        assert_eq!(check_look(&torn(1), &look(None, &[0, 1])), stale);
        assert_eq!(check_look(&torn(2), &look(None, &[])), stale);
    }
}
