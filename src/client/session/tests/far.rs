//! Servers that are far away, and patience with them.

use super::*;

/// What follows a post whose probe is answered after so long, and then the post at once.
fn told_while_the_way_takes(rig: &mut Rig, ms: u64, numbers: (u64, u64)) -> Outputs {
    let mut told = rig.call(numbers.0, post_body("a"));
    let asked = rig.ms + 150;
    while rig.session.poll_timeout().is_some_and(|due| due.as_micros() < (asked + ms) * 1_000) {
        told.extend(rig.due());
    }
    rig.ms = asked + ms;
    told.extend(rig.respond(2, numbers.1 + 1, Token::default(), refused(ErrorCode::NotRegistered)));
    rig.respond(2, numbers.1, token("h3", numbers.0), Ok(written("h3", numbers.0, 2)));
    // Whoever was asked where to go has answered by now.
    for number in 2..10 {
        rig.respond(1, number, Token::default(), Ok(Response::Assigned(assignment(("W5", 1)))));
    }
    told.retain(|output| matches!(output, Output::Notice(_) | Output::Dial { .. }));
    told
}

#[test]
fn a_server_that_is_far_away_is_suspected_once_and_then_waited_for() {
    let mut rig = Rig::served(|_| {});
    let first = told_while_the_way_takes(&mut rig, 400, (1, 1));
    assert!(first.contains(&Output::Notice(Notice::Reconnecting)), "so far it has answered at once: {first:?}");
    for turn in 1..10 {
        assert_eq!(told_while_the_way_takes(&mut rig, 400, (1 + turn, 1 + 2 * turn)), [], "in turn {turn}");
    }
    // However far it is, there is an end to patience.
    rig.call(20, post_body("a"));
    let from = rig.ms;
    while !rig.due().contains(&Output::Notice(Notice::Reconnecting)) {}
    let waited = rig.ms - from;
    assert!((550..=1_000).contains(&waited), "{waited} ms");
    rig.respond(2, 22, Token::default(), refused(ErrorCode::NotRegistered));
}

#[test]
fn patience_is_earned_back_by_fast_answers() {
    let mut rig = Rig::served(|_| {});
    told_while_the_way_takes(&mut rig, 400, (1, 1));
    told_while_the_way_takes(&mut rig, 400, (2, 3));
    for number in 5..45 {
        rig.call(number, post_body("a"));
        rig.ms += 5;
        rig.respond(2, number, token("h3", number), Ok(written("h3", number, 2)));
    }
    // What waits for copies says nothing of the way.
    rig.call(45, post_body("a"));
    rig.ms += 140;
    rig.respond(2, 45, token("h3", 45), Ok(written("h3", 45, 1)));
    rig.call(46, post_body("a"));
    let from = rig.ms;
    while !rig.due().contains(&Output::Notice(Notice::Reconnecting)) {}
    assert_eq!(rig.ms - from, 300);
}

#[test]
fn a_far_server_that_the_director_does_not_reach_is_kept_as_long_as_it_answers() {
    let mut rig = Rig::served(|_| {});
    for turn in 0..5 {
        told_while_the_way_takes(&mut rig, 250, (1 + turn, 1 + 2 * turn));
    }
    rig.frame(1, ServerFrame::Assigned(cut_off()));
    assert_eq!(told_while_the_way_takes(&mut rig, 250, (6, 11)), []);
}
