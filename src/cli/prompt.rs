//! The prompt: LIST, JOIN, LEAVE, CHAT on a terminal.
//!
//! The line editor blocks, so it has a thread of its own; bounded channels join it with the async side. A line is only
//! read when the async side asks for one, so that answers never meet a half-typed line; what arrives while somebody
//! types (posts in CHAT, notices) goes through the editor's printer, which puts it above the line.

use rustyline::error::ReadlineError;
use rustyline::{DefaultEditor, ExternalPrinter};
use tokio::sync::{mpsc, oneshot};

use crate::cli::args::Target;
use crate::cli::context::Context;
use crate::cli::failure::{Failure, Kind};
use crate::cli::harmless::harmless;
use crate::cli::output::Format;
use crate::cli::people::{Direction, change, list_text};
use crate::cli::post::parse;
use crate::cli::profile::Profile;
use crate::cli::session::{Session, new_id, notice_words};
use crate::client::{Notice, Notices, WriteOp};
use crate::limits;

/// Texts that wait to be printed above the line; the feed waits when there are more.
const PRINTS_WAITING_MAX: usize = 256;

const HELP: &str = "LIST         all users, whom you joined, who joined you
JOIN name    (FOLLOW) their posts from now on are in your timeline
LEAVE name   (UNFOLLOW) takes their posts out again
CHAT         your timeline live; each line that you type is a post
HELP, QUIT";
const CHAT_HELP: &str = "A line is a post. /list, /join name, /leave name, /help; /quit leaves the chat.";

/// What came of asking for a line.
enum Typed {
    Line(String),
    Interrupted,
    Ended,
}

/// What somebody asks for.
#[derive(Debug, PartialEq, Eq)]
enum Command {
    List,
    Join(String),
    Leave(String),
    Chat,
    Help,
    Quit,
    Nothing,
    Unknown(String),
}

/// Reads one line of the prompt; in CHAT, what follows a slash.
fn command(line: &str) -> Command {
    let mut words = line.split_whitespace();
    let Some(verb) = words.next() else { return Command::Nothing };
    let name = words.next().map(ToOwned::to_owned);
    let extra = words.next();
    match (verb.to_ascii_lowercase().as_str(), name, extra) {
        ("list", None, None) => Command::List,
        ("join" | "follow", Some(name), None) => Command::Join(name),
        ("leave" | "unfollow", Some(name), None) => Command::Leave(name),
        ("chat", None, None) => Command::Chat,
        ("help" | "?", None, None) => Command::Help,
        ("quit" | "exit", None, None) => Command::Quit,
        ("join" | "follow" | "leave" | "unfollow", None, None) => {
            Command::Unknown(format!("{} whom? Say: {verb} NAME", verb.to_uppercase()))
        }
        _ => Command::Unknown(format!("{:?} is not understood: HELP shows what is", harmless(line.trim()))),
    }
}

/// The editor's thread, seen from the async side.
struct Terminal {
    asks: mpsc::Sender<String>,
    typed: mpsc::Receiver<Typed>,
    prints: mpsc::Sender<String>,
}

impl Terminal {
    async fn start(profile: &Profile) -> Result<Self, Failure> {
        let (asks, mut asked) = mpsc::channel::<String>(1);
        let (lines, typed) = mpsc::channel(1);
        let (prints, printed) = mpsc::channel::<String>(PRINTS_WAITING_MAX);
        let (began, begins) = oneshot::channel();
        let history = profile.history_path();
        let edit = move || {
            let made = DefaultEditor::new().and_then(|mut editor| {
                let printer = editor.create_external_printer()?;
                Ok((editor, printer))
            });
            let (mut editor, printer) = match made {
                Ok(made) => made,
                Err(error) => {
                    let _ = began.send(Err(error.to_string()));
                    return;
                }
            };
            // The first prompt has no history, and a lost one is no reason to stop.
            let _ = editor.load_history(&history);
            let _ = began.send(spawn_printer(printer, printed));
            while let Some(prompt) = asked.blocking_recv() {
                let line = match editor.readline(&prompt) {
                    Ok(line) => {
                        let _ = editor.add_history_entry(line.as_str());
                        let _ = editor.append_history(&history);
                        Typed::Line(line)
                    }
                    Err(ReadlineError::Interrupted) => Typed::Interrupted,
                    Err(_) => Typed::Ended,
                };
                if lines.blocking_send(line).is_err() {
                    return;
                }
            }
        };
        let spawned = std::thread::Builder::new().name("editor".into()).spawn(edit);
        spawned.map_err(|error| Failure::failed(format!("the prompt: {error}")))?;
        let refused = |error: String| {
            Failure::failed(format!("the terminal: {error}")).hint("use the verbs instead: gaggle --help")
        };
        match begins.await {
            Ok(result) => result.map_err(refused)?,
            Err(_) => return Err(refused("the editor ended".into())),
        }
        Ok(Self { asks, typed, prints })
    }

    /// Asks the editor for a line; [`Self::typed`] has it when it is typed.
    async fn ask(&self, prompt: &str) -> Result<(), Failure> {
        self.asks.send(prompt.to_owned()).await.map_err(|_| Failure::failed("the terminal is gone"))
    }

    /// Prints above the line being typed.
    async fn print(&self, text: String) {
        // A printer that ended has lost its terminal, and the editor tells so.
        let _ = self.prints.send(text).await;
    }

    async fn typed(&mut self) -> Typed {
        self.typed.recv().await.unwrap_or(Typed::Ended)
    }
}

/// The printer blocks while the editor is busy: it, too, has a thread.
fn spawn_printer(
    mut printer: impl ExternalPrinter + Send + 'static,
    mut printed: mpsc::Receiver<String>,
) -> Result<(), String> {
    let print = move || {
        while let Some(text) = printed.blocking_recv() {
            if printer.print(format!("{text}\n")).is_err() {
                return;
            }
        }
    };
    std::thread::Builder::new().name("printer".into()).spawn(print).map(|_| ()).map_err(|error| error.to_string())
}

/// Where a notice is shown: above the line.
fn notice_text(notice: &Notice) -> String {
    format!("gaggle: {}", harmless(&notice_words(notice).1))
}

/// Runs the prompt, or CHAT at once.
pub(crate) async fn run(context: &Context, session: &Session, profile: &Profile, start: Start) -> Result<u8, Failure> {
    let (failed, failures) = mpsc::channel(PRINTS_WAITING_MAX);
    let notices = session.notices();
    let mut desk = Desk { terminal: Terminal::start(profile).await?, notices, failed, failures };
    let result = match start {
        Start::Commands => commands(context, session, profile, &mut desk).await,
        Start::Chat => chat(context, session, &mut desk).await.map(Left::exit_status),
    };
    // Posts may be on their way still: whoever leaves at once must not lose them, nor what is to be said about them.
    let Desk { failed, mut failures, .. } = desk;
    drop(failed);
    while let Some(failure) = failures.recv().await {
        failure.report(Format::Text);
    }
    result
}

/// What somebody sits at.
struct Desk {
    terminal: Terminal,
    notices: Notices,
    /// Posts that fail after the next line is asked for.
    failed: mpsc::Sender<Failure>,
    failures: mpsc::Receiver<Failure>,
}

/// How somebody left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Left {
    /// By a word, or at the end of the input.
    Said,
    /// By Ctrl-C.
    Interrupted,
}

impl Left {
    fn exit_status(self) -> u8 {
        match self {
            Self::Said => 0,
            Self::Interrupted => Kind::Interrupted.exit_status(),
        }
    }
}

async fn commands(context: &Context, session: &Session, profile: &Profile, desk: &mut Desk) -> Result<u8, Failure> {
    say(context, &format!("{} is here. HELP shows what you can say.", profile.file.name))?;
    loop {
        desk.terminal.ask("gaggle> ").await?;
        let typed = loop {
            tokio::select! {
                typed = desk.terminal.typed() => break typed,
                Some(failure) = desk.failures.recv() => desk.terminal.print(failure.to_text()).await,
                Some(notice) = desk.notices.next() => desk.terminal.print(notice_text(&notice)).await,
            }
        };
        let line = match typed {
            Typed::Line(line) => line,
            Typed::Ended => return Ok(Left::Said.exit_status()),
            Typed::Interrupted => return Ok(Left::Interrupted.exit_status()),
        };
        let result = match command(&line) {
            Command::Quit => return Ok(Left::Said.exit_status()),
            // Ctrl-C in CHAT leads back here.
            Command::Chat => chat(context, session, desk).await.map(|_| ()),
            Command::Help => say(context, HELP),
            Command::Nothing => Ok(()),
            Command::Unknown(message) => say(context, &message),
            Command::List => match list_text(context.out, session).await {
                Ok(text) => say(context, &text),
                Err(failure) => Err(failure),
            },
            Command::Join(name) => perform(context, session, Direction::Join, name).await,
            Command::Leave(name) => perform(context, session, Direction::Leave, name).await,
        };
        match result {
            Err(failure) if failure.kind == Kind::OutputClosed => return Err(failure),
            Err(failure) => failure.report(Format::Text),
            Ok(()) => {}
        }
    }
}

/// What the prompt opens with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Start {
    /// Asking for a command.
    Commands,
    /// CHAT.
    Chat,
}

fn say(context: &Context, text: &str) -> Result<(), Failure> {
    context.out.line(text)
}

async fn perform(context: &Context, session: &Session, direction: Direction, name: String) -> Result<(), Failure> {
    change(context, session, direction, &Target { name, id: None }).await.map(|_| ())
}

/// CHAT: the last posts, the live feed, and each line a post.
async fn chat(context: &Context, session: &Session, desk: &mut Desk) -> Result<Left, Failure> {
    let Desk { terminal, notices, failed, failures } = desk;
    let page = session.timeline(None, limits::TIMELINE_POSTS, None).await?;
    for post in &page.posts {
        say(context, &context.out.post(post))?;
    }
    say(context, CHAT_HELP)?;
    let mut feed = session.follow(page.cursor).await;
    terminal.ask("chat> ").await?;
    loop {
        tokio::select! {
            typed = terminal.typed() => {
                let line = match typed {
                    Typed::Line(line) => line,
                    Typed::Ended => return Ok(Left::Said),
                    Typed::Interrupted => return Ok(Left::Interrupted),
                };
                match said(context, session, terminal, failed, &line).await {
                    Said::Leave => return Ok(Left::Said),
                    Said::Stay => terminal.ask("chat> ").await?,
                }
            }
            post = feed.next() => match post {
                Some(post) => terminal.print(context.out.post(&post?)).await,
                None => return Ok(Left::Said),
            },
            Some(failure) = failures.recv() => terminal.print(failure.to_text()).await,
            Some(notice) = notices.next() => terminal.print(notice_text(&notice)).await,
        }
    }
}

/// Whether a line ends the chat.
enum Said {
    Stay,
    Leave,
}

async fn said(
    context: &Context,
    session: &Session,
    terminal: &Terminal,
    failed: &mpsc::Sender<Failure>,
    line: &str,
) -> Said {
    let result = if let Some(slashed) = line.strip_prefix('/') {
        match command(slashed) {
            Command::Quit => return Said::Leave,
            Command::Help | Command::Chat | Command::Nothing => {
                terminal.print(CHAT_HELP.to_owned()).await;
                Ok(())
            }
            Command::Unknown(message) => {
                terminal.print(message).await;
                Ok(())
            }
            Command::List => match list_text(context.out, session).await {
                Ok(text) => {
                    terminal.print(text).await;
                    Ok(())
                }
                Err(failure) => Err(failure),
            },
            Command::Join(name) => perform(context, session, Direction::Join, name).await,
            Command::Leave(name) => perform(context, session, Direction::Leave, name).await,
        }
    } else if line.trim().is_empty() {
        Ok(())
    } else {
        post(session, failed, line)
    };
    if let Err(failure) = result {
        terminal.print(failure.to_text()).await;
    }
    Said::Stay
}

/// Sends a post and goes on typing: it shows itself in the feed, and only a failure needs words.
fn post(session: &Session, failed: &mpsc::Sender<Failure>, line: &str) -> Result<(), Failure> {
    let text = parse(line)?;
    let write = session.begin_write(new_id(), WriteOp::Post { text }, None);
    let failed = failed.clone();
    super::spawn(async move {
        if let Ok(Err(failure)) = write.await {
            // Taken until the last post is answered.
            let _ = failed.send(failure).await;
        }
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_understood_in_any_case() {
        assert_eq!(command("LIST"), Command::List);
        assert_eq!(command("  join Ann "), Command::Join("Ann".into()));
        assert_eq!(command("Follow ann~3f2a"), Command::Join("ann~3f2a".into()));
        assert_eq!(command("unfollow ann"), Command::Leave("ann".into()));
        assert_eq!(command("cHaT"), Command::Chat);
        assert_eq!(command("quit"), Command::Quit);
        assert_eq!(command(" "), Command::Nothing);
        assert!(matches!(command("join"), Command::Unknown(_)));
        assert!(matches!(command("list all"), Command::Unknown(_)));
        assert!(matches!(command("dance"), Command::Unknown(_)));
    }
}
