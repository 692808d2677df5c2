//! LIST, JOIN and LEAVE.

use serde_json::json;

use crate::cli::args::Target;
use crate::cli::context::Context;
use crate::cli::failure::Failure;
use crate::cli::harmless::harmless;
use crate::cli::output::{Out, Paint, token_text};
use crate::cli::post::warn_of_copies;
use crate::cli::session::{Session, new_id};
use crate::client::{ListPart, WriteOp};

/// Whether somebody comes or goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// JOIN.
    Join,
    /// LEAVE.
    Leave,
}

/// `list`.
pub(crate) async fn list(out: Out, session: &Session) -> Result<u8, Failure> {
    let text = if out.is_json() { list_json(session).await? } else { list_text(out, session).await? };
    out.line(&text)?;
    Ok(0)
}

async fn list_json(session: &Session) -> Result<String, Failure> {
    let value = json!({
        "v": 1,
        "users": session.names(ListPart::Users).await?,
        "joined": session.names(ListPart::Joined).await?,
        "joined_by": session.names(ListPart::JoinedBy).await?,
    });
    Ok(crate::cli::harmless::json_line(&value))
}

/// LIST for people.
pub(crate) async fn list_text(out: Out, session: &Session) -> Result<String, Failure> {
    let parts = [("users", ListPart::Users), ("joined", ListPart::Joined), ("joined by", ListPart::JoinedBy)];
    let mut lines = Vec::new();
    for (title, part) in parts {
        let names = session.names(part).await?;
        let shown = names.iter().map(|name| harmless(name)).collect::<Vec<_>>().join(", ");
        let line = format!("{} ({}): {shown}", out.paint(Paint::Name, title), names.len());
        lines.push(line.trim_end().to_owned());
    }
    Ok(lines.join("\n"))
}

/// `join`, `leave`.
pub(crate) async fn change(
    context: &Context,
    session: &Session,
    direction: Direction,
    target: &Target,
) -> Result<u8, Failure> {
    let id = target.id.clone().unwrap_or_else(new_id);
    let name = target.name.clone();
    let (op, word) = match direction {
        Direction::Join => (WriteOp::Join { name }, "joined"),
        Direction::Leave => (WriteOp::Leave { name }, "left"),
    };
    let done = session.write(id, op, None).await?;
    let name = &done.written.accepted.name;
    let value = json!({"v": 1, "name": name, "copies": done.written.copies, "token": token_text(&done.token)});
    context.out.say(&value, &format!("{word} {}", harmless(name)))?;
    warn_of_copies(context.out, &done);
    Ok(0)
}
