//! Links between processes, on networks that cut, hold and lose, and to hosts that crash.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::rc::Rc;
use std::time::Duration;

use gaggle::limits;
use gaggle::net::{Alpn, CloseCode, DialError, Identity, LinkEnd};
use turmoil::Sim;

use crate::world::{BEAT, Diary, addr_of, client, keep, listen, node, pass, pass_until, world};

const SECOND: Duration = Duration::from_secs(1);

/// Two hosts: `dialer` keeps a link to `listener`.
struct Two<'a> {
    sim: Sim<'a>,
    dialer: Diary,
    listener: Diary,
}

impl Two<'_> {
    fn start(mut sim: Sim<'_>) -> Two<'_> {
        let (dials, listens) = (Identity::generate().unwrap(), Identity::generate().unwrap());
        let pinned = listens.public_key();
        let (dialer, listener) = (Diary::default(), Diary::default());
        let diary = listener.clone();
        sim.host("listener", move || listen(listens.clone(), diary.clone()));
        let diary = dialer.clone();
        sim.host("dialer", move || keep(dials.clone(), "listener", pinned, diary.clone()));
        Two { sim, dialer, listener }
    }

    /// Lets time pass until both have talked for a while over one link.
    fn warm_up(&mut self) {
        let listener = self.listener.clone();
        pass_until(&mut self.sim, 3 * SECOND, "frames and beats flow", || {
            listener.frames().len() >= 40 && listener.beats().len() >= 20
        });
        assert_eq!((self.dialer.ups(), self.dialer.ends()), (1, vec![]));
    }

    /// The wait until beats and frames come again, once more than `links` links have stood.
    fn heard_again(&mut self, links: usize, limit: Duration) -> Duration {
        let (dialer, listener, since) = (self.dialer.clone(), self.listener.clone(), self.sim.elapsed());
        pass_until(&mut self.sim, limit, "a new link carries beats and frames", || {
            dialer.ups() > links && listener.heard_since(since)
        })
    }
}

/// Every number once and in order, from the first to the last that came.
fn assert_whole(frames: &[(Duration, u64)]) {
    for (expected, (_, number)) in (0..).zip(frames) {
        assert_eq!(*number, expected, "of {} frames", frames.len());
    }
}

#[test]
fn both_ends_prove_their_keys() {
    let mut sim = world(1);
    let (dials, listens) = (Identity::generate().unwrap(), Identity::generate().unwrap());
    let (dials_key, listens_key) = (dials.public_key(), listens.public_key());
    let taken = Rc::new(RefCell::new(Vec::new()));
    let seen = Rc::clone(&taken);
    sim.host("listener", move || {
        let (listens, seen) = (listens.clone(), Rc::clone(&seen));
        async move {
            let node = node(listens).await;
            while let Some(link) = node.accept().await {
                seen.borrow_mut().push((link.alpn(), link.peer_key(), link.binding(b"test"), link.remote_addr().ip()));
                link.close(CloseCode::Goodbye, "seen");
            }
            Ok(())
        }
    });
    let seen = Rc::clone(&taken);
    sim.client("dialer", async move {
        let to = addr_of("listener");
        let node = node(dials).await;
        let link = node.dial_peer(to, listens_key).await.unwrap();
        assert_eq!(link.peer_key(), Some(listens_key));
        let seen_end = LinkEnd::Peer { code: Some(CloseCode::Goodbye), reason: "seen".to_owned() };
        assert_eq!(link.closed().await, seen_end);
        let here = turmoil::lookup("dialer");
        assert_eq!(*seen.borrow(), [(Alpn::Peer, Some(dials_key), link.binding(b"test"), here)]);
        // A pin that does not fit, from a process and from a person.
        let refused = node.dial_peer(to, dials_key).await.unwrap_err();
        assert!(matches!(refused, DialError::WrongIdentity { .. }), "{refused}");
        let client = client().await;
        let refused = client.dial(to, Some(dials_key), None).await.unwrap_err();
        assert!(matches!(refused, DialError::WrongIdentity { .. }), "{refused}");
        // A person who shows nothing.
        let stranger = client.dial(to, Some(listens_key), None).await.unwrap();
        assert_eq!(stranger.closed().await, seen_end);
        assert_eq!(seen.borrow().last(), Some(&(Alpn::Client, None, stranger.binding(b"test"), here)));
        Ok(())
    });
    sim.run().unwrap();
    assert_eq!(taken.borrow().len(), 2, "who did not pin the right key was not taken");
}

#[test]
fn a_cut_is_noticed_in_the_idle_time_and_healed_by_a_new_link() {
    let mut two = Two::start(world(2));
    two.warm_up();
    let cut = two.sim.elapsed();
    two.sim.partition("dialer", "listener");
    let (dialer, listener) = (two.dialer.clone(), two.listener.clone());
    // The sender's idle time begins with the first beat that is not answered.
    pass_until(&mut two.sim, limits::PEER_IDLE + 4 * BEAT, "both notice the cut", || {
        dialer.ends().len() == 1 && listener.ends().len() == 1
    });
    assert_eq!(two.dialer.ends()[0].1, LinkEnd::Silence);
    assert_eq!(two.listener.ends()[0].1, LinkEnd::Silence);
    let rest = cut + 10 * SECOND - two.sim.elapsed();
    pass(&mut two.sim, rest);
    assert_eq!((two.dialer.ups(), two.listener.heard_since(cut)), (1, false), "nothing crosses a cut");
    assert!(two.dialer.failures().iter().all(|failure| failure.ends_with("does not answer")));
    assert!(!two.dialer.failures().is_empty(), "it has gone on trying");
    two.sim.repair("dialer", "listener");
    two.heard_again(1, limits::CONNECT_WAIT);
    let healed = two.sim.elapsed();
    pass(&mut two.sim, 2 * SECOND);
    assert!(two.listener.heard_since(healed + SECOND), "and goes on");
    assert_whole(&two.listener.frames());
    assert_eq!(two.dialer.ends().len(), 1);
}

#[test]
fn a_one_way_cut_ends_the_link_at_both_ends() {
    let mut two = Two::start(world(3));
    two.warm_up();
    two.sim.partition_oneway("listener", "dialer");
    let (dialer, listener) = (two.dialer.clone(), two.listener.clone());
    pass_until(&mut two.sim, limits::PEER_IDLE + 4 * BEAT, "the dialer hears nothing", || !dialer.ends().is_empty());
    assert_eq!(two.dialer.ends()[0].1, LinkEnd::Silence);
    // It has heard the beats until then, and its own idle time begins after the last.
    pass_until(&mut two.sim, limits::PEER_IDLE + 4 * BEAT, "the listener, too", || !listener.ends().is_empty());
    assert_eq!(two.listener.ends()[0].1, LinkEnd::Silence);
    two.sim.repair_oneway("listener", "dialer");
    two.heard_again(1, limits::CONNECT_WAIT);
}

#[test]
fn packets_held_up_for_200_ms_cost_no_link_and_no_frame() {
    const HELD: Duration = Duration::from_millis(200);
    let mut two = Two::start(world(4));
    two.warm_up();
    for _ in 0..5 {
        let held = two.sim.elapsed();
        two.sim.hold("dialer", "listener");
        pass(&mut two.sim, HELD);
        assert!(!two.listener.heard_since(held + BEAT), "held up is held up");
        two.sim.release("dialer", "listener");
        pass(&mut two.sim, SECOND);
    }
    assert_eq!((two.dialer.ups(), two.dialer.ends()), (1, vec![]));
    assert!(two.listener.frames().len() > 200, "{}", two.listener.frames().len());
    assert_whole(&two.listener.frames());
}

#[test]
fn a_long_way_is_only_long() {
    const WAY: Duration = Duration::from_millis(200);
    let mut two = Two::start(world(5));
    two.sim.set_link_latency("dialer", "listener", WAY);
    pass(&mut two.sim, 10 * SECOND);
    assert_eq!((two.dialer.ups(), two.dialer.ends()), (1, vec![]));
    assert!(two.listener.frames().len() > 300, "{}", two.listener.frames().len());
    assert_whole(&two.listener.frames());
}

#[test]
fn frames_come_once_and_in_order_through_loss() {
    for (seed, rate) in [(6, 0.05), (7, 0.10), (8, 0.20)] {
        let mut two = Two::start(world(seed));
        two.warm_up();
        two.sim.set_link_fail_rate("dialer", "listener", rate);
        pass(&mut two.sim, 10 * SECOND);
        two.sim.set_link_fail_rate("dialer", "listener", 0.0);
        // What was lost last is sent again, if need be on a new link.
        let (listener, since) = (two.listener.clone(), two.sim.elapsed());
        pass_until(&mut two.sim, 15 * SECOND, "all flows", || {
            listener.heard_since(since) && listener.frames().len() >= 200
        });
        let frames = two.listener.frames();
        assert_whole(&frames);
        // Probes that are lost are sent at doubling intervals, so that a link may end although none was cut.
        assert!(two.dialer.ends().iter().all(|(_, end)| *end == LinkEnd::Silence), "{:?}", two.dialer.ends());
        // Each frame has a beat beside it that nobody sends again.
        let beats: BTreeSet<u64> = two.listener.beats().into_iter().map(|(_, number)| number).collect();
        assert!(beats.len() < frames.len(), "{} of {} at {rate}", beats.len(), frames.len());
        println!("at {rate}: {} frames, {} beats, {} links", frames.len(), beats.len(), two.dialer.ups());
    }
}

#[test]
fn a_process_back_soon_after_a_crash_resets_the_old_link() {
    for (seed, away) in [(9, SECOND / 5), (12, SECOND)] {
        let mut two = Two::start(world(seed));
        two.warm_up();
        two.sim.crash("listener");
        pass(&mut two.sim, away);
        assert_eq!(two.dialer.ends(), [], "nobody has told it yet");
        two.sim.bounce("listener");
        // What is not acknowledged soon fills the window, heartbeats too, and then only probes leave, at doubling
        // intervals: the next one comes before it has been as long again.
        let back = two.heard_again(1, away + limits::PEER_IDLE / 4);
        assert_eq!(two.dialer.ends()[0].1, LinkEnd::Reset);
        assert_whole(&two.listener.frames());
        println!("away for {away:?}, heard again {back:?} after the start");
    }
}

#[test]
fn a_process_back_long_after_a_crash_is_dialed_anew() {
    let mut two = Two::start(world(10));
    two.warm_up();
    two.sim.crash("listener");
    pass(&mut two.sim, limits::PEER_IDLE + 2 * SECOND);
    assert_eq!(two.dialer.ends()[0].1, LinkEnd::Silence);
    two.sim.bounce("listener");
    let back = two.heard_again(1, limits::CONNECT_WAIT);
    assert_whole(&two.listener.frames());
    println!("heard again {back:?} after the start");
}

#[test]
fn a_dialer_back_after_a_crash_has_a_link_at_once() {
    let mut two = Two::start(world(11));
    two.warm_up();
    two.sim.crash("dialer");
    pass(&mut two.sim, SECOND / 2);
    two.sim.bounce("dialer");
    two.heard_again(1, SECOND);
    let listener = two.listener.clone();
    pass_until(&mut two.sim, limits::PEER_IDLE, "the old link has ended", || !listener.ends().is_empty());
    assert_eq!(two.dialer.ends(), []);
}
