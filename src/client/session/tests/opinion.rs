//! A director that is cut off with the server's host: others have to say where else a client may go.

use super::*;

/// W5, which serves, is of the only host that its director reaches; W8 serves on a host that the director calls down.
fn served_by_a_host_cut_off(change: impl FnOnce(&mut SessionConfig)) -> Rig {
    let mut rig = Rig::served(change);
    assert_eq!(rig.frame(1, ServerFrame::Assigned(alone())), []);
    rig
}

fn alone() -> Assignment {
    let mut told = assignment(("W5", 1));
    (told.hosts[1].serving, told.hosts[1].ready) = (None, false);
    told
}

fn full() -> Result<Response, Refusal> {
    refused(ErrorCode::DiskFull)
}

/// W8 answers on this connection: its own host is up, and h3 is not in its reach.
fn w8_tells(rig: &mut Rig, conn: u64) -> Outputs {
    let assign = ask(conn, 1, Token::default(), RequestBody::Assign);
    assert_eq!(rig.input(Input::Connected { conn: ConnId(conn) }), [hello(conn), assign]);
    rig.hello(conn, "W8");
    let told = Assignment { director: Some(id("W8")), ..super::cut_off() };
    rig.respond(conn, 1, Token::default(), Ok(Response::Assigned(told)))
}

#[test]
fn a_full_disk_sends_to_a_host_that_only_the_director_cannot_reach() {
    let mut rig = served_by_a_host_cut_off(|_| {});
    rig.call(1, post_body("a"));
    assert_eq!(rig.respond(2, 1, Token::default(), full()), [dial(3, "W8")]);
    // The server that answers is kept until it refuses once more, which now leaves a choice.
    assert_eq!(w8_tells(&mut rig, 3), [close(1)]);
    assert_eq!(rig.due(), [ask(2, 2, Token::default(), post_body("a"))]);
    let moved = Output::Notice(Notice::Moved { host: host("h4"), process: id("W8") });
    let out = rig.respond(2, 2, Token::default(), full());
    assert_eq!(out, [moved, close(2), ask(3, 2, Token::default(), post_body("a"))]);
}

#[test]
fn a_full_disk_is_told_when_no_host_that_is_called_down_answers() {
    let mut rig = served_by_a_host_cut_off(|_| {});
    rig.call(1, post_body("a"));
    assert_eq!(rig.respond(2, 1, Token::default(), full()), [dial(3, "W8")]);
    rig.input(Input::ConnectFailed { conn: ConnId(3), trouble: trouble("silence") });
    let refusal = Refusal::new(ErrorCode::DiskFull, "no");
    let refused = Output::Answer { call: CallId(1), result: Err(ClientError::Refused(refusal.clone())) };
    let mut number = 1;
    let out = loop {
        if rig.due().is_empty() {
            continue;
        }
        number += 1;
        let out = rig.respond(2, number, Token::default(), full());
        if !out.is_empty() {
            break out;
        }
    };
    assert_eq!(out, [refused]);
    assert!(rig.ms < 300, "told after {} ms", rig.ms);
    // What is known is not asked for again, for a while.
    rig.call(2, post_body("b"));
    let refused = Output::Answer { call: CallId(2), result: Err(ClientError::Refused(refusal)) };
    assert_eq!(rig.respond(2, number + 1, Token::default(), full()), [refused]);
}

#[test]
fn what_a_host_cut_off_lacks_is_asked_of_those_it_calls_down() {
    let mut rig = served_by_a_host_cut_off(|config| config.token = token("h4", 7));
    rig.call(1, RequestBody::WhoAmI);
    let missing = || Ok(Response::Missing { gaps: vec![(entry("h4", 6), entry("h4", 7))] });
    assert_eq!(rig.respond(2, 1, token("h4", 5), missing()), [dial(3, "W8")]);
    w8_tells(&mut rig, 3);
    assert_eq!(rig.due(), [ask(2, 2, token("h4", 7), RequestBody::WhoAmI)], "with all that was seen");
    let out = rig.respond(2, 2, token("h4", 5), missing());
    assert!(out.contains(&ask(3, 2, token("h4", 7), RequestBody::WhoAmI)), "{out:?}");
    assert!(!out.iter().any(|output| matches!(output, Output::Notice(Notice::Missing { .. }))), "{out:?}");
}

#[test]
fn who_has_nowhere_to_go_asks_those_that_are_called_down() {
    let mut rig = served_by_a_host_cut_off(|_| {});
    rig.call(1, post_body("a"));
    // The host has no primary any more, and its director knows of no other.
    let mut told = alone();
    told.hosts[0] = AssignedHost { serving: None, epoch: Epoch(2), ready: false, ..told.hosts[0].clone() };
    rig.frame(1, ServerFrame::Assigned(told));
    rig.frame(2, ServerFrame::Serving { serving: false, epoch: Epoch(2) });
    let mut dialed = Vec::new();
    while !dialed.contains(&id("W8")) {
        assert!(rig.ms < 1_000, "only {dialed:?} in {} ms", rig.ms);
        for output in rig.due() {
            assert!(!matches!(output, Output::Answer { .. }), "{output:?}");
            if let Output::Dial { process, .. } = output {
                dialed.push(process);
            }
        }
    }
}

#[test]
fn a_feeds_server_whose_host_is_called_down_is_probed_at_once() {
    let mut rig = Rig::served(|_| {});
    rig.input(Input::FeedWant { feed: FeedKey(9), since: Vector::new() });
    let alive = ask(2, 1, Token::default(), RequestBody::WhoAmI);
    assert_eq!(rig.frame(1, ServerFrame::Assigned(super::cut_off())), [alive]);
    let out = rig.due();
    assert_eq!((rig.ms, out.contains(&dial(4, "W8"))), (150, true), "{out:?}");
}
