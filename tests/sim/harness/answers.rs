//! What people do about answers and feeds. Whether they may be so, the judge says ([`super::history`]).

use gaggle::error::{Advice, Refusal};
use gaggle::id::{FeedId, Token};
use gaggle::service::query::Answer;
use gaggle::wire::client::{Assignment, FeedFrame, Response, ServerFrame};

use super::history::Want;
use super::people::Call;
use super::world::World;

impl World {
    pub(crate) fn on_frame(&mut self, conn: u64, frame: ServerFrame) {
        let Some(person) = self.conns.get(&conn).map(|conn| conn.person) else { return };
        self.note(|| format!("person{person} <- {}", short(&frame)));
        match frame {
            ServerFrame::Hello { .. } | ServerFrame::Assigned(_) => {}
            ServerFrame::Serving { serving: true, .. } => {}
            ServerFrame::Serving { serving: false, .. } => {
                if self.people[person].home {
                    self.hang_up(person);
                    self.tick_after(person, 5_000);
                }
            }
            ServerFrame::Response { result: Ok(Response::Assigned(assignment)), .. } => {
                if !self.people[person].home {
                    self.choose_home(person, &assignment);
                }
            }
            ServerFrame::Response { number, token, result } => {
                let call = self.people[person].call.clone().filter(|call| call.number == number);
                if let Some(call) = call {
                    self.on_response(person, &call, &token, result);
                } else if !self.people[person].home {
                    self.retry_elsewhere(person);
                }
            }
        }
    }

    /// Most go where they are sent; some insist on another host that serves.
    fn choose_home(&mut self, person: usize, assignment: &Assignment) {
        let serving: Vec<_> =
            assignment.hosts.iter().filter(|host| host.ready).filter_map(|host| host.serving).collect();
        let choice = if self.dice.chance(800) { serving.first().copied() } else { self.dice.pick(&serving) };
        match choice {
            Some(process) => self.go_home(person, process),
            None => self.retry_elsewhere(person),
        }
    }

    fn retry_elsewhere(&mut self, person: usize) {
        self.hang_up(person);
        let after = self.dice.between(10_000, 60_000);
        self.tick_after(person, after);
    }

    fn on_response(&mut self, person: usize, call: &Call, token: &Token, result: Result<Response, Refusal>) {
        match result {
            Ok(Response::Missing { gaps }) => {
                self.counts.missing += 1;
                self.note(|| format!("person{person} misses {gaps:?}"));
                if let Some(call) = self.people[person].call.as_mut() {
                    call.asked.reduced = Some(token.clone());
                }
                let verdict = self.history.on_missing(person, &call.asked, &gaps, self.clock);
                self.judge(verdict);
                self.try_call(person);
            }
            Ok(Response::Written(written)) => {
                self.counts.acknowledged += 1;
                self.history.people[person].token.supersede(&call.asked.token, token);
                let verdict = self.history.on_written(person, &call.asked, &written);
                self.judge(verdict);
                self.call_done(person);
            }
            Ok(Response::Answer(answer)) => {
                self.counts.answers += 1;
                self.history.people[person].token.supersede(&call.asked.token, token);
                let verdict = self.history.on_answer(person, &call.asked, &answer);
                self.judge(verdict);
                if call.asked.want == Want::Timeline {
                    self.maybe_begin_feed(person, &answer);
                }
                self.call_done(person);
            }
            Ok(other) => self.fail(format!("person{person} asked for {call:?} and got {other:?}")),
            Err(refusal) => match refusal.code.advice() {
                Advice::Retry => {
                    if let Some(call) = self.people[person].call.as_mut() {
                        call.tried_at = None;
                    }
                    let after = self.dice.between(10_000, 60_000);
                    self.tick_after(person, after);
                }
                Advice::Elsewhere => self.retry_elsewhere(person),
                Advice::Never => {
                    self.counts.answers += 1;
                    let verdict = self.history.on_refused(person, &call.asked, &refusal);
                    self.judge(verdict);
                    self.call_done(person);
                }
            },
        }
    }

    fn call_done(&mut self, person: usize) {
        self.people[person].call = None;
        let me = &mut self.people[person];
        let think = me.think_micros / if self.load.is_busy(self.clock) { BUSY } else { 1 };
        let after = me.dice.between(think / 10, think * 2);
        self.tick_after(person, after);
    }

    fn maybe_begin_feed(&mut self, person: usize, answer: &Answer) {
        let Answer::Posts { posts, cursor, .. } = answer else { return };
        if self.people[person].wants_feed && self.history.people[person].feed.is_none() {
            self.history.on_feed_begun(person, posts, cursor);
            self.follow(person);
        }
    }

    pub(crate) fn on_feed_frame(&mut self, feed: FeedId, frame: FeedFrame) {
        let Some((_, person)) = self.feeds.get(&feed).copied() else { return };
        match frame {
            FeedFrame::Items { posts, cursor, token } => {
                self.note(|| format!("person{person} is told {} posts, up to {cursor:?}", posts.len()));
                self.counts.feed_posts += posts.len() as u64;
                let doing = self.people[person].call.as_ref().map(|call| &call.asked.want);
                let verdict = self.history.on_items(person, doing, &posts, &cursor, &token);
                self.judge(verdict);
            }
            FeedFrame::Ended(refusal) => {
                self.note(|| format!("person{person}'s feed ends: {refusal:?}"));
                self.feeds.remove(&feed);
                self.people[person].feed_open = None;
                // Whoever lives in a feed alone looks for another way as for a call.
                if self.people[person].call.is_none() {
                    self.hang_up(person);
                }
            }
        }
    }
}

/// How much less people think while they are busy.
const BUSY: u64 = 16;

fn short(frame: &ServerFrame) -> String {
    format!("{frame:?}").chars().take(400).collect()
}
