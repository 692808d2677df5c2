//! What one person said in a drill, and what a host shows of it.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::AddAssign;

/// One person's posts, numbered from 0; each was called when the one before had its answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Said {
    /// How many.
    pub(super) posts: u64,
    /// Those that were not acknowledged, with what the client saw: they may have their effect, or not.
    pub(super) errors: BTreeMap<u64, String>,
}

/// What is wrong with what the hosts show; each post that is wrong on two hosts counts twice.
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
    let missing = |number: &u64| !said.errors.contains_key(number) && !seen.contains(number);
    findings.lost = u64::try_from((0..said.posts).filter(missing).count()).unwrap_or(u64::MAX);
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_a_bad_history_is_found() {
        let said = Said { posts: 4, errors: [(2, "no answer".to_owned())].into() };
        let of = |numbers: &[u64]| check(&said, numbers.iter().copied().map(Some));
        assert_eq!(of(&[0, 1, 3]), Findings::default());
        assert_eq!(of(&[0, 1, 2, 3]), Findings::default(), "its outcome was unknown");
        assert_eq!(of(&[0, 3]), Findings { lost: 1, ..Findings::default() });
        assert_eq!(of(&[0, 1, 2, 2, 3]), Findings { doubled: 1, ..Findings::default() });
        assert_eq!(of(&[1, 0, 3]), Findings { disordered: 1, ..Findings::default() });
        assert_eq!(of(&[0, 1, 3, 4]), Findings { invented: 1, ..Findings::default() });
        assert_eq!(check(&said, [Some(0), None, Some(1), Some(3)]), Findings { invented: 1, ..Findings::default() });
    }
}
