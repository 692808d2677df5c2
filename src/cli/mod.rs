//! Verbs for people and operators: parse, call, print.
//!
//! The contract of verbs, flags, JSON and exit statuses is kept here and nowhere else: [`args`] parses, [`failure`] has
//! the one table of exit statuses, [`output`] prints. Nothing here knows the protocol: [`session`] is the only file that
//! calls the client library. Each verb returns its exit status, or a [`Failure`] that is said once, here.

mod account;
mod args;
mod backup;
mod bench;
mod chat;
mod context;
mod drill;
mod failure;
mod harmless;
mod input;
mod operate;
mod output;
mod people;
mod post;
mod profile;
mod prompt;
mod screen;
mod session;
mod status;
mod timeline;
mod up;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use args::{Cli, Verb};
use context::Context;
use failure::{Failure, Kind};
use output::{Format, Out};
use people::Direction;
use profile::Profiles;
use prompt::Start;
use session::{Person, Session};

/// Runs the command line; the exit status is the contract's.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    let mut cli = match Cli::try_parse_from(&arguments) {
        Ok(cli) => cli,
        Err(error) => return ExitCode::from(usage(&error, &arguments)),
    };
    let format = cli.global.format();
    let result = cli.global.fill_in(|name| std::env::var_os(name)).and_then(|()| dispatch(cli));
    match result {
        Ok(status) => ExitCode::from(status),
        Err(failure) => {
            failure.report(format);
            ExitCode::from(failure.kind.exit_status())
        }
    }
}

/// Help and version are answers; the rest are usage errors, in JSON if `--json` is among the arguments.
fn usage(error: &clap::Error, arguments: &[OsString]) -> u8 {
    if !error.use_stderr() {
        // A reader that has closed standard output has what it wanted.
        let _ = error.print();
        return 0;
    }
    let wants_json = arguments.iter().take_while(|argument| *argument != "--").any(|argument| argument == "--json");
    usage_failure(error, arguments).report(if wants_json { Format::Json } else { Format::Text });
    Kind::Usage.exit_status()
}

/// In one line, as every failure: what is wrong, and the tip or the help that leads on.
fn usage_failure(error: &clap::Error, arguments: &[OsString]) -> Failure {
    let text = error.render().to_string();
    // The first paragraph may list what is missing, or what is possible, in lines of its own.
    let first: Vec<&str> = text.lines().map(str::trim).take_while(|line| !line.is_empty()).collect();
    let message = first.join(" ").trim_start_matches("error: ").to_owned();
    let tip = text.lines().find_map(|line| line.trim().strip_prefix("tip: "));
    let help = || {
        let known = Cli::command();
        let mut verbs = arguments.iter().filter_map(|argument| known.find_subcommand(argument.to_str()?));
        let verb = verbs.next().map(|verb| format!(" {}", verb.get_name())).unwrap_or_default();
        format!("gaggle{verb} --help tells more")
    };
    Failure::usage(message).hint(tip.map_or_else(help, ToOwned::to_owned))
}

fn dispatch(cli: Cli) -> Result<u8, Failure> {
    let context = Context { out: Out::new(cli.global.format()), global: cli.global, profiles: Profiles::open()? };
    let verb = match cli.verb {
        Some(Verb::Node(args)) => return operate::node(&context, args.id),
        Some(Verb::Logout) => return account::logout(&context),
        Some(Verb::Profiles) => return account::profiles(&context),
        Some(Verb::Config(args)) => return operate::config(context.out, &args.action),
        Some(Verb::Completion { shell }) => return operate::completion(shell),
        Some(Verb::Man) => return operate::man(),
        Some(verb) => Some(verb),
        None => None,
    };
    if verb.is_none() && (!is_terminal() || context.out.is_json()) {
        let _ = write!(std::io::stderr().lock(), "{}", if context.out.is_json() { String::new() } else { help() });
        return Err(Failure::usage("no verb, and no terminal for the prompt").hint("gaggle --help shows the verbs"));
    }
    let runtime = match &verb {
        Some(Verb::Bench(_) | Verb::Drill(_)) => Builder::new_multi_thread().enable_all().build(),
        // One thread, so that writes go out in the order in which they were begun.
        Some(_) | None => Builder::new_current_thread().enable_all().build(),
    };
    let runtime: Runtime = runtime.map_err(|error| Failure::failed(format!("cannot start: {error}")))?;
    let result = runtime.block_on(perform(&context, verb));
    // A thread that still reads a terminal or a pipe is not waited for.
    runtime.shutdown_background();
    result
}

fn help() -> String {
    Cli::command().render_help().to_string()
}

fn is_terminal() -> bool {
    std::io::stdin().is_terminal() && std::io::stdout().is_terminal()
}

async fn perform(context: &Context, verb: Option<Verb>) -> Result<u8, Failure> {
    match verb {
        // It has its own way to end: its children first.
        Some(Verb::Up(args)) => up::run(context, &args).await,
        Some(Verb::Drill(args)) => drill::run(context, &args).await,
        // It has its own way to end: what it was writing goes first.
        Some(Verb::Backup(args)) => backup::run(context, args.action).await,
        Some(Verb::Status(args)) => interruptible(status::run(context, &args)).await,
        Some(Verb::Drain(args)) => interruptible(operate::drain(context, args.id)).await,
        Some(Verb::Login(args)) => interruptible(account::login(context, &args.name)).await,
        Some(Verb::Bench(args)) => interruptible(bench::run(context, &args)).await,
        other => as_person(context, other).await,
    }
}

async fn interruptible(verb: impl Future<Output = Result<u8, Failure>>) -> Result<u8, Failure> {
    let interrupt = interrupted();
    tokio::select! {
        result = verb => result,
        () = interrupt => Err(Failure::new(Kind::Interrupted, "interrupted")),
    }
}

/// Ctrl-C, SIGTERM, or a terminal that is gone; listens from the call on.
pub(crate) fn interrupted() -> impl Future<Output = ()> {
    use tokio::signal::unix::{SignalKind, signal};
    let kinds = [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()];
    let listeners = kinds.map(signal);
    async move {
        let [Ok(mut interrupt), Ok(mut terminate), Ok(mut hangup)] = listeners else {
            // Without handlers the signals end this process at once.
            return std::future::pending().await;
        };
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
        }
    }
}

/// Runs a verb of somebody who is logged in; what was seen is kept however it ends.
async fn as_person(context: &Context, verb: Option<Verb>) -> Result<u8, Failure> {
    let interrupt = interrupted();
    tokio::pin!(interrupt);
    let profile = context.profile()?;
    let place = context.place_of(&profile)?;
    let identity = Context::identity(&profile)?;
    let session = tokio::select! {
        session = Session::open(context, &place, Person::Owner(identity, profile.clone())) => session?,
        () = &mut interrupt => return Err(Failure::new(Kind::Interrupted, "interrupted")),
    };
    let is_prompt = match &verb {
        None => true,
        Some(Verb::Chat) => is_terminal() && !context.out.is_json(),
        Some(_) => false,
    };
    let mut helpers = vec![session.keep_token()];
    if !is_prompt {
        helpers.push(session.say_notices(context.out));
    }
    let running = async {
        match verb {
            None => prompt::run(context, &session, &profile, Start::Commands).await,
            Some(Verb::Chat) if is_prompt => prompt::run(context, &session, &profile, Start::Chat).await,
            Some(verb) => one_verb(context, &session, verb).await,
        }
    };
    let result = tokio::select! {
        result = running => result,
        () = &mut interrupt => Err(interrupted_with(&session)),
    };
    for helper in helpers {
        helper.abort();
    }
    session.close().await;
    result
}

/// An interrupted write may have had its effect: its id is what finds out.
fn interrupted_with(session: &Session) -> Failure {
    let Some((first, count)) = session.unanswered() else { return Failure::new(Kind::Interrupted, "interrupted") };
    let message = format!("interrupted: the outcome of {count} requests is unknown, {first} first");
    let mut failure = Failure::new(Kind::Interrupted, message).hint(format!("ask again with --id {first}"));
    failure.id = Some(first.as_str().to_owned());
    failure
}

async fn one_verb(context: &Context, session: &Session, verb: Verb) -> Result<u8, Failure> {
    match verb {
        Verb::Whoami => account::whoami(context, session).await,
        Verb::List => people::list(context.out, session).await,
        Verb::Join(target) => people::change(context, session, Direction::Join, &target).await,
        Verb::Leave(target) => people::change(context, session, Direction::Leave, &target).await,
        Verb::Post(args) => post::run(context, session, &args).await,
        Verb::Timeline(args) => timeline::run(context, session, &args).await,
        Verb::Chat => chat::run(context, session).await,
        Verb::Up(_)
        | Verb::Node(_)
        | Verb::Status(_)
        | Verb::Drain(_)
        | Verb::Login(_)
        | Verb::Logout
        | Verb::Profiles
        | Verb::Bench(_)
        | Verb::Drill(_)
        | Verb::Backup(_)
        | Verb::Config(_)
        | Verb::Completion { .. }
        | Verb::Man => Err(Failure::failed("this verb needs no profile")),
    }
}

/// Runs something beside the verb.
#[expect(clippy::disallowed_methods, reason = "what a verb starts ends with its runtime, when the verb is done")]
fn spawn<T: Send + 'static>(task: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    tokio::spawn(task)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_errors_are_one_line() {
        let failure = |line: &str| {
            let arguments: Vec<OsString> = line.split(' ').map(Into::into).collect();
            usage_failure(&Cli::try_parse_from(&arguments).unwrap_err(), &arguments)
        };
        let unknown = failure("gaggle lits --json");
        assert_eq!(unknown.kind.exit_status(), 2);
        assert_eq!(unknown.message, "unrecognized subcommand 'lits'");
        assert!(unknown.hint.unwrap().contains("list"));
        let missing = failure("gaggle node --json");
        assert_eq!(missing.message, "the following required arguments were not provided: <ID>");
        assert_eq!(missing.hint.unwrap(), "gaggle node --help tells more");
        let level = failure("gaggle post x --ack none");
        assert_eq!(level.message, "invalid value 'none' for '--ack <LEVEL>' [possible values: host, peer, all]");
    }
}
