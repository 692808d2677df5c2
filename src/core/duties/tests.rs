//! Two nodes of a host that talk to each other: who has which duty in the end, and after how many words.

use super::*;
use crate::core::io::{Input, Output};
use crate::core::testing::{at, id, one_of_two, standing};
use crate::id::Origin;
use crate::wire::heartbeat::Life;

/// Words after which two nodes that have only one thing to settle are taken for talking without end.
const WORDS_MAX: usize = 200;

/// W1 and W2, a millisecond apart, and a store that gives epochs.
struct Two {
    nodes: [Node; 2],
    epoch: u64,
    ms: u64,
}

impl Two {
    fn new() -> Self {
        Self { nodes: ["W1", "W2"].map(one_of_two), epoch: 0, ms: 0 }
    }

    fn place(process: ProcessId) -> usize {
        usize::from(process == id("W2"))
    }

    /// Something happens to one of them, and then they talk until nobody has more to say.
    fn happens(&mut self, who: usize, input: Input) {
        let mut inputs = std::collections::VecDeque::from([(who, input)]);
        let mut words = 0;
        while let Some((who, input)) = inputs.pop_front() {
            words += 1;
            assert!(words < WORDS_MAX, "they never stop talking: {input:?}");
            let mut out = Outputs::new();
            self.nodes[who].handle_input(at(self.ms), input, &mut out);
            inputs.extend(self.follow(who, out));
        }
    }

    /// What comes of a node's outputs.
    fn follow(&mut self, who: usize, out: Outputs) -> Vec<(usize, Input)> {
        let from = self.nodes[who].config.me;
        let mut inputs = Vec::new();
        for output in out {
            match output {
                Output::Send { to, message } => inputs.push((Self::place(to), Input::Peer { from, message })),
                Output::Beat { to, heartbeat } => inputs.push((Self::place(to), Input::Heartbeat { from, heartbeat })),
                Output::TakeEpoch => {
                    self.epoch += 1;
                    let origin = Origin { host: self.nodes[who].host, incarnation: 1 };
                    inputs.push((who, Input::EpochTaken(Ok(standing(self.epoch, Some(origin))))));
                }
                Output::Reply { .. }
                | Output::Feed { .. }
                | Output::Persist { .. }
                | Output::ReadLog { .. }
                | Output::ReadSnapshot { .. }
                | Output::ReadDigests { .. }
                | Output::CompareDigests { .. }
                | Output::Query { .. }
                | Output::ReadFeeds { .. }
                | Output::Restart { .. }
                | Output::Kill { .. }
                | Output::Exit { .. } => {}
            }
        }
        inputs
    }

    /// Time passes for those who live.
    fn pass(&mut self, ms: u64, living: &[usize]) {
        for _ in 0..ms / 10 {
            self.ms += 10;
            for who in living.iter().copied() {
                let mut out = Outputs::new();
                self.nodes[who].handle_timeout(at(self.ms), &mut out);
                for (who, input) in self.follow(who, out).into_iter().filter(|(who, _)| living.contains(who)) {
                    self.happens(who, input);
                }
            }
        }
    }

    /// The kernel tells a node of the other.
    fn sees(&mut self, who: usize, life: Life) {
        let process = self.nodes[1 - who].config.me;
        self.happens(who, Input::Sibling { process, life, pid: 7 });
    }

    /// The link from a node to the other comes up.
    fn links(&mut self, who: usize) {
        let peer = self.nodes[1 - who].config.me;
        let hello = crate::wire::peer::PeerHello {
            versions: crate::wire::Versions::OURS,
            cluster: "test".into(),
            run: 1,
            pid: 7,
            topology: 0,
        };
        self.happens(who, Input::PeerUp { peer, hello });
    }

    fn relays(&self) -> [bool; 2] {
        [0, 1].map(|who| self.nodes[who].elections.relay.leads())
    }

    fn serves(&self) -> [bool; 2] {
        [0, 1].map(|who| self.nodes[who].elections.serve.leads())
    }
}

#[test]
fn a_drained_process_that_was_the_last_hands_over_to_who_comes_back() {
    let mut two = Two::new();
    two.sees(0, Life::Dead);
    two.pass(1_000, &[0]);
    assert_eq!((two.serves()[0], two.relays()[0]), (true, true));
    let mut out = Outputs::new();
    two.nodes[0].on_drain(at(two.ms), &mut out);
    two.pass(3_000, &[0]);
    assert_eq!((two.serves()[0], two.relays()[0]), (true, true), "better than nobody");
    two.sees(1, Life::Up);
    two.links(1);
    two.sees(0, Life::Up);
    two.links(0);
    two.pass(3_000, &[0, 1]);
    assert_eq!((two.serves(), two.relays()), ([false, true], [false, true]));
}

#[test]
fn drained_processes_take_a_duty_from_each_other_once_at_most() {
    let mut two = Two::new();
    for who in [0, 1] {
        two.sees(who, Life::Up);
        two.links(who);
    }
    two.pass(3_000, &[0, 1]);
    assert_eq!((two.serves(), two.relays()), ([true, false], [false, true]));
    for who in [0, 1] {
        let mut out = Outputs::new();
        two.nodes[who].on_drain(at(two.ms), &mut out);
        for (who, input) in two.follow(who, out) {
            two.happens(who, input);
        }
        two.pass(3_000, &[0, 1]);
    }
    let (serves, relays) = (two.serves(), two.relays());
    assert_eq!([serves, relays].map(|who| who.iter().filter(|has| **has).count()), [1, 1]);
    let epoch = two.epoch;
    two.pass(10_000, &[0, 1]);
    assert_eq!((two.serves(), two.relays(), two.epoch), (serves, relays, epoch));
}

/// Its link may be up before the kernel has shown it.
#[test]
fn who_starts_while_its_primary_is_drained_takes_over() {
    let mut two = Two::new();
    two.sees(0, Life::Dead);
    two.pass(1_000, &[0]);
    two.sees(1, Life::Up);
    two.links(1);
    two.links(0);
    let mut out = Outputs::new();
    two.nodes[0].on_drain(at(two.ms), &mut out);
    for (who, input) in two.follow(0, out) {
        two.happens(who, input);
    }
    two.sees(0, Life::Up);
    two.pass(3_000, &[0, 1]);
    assert_eq!((two.serves(), two.relays()), ([false, true], [false, true]));
}

#[test]
fn a_drained_process_is_drained_until_it_starts_anew() {
    let mut two = Two::new();
    for who in [0, 1] {
        two.sees(who, Life::Up);
        two.links(who);
    }
    let process = id("W2");
    two.happens(0, Input::Peer { from: process, message: crate::wire::peer::PeerMessage::Drained });
    let seen = |two: &mut Two, steps: &[(Life, u32, bool)]| {
        for (life, pid, drained) in steps {
            two.happens(0, Input::Sibling { process, life: *life, pid: *pid });
            assert_eq!(two.nodes[0].mesh.is_drained(process), *drained, "{life:?} as {pid}");
        }
    };
    seen(&mut two, &[(Life::Up, 7, true), (Life::Stopped, 7, true), (Life::Up, 7, true), (Life::Up, 8, false)]);
    // One that is stopped as soon as it starts.
    two.happens(0, Input::Peer { from: process, message: crate::wire::peer::PeerMessage::Drained });
    seen(&mut two, &[(Life::Up, 8, true), (Life::Dead, 0, false), (Life::Stopped, 9, false), (Life::Up, 9, false)]);
}
