//! Pages of one author's posts, each from a cursor of the one before: none is left out, and none comes twice.

use std::collections::BTreeSet;

use gaggle::id::{RequestId, Vector};
use gaggle::service::query::ShownPost;

use super::{Asked, Extent, History, PostFacts, Promise, Verdict, never};

/// Posts that a page may hold.
pub(crate) const PAGE_POSTS: usize = 3;

/// How far a reader has come in somebody's posts.
#[derive(Debug)]
pub(crate) struct Walk {
    pub(crate) of: usize,
    pub(crate) cursor: Vector,
    /// What stands before the cursor.
    told: BTreeSet<RequestId>,
}

impl Walk {
    /// From the beginning.
    pub(crate) fn of(author: usize) -> Self {
        Self { of: author, cursor: Vector::new(), told: BTreeSet::new() }
    }
}

impl History {
    pub(super) fn on_page(
        &mut self,
        person: usize,
        asked: &Asked,
        of: usize,
        posts: &[ShownPost],
        cursor: &Vector,
        extent: Extent,
    ) -> Verdict {
        self.check_lines(person, posts)?;
        let Some(walk) = self.people[person].walk.as_ref().filter(|walk| walk.of == of) else { return Ok(()) };
        for post in posts {
            let Some(facts) = self.posts.get(&post.id) else { continue };
            never(facts.author != of, Promise::Rules, || {
                format!("person{person} pages through person{of}, and is shown {post:?}")
            })?;
            // Until the entry is shown that gives a post its place, no cursor can hold it.
            let twice = walk.told.contains(&post.id) && facts.entries.len() == 1;
            never(twice, Promise::P8, || {
                format!("a page of person{person} from {:?} has {post:?} again", walk.cursor)
            })?;
        }
        let at_the_end = extent == Extent::All && posts.len() < PAGE_POSTS;
        let passed = |id: &RequestId| walk.told.contains(id) || posts.iter().any(|post| post.id == *id);
        let passed_over = |(id, facts): &(&RequestId, &PostFacts)| {
            let known = || facts.entries.keys().any(|entry| self.names(&asked.token.vector, *entry));
            facts.author == of && !passed(id) && known() && !self.trimmed(id)
        };
        if at_the_end && let Some((id, _)) = self.posts.iter().find(passed_over) {
            let token = &asked.token;
            let what = || {
                format!("person{person} comes to the end of person{of}'s posts without {id:?}, asked with {token:?}")
            };
            never(true, Promise::P8, what)?;
        }
        self.go_on(person, posts, cursor);
        Ok(())
    }

    /// The next page begins behind this one, or behind one of its lines: what is after that comes once more.
    fn go_on(&mut self, person: usize, posts: &[ShownPost], cursor: &Vector) {
        let Some(walk) = &mut self.people[person].walk else { return };
        let line = walk.told.len() % (posts.len() + 1);
        let (cursor, taken) = match posts.get(line) {
            Some(post) => (&post.cursor, line + 1),
            None => (cursor, posts.len()),
        };
        walk.cursor.clone_from(cursor);
        walk.told.extend(posts[..taken].iter().map(|post| post.id.clone()));
    }
}
