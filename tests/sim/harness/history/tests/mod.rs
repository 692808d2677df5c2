//! Histories made by hand: of each promise a bad one, which the judge rejects by its name, and a good neighbour, which
//! differs in one fact and passes.

mod cluster;
mod people;

use gaggle::id::{Digest, EntryId, Epoch, Origin, PublicKey, RequestId, Seq, Token, UserId, Vector};
use gaggle::service::entry::{Entry, Op, Stamp};
use gaggle::service::intake::Accepted;
use gaggle::service::ledger::Standing;
use gaggle::service::query::{Answer, ShownPost};
use gaggle::service::retired::Retired;
use gaggle::time::Hlc;
use gaggle::topology::AckLevel;
use gaggle::wire::client::Written;

use super::{Asked, Facts, History, Memory, PAGE_POSTS, Promise, Session, Verdict, Walk, Want};

/// The promise that a verdict says was broken.
fn broken(verdict: Verdict) -> Option<Promise> {
    verdict.err().map(|breach| breach.promise)
}

/// Two people and two hosts, whose clock ticks with every entry.
struct Script {
    history: History,
    clock: u64,
}

impl Script {
    fn new() -> Self {
        let mut history = History::default();
        history.hosts.extend([Facts::default(), Facts::default()]);
        for person in 0..2_u8 {
            let mut memory = Memory::new(PublicKey([person; 32]), &format!("person{person}"));
            memory.registered = true;
            history.people.push(memory);
        }
        Self { history, clock: 0 }
    }

    fn user(&self, person: usize) -> UserId {
        UserId::of(&self.history.people[person].key)
    }

    /// Begins a call, and asks with all that was seen.
    fn call(&mut self, person: usize, id: &str, want: Want) -> Asked {
        let mut asked = self.history.on_call(person, id.parse().unwrap(), want);
        let token = self.history.people[person].token.clone();
        self.history.on_attempt(&mut asked, &token);
        asked
    }

    /// The entry of host 0 with this seq that a call makes, with the next tick of the clock.
    fn entry(&mut self, person: usize, asked: &Asked, seq: u64) -> Entry {
        self.clock += 1;
        let followee = |whom: usize| UserId::of(&self.history.people[whom].key);
        let op = match &asked.want {
            Want::Post { text } => Op::Post { text: text.parse().unwrap() },
            Want::Join(whom) => Op::Join { followee: followee(*whom) },
            Want::Leave(whom) => Op::Leave { followee: followee(*whom) },
            Want::Register | Want::Timeline | Want::Page { .. } | Want::Users => {
                let person = &self.history.people[person];
                Op::Register { key: person.key, name: person.name.parse().unwrap() }
            }
        };
        let id = EntryId { origin: origin(), seq: Seq(seq) };
        let (hlc, user) = (Hlc(self.clock), self.user(person));
        Entry { id, hlc, user, request: asked.id.clone(), after: Vector::new(), op }
    }

    /// Makes entries durable on a host.
    fn commit(&mut self, host: usize, entries: &[Entry]) -> Verdict {
        let upto = entries.iter().map(|entry| entry.id.seq.0).max().unwrap_or(0);
        self.history.on_durable(host, &standing(upto, upto.into()), None, self.clock)?;
        self.history.on_entries(host, entries, self.clock)
    }

    /// Acknowledges an entry to the person who asked for it.
    fn acknowledge(&mut self, person: usize, asked: &Asked, entry: &Entry) -> Verdict {
        let token = Token { vector: vector(entry.id.seq.0), hlc: entry.hlc };
        self.history.people[person].token.merge(&token);
        self.history.on_written(person, asked, &self.written(person, entry))
    }

    fn written(&self, person: usize, entry: &Entry) -> Written {
        let (user, name) = (self.user(person), self.history.people[person].name.clone());
        let accepted = Accepted { entry: entry.id, hlc: entry.hlc, user, name };
        Written { accepted, copies: 2, ack: AckLevel::Peer, host: "host1".parse().unwrap() }
    }

    /// Calls, commits on both hosts and acknowledges.
    fn write(&mut self, person: usize, id: &str, want: Want, seq: u64) -> Entry {
        let asked = self.call(person, id, want);
        let entry = self.entry(person, &asked, seq);
        for host in 0..2 {
            assert_eq!(self.commit(host, std::slice::from_ref(&entry)), Ok(()));
        }
        assert_eq!(self.acknowledge(person, &asked, &entry), Ok(()));
        entry
    }

    fn shown(&self, person: usize, entry: &Entry) -> ShownPost {
        let Op::Post { text } = &entry.op else { panic!("not a post: {entry:?}") };
        let stamp = Stamp { hlc: entry.hlc, origin: entry.id.origin };
        let (author, text) = (self.history.people[person].name.clone(), text.to_string());
        ShownPost { id: entry.request.clone(), author, stamp, seq: entry.id.seq, text, cursor: Vector::new() }
    }

    /// Answers a timeline from what is held up to this seq.
    fn timeline(&mut self, person: usize, posts: Vec<ShownPost>, upto: u64) -> Verdict {
        let asked = self.call(person, "timeline", Want::Timeline);
        self.history.people[person].token.vector.merge(&vector(upto));
        self.history.on_answer(person, &asked, &Answer::Posts { posts, more: false, cursor: vector(upto) })
    }

    /// Answers the next page of what person 0 has posted, from what is held up to this seq.
    fn page(&mut self, person: usize, posts: Vec<ShownPost>, upto: u64) -> Verdict {
        let walk = self.history.people[person].walk.get_or_insert_with(|| Walk::of(0));
        let want = Want::Page { of: 0, since: walk.cursor.clone() };
        self.history.people[person].token.vector.merge(&vector(upto));
        let asked = self.call(person, "page", want);
        self.history.on_answer(person, &asked, &Answer::Posts { posts, more: false, cursor: vector(upto) })
    }

    /// Tells a feed something, up to this seq.
    fn tell(&mut self, person: usize, posts: &[ShownPost], upto: u64) -> Verdict {
        let token = Token { vector: vector(upto), hlc: Hlc(self.clock) };
        self.history.on_items(person, None, posts, &vector(upto), &token)
    }
}

fn post(text: &str) -> Want {
    Want::Post { text: text.to_owned() }
}

fn request(id: &str) -> RequestId {
    id.parse().unwrap()
}

fn origin() -> Origin {
    Origin { host: "host1".parse().unwrap(), incarnation: 1 }
}

fn vector(seq: u64) -> Vector {
    let mut vector = Vector::new();
    if seq > 0 {
        vector.set(origin(), Seq(seq));
    }
    vector
}

/// A state that holds host 0's entries up to this seq.
fn standing(seq: u64, digest: u128) -> Standing {
    Standing {
        epoch: Epoch(1),
        origin: Some(origin()),
        vector: vector(seq),
        hlc: Hlc(seq),
        digest: Digest(digest),
        entries: seq,
        cut: Vector::new(),
        snapshot: None,
        trim: Hlc::ZERO,
        ahead: Vector::new(),
        retired: Retired::default(),
        disk_bytes: 0,
    }
}
