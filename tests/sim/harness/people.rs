//! People: simulated clients in a closed loop, which ask again with the same ids until they are answered. What they did
//! and saw, and whether every answer fits it, the judge knows ([`super::history`]).

use gaggle::core::io::{Input, Rank};
use gaggle::id::{ClientId, FeedId, ProcessId, PublicKey, RequestId, Token};
use gaggle::service::intake::WriteOp;
use gaggle::service::query::ListPart;
use gaggle::topology::AckLevel;
use gaggle::wire::client::{FeedFrame, Request, RequestBody, ServerFrame};

use super::Mutant;
use super::dice::Dice;
use super::history::{self, Asked, Want};
use super::pages;
use super::world::{Event, State, World, micros};

/// A connection of a person to a process.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) person: usize,
    pub(crate) proc: usize,
    pub(crate) life: u32,
    /// When the last thing sent arrives, either way: streams are in order.
    up: u64,
    down: u64,
}

/// A call under way.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) asked: Asked,
    pub(crate) ack: Option<AckLevel>,
    /// The number of the last attempt, and when it was sent.
    pub(crate) number: u64,
    pub(crate) tried_at: Option<u64>,
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To ask the way.
    Ask,
    /// To be answered.
    Stay,
}

/// People post no more than this, all together: a timeline shows so many at once, and the judge looks for all of them.
const POSTS_MAX: usize = 400;

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Farewell {
    Closing,
    /// The process finds out by itself.
    Silence,
}

/// Whether a person knows its call still.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    Kept,
    Lost,
}

/// One person, apart from what it has done and seen ([`super::history::Memory`]).
#[expect(clippy::struct_excessive_bools, reason = "independent facts of one person, each read by its name")]
#[derive(Debug)]
pub(crate) struct Person {
    pub(crate) conn: Option<u64>,
    /// Whether the connection leads to where requests are answered, or only asks the way.
    pub(crate) home: bool,
    pub(crate) call: Option<Call>,
    pub(crate) feed_open: Option<FeedId>,
    pub(crate) wants_feed: bool,
    pub(crate) think_micros: u64,
    /// The chance to read in pages, where people do.
    pub(crate) pages: Option<Dice>,
    /// What it does next is its own choice: other people and faults do not move it.
    pub(crate) dice: Dice,
    pub(crate) tick_token: u64,
}

impl World {
    pub(crate) fn bring_people(&mut self) {
        let count = self.dice.between(2, 8);
        for person in 0..self.options.people.unwrap_or(count) {
            // Part 0 is the world's.
            let mut dice = Dice::of(self.options.seed, 1 + person);
            let mut key = [0; 32];
            key[..8].copy_from_slice(&dice.number().to_le_bytes());
            let think_micros = dice.between(20_000, 400_000);
            let wants_feed = dice.chance(600);
            // Some want a name that another wants as well.
            let wanted = if dice.chance(150) { 0 } else { person };
            let comes_after = dice.between(100_000, 1_500_000);
            self.history.people.push(history::Memory::new(PublicKey(key), &format!("person{wanted}")));
            self.people.push(Person {
                conn: None,
                home: false,
                call: None,
                feed_open: None,
                wants_feed,
                think_micros,
                pages: pages::dice_of(&self.options, person),
                dice,
                tick_token: 0,
            });
            let index = self.people.len() - 1;
            if self.options.who.as_ref().is_none_or(|only| only.contains(&index)) {
                self.tick_after(index, comes_after);
            }
        }
    }

    /// A person's end of the connection is gone; the process finds out by itself.
    pub(crate) fn drop_out(&mut self, person: usize, memory: Memory, micros: u64) {
        if self.people[person].tick_token == 0 {
            return;
        }
        self.note(|| format!("person{person} vanishes, its memory {memory:?}"));
        self.close(person, Farewell::Silence);
        if memory == Memory::Lost
            && let Some(call) = self.people[person].call.take()
        {
            self.history.on_forgotten(person, &call.asked);
        }
        self.tick_after(person, micros);
    }

    /// Has a person look up after so long, and not before.
    pub(crate) fn tick_after(&mut self, person: usize, micros: u64) {
        self.people[person].tick_token += 1;
        let token = self.people[person].tick_token;
        self.after(micros, Event::Tick { person, token });
    }

    pub(crate) fn on_tick(&mut self, person: usize, token: u64) {
        if self.people[person].tick_token != token {
            return;
        }
        if self.people[person].call.is_none() {
            self.begin_call(person);
        }
        if self.people[person].call.is_none() {
            self.look_after_feed(person);
            self.tick_after(person, 100_000);
            return;
        }
        match self.people[person].conn {
            None => self.seek(person),
            Some(conn) => {
                let tried = self.people[person].call.as_ref().and_then(|call| call.tried_at);
                let waited = tried.map_or(0, |at| self.clock - at);
                if (tried.is_some() && waited >= 300_000 && !self.answers(conn)) || waited >= 3_000_000 {
                    self.hang_up(person);
                    self.seek(person);
                } else if tried.is_none() && self.people[person].home {
                    self.try_call(person);
                }
            }
        }
        self.tick_after(person, 150_000);
    }

    /// Whoever waits for nothing but a feed looks for another way when it is silent, as for a call.
    fn look_after_feed(&mut self, person: usize) {
        if self.history.people[person].feed.is_none() {
            return;
        }
        let told =
            self.people[person].feed_open.is_some() && self.people[person].conn.is_some_and(|conn| self.answers(conn));
        if !told {
            self.hang_up(person);
            self.seek(person);
        }
    }

    /// Whether the process at the other end still acknowledges packets.
    fn answers(&self, conn: u64) -> bool {
        self.conns
            .get(&conn)
            .is_some_and(|conn| self.lives(conn.proc, conn.life) && self.procs[conn.proc].state == State::Running)
    }

    /// Draws what a person does next; nothing once the end is near.
    fn begin_call(&mut self, person: usize) {
        if self.clock >= self.calls_until {
            return;
        }
        let want = if self.history.people[person].registered { self.draw_want(person) } else { Want::Register };
        let millis = self.now_of_person() / 1_000;
        let mut random = [0; 10];
        random[..8].copy_from_slice(&self.people[person].dice.number().to_le_bytes());
        let id = uuid::Builder::from_unix_timestamp_millis(millis, &random).into_uuid().to_string();
        let id: RequestId = id.parse().unwrap();
        let ack = match self.people[person].dice.between(0, 20) {
            0 => Some(AckLevel::Host),
            1 => Some(AckLevel::All),
            _ => None,
        };
        self.note(|| format!("person{person} wants {want:?} as {id:?}"));
        let asked = self.history.on_call(person, id, want);
        self.people[person].call = Some(Call { asked, ack, number: 0, tried_at: None });
    }

    fn now_of_person(&self) -> u64 {
        self.wall().0
    }

    fn draw_want(&mut self, person: usize) -> Want {
        let count = self.people.len();
        let full = self.history.posts.len() >= POSTS_MAX;
        let busy = self.load.is_busy(self.clock) && !full;
        let dice = &mut self.people[person].dice;
        let other = dice.index(count);
        let throw = dice.between(0, 100);
        match throw {
            0..85 if busy => self.draw_post(person),
            0..35 if !full => self.draw_post(person),
            // Whoever shares a name may be anybody.
            35..57 if self.history.shares_name(other) => Want::Users,
            35..50 if other != person => Want::Join(other),
            50..57 if other != person => Want::Leave(other),
            57..62 => Want::Users,
            _ => self.draw_page(person),
        }
    }

    fn draw_post(&mut self, person: usize) -> Want {
        let unique = self.fresh_id();
        let seen: Vec<&RequestId> = self.history.people[person].seen.keys().collect();
        let dice = &mut self.people[person].dice;
        if seen.is_empty() || dice.chance(500) {
            return Want::Post { text: format!("{unique}") };
        }
        let parent = seen[dice.index(seen.len())];
        Want::Post { text: format!("{unique} re:{parent}") }
    }

    /// Asks some process the way.
    pub(crate) fn seek(&mut self, person: usize) {
        let proc = self.dice.index(self.procs.len());
        self.open_conn(person, proc, Purpose::Ask);
        let Some(conn) = self.people[person].conn else { return };
        let token = self.history.people[person].token.clone();
        let number = self.fresh_id();
        if let Some(call) = self.people[person].call.as_mut() {
            // The clock of this attempt: a process that does not answer is given up.
            call.tried_at = Some(self.clock);
        }
        let request = Request { number, token, body: RequestBody::Assign };
        self.tell(conn, |client| Input::Client { client, request });
    }

    /// Connects to a process, which may be dead: then nobody answers.
    pub(crate) fn open_conn(&mut self, person: usize, proc: usize, purpose: Purpose) {
        self.hang_up(person);
        let conn = self.fresh_id();
        let life = self.procs[proc].life;
        self.conns.insert(conn, Conn { person, proc, life, up: self.clock + 1_500, down: 0 });
        (self.people[person].conn, self.people[person].home) = (Some(conn), purpose == Purpose::Stay);
        let key = Some(self.history.people[person].key);
        self.tell(conn, |client| Input::ClientOpened { client, key, rank: Rank::Person });
    }

    pub(crate) fn hang_up(&mut self, person: usize) {
        let farewell = if self.dice.chance(800) { Farewell::Closing } else { Farewell::Silence };
        self.close(person, farewell);
    }

    fn close(&mut self, person: usize, farewell: Farewell) {
        let Some(conn) = self.people[person].conn.take() else { return };
        self.people[person].home = false;
        if let Some(open) = self.people[person].feed_open.take() {
            self.feeds.remove(&open);
        }
        if let Some(call) = self.people[person].call.as_mut() {
            call.tried_at = None;
        }
        match farewell {
            Farewell::Closing => self.tell(conn, |client| Input::ClientClosed { client }),
            Farewell::Silence => {
                if let Some(found) = self.conns.get(&conn) {
                    let (proc, life) = (found.proc, found.life);
                    let input = Box::new(Input::ClientClosed { client: ClientId(conn) });
                    self.after(micros(gaggle::limits::CLIENT_IDLE), Event::Input { proc, life, input });
                }
            }
        }
        self.conns.remove(&conn);
    }

    /// Sends on a person's connection.
    pub(crate) fn tell(&mut self, conn: u64, input: impl FnOnce(ClientId) -> Input) {
        let delay = self.dice.between(200, 1_500);
        let clock = self.clock;
        let Some(found) = self.conns.get_mut(&conn) else { return };
        found.up = (found.up + 1).max(clock + delay);
        let (at, proc, life) = (found.up, found.proc, found.life);
        self.at(at, Event::Input { proc, life, input: Box::new(input(ClientId(conn))) });
    }

    /// Sends the call, with what was seen.
    pub(crate) fn try_call(&mut self, person: usize) {
        let (Some(conn), number) = (self.people[person].conn, self.fresh_id()) else { return };
        let blind = self.is(Mutant::NoToken);
        let seen = if blind { Token::default() } else { self.history.people[person].token.clone() };
        let clock = self.clock;
        let Some(call) = self.people[person].call.as_mut() else { return };
        let token = call.asked.reduced.clone().unwrap_or(seen);
        (call.number, call.tried_at) = (number, Some(clock));
        self.history.on_attempt(&mut call.asked, &token);
        let (id, ack, want) = (call.asked.id.clone(), call.ack, call.asked.want.clone());
        let body = self.body(person, want, id, ack);
        let request = Request { number, token, body };
        self.tell(conn, |client| Input::Client { client, request });
    }

    fn body(&self, person: usize, want: Want, id: RequestId, ack: Option<AckLevel>) -> RequestBody {
        let name = |person: usize| self.history.people[person].name.clone();
        let op = match want {
            Want::Register => WriteOp::Register { name: name(person).parse().unwrap() },
            Want::Post { text } => WriteOp::Post { text: text.parse().unwrap() },
            Want::Join(whom) => WriteOp::Join { name: name(whom) },
            Want::Leave(whom) => WriteOp::Leave { name: name(whom) },
            Want::Timeline => {
                let limit = gaggle::limits::ANSWER_POSTS_MAX;
                return RequestBody::Timeline { of: None, limit, since: None, before: None };
            }
            Want::Page { of, since } => return pages::request(name(of), since),
            Want::Users => return RequestBody::List { part: ListPart::Users, after: String::new() },
        };
        RequestBody::Write { id, op, ack }
    }

    /// A node answers a person.
    pub(crate) fn reply(&mut self, proc: usize, client: ClientId, frame: ServerFrame) {
        let verdict = self.history.on_reply(&frame, self.clock);
        self.judge(verdict);
        let delay = self.dice.between(200, 1_500);
        let (clock, life) = (self.clock, self.procs[proc].life);
        let Some(conn) = self.conns.get_mut(&client.0) else { return };
        if (conn.proc, conn.life) != (proc, life) {
            let id = self.procs[proc].id;
            self.fail(format!("{id} answers {client:?}, which is not its client"));
            return;
        }
        conn.down = (conn.down + 1).max(clock + delay);
        let at = conn.down;
        self.at(at, Event::Frame { conn: client.0, frame: Box::new(frame) });
    }

    /// A node tells a feed something; it can take more when this is on its way.
    pub(crate) fn feed(&mut self, proc: usize, feed: FeedId, frame: FeedFrame) {
        let delay = self.dice.between(200, 1_500);
        let slow = if self.dice.chance(50) { self.dice.between(0, 200_000) } else { 100 };
        let life = self.procs[proc].life;
        self.after(slow, Event::Input { proc, life, input: Box::new(Input::FeedWritten { feed }) });
        let Some((conn, person)) = self.feeds.get(&feed).copied() else { return };
        let held = self.disks[self.procs[proc].host].vector();
        self.history.on_feed_read(person, &held);
        let clock = self.clock;
        let Some(conn) = self.conns.get_mut(&conn) else { return };
        conn.down = (conn.down + 1).max(clock + delay);
        let at = conn.down;
        self.at(at, Event::FeedFrame { feed, frame: Box::new(frame) });
    }

    /// Opens the feed on the present connection, from where it stood.
    pub(crate) fn follow(&mut self, person: usize) {
        let Some(conn) = self.people[person].conn.filter(|_| self.people[person].home) else { return };
        let feed = FeedId(self.fresh_id());
        let token = self.history.people[person].token.clone();
        let Some(since) = self.history.people[person].feed.as_ref().map(|told| told.cursor.clone()) else { return };
        if self.people[person].feed_open.is_some() {
            return;
        }
        self.people[person].feed_open = Some(feed);
        self.feeds.insert(feed, (conn, person));
        self.tell(conn, |client| Input::FeedOpened { client, feed, token, since });
    }

    pub(crate) fn go_home(&mut self, person: usize, process: ProcessId) {
        let Some(proc) = self.index_of(process) else {
            self.fail(format!("people are sent to {process}, which nobody knows"));
            return;
        };
        let here = self.people[person].conn.and_then(|conn| self.conns.get(&conn)).map(|conn| conn.proc);
        if here == Some(proc) {
            self.people[person].home = true;
        } else {
            self.open_conn(person, proc, Purpose::Stay);
        }
        self.try_call(person);
        self.follow(person);
    }
}
