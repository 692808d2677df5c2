//! Live feeds at a primary: each moves from its own cursor towards what is shown, one step under way at a time.
//!
//! A feed whose client reads slowly stalls only itself: its next step is read when its last frame was written. Feeds
//! that stand at the same cursor, as those that keep up do, are read for together. A cursor is a vector, so a feed goes
//! on at any host, once what its token and its cursor name is shown there: without it, the host would tell posts of
//! somebody whom the person has left, or a post again that was told elsewhere under another entry. If nobody in reach
//! has it, the feed goes on with the part that can be had.

use std::collections::{BTreeMap, VecDeque};

use crate::core::copies::Copies;
use crate::core::io::{Output, Outputs, ReadId};
use crate::error::Refusal;
use crate::id::{ClientId, FeedId, Token, UserId, Vector};
use crate::limits;
use crate::service::feed::FeedStep;
use crate::time::{Hlc, Instant};
use crate::wire::client::FeedFrame;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Idle,
    Reading(ReadId),
    Writing,
}

#[derive(Debug)]
struct Feed {
    client: ClientId,
    user: UserId,
    cursor: Vector,
    state: State,
    /// Seen elsewhere, and not known to be shown here: the feed waits for it.
    lacks: Option<Vector>,
    form: Form,
}

/// Whether a cursor names all that it implies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    /// As the client gave it.
    Told,
    /// As the log is walked from it.
    Whole,
}

/// What may be done about something seen that is not shown here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lack {
    /// It is held here, and will be shown.
    Soon,
    /// Another host has it.
    Elsewhere,
    /// Nobody in reach has it.
    Nowhere,
}

/// All feeds of a primary.
#[derive(Debug, Default)]
pub(crate) struct Feeds {
    feeds: BTreeMap<FeedId, Feed>,
    /// Feeds that wait for what they lack, by the end of their patience.
    waiting: VecDeque<(Instant, FeedId)>,
    last_read: u64,
}

/// Numbers of reads for feeds are apart from those of the relay.
const READS_FROM: u64 = 1 << 48;

impl Feeds {
    /// No feeds. Their reads are numbered from here on, so that the answer to one of an earlier term, which may come late,
    /// is not taken for one of this term's.
    pub(crate) fn new(last_read: u64) -> Self {
        Self { last_read, ..Self::default() }
    }

    /// Where the numbers of the next term may start.
    pub(crate) fn last_read(&self) -> u64 {
        self.last_read
    }

    /// How many feeds a client has.
    pub(crate) fn of(&self, client: ClientId) -> usize {
        self.feeds.values().filter(|feed| feed.client == client).count()
    }

    /// A feed begins.
    pub(crate) fn open(&mut self, now: Instant, feed: FeedId, of: (ClientId, UserId), token: Vector, since: Vector) {
        let mut seen = token;
        seen.merge(&since);
        let (client, user) = of;
        self.feeds.insert(
            feed,
            Feed { client, user, cursor: since, state: State::Idle, lacks: Some(seen), form: Form::Told },
        );
        self.waiting.push_back((now + limits::TOKEN_WAIT, feed));
    }

    /// Feeds that have waited long enough: those that may be had elsewhere end with this refusal.
    pub(crate) fn on_timeout(
        &mut self,
        now: Instant,
        copies: &Copies,
        lack: impl Fn(&Vector) -> Lack,
        behind: &Refusal,
        out: &mut Outputs,
    ) {
        if self.waiting.front().is_none_or(|(at, _)| now < *at) {
            return;
        }
        let mut still = Vec::new();
        while let Some((_, id)) = self.waiting.pop_front_if(|(at, _)| now >= *at) {
            let Some(feed) = self.feeds.get_mut(&id) else { continue };
            match feed.lacks.as_ref().map(&lack) {
                None => {}
                Some(Lack::Soon) => still.push((now + limits::TOKEN_WAIT, id)),
                Some(Lack::Nowhere) => feed.lacks = None,
                Some(Lack::Elsewhere) => {
                    self.feeds.remove(&id);
                    out.push(Output::Feed { feed: id, frame: FeedFrame::Ended(behind.clone()) });
                }
            }
        }
        self.waiting.extend(still);
        self.pump(copies, out);
    }

    /// When `on_timeout` is due.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.waiting.front().map(|(at, _)| *at)
    }

    /// Reads for every feed that waits and is behind.
    pub(crate) fn pump(&mut self, copies: &Copies, out: &mut Outputs) {
        let shown = copies.shown();
        let mut groups: BTreeMap<&Vector, Vec<(FeedId, UserId)>> = BTreeMap::new();
        for (id, feed) in &mut self.feeds {
            feed.lacks.take_if(|lacks| shown.covers(lacks));
            if feed.lacks.is_none() && feed.form == Form::Told {
                copies.retired().complete(&mut feed.cursor);
                feed.form = Form::Whole;
            }
            if feed.lacks.is_none() && feed.state == State::Idle && !feed.cursor.covers(shown) {
                groups.entry(&feed.cursor).or_default().push((*id, feed.user));
            }
        }
        let groups: Vec<(Vector, Vec<(FeedId, UserId)>)> =
            groups.into_iter().map(|(cursor, feeds)| (cursor.clone(), feeds)).collect();
        for (from, feeds) in groups {
            self.last_read += 1;
            let read = ReadId(READS_FROM + self.last_read);
            for (id, _) in &feeds {
                if let Some(feed) = self.feeds.get_mut(id) {
                    feed.state = State::Reading(read);
                }
            }
            out.push(Output::ReadFeeds { read, from, shown: shown.clone(), feeds });
        }
    }

    /// The steps were read.
    pub(crate) fn on_read(
        &mut self,
        read: ReadId,
        steps: Vec<FeedStep>,
        cursor: &Vector,
        copies: &Copies,
        hlc: Hlc,
        out: &mut Outputs,
    ) {
        let mut told = cursor.clone();
        copies.shorten(&mut told);
        let mut steps: BTreeMap<FeedId, FeedStep> = steps.into_iter().map(|step| (step.feed, step)).collect();
        for (id, feed) in self.feeds.iter_mut().filter(|(_, feed)| feed.state == State::Reading(read)) {
            feed.cursor = cursor.clone();
            feed.state = State::Idle;
            let Some(mut step) = steps.remove(id).filter(|step| !step.posts.is_empty()) else { continue };
            feed.state = State::Writing;
            step.posts.iter_mut().for_each(|post| copies.shorten(&mut post.cursor));
            // Seen is what this feed has told, not what else is shown by now.
            let token = Token { vector: told.clone(), hlc };
            let frame = FeedFrame::Items { posts: step.posts, cursor: told.clone(), token };
            out.push(Output::Feed { feed: *id, frame });
        }
    }

    /// A feed can take another frame.
    pub(crate) fn on_written(&mut self, feed: FeedId) {
        if let Some(feed) = self.feeds.get_mut(&feed).filter(|feed| feed.state == State::Writing) {
            feed.state = State::Idle;
        }
    }

    /// A feed is closed.
    pub(crate) fn on_closed(&mut self, feed: FeedId) {
        self.feeds.remove(&feed);
    }

    /// A client is gone.
    pub(crate) fn on_client_closed(&mut self, client: ClientId) {
        self.feeds.retain(|_, feed| feed.client != client);
    }

    /// The feeds go on elsewhere.
    pub(crate) fn end_all(&mut self, refusal: &Refusal, out: &mut Outputs) {
        for feed in std::mem::take(&mut self.feeds).into_keys() {
            out.push(Output::Feed { feed, frame: FeedFrame::Ended(refusal.clone()) });
        }
    }
}

/// Whether one more feed is allowed to a client.
pub(crate) fn room_for_feed(feeds: &Feeds, client: ClientId) -> bool {
    feeds.of(client) < limits::CLIENT_FEEDS_MAX
}
