//! `chat` where no terminal is: lines read are posts, posts are printed, and the end of the input ends it.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::task::JoinSet;

use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::input::{self, Line};
use crate::cli::post::parse;
use crate::cli::session::{Done, Session, new_id};
use crate::client::{ShownPost, WriteOp};
use crate::id::RequestId;
use crate::limits;

/// Posts under way at once.
const UNDER_WAY_MAX: usize = 256;
/// After the end of the input, how long the feed may take to show one's own posts.
const LAST_POSTS_WAIT: Duration = Duration::from_secs(3);

type Answer = (u64, RequestId, Result<Done, Failure>);

/// What is under way.
#[derive(Default)]
struct Chat {
    writes: JoinSet<Answer>,
    /// Own posts that the feed has not shown yet.
    unseen: BTreeSet<RequestId>,
    status: u8,
}

impl Chat {
    fn failed(&mut self, context: &Context, failure: &Failure) {
        failure.report(context.out.format());
        if self.status == 0 {
            self.status = failure.kind.exit_status();
        }
    }

    fn line(&mut self, context: &Context, session: &Session, line: Line) {
        let number = line.number;
        match line.text.and_then(|text| parse(&text)) {
            Err(failure) => self.failed(context, &failure.at_line(number)),
            Ok(text) => {
                let id = new_id();
                self.unseen.insert(id.clone());
                let write = session.begin_write(id.clone(), WriteOp::Post { text }, None);
                self.writes.spawn(async move {
                    let result = match write.await {
                        Ok(result) => result,
                        Err(error) => Err(Failure::failed(format!("a post was not followed: {error}"))),
                    };
                    (number, id, result)
                });
            }
        }
    }

    fn answered(&mut self, context: &Context, (number, id, result): Answer) {
        if let Err(failure) = result {
            self.unseen.remove(&id);
            self.failed(context, &failure.at_line(number));
        }
    }

    fn shown(&mut self, context: &Context, posts: &[ShownPost]) -> Result<(), Failure> {
        for post in posts {
            self.unseen.remove(&post.id);
            context.out.line(&context.out.post(post))?;
        }
        Ok(())
    }
}

/// Runs the verb; returns the exit status.
pub(crate) async fn run(context: &Context, session: &Session) -> Result<u8, Failure> {
    let page = session.timeline(None, limits::TIMELINE_POSTS, None).await?;
    let mut chat = Chat::default();
    chat.shown(context, &page.posts)?;
    let mut feed = session.follow(page.cursor).await;
    let mut input = input::lines();
    let mut input_open = true;
    let mut last_wait = None;
    loop {
        if !input_open && chat.writes.is_empty() {
            if chat.unseen.is_empty() {
                return Ok(chat.status);
            }
            last_wait.get_or_insert_with(|| Box::pin(tokio::time::sleep(LAST_POSTS_WAIT)));
        }
        tokio::select! {
            Some(joined) = chat.writes.join_next(), if !chat.writes.is_empty() => {
                if let Ok(answer) = joined {
                    chat.answered(context, answer);
                }
            }
            post = feed.next() => match post {
                Some(post) => chat.shown(context, &[post?])?,
                None => return Ok(chat.status),
            },
            line = input.recv(), if input_open && chat.writes.len() < UNDER_WAY_MAX => match line {
                Some(line) => chat.line(context, session, line),
                None => input_open = false,
            },
            () = async { if let Some(wait) = &mut last_wait { wait.await } }, if last_wait.is_some() => {
                return Ok(chat.status);
            }
        }
    }
}
