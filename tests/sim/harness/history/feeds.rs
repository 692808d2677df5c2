//! What live feeds tell.

use std::collections::BTreeSet;

use gaggle::id::{RequestId, Token, Vector};
use gaggle::service::query::ShownPost;

use super::{History, Promise, Session, Told, Verdict, Want, entry_of, never};

impl History {
    /// A feed begins where an answer ended.
    pub(crate) fn on_feed_begun(&mut self, person: usize, posts: &[ShownPost], cursor: &Vector) {
        let before = posts.iter().map(|post| post.id.clone()).collect();
        self.people[person].feed = Some(Told { cursor: cursor.clone(), before, told: BTreeSet::new(), lacking: false });
    }

    /// What a host that tells a feed something holds at that moment.
    pub(crate) fn on_feed_read(&mut self, person: usize, held: &Vector) {
        let me = &mut self.people[person];
        if let Some(state) = &mut me.feed {
            state.lacking |= !held.covers(&me.token.vector) || !held.covers(&state.cursor);
        }
    }

    /// A feed tells posts; `doing` is what the person wants meanwhile.
    pub(crate) fn on_items(
        &mut self,
        person: usize,
        doing: Option<&Want>,
        posts: &[ShownPost],
        cursor: &Vector,
        token: &Token,
    ) -> Verdict {
        self.check_posts(person, posts)?;
        self.people[person].token.merge(token);
        let mut seen = Vec::new();
        for post in posts {
            let Some(author) = self.posts.get(&post.id).map(|facts| facts.author) else { return Ok(()) };
            self.check_parent(person, doing, post)?;
            let me = &mut self.people[person];
            let Some(state) = me.feed.as_mut() else { return Ok(()) };
            let twice = state.before.contains(&post.id) || !state.told.insert(post.id.clone());
            never(twice && !state.lacking, Promise::P8, || format!("person{person}'s feed tells {post:?} twice"))?;
            let since = me.joined.get(&author).copied();
            if author == person || since.is_some_and(|since| since < post.stamp.hlc) {
                seen.push(post);
            }
        }
        if !matches!(doing, Some(Want::Leave(_))) && self.people[person].edges_certain {
            self.remember(person, seen.into_iter());
        }
        let Some(state) = self.people[person].feed.as_mut() else { return Ok(()) };
        let before = std::mem::replace(&mut state.cursor, cursor.clone());
        let falls = !self.whole(cursor).covers(&self.whole(&before));
        never(falls, Promise::P8, || format!("the cursor of person{person}'s feed falls back from {before:?}"))?;
        match posts.iter().find(|post| !self.token_knows(person, post)) {
            Some(post) => never(true, Promise::P3(Session::MonotonicReads), || {
                format!("person{person}'s feed tells {:?}, and its token lacks it", entry_of(post))
            }),
            None => Ok(()),
        }
    }

    /// P4: what a told post answers was told or shown before, if this person is to see it at all.
    fn check_parent(&self, person: usize, doing: Option<&Want>, post: &ShownPost) -> Verdict {
        let Some(state) = &self.people[person].feed else { return Ok(()) };
        // Whom a LEAVE under way concerns is left already, or not yet.
        let left = |parent: &RequestId| match doing {
            Some(Want::Leave(whom)) => self.posts.get(parent).is_some_and(|facts| facts.author == *whom),
            _ => false,
        };
        let shown = |parent: &RequestId| state.before.contains(parent) || state.told.contains(parent);
        let lost = self.parent_lost(person, post, |parent| state.lacking || shown(parent) || left(parent));
        never(lost, Promise::P4, || format!("person{person}'s feed tells {post:?} before what it answers"))
    }
}
