//! Feeds: each survives its servers, goes on at its cursor, and tells every post once.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::client::error::ClientError;
use crate::client::session::calls::HOST_AVOID;
use crate::client::session::{ConnId, FeedKey, Output, Outputs, Session, StreamId};
use crate::error::{Advice, ErrorCode, Refusal};
use crate::id::{RequestId, Vector};
use crate::service::query::ShownPost;
use crate::time::Instant;
use crate::wire::client::{ClientFrame, FeedFrame};

/// The pause before a feed is opened again where it was; it doubles.
const REOPEN_PAUSE: Duration = Duration::from_millis(20);
/// So often at most: 0.64 s.
const REOPEN_DOUBLINGS_MAX: u32 = 5;
/// Posts remembered by author and id: a write that was lost with its host and offered again is another entry, but the
/// same post. It comes soon after the first, if at all.
const RECENT_MAX: usize = 4_096;

/// A feed that somebody reads.
#[derive(Debug)]
pub(super) struct Feed {
    cursor: Vector,
    place: FeedPlace,
    tries: u32,
    recent: Recent,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum FeedPlace {
    Waiting,
    Paused(Instant),
    Open { conn: ConnId, stream: StreamId },
}

/// The posts told last.
#[derive(Debug, Default)]
struct Recent {
    order: VecDeque<(String, RequestId)>,
    told: BTreeSet<(String, RequestId)>,
}

impl Recent {
    /// Says whether the post is new, and remembers it.
    fn is_new(&mut self, post: &ShownPost) -> bool {
        let key = (post.author.clone(), post.id.clone());
        if !self.told.insert(key.clone()) {
            return false;
        }
        self.order.push_back(key);
        if self.order.len() > RECENT_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.told.remove(&oldest);
        }
        true
    }
}

impl Feed {
    pub(super) fn paused_until(&self) -> Option<Instant> {
        match self.place {
            FeedPlace::Paused(until) => Some(until),
            FeedPlace::Waiting | FeedPlace::Open { .. } => None,
        }
    }

    fn pause(&mut self, at: Instant) {
        self.place = FeedPlace::Paused(at + REOPEN_PAUSE * (1 << self.tries.min(REOPEN_DOUBLINGS_MAX)));
        self.tries += 1;
    }

    /// Takes out what has been told already, and moves on.
    fn take(&mut self, posts: Vec<ShownPost>, cursor: &Vector) -> Vec<ShownPost> {
        // The cursor is no measure: a post made after a join that arrives late is told late, and held by then.
        let posts = posts.into_iter().filter(|post| self.recent.is_new(post)).collect();
        self.cursor.advance(cursor);
        self.tries = 0;
        posts
    }
}

impl Session {
    pub(super) fn on_feed_want(&mut self, at: Instant, key: FeedKey, since: Vector, out: &mut Outputs) {
        let feed = Feed { cursor: since, place: FeedPlace::Waiting, tries: 0, recent: Recent::default() };
        self.feeds.insert(key, feed);
        self.open_waiting_feeds(at, out);
    }

    /// Opens every feed that waits for a server, if there is one.
    pub(super) fn open_waiting_feeds(&mut self, at: Instant, out: &mut Outputs) {
        if self.feeds.is_empty() {
            return;
        }
        let Some(conn) = self.good_server() else { return };
        let waiting: Vec<_> =
            self.feeds.iter().filter(|(_, feed)| feed.place == FeedPlace::Waiting).map(|(key, _)| *key).collect();
        for key in waiting {
            let stream = StreamId(self.fresh());
            let Some(feed) = self.feeds.get_mut(&key) else { continue };
            feed.place = FeedPlace::Open { conn, stream };
            let frame = ClientFrame::Follow { token: self.seen.asking().clone(), since: feed.cursor.clone() };
            out.push(Output::OpenFeed { conn, feed: key, stream, frame });
        }
        tracing::trace!(at = at.as_micros(), "feeds are open");
    }

    pub(super) fn reopen_paused_feeds(&mut self, at: Instant, out: &mut Outputs) {
        let mut due = self.feeds.values_mut().filter(|feed| feed.paused_until().is_some_and(|until| until <= at));
        let mut any = false;
        for feed in due.by_ref() {
            feed.place = FeedPlace::Waiting;
            any = true;
        }
        if any {
            self.open_waiting_feeds(at, out);
        }
    }

    /// The connection that this stream of the feed is on, if it is the present one.
    fn feed_conn(&self, key: FeedKey, stream: StreamId) -> Option<ConnId> {
        match self.feeds.get(&key)?.place {
            FeedPlace::Open { conn, stream: present } if present == stream => Some(conn),
            FeedPlace::Open { .. } | FeedPlace::Waiting | FeedPlace::Paused(_) => None,
        }
    }

    pub(super) fn on_feed_frame(
        &mut self,
        at: Instant,
        key: FeedKey,
        stream: StreamId,
        frame: FeedFrame,
        out: &mut Outputs,
    ) {
        let Some(conn) = self.feed_conn(key, stream) else { return };
        self.heard(at, conn);
        match frame {
            FeedFrame::Items { posts, cursor, token } => {
                self.seen.merge(&token);
                if let Some(feed) = self.feeds.get_mut(&key) {
                    let posts = feed.take(posts, &cursor);
                    out.push(Output::FeedPosts { feed: key, posts, cursor: feed.cursor.clone() });
                }
            }
            FeedFrame::Ended(refusal) => self.on_feed_ended(at, key, conn, refusal, out),
        }
    }

    fn on_feed_ended(&mut self, at: Instant, key: FeedKey, conn: ConnId, refusal: Refusal, out: &mut Outputs) {
        match refusal.code.advice() {
            Advice::Never => {
                self.feeds.remove(&key);
                return out.push(Output::FeedRefused { feed: key, error: ClientError::Refused(refusal) });
            }
            Advice::Retry => {}
            Advice::Elsewhere if refusal.code == ErrorCode::Behind => {
                // A request learns what is missing, if it is, where a feed can only wait.
                let token = self.seen.asking().clone();
                self.ask_for_token(at, conn, token, out);
                let at_conn = self.conns.get(&conn).map(|conn| (conn.process, conn.host()));
                if let Some((process, host)) = at_conn
                    && self.has_other_host(host.as_slice())
                {
                    self.avoid_for(at, process, HOST_AVOID);
                }
            }
            Advice::Elsewhere => {
                if let Some(process) = self.conns.get(&conn).map(|conn| conn.process) {
                    self.avoid(at, process);
                    self.want_search();
                }
            }
        }
        if let Some(feed) = self.feeds.get_mut(&key) {
            feed.pause(at);
        }
    }

    pub(super) fn on_feed_broken(&mut self, at: Instant, key: FeedKey, stream: StreamId) {
        if self.feed_conn(key, stream).is_some()
            && let Some(feed) = self.feeds.get_mut(&key)
        {
            feed.pause(at);
        }
    }

    pub(super) fn on_feed_dropped(&mut self, key: FeedKey, out: &mut Outputs) {
        if let Some(Feed { place: FeedPlace::Open { stream, .. }, .. }) = self.feeds.remove(&key) {
            out.push(Output::CloseFeed { feed: key, stream });
        }
    }

    /// The server has changed: its feeds go on elsewhere.
    pub(super) fn close_feed_streams(&mut self, left: ConnId, out: &mut Outputs) {
        for (key, feed) in &mut self.feeds {
            if let FeedPlace::Open { conn, stream } = feed.place
                && conn == left
            {
                out.push(Output::CloseFeed { feed: *key, stream });
                feed.place = FeedPlace::Waiting;
            }
        }
    }

    /// The connection is gone, and its streams with it.
    pub(super) fn take_feeds_back(&mut self, gone: ConnId, out: &mut Outputs) {
        self.close_feed_streams(gone, out);
    }
}
