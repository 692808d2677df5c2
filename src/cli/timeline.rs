//! `timeline`: the last posts, what came after a cursor, and what arrives.

use std::time::Duration;

use crate::cli::args::TimelineArgs;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::output::cursor_from_text;
use crate::cli::session::Session;
use crate::id::Vector;
use crate::limits;

/// One person's posts have no feed: somebody who follows them asks this often.
const ASK_AGAIN: Duration = Duration::from_millis(500);

/// Runs the verb.
pub(crate) async fn run(context: &Context, session: &Session, args: &TimelineArgs) -> Result<u8, Failure> {
    let since = args.since.as_deref().map(cursor_from_text).transpose()?;
    // Whoever names a cursor wants all that came after it, unless told.
    let unless_told = if since.is_some() { limits::TIMELINE_POSTS_MAX } else { limits::TIMELINE_POSTS };
    let count = args.count.unwrap_or(unless_told);
    let page = session.timeline(args.user.clone(), count.max(1), since.clone()).await?;
    let (posts, cursor) =
        if count == 0 { (Vec::new(), since.unwrap_or(page.cursor)) } else { (page.posts, page.cursor) };
    for post in &posts {
        context.out.line(&context.out.post(post))?;
    }
    if args.follow {
        match &args.user {
            None => follow(context, session, cursor).await?,
            Some(user) => follow_one(context, session, user, cursor).await?,
        }
    }
    Ok(0)
}

async fn follow(context: &Context, session: &Session, cursor: Vector) -> Result<(), Failure> {
    let mut feed = session.follow(cursor).await;
    while let Some(post) = feed.next().await {
        context.out.line(&context.out.post(&post?))?;
    }
    Ok(())
}

async fn follow_one(context: &Context, session: &Session, user: &str, mut cursor: Vector) -> Result<(), Failure> {
    loop {
        tokio::time::sleep(ASK_AGAIN).await;
        let page = session.timeline(Some(user.to_owned()), limits::TIMELINE_POSTS_MAX, Some(cursor)).await?;
        for post in &page.posts {
            context.out.line(&context.out.post(post))?;
        }
        cursor = page.cursor;
    }
}
