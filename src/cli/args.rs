//! The arguments: every verb and flag of the contract, each verb with an example.

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::cli::drill::Fault;
use crate::cli::failure::Failure;
use crate::cli::output::Format;
use crate::id::{HostId, ProcessId, RequestId, UserName};
use crate::limits;
use crate::topology::AckLevel;

const DRILL_HELP: &str = "It touches nothing but the cluster that it starts: a copy of the topology in a temporary folder, with free ports on 127.0.0.1. For partition, loss, delay, disk, clock and chaos it runs in network and mount namespaces of its own, which takes root or user namespaces; `all` and `chaos` leave out what this machine does not allow, and say so.\n\nExamples:\n  gaggle drill kill --times 50 --topology topology/lenss.toml\n  sudo gaggle drill partition\n  sudo gaggle drill chaos --seconds 3600 --seed 7";

const BACKUP_HELP: &str = "A backup is of one host, and made on its machine while it runs. Keys are not in it: keep the folder of certs as well.\n\nExamples:\n  gaggle backup create lenss3.backup --host lenss3\n  gaggle backup verify lenss3.backup\n  gaggle backup restore lenss3.backup --host lenss3";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "gaggle",
    version,
    about = "A highly available microblog: a mesh of QUIC processes with no broker and no coordinator",
    long_about = "A highly available microblog: a mesh of QUIC processes with no broker and no coordinator.\n\nWithout a verb, on a terminal, it opens the prompt: LIST, JOIN name, LEAVE name, CHAT, HELP, QUIT.",
    after_help = "Start here:\n  gaggle up                 # every process of topology/lenss.toml\n  gaggle login ann          # in another terminal\n  gaggle post 'hello'\n  gaggle timeline --follow\n\nExit status: 0 done, 1 failed, 2 usage, 3 unknown user, 4 already or not joined, 5 identity refused, 6 no process reachable, 7 outcome unknown, 8 degraded, 130 interrupted."
)]
pub(crate) struct Cli {
    /// What holds for all verbs.
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do; the prompt if nothing is said.
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
}

/// Flags of all verbs.
#[derive(Debug, Clone, Args)]
pub(crate) struct Global {
    /// The topology file [env: GAGGLE_TOPOLOGY]; else the profile's cluster, else topology/lenss.toml
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) topology: Option<PathBuf>,
    /// Another profile of this machine [env: GAGGLE_AS]
    #[arg(long = "as", global = true, value_name = "NAME")]
    pub(crate) profile: Option<UserName>,
    /// Ask this host instead of the assigned one
    #[arg(long, global = true, value_name = "HOST")]
    pub(crate) via: Option<HostId>,
    /// How long to try, in seconds
    #[arg(long, global = true, value_name = "SECONDS", default_value = "30", value_parser = seconds)]
    pub(crate) timeout: Duration,
    /// One JSON object a line, each with "v":1
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

impl Global {
    /// In which form this command speaks.
    pub(crate) fn format(&self) -> Format {
        if self.json { Format::Json } else { Format::Text }
    }

    /// Takes from the environment what no flag says. A variable that is set to nothing is not set, as GAGGLE_HOME and
    /// NO_COLOR have it (the parser's own way would refuse it).
    pub(crate) fn fill_in(&mut self, variable: impl Fn(&str) -> Option<OsString>) -> Result<(), Failure> {
        let variable = |name: &str| variable(name).filter(|value| !value.is_empty());
        if self.topology.is_none() {
            self.topology = variable("GAGGLE_TOPOLOGY").map(PathBuf::from);
        }
        if self.profile.is_none()
            && let Some(name) = variable("GAGGLE_AS")
        {
            let parsed = name.to_string_lossy().parse();
            let refused =
                |error| Failure::usage(format!("GAGGLE_AS: {error}")).hint("`gaggle profiles` shows the names");
            self.profile = Some(parsed.map_err(refused)?);
        }
        Ok(())
    }
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Start every process of the topology (or of some hosts) and stay in front
    #[command(after_help = "Example:\n  gaggle up --topology topology/lenss.toml --host lenss3")]
    Up(UpArgs),
    /// Run one process of the topology in the foreground
    #[command(after_help = "Example:\n  gaggle node W5 --topology topology/lenss.toml")]
    Node(OneProcess),
    /// Show hosts, processes, duties, epochs, sessions, lag, digests and disk; exit 8 if anything is degraded
    #[command(after_help = "Example:\n  gaggle status --watch")]
    Status(StatusArgs),
    /// Move a process's duties and clients away, for maintenance
    #[command(after_help = "Example:\n  gaggle drain W5")]
    Drain(OneProcess),
    /// Make a profile (a key), register its name, and make it the current one
    #[command(after_help = "Example:\n  gaggle login ann")]
    Login(OneName),
    /// Show who you are, and which process serves you
    #[command(after_help = "Example:\n  gaggle whoami --as bob")]
    Whoami,
    /// Leave the current profile; its key stays on this machine
    #[command(after_help = "Example:\n  gaggle logout")]
    Logout,
    /// List the profiles of this machine
    #[command(after_help = "Example:\n  gaggle profiles --json")]
    Profiles,
    /// List all users, whom you joined, and who joined you
    #[command(after_help = "Example:\n  gaggle list")]
    List,
    /// Join (follow) somebody
    #[command(visible_alias = "follow", after_help = "Example:\n  gaggle join bob")]
    Join(Target),
    /// Leave (unfollow) somebody
    #[command(visible_alias = "unfollow", after_help = "Example:\n  gaggle leave bob")]
    Leave(Target),
    /// Post a line, or each line of standard input
    #[command(after_help = "Examples:\n  gaggle post 'hello, world'\n  seq 10 | gaggle post - --id batch-1")]
    Post(PostArgs),
    /// Show your timeline, or somebody's posts, oldest first
    #[command(after_help = "Examples:\n  gaggle timeline -n 50\n  gaggle timeline --user bob --follow")]
    Timeline(TimelineArgs),
    /// Your timeline live, and each line that you type is a post
    #[command(after_help = "Example:\n  gaggle chat")]
    Chat,
    /// Put measured load on the cluster
    #[command(after_help = "Example:\n  gaggle bench retwis --clients 64 --seconds 10 --ack peer")]
    Bench(BenchArgs),
    /// Break a throw-away cluster of its own under load, and measure the pauses; exit 8 if a promise was broken
    #[command(after_help = DRILL_HELP)]
    Drill(DrillArgs),
    /// Keep a host's data in a file, look at such a file, and put it back
    #[command(after_help = BACKUP_HELP)]
    Backup(BackupArgs),
    /// Look after configuration files
    #[command(after_help = "Example:\n  gaggle config check topology/lenss.toml")]
    Config(ConfigArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Example:\n  gaggle completion bash > ~/.local/share/bash-completion/completions/gaggle")]
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the manual page
    #[command(after_help = "Example:\n  gaggle man | man -l -")]
    Man,
}

/// `up`.
#[derive(Debug, Args)]
pub(crate) struct UpArgs {
    /// Only this host's processes; may be given several times
    #[arg(long = "host", value_name = "NAME")]
    pub(crate) hosts: Vec<HostId>,
}

/// `node`, `drain`.
#[derive(Debug, Args)]
pub(crate) struct OneProcess {
    /// The process, as the topology names it
    pub(crate) id: ProcessId,
}

/// `status`.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// Show it again and again, until interrupted
    #[arg(long)]
    pub(crate) watch: bool,
}

/// `login`.
#[derive(Debug, Args)]
pub(crate) struct OneName {
    /// 1 to 32 letters, digits, '_' or '-'
    pub(crate) name: UserName,
}

/// `join`, `leave`.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// Whom; as it is shown, with its suffix if it is contested
    pub(crate) name: String,
    /// The request's id: asking again with the same one has no second effect
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<RequestId>,
}

/// `post`.
#[derive(Debug, Args)]
pub(crate) struct PostArgs {
    /// What to say; '-', or nothing, reads standard input, one post a line
    #[arg(default_value = "-", allow_hyphen_values = true)]
    pub(crate) text: String,
    /// The request's id: asking again with the same one has no second effect; line n of standard input has ID/n
    #[arg(long, value_name = "ID")]
    pub(crate) id: Option<RequestId>,
    /// How many copies to wait for: on this host, on one more, or on all; the cluster's level if not said
    #[arg(long, value_name = "LEVEL", value_parser = ack_level())]
    pub(crate) ack: Option<AckLevel>,
}

/// `timeline`.
#[derive(Debug, Args)]
pub(crate) struct TimelineArgs {
    /// The posts that this person made, joined or not
    #[arg(long, value_name = "NAME")]
    pub(crate) user: Option<String>,
    /// At most so many posts; the last 20 unless told, with --since all that came
    #[arg(short = 'n', value_name = "N",
          value_parser = clap::value_parser!(u32).range(0..=i64::from(limits::TIMELINE_POSTS_MAX)))]
    pub(crate) count: Option<u32>,
    /// Only what came after this cursor (of a post in --json)
    #[arg(long, value_name = "CURSOR")]
    pub(crate) since: Option<String>,
    /// Go on with what arrives, until interrupted
    #[arg(long)]
    pub(crate) follow: bool,
}

/// What `bench` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Workload {
    /// Each client posts.
    Post,
    /// Each client reads its timeline.
    Timeline,
    /// 5 % new users, 15 % joins and leaves, 30 % posts, 50 % timelines.
    #[value(alias = "mix")]
    Retwis,
}

/// `bench`.
#[derive(Debug, Args)]
pub(crate) struct BenchArgs {
    /// What the clients do
    pub(crate) workload: Workload,
    /// People at once, each with one request under way
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub(crate) clients: u32,
    /// How long, in seconds
    #[arg(long, value_name = "S", default_value = "10", value_parser = seconds)]
    pub(crate) seconds: Duration,
    /// How many copies a write waits for
    #[arg(long, value_name = "LEVEL", default_value = "peer", value_parser = ack_level())]
    pub(crate) ack: AckLevel,
}

/// `drill`.
#[derive(Debug, Args)]
pub(crate) struct DrillArgs {
    /// What is done to the cluster
    pub(crate) fault: Fault,
    /// How often [default: 10]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub(crate) times: Option<u32>,
    /// People at once, each with one post under way
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub(crate) clients: u32,
    /// With kill and stop: this process, whatever its duty
    #[arg(long, value_name = "ID")]
    pub(crate) process: Option<ProcessId>,
    /// With chaos: how long [default: 60]
    #[arg(long, value_name = "S", value_parser = seconds)]
    pub(crate) seconds: Option<Duration>,
    /// With chaos: the same faults in the same order again (what they meet, the machine decides)
    #[arg(long, value_name = "N")]
    pub(crate) seed: Option<u64>,
}

impl DrillArgs {
    /// How often.
    pub(crate) fn times(&self) -> u32 {
        self.times.unwrap_or(10)
    }

    /// How long chaos lasts.
    pub(crate) fn seconds(&self) -> Duration {
        self.seconds.unwrap_or(Duration::from_secs(60))
    }
}

/// `backup`.
#[derive(Debug, Args)]
pub(crate) struct BackupArgs {
    /// What to do
    #[command(subcommand)]
    pub(crate) action: BackupAction,
}

/// What `backup` does.
#[derive(Debug, Subcommand)]
pub(crate) enum BackupAction {
    /// Write all that a host holds at this moment to a new file; its processes may run
    #[command(after_help = "Example:\n  gaggle backup create lenss3.backup --host lenss3")]
    Create {
        /// The file; it must not be there yet
        file: PathBuf,
        /// The host; may be left out where only one has its data here
        #[arg(long, value_name = "NAME")]
        host: Option<HostId>,
    },
    /// Read a backup as a whole, and say whether it is sound and what it holds
    #[command(after_help = "Example:\n  gaggle backup verify lenss3.backup")]
    Verify {
        /// The file
        file: PathBuf,
    },
    /// Make a host's store of a backup; the host must be down, and have no store
    #[command(after_help = "Example:\n  gaggle backup restore lenss3.backup --host lenss3")]
    Restore {
        /// The file
        file: PathBuf,
        /// The host that it is a backup of
        #[arg(long, value_name = "NAME")]
        host: HostId,
    },
}

/// `config`.
#[derive(Debug, Args)]
pub(crate) struct ConfigArgs {
    /// What to do with it
    #[command(subcommand)]
    pub(crate) action: ConfigAction,
}

/// What `config` does.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigAction {
    /// Say whether a topology file is right, and what it means
    #[command(after_help = "Example:\n  gaggle config check topology/lenss.toml")]
    Check {
        /// The file
        file: PathBuf,
    },
}

fn seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| "must be a number of seconds".to_owned())?;
    if !(seconds > 0.0 && seconds <= 86_400.0) {
        return Err("must be more than 0 and at most 86400 seconds".into());
    }
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}

fn ack_level() -> impl TypedValueParser<Value = AckLevel> {
    PossibleValuesParser::new(["host", "peer", "all"]).map(|text| match text.as_str() {
        "host" => AckLevel::Host,
        "all" => AckLevel::All,
        _ => AckLevel::Peer,
    })
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(std::iter::once("gaggle").chain(line.split(' ')))
    }

    #[test]
    fn the_definition_is_sound_and_every_verb_has_an_example() {
        let mut command = Cli::command();
        command.build();
        command.clone().debug_assert();
        for verb in command.get_subcommands().filter(|verb| verb.get_name() != "help") {
            let help = verb.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(help.contains("Example"), "{} has no example", verb.get_name());
        }
    }

    #[test]
    fn verbs_and_aliases_are_understood() {
        assert!(matches!(parse("follow bob").unwrap().verb, Some(Verb::Join(target)) if target.name == "bob"));
        assert!(matches!(parse("unfollow bob --id x").unwrap().verb, Some(Verb::Leave(target)) if target.id.is_some()));
        assert!(
            matches!(parse("post - --ack all").unwrap().verb, Some(Verb::Post(post)) if post.ack == Some(AckLevel::All))
        );
        assert!(matches!(parse("post").unwrap().verb, Some(Verb::Post(post)) if post.text == "-"));
        assert!(
            matches!(parse("bench mix").unwrap().verb, Some(Verb::Bench(bench)) if bench.workload == Workload::Retwis)
        );
        assert!(
            matches!(parse("timeline -n 100000").unwrap().verb, Some(Verb::Timeline(args)) if args.count == Some(100_000))
        );
        let cli = parse("status --timeout 0.5 --via lenss3 --json").unwrap();
        assert_eq!(cli.global.timeout, Duration::from_millis(500));
        assert!(cli.global.json && cli.global.via.is_some());
    }

    #[test]
    fn flags_win_over_the_environment() {
        let environment = |name: &str| (name == "GAGGLE_AS").then(|| OsString::from("bob"));
        let filled = |line: &str, variable: &dyn Fn(&str) -> Option<OsString>| {
            let mut global = parse(line).unwrap().global;
            global.fill_in(variable).map(|()| global.profile.map(|name| name.to_string()))
        };
        assert_eq!(filled("list", &environment), Ok(Some("bob".into())));
        assert_eq!(filled("list --as ann", &environment), Ok(Some("ann".into())));
        assert_eq!(filled("list", &|_| Some(OsString::new())), Ok(None));
        assert_eq!(filled("list", &|_| Some("a b".into())).unwrap_err().kind.exit_status(), 2);
    }

    #[test]
    fn values_that_are_not_allowed_are_refused() {
        for line in [
            "timeline -n 100001",
            "post x --ack some",
            "login a.b",
            "node seventeen-letters",
            "list --timeout 0",
            "fly",
        ] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        assert!(parse("join bob --id a/1").is_ok());
        assert!(Cli::try_parse_from(["gaggle", "join", "bob", "--id", "a b"]).is_err());
    }
}
