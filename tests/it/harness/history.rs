//! What clients asked and were told, and the check of it against what a host shows.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use gaggle::client::{ShownPost, Written};
use gaggle::id::{RequestId, Vector};
use tokio::time::Instant;

/// How a post was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// As the server said.
    Acknowledged(Box<Written>),
    /// The client saw an error.
    Error(String),
}

/// One post, as its author knows it.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub(crate) author: String,
    pub(crate) id: RequestId,
    pub(crate) text: String,
    pub(crate) called: Instant,
    pub(crate) answered: Instant,
    pub(crate) outcome: Outcome,
}

/// All posts of some authors, each author's in order: each waited for an answer before the next.
#[derive(Debug, Clone, Default)]
pub(crate) struct History(pub(crate) Vec<Record>);

impl History {
    /// The ids of what was acknowledged.
    pub(crate) fn acknowledged(&self) -> BTreeSet<RequestId> {
        let acknowledged = self.0.iter().filter(|record| matches!(record.outcome, Outcome::Acknowledged(_)));
        acknowledged.map(|record| record.id.clone()).collect()
    }

    /// What a host holds that has all of it.
    pub(crate) fn vector(&self) -> Vector {
        let mut vector = Vector::new();
        for record in &self.0 {
            if let Outcome::Acknowledged(written) = &record.outcome {
                vector.raise(written.accepted.entry.origin, written.accepted.entry.seq);
            }
        }
        vector
    }

    /// No client saw an error.
    pub(crate) fn assert_no_errors(&self) {
        let errors: Vec<_> = self.0.iter().filter(|record| matches!(record.outcome, Outcome::Error(_))).collect();
        assert!(errors.is_empty(), "clients saw errors: {errors:#?}");
    }

    /// The longest that anybody waited for an answer, among the calls that touch this time.
    pub(crate) fn longest_pause(&self, from: Instant, to: Instant) -> Duration {
        let touching = self.0.iter().filter(|record| record.answered >= from && record.called <= to);
        touching.map(|record| record.answered - record.called).max().unwrap_or_default()
    }

    /// Checks what a host shows to somebody who joined all authors: every acknowledged post once, in its author's
    /// order, and nothing that nobody said. A post whose author saw an error may be there.
    pub(crate) fn check(&self, shown: &[ShownPost]) -> Result<(), String> {
        let said: BTreeMap<&RequestId, (usize, &Record)> =
            self.0.iter().enumerate().map(|(place, record)| (&record.id, (place, record))).collect();
        let mut seen = BTreeSet::new();
        let mut last: BTreeMap<&str, usize> = BTreeMap::new();
        for post in shown {
            let Some((place, record)) = said.get(&post.id) else {
                return Err(format!("nobody said this: {post:?}"));
            };
            if record.text != post.text || record.author != post.author {
                return Err(format!("{record:?} is shown as {post:?}"));
            }
            if !seen.insert(post.id.clone()) {
                return Err(format!("shown twice: {post:?}"));
            }
            if last.insert(&record.author, *place).is_some_and(|before| before > *place) {
                return Err(format!("not in its author's order: {post:?}"));
            }
        }
        let missing =
            |record: &&Record| matches!(record.outcome, Outcome::Acknowledged(_)) && !seen.contains(&record.id);
        let Some(first) = self.0.iter().find(missing) else { return Ok(()) };
        let count = self.0.iter().filter(missing).count();
        Err(format!("{count} of {} posts are missing, the first of them: {first:?}", self.0.len()))
    }
}

#[cfg(test)]
mod tests {
    use gaggle::client::Stamp;
    use gaggle::id::{EntryId, Origin, Seq, UserId};
    use gaggle::service::intake::Accepted;
    use gaggle::time::Hlc;
    use gaggle::topology::AckLevel;

    use super::*;

    fn record(author: &str, id: &str, outcome: Outcome) -> Record {
        let now = Instant::now();
        let (author, text) = (author.to_owned(), format!("says {id}"));
        Record { author, id: id.parse().unwrap(), text, called: now, answered: now, outcome }
    }

    fn shown(author: &str, id: &str) -> ShownPost {
        let origin = Origin { host: "h".parse().unwrap(), incarnation: 1 };
        let stamp = Stamp { hlc: Hlc(1), origin };
        let (id, text) = (id.parse().unwrap(), format!("says {id}"));
        ShownPost { id, author: author.to_owned(), stamp, seq: Seq(1), text, cursor: Vector::new() }
    }

    fn acknowledged() -> Outcome {
        let origin = Origin { host: "h".parse().unwrap(), incarnation: 1 };
        let (entry, name) = (EntryId { origin, seq: Seq(1) }, "ann".to_owned());
        let accepted = Accepted { entry, hlc: Hlc(1), user: UserId([0; 16]), name };
        Outcome::Acknowledged(Box::new(Written { accepted, copies: 2, ack: AckLevel::Peer, host: origin.host }))
    }

    #[test]
    fn each_kind_of_a_bad_history_is_found() {
        let acknowledged = acknowledged();
        let error = Outcome::Error("x".into());
        let records = [record("ann", "1", acknowledged.clone()), record("ann", "2", acknowledged.clone())];
        let history = History([&records[..], &[record("bob", "3", acknowledged), record("bob", "4", error)]].concat());
        let check = |posts: &[(&str, &str)]| {
            let posts: Vec<_> = posts.iter().map(|(author, id)| shown(author, id)).collect();
            history.check(&posts).err().map(|error| error.split(':').next().unwrap().to_owned())
        };
        assert_eq!(check(&[("ann", "1"), ("bob", "3"), ("ann", "2")]), None);
        assert_eq!(check(&[("ann", "1"), ("ann", "2"), ("bob", "3"), ("bob", "4")]), None, "its outcome is unknown");
        let found = |text: &str| Some(text.to_owned());
        assert_eq!(check(&[("ann", "1"), ("bob", "3")]), found("1 of 4 posts are missing, the first of them"));
        assert_eq!(check(&[("ann", "1"), ("ann", "1")]), found("shown twice"));
        assert_eq!(check(&[("ann", "2"), ("ann", "1")]), found("not in its author's order"));
        assert_eq!(check(&[("ann", "9")]), found("nobody said this"));
        assert!(check(&[("bob", "1")]).is_some(), "somebody else's words");
    }
}
