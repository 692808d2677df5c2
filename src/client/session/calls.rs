//! Calls: kept under their ids until they are answered, over however many servers.

use std::time::Duration;

use crate::client::error::ClientError;
use crate::client::session::conn::{Ask, Asked};
use crate::client::session::seen::Gaps;
use crate::client::session::{CallId, ConnId, Login, Notice, Output, Outputs, Session, Trouble, TroubleKind};
use crate::error::{Advice, ErrorCode, Refusal};
use crate::id::{EntryId, HostId, ProcessId, Token};
use crate::time::Instant;
use crate::wire::client::{RequestBody, Response};

/// The pause before a request is asked again where it was; it doubles.
const RETRY_PAUSE: Duration = Duration::from_millis(10);
/// So often at most: 0.64 s.
const RETRY_DOUBLINGS_MAX: u32 = 6;
/// A host that lacks something, or is full, is left alone for this long if there is another.
pub(super) const HOST_AVOID: Duration = Duration::from_millis(500);
/// A process that was named and cannot be reached is given up after so many attempts.
const PROCESS_TRIES_MAX: u32 = 3;
/// After so many answers that something is missing, the request waits before it is asked again.
const MISSING_AT_ONCE_MAX: u32 = 3;
/// How long a write that is offered again may take.
const REOFFER_WAIT: Duration = Duration::from_secs(30);

/// Whose call it is. Our own come first, so that a lost write is offered before what was asked after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CallKey {
    Ours(u64),
    Theirs(CallId),
}

/// Who may answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Route {
    /// Ourselves, once we have an assignment.
    Here,
    /// Any process.
    Any,
    /// This process.
    Process(ProcessId),
    /// The server.
    Server,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Waiting,
    Paused(Instant),
    Sent(ConnId),
}

/// Whether an attempt may have had its effect without our knowing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    NoEffect,
    Unknown,
}

/// Where a question goes to whose answer was that something is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AskNext {
    Here,
    Elsewhere,
    /// Here or elsewhere, when others have said where that could be.
    Later,
}

/// A request that is not answered yet.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) body: RequestBody,
    deadline: Instant,
    route: Route,
    place: Place,
    /// What was seen when it was asked last.
    asked: Token,
    /// Of the attempts before the present one.
    outcome: Outcome,
    tries: u32,
    refusal: Option<Refusal>,
    /// Hosts whose disk is full.
    full: Vec<HostId>,
}

impl Session {
    pub(super) fn on_call(
        &mut self,
        at: Instant,
        call: CallId,
        body: RequestBody,
        deadline: Instant,
        out: &mut Outputs,
    ) {
        let route = match &body {
            RequestBody::Assign => Route::Here,
            RequestBody::Status | RequestBody::Report => Route::Any,
            RequestBody::Drain { process } if self.addrs.contains_key(process) => Route::Process(*process),
            RequestBody::Drain { process } => {
                let refusal = Refusal::new(ErrorCode::UnknownProcess, format!("no way in is known to {process}"));
                return out.push(Output::Answer { call, result: Err(refusal.into()) });
            }
            RequestBody::Write { .. }
            | RequestBody::WhoAmI
            | RequestBody::List { .. }
            | RequestBody::Timeline { .. } => Route::Server,
        };
        if route == Route::Server && self.config.login == Login::Anonymous {
            let refusal = Refusal::new(ErrorCode::NotLoggedIn, "this client was made without an identity");
            return out.push(Output::Answer { call, result: Err(refusal.into()) });
        }
        self.begin(at, CallKey::Theirs(call), body, route, deadline, out);
        if route == Route::Here {
            self.answer_assigns(out);
        }
    }

    fn begin(
        &mut self,
        at: Instant,
        key: CallKey,
        body: RequestBody,
        route: Route,
        deadline: Instant,
        out: &mut Outputs,
    ) {
        let call = Call {
            body,
            deadline,
            route,
            place: Place::Waiting,
            asked: Token::default(),
            outcome: Outcome::NoEffect,
            tries: 0,
            refusal: None,
            full: Vec::new(),
        };
        self.calls.insert(key, call);
        self.deadlines.insert((deadline, key));
        self.try_send(at, key, out);
    }

    /// Sends a waiting call if there is somebody to send it to.
    fn try_send(&mut self, at: Instant, key: CallKey, out: &mut Outputs) {
        let Some(call) = self.calls.get(&key).filter(|call| call.place == Place::Waiting) else { return };
        let conn = match call.route {
            Route::Here => None,
            Route::Any => self.any_conn(),
            Route::Process(process) => {
                let conn = self.conn_to(process).or_else(|| self.dial(at, process, out));
                conn.filter(|id| self.conns.get(id).is_some_and(|conn| conn.is_open()))
            }
            Route::Server => self.good_server(),
        };
        let (Some(id), Some(call)) = (conn, self.calls.get_mut(&key)) else { return };
        call.place = Place::Sent(id);
        let body = self.conns.get(&id).map_or(call.body.clone(), |conn| conn.worded(call.body.clone()));
        let token = match call.route {
            Route::Server => self.seen.asking().clone(),
            Route::Here | Route::Any | Route::Process(_) => Token::default(),
        };
        call.asked.clone_from(&token);
        self.send(at, id, Asked::Call(key), Ask { token, body }, out);
    }

    /// Sends everything that waits and can be sent.
    pub(super) fn send_waiting(&mut self, at: Instant, out: &mut Outputs) {
        let waiting: Vec<_> =
            self.calls.iter().filter(|(_, call)| call.place == Place::Waiting).map(|(key, _)| *key).collect();
        for key in waiting {
            self.try_send(at, key, out);
        }
    }

    fn any_conn(&self) -> Option<ConnId> {
        let stands = |id: &ConnId| self.conns.get(id).is_some_and(|conn| conn.is_open() && conn.is_trusted());
        self.director.filter(stands).or(self.server.filter(stands)).or_else(|| self.conns.keys().copied().find(stands))
    }

    pub(super) fn on_answer(
        &mut self,
        at: Instant,
        id: ConnId,
        key: CallKey,
        token: Token,
        result: Result<Response, Refusal>,
        out: &mut Outputs,
    ) {
        let Some(call) = self.calls.get(&key) else { return };
        // An answer from a server that was left is as good as any; its refusals are not.
        let asked_here = call.place == Place::Sent(id);
        let (route, asked) = (call.route, if asked_here { call.asked.clone() } else { Token::default() });
        let Some((process, host)) = self.conns.get(&id).map(|conn| (conn.process, conn.host())) else { return };
        match result {
            Ok(Response::Missing { gaps }) => {
                if asked_here {
                    match self.on_missing(at, id, token, gaps, out) {
                        AskNext::Here => self.ask_again(at, key, out),
                        AskNext::Elsewhere => self.wait(key),
                        AskNext::Later => self.pause(at, key),
                    }
                }
            }
            Ok(response) if is_answer(&call.body, &response) => {
                self.seen.supersede(&asked, &token);
                self.seen.on_satisfied();
                self.trust_again(process);
                self.finish(key, Ok(response), out);
            }
            Ok(_) => {
                let why = "it answered another question".to_owned();
                self.finish(key, Err(ClientError::Protocol { process, why }), out);
            }
            Err(refusal) => {
                self.seen.merge(&token);
                if asked_here {
                    self.on_refusal(at, key, process, host, refusal, out);
                }
            }
        }
        if route != Route::Server {
            self.close_unused(id, out);
        }
    }

    fn on_refusal(
        &mut self,
        at: Instant,
        key: CallKey,
        process: ProcessId,
        host: Option<HostId>,
        refusal: Refusal,
        out: &mut Outputs,
    ) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        call.refusal = Some(refusal.clone());
        match refusal.code.advice() {
            Advice::Never => self.finish(key, Err(refusal.into()), out),
            Advice::Retry => self.pause(at, key),
            Advice::Elsewhere if call.route != Route::Server => self.pause(at, key),
            Advice::Elsewhere => {
                if refusal.code == ErrorCode::DiskFull {
                    call.full.extend(host);
                    let full = call.full.clone();
                    if !self.has_other_host(&full) {
                        if self.seeks_opinion(at, &full) {
                            return self.pause(at, key);
                        }
                        return self.finish(key, Err(refusal.into()), out);
                    }
                }
                self.go_elsewhere(at, key, process, host, refusal.code);
            }
        }
    }

    /// Leaves the process that refused, if there is anywhere to go; else asks it again after a pause.
    fn go_elsewhere(&mut self, at: Instant, key: CallKey, process: ProcessId, host: Option<HostId>, code: ErrorCode) {
        if matches!(code, ErrorCode::NotServing | ErrorCode::Leaving) {
            self.avoid(at, process);
            self.want_search();
        } else if self.has_other_host(host.as_slice()) {
            self.avoid_for(at, process, HOST_AVOID);
        } else {
            return self.pause(at, key);
        }
        self.wait(key);
    }

    fn wait(&mut self, key: CallKey) {
        if let Some(call) = self.calls.get_mut(&key) {
            call.place = Place::Waiting;
        }
    }

    fn pause(&mut self, at: Instant, key: CallKey) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        let until = at + RETRY_PAUSE * (1 << call.tries.min(RETRY_DOUBLINGS_MAX));
        call.tries += 1;
        call.place = Place::Paused(until);
        self.pauses.insert((until, key));
    }

    /// Asks the same again at once, or after a pause when that has not helped before.
    fn ask_again(&mut self, at: Instant, key: CallKey, out: &mut Outputs) {
        let Some(call) = self.calls.get_mut(&key) else { return };
        if call.tries >= MISSING_AT_ONCE_MAX {
            return self.pause(at, key);
        }
        call.tries += 1;
        call.place = Place::Waiting;
        self.try_send(at, key, out);
    }

    pub(super) fn end_pauses(&mut self, at: Instant, out: &mut Outputs) {
        while let Some((until, key)) = self.pauses.first().copied().filter(|(until, _)| *until <= at) {
            self.pauses.remove(&(until, key));
            if let Some(call) = self.calls.get_mut(&key) {
                call.place = Place::Waiting;
            }
            self.try_send(at, key, out);
        }
        self.reopen_paused_feeds(at, out);
    }

    /// The server lacks what was seen, and knows nobody who has it. A host that it does not reach may have it: each that
    /// can be tried is asked, and only when the last one lacks it, or this one does again, is it missing.
    pub(super) fn on_missing(
        &mut self,
        at: Instant,
        id: ConnId,
        part: Token,
        gaps: Vec<(EntryId, EntryId)>,
        out: &mut Outputs,
    ) -> AskNext {
        let Some(conn) = self.conns.get(&id) else { return AskNext::Elsewhere };
        let (process, host) = (conn.process, conn.host());
        if self.is_avoided(process) {
            // It is being left, for this or for something else.
            return AskNext::Elsewhere;
        }
        let lacking = self.seen.lacking_with(host);
        let has_other = self.has_other_host(&lacking);
        if !has_other && self.seeks_opinion(at, &lacking) {
            return AskNext::Later;
        }
        if host.is_some_and(|host| self.seen.note_lacking(host)) && has_other {
            self.avoid_for(at, process, HOST_AVOID);
            return AskNext::Elsewhere;
        }
        self.go_on_without(at, part, gaps, out);
        AskNext::Here
    }

    /// Nobody in reach has all that was seen. What can be had is asked for from now on, and own writes that are among the
    /// lost are offered again.
    fn go_on_without(&mut self, at: Instant, part: Token, gaps: Vec<(EntryId, EntryId)>, out: &mut Outputs) {
        let news = self.seen.reduce(part, &gaps);
        for lost in self.seen.doubtful_in(&gaps) {
            let is_under_way =
                self.calls.values().any(|call| matches!(&call.body, RequestBody::Write { id, .. } if *id == lost.id));
            if !is_under_way {
                let key = CallKey::Ours(self.fresh());
                let body = RequestBody::Write { id: lost.id, op: lost.op, ack: Some(lost.ack) };
                self.begin(at, key, body, Route::Server, at + REOFFER_WAIT, out);
            }
        }
        if news == Gaps::New {
            out.push(Output::Notice(Notice::Missing { gaps }));
        }
    }

    pub(super) fn finish(&mut self, key: CallKey, result: Result<Response, ClientError>, out: &mut Outputs) {
        let Some(call) = self.calls.remove(&key) else { return };
        self.deadlines.remove(&(call.deadline, key));
        if let Place::Paused(until) = call.place {
            self.pauses.remove(&(until, key));
        }
        if let (Ok(Response::Written(written)), RequestBody::Write { id, op, .. }) = (&result, &call.body) {
            self.seen.note_written(id, op, written);
        }
        match key {
            CallKey::Theirs(call) => out.push(Output::Answer { call, result }),
            CallKey::Ours(number) => tracing::debug!(number, ok = result.is_ok(), "a lost write was offered again"),
        }
    }

    /// A call that was under way on a connection that is lost, or left, waits for another.
    pub(super) fn take_back(&mut self, key: CallKey, id: ConnId) {
        if let Some(call) = self.calls.get_mut(&key).filter(|call| call.place == Place::Sent(id)) {
            call.place = Place::Waiting;
            call.outcome = Outcome::Unknown;
        }
    }

    /// Everything that is under way for the server on this connection waits for another. Late answers still count.
    pub(super) fn take_all_back(&mut self, id: ConnId) {
        for call in self.calls.values_mut() {
            if call.place == Place::Sent(id) && call.route == Route::Server {
                call.place = Place::Waiting;
                call.outcome = Outcome::Unknown;
            }
        }
    }

    /// What any process may answer is not left with a silent one.
    pub(super) fn take_back_from_silent(&mut self) {
        for call in self.calls.values_mut().filter(|call| call.route == Route::Any) {
            if let Place::Sent(id) = call.place
                && !self.conns.get(&id).is_some_and(|conn| conn.is_trusted())
            {
                call.place = Place::Waiting;
            }
        }
    }

    pub(super) fn is_asked_by_calls(&self, id: ConnId) -> bool {
        let Some(conn) = self.conns.get(&id) else { return false };
        let sent = conn.under_way.values().any(|under_way| match under_way.asked {
            Asked::Call(key) => self.calls.get(&key).is_some_and(|call| call.place == Place::Sent(id)),
            Asked::Assign | Asked::Probe | Asked::Token => false,
        });
        sent || self
            .calls
            .values()
            .any(|call| call.place == Place::Waiting && call.route == Route::Process(conn.process))
    }

    /// A process that somebody asked for by name cannot be reached.
    pub(super) fn fail_calls_to_process(
        &mut self,
        at: Instant,
        process: ProcessId,
        trouble: &Trouble,
        out: &mut Outputs,
    ) {
        let waiting: Vec<_> = self
            .calls
            .iter()
            .filter(|(_, call)| call.route == Route::Process(process) && call.place == Place::Waiting)
            .map(|(key, call)| (*key, call.tries))
            .collect();
        for (key, tries) in waiting {
            if tries + 1 < PROCESS_TRIES_MAX {
                self.pause(at, key);
            } else {
                let why = format!("{process}: {}", trouble.why);
                self.finish(key, Err(ClientError::NoProcess { why }), out);
            }
        }
    }

    /// A call that was sent is under way where it was sent, and one that pauses is waited for.
    pub(super) fn check_calls(&self) {
        for (key, call) in &self.calls {
            match call.place {
                Place::Waiting => {}
                Place::Paused(until) => assert!(self.pauses.contains(&(until, *key)), "{key:?} pauses for ever"),
                Place::Sent(id) => {
                    let under_way = self
                        .conns
                        .get(&id)
                        .is_some_and(|conn| conn.under_way.values().any(|one| one.asked == Asked::Call(*key)));
                    assert!(under_way, "{key:?} is not under way on {id:?}");
                }
            }
        }
    }

    pub(super) fn expire_calls(&mut self, at: Instant, out: &mut Outputs) {
        while let Some((_, key)) = self.deadlines.first().copied().filter(|(deadline, _)| *deadline <= at) {
            let Some(call) = self.calls.get(&key) else { return };
            let error = self.why_expired(call);
            self.finish(key, Err(error), out);
        }
    }

    fn why_expired(&self, call: &Call) -> ClientError {
        let trouble = self.trouble.as_ref().map(|(process, trouble)| format!("{process}: {}", trouble.why));
        let refused = call.refusal.as_ref().map(|refusal| refusal.message.clone());
        let why = refused.or(trouble).unwrap_or_else(|| match self.config.via {
            Some(host) => format!("no process of {host} serves"),
            None => "no host serves".to_owned(),
        });
        let is_open = matches!(call.place, Place::Sent(_)) || call.outcome == Outcome::Unknown;
        match (&call.body, &call.refusal, &self.trouble) {
            (RequestBody::Write { id, .. }, _, _) if is_open => ClientError::Unknown { id: id.clone(), why },
            // It stored nothing and says why: a full disk, or no room in a queue.
            (_, Some(refusal), _) if matches!(refusal.code, ErrorCode::DiskFull | ErrorCode::Busy) => {
                ClientError::Refused(refusal.clone())
            }
            (_, None, Some((process, Trouble { kind: TroubleKind::Identity, why }))) => {
                ClientError::Identity { process: *process, why: why.clone() }
            }
            (_, None, Some((process, Trouble { kind: TroubleKind::Protocol, why }))) => {
                ClientError::Protocol { process: *process, why: why.clone() }
            }
            (_, _, _) => ClientError::NoProcess { why },
        }
    }
}

/// Whether this is an answer to that question.
fn is_answer(body: &RequestBody, response: &Response) -> bool {
    match response {
        Response::Assigned(_) => matches!(body, RequestBody::Assign),
        Response::Status(_) => matches!(body, RequestBody::Status | RequestBody::Report),
        Response::Report(_) => matches!(body, RequestBody::Report),
        Response::Draining => matches!(body, RequestBody::Drain { .. }),
        Response::Written(_) => matches!(body, RequestBody::Write { .. }),
        Response::Answer(_) => {
            matches!(body, RequestBody::WhoAmI | RequestBody::List { .. } | RequestBody::Timeline { .. })
        }
        Response::Missing { .. } => false,
    }
}
