//! `post`: one line, or each line of standard input.
//!
//! Lines go out as they come, up to [`UNDER_WAY_MAX`] at once, in their order on one connection; answers are printed in
//! the order of the lines. A line that fails does not hold the others up.

use std::collections::VecDeque;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::cli::args::PostArgs;
use crate::cli::context::Context;
use crate::cli::failure::{Failure, Kind};
use crate::cli::input::{self, Line};
use crate::cli::output::{Out, rfc3339, token_text};
use crate::cli::session::{Done, Session, new_id};
use crate::client::WriteOp;
use crate::id::{PostText, RequestId};
use crate::topology::AckLevel;

/// Posts that wait for their answer at once: enough to share syncs, below what one connection may have waiting.
const UNDER_WAY_MAX: usize = 256;
const _: () = assert!(UNDER_WAY_MAX < crate::limits::CLIENT_REQUESTS_MAX);

/// One line's fate.
enum Slot {
    /// Refused before it was sent.
    Refused(u64, Failure),
    /// On its way.
    Sent(u64, RequestId, JoinHandle<Result<Done, Failure>>),
}

/// Runs the verb; returns the exit status.
pub(crate) async fn run(context: &Context, session: &Session, args: &PostArgs) -> Result<u8, Failure> {
    if args.text == "-" {
        return lines(context, session, args).await;
    }
    let text = parse(&args.text)?;
    let id = args.id.clone().unwrap_or_else(new_id);
    let done = session.write(id.clone(), WriteOp::Post { text }, args.ack).await?;
    answer(context.out, &id, &done)?;
    Ok(0)
}

/// Checks a post's text.
pub(crate) fn parse(text: &str) -> Result<PostText, Failure> {
    text.parse().map_err(|_| {
        let count = text.chars().count();
        let what = match count {
            0 => "it is empty".to_owned(),
            _ if count > crate::limits::POST_CHARS_MAX => format!("it has {count}"),
            _ => "it has a control character".to_owned(),
        };
        Failure::usage(format!("a post is 1 to 1,000 characters in one line, without control characters: {what}"))
            .hint("shorten it, or send each line as a post of its own: gaggle post -")
    })
}

fn post_json(id: &RequestId, done: &Done) -> Value {
    let accepted = &done.written.accepted;
    json!({
        "v": 1,
        "id": id.as_str(),
        "at": rfc3339(accepted.hlc.wall()),
        "host": done.written.host.to_string(),
        "origin": accepted.entry.origin.to_string(),
        "seq": accepted.entry.seq.0,
        "copies": done.written.copies,
        "ack": done.written.ack.to_string(),
        "token": token_text(&done.token),
    })
}

fn answer(out: Out, id: &RequestId, done: &Done) -> Result<(), Failure> {
    let copies = done.written.copies;
    let plural = if copies == 1 { "copy" } else { "copies" };
    out.say(&post_json(id, done), &format!("posted {id} at {}: {copies} {plural}", done.written.host))?;
    warn_of_copies(out, done);
    Ok(())
}

/// Tells when fewer copies could be had than were asked for.
pub(crate) fn warn_of_copies(out: Out, done: &Done) {
    let short = match done.written.ack {
        AckLevel::Host => false,
        AckLevel::Peer => done.written.copies < 2,
        AckLevel::All => done.written.copies < done.hosts,
    };
    if short {
        let copies = done.written.copies;
        let message = format!("stored on {copies} of the hosts asked for ({}); more follow", done.written.ack);
        out.notice("few-copies", &message);
    }
}

/// The id of line `number`.
fn line_id(base: Option<&RequestId>, number: u64) -> Result<RequestId, Failure> {
    match base {
        None => Ok(new_id()),
        Some(base) => format!("{base}/{number}").parse().map_err(|error| {
            Failure::usage(format!("{error}")).hint("choose a shorter --id: line n of standard input has ID/n")
        }),
    }
}

fn send(session: &Session, args: &PostArgs, line: Line) -> Slot {
    let number = line.number;
    let prepared =
        line.text.and_then(|text| parse(&text)).and_then(|text| Ok((line_id(args.id.as_ref(), number)?, text)));
    match prepared {
        Err(failure) => Slot::Refused(number, failure),
        Ok((id, text)) => {
            let write = session.begin_write(id.clone(), WriteOp::Post { text }, args.ack);
            Slot::Sent(number, id, write)
        }
    }
}

/// Waits for the first line that has no answer yet. Cancel-safe: the slot stays where it is.
async fn first_result(slots: &mut VecDeque<Slot>) -> Result<Option<Done>, Failure> {
    match slots.front_mut() {
        None => Ok(None),
        Some(Slot::Refused(number, failure)) => Err(failure.clone().at_line(*number)),
        Some(Slot::Sent(number, _, write)) => match write.await {
            Ok(result) => result.map(Some).map_err(|failure| failure.at_line(*number)),
            Err(error) => Err(Failure::failed(format!("a post was not followed: {error}")).at_line(*number)),
        },
    }
}

async fn lines(context: &Context, session: &Session, args: &PostArgs) -> Result<u8, Failure> {
    let mut input = input::lines();
    let mut slots: VecDeque<Slot> = VecDeque::new();
    let mut input_open = true;
    let mut status = 0;
    // When nobody reads the answers any more, the rest is posted all the same: it was asked for.
    let mut output_open = true;
    while input_open || !slots.is_empty() {
        tokio::select! {
            biased;
            result = first_result(&mut slots), if !slots.is_empty() => {
                let slot = slots.pop_front();
                match (result, slot) {
                    (Ok(Some(done)), Some(Slot::Sent(_, id, _))) if output_open => {
                        match answer(context.out, &id, &done) {
                            Err(failure) if failure.kind == Kind::OutputClosed => output_open = false,
                            other => other?,
                        }
                    }
                    (Ok(_), _) => {}
                    (Err(failure), _) => {
                        failure.report(context.out.format());
                        if status == 0 {
                            status = failure.kind.exit_status();
                        }
                    }
                }
            }
            line = input.recv(), if input_open && slots.len() < UNDER_WAY_MAX => match line {
                Some(line) => slots.push_back(send(session, args, line)),
                None => input_open = false,
            },
        }
    }
    Ok(status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn line_n_has_id_n() {
        let base: RequestId = "batch".parse().unwrap();
        assert_eq!(line_id(Some(&base), 12).unwrap().as_str(), "batch/12");
        let long: RequestId = "x".repeat(64).parse().unwrap();
        assert_eq!(line_id(Some(&long), 1).unwrap_err().kind, Kind::Usage);
        assert_ne!(line_id(None, 1).unwrap(), line_id(None, 2).unwrap());
    }

    #[test]
    fn a_refused_text_says_why() {
        assert!(parse("hello").is_ok());
        assert!(parse("").unwrap_err().message.ends_with("it is empty"));
        assert!(parse(&"x".repeat(1001)).unwrap_err().message.ends_with("it has 1001"));
        assert!(parse("a\tb").unwrap_err().message.ends_with("it has a control character"));
    }
}
