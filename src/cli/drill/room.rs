//! A network and mounts of the drill's own: the program runs itself again in fresh namespaces. What is done to networks
//! and disks there reaches nothing outside, and the kernel takes all of it away with the last process, however that
//! ends. So there is nothing to sweep up after a drill that was killed.
//!
//! Who is not root gets the namespaces with a user namespace, where this machine lets people have them.

use std::ffi::{OsStr, OsString};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::io::AsyncWriteExt;

use crate::cli::drill::delay;
use crate::cli::failure::Failure;

/// Set in the environment of the program inside: the network namespace that it left.
const LEFT: &str = "GAGGLE_DRILL_LEFT";
/// Where the tools are that are not in everybody's PATH.
const TOOL_FOLDERS: &str = "/usr/sbin:/sbin";
/// What is done inside before the drill begins. Shared memory that a process under faketime leaves behind when it is
/// killed goes with the mount.
const PREPARE: &str = "ip link set lo up && mount -t tmpfs none /dev/shm && exec \"$0\" \"$@\"";
/// What a network takes.
const NETWORK: &str = "nft add table bridge drill && nsenter --version";
/// Where distributions put the library that fakes the time.
const LIBRARY: &str = "faketime/libfaketimeMT.so.1";

/// What a fault needs of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Need {
    /// Hosts in network namespaces, with a switch between them that drops packets.
    Network,
    /// The same, with a switch that delays them, too.
    Delay,
    /// Disks that can be filled.
    Disk,
    /// Clocks that jump.
    Clock,
}

impl Need {
    /// Whether this machine has it; if not, what to do.
    pub(super) async fn is_met(self) -> Result<(), Failure> {
        let script = match self {
            Self::Network => NETWORK.to_owned(),
            Self::Delay => format!("{NETWORK} && {}", delay::trial()),
            Self::Disk | Self::Clock => "true".to_owned(),
        };
        let hint = match self {
            Self::Network => {
                "it needs root (or user namespaces), and `ip`, `nft`, `nsenter`: install iproute2, nftables, util-linux"
            }
            Self::Delay => {
                "it needs what partition needs, and of the kernel TAP devices (/dev/net/tun) and nft's fwd (nft_fwd_netdev)"
            }
            Self::Disk | Self::Clock => {
                "it needs root (or user namespaces), and `unshare`, `ip`: install util-linux, iproute2"
            }
        };
        let words = namespaces().into_iter().chain(["sh", "-c", PREPARE, "sh", "-c", &script]);
        run("unshare", words, "").await.map_err(|failure| failure.hint(hint))?;
        if self == Self::Clock && library().is_none() {
            return Err(Failure::failed("there is no libfaketime on this machine").hint("install the package faketime"));
        }
        Ok(())
    }
}

/// The flags of `unshare`.
fn namespaces() -> Vec<&'static str> {
    let root = rustix::process::geteuid().is_root();
    let user: &[&str] = if root { &[] } else { &["--user", "--map-root-user"] };
    user.iter().copied().chain(["--net", "--mount"]).collect()
}

/// Whether this is the program inside. The name in the environment alone proves nothing, and outside no link may be
/// touched: a fresh network has no links but the loopback.
pub(super) fn is_inside() -> bool {
    let Some(left) = std::env::var_os(LEFT) else { return false };
    network_of("self").is_some_and(|network| network != left) && links().is_some_and(|links| links == ["lo"])
}

/// The network namespace of a process.
pub(super) fn network_of(pid: &str) -> Option<OsString> {
    Some(std::fs::read_link(format!("/proc/{pid}/ns/net")).ok()?.into_os_string())
}

fn links() -> Option<Vec<String>> {
    let text = std::fs::read_to_string("/proc/self/net/dev").ok()?;
    let names = text.lines().skip(2).filter_map(|line| line.split_once(':'));
    Some(names.map(|(name, _)| name.trim().to_owned()).collect())
}

/// Runs this program again, inside, as the same process; returns only if that fails.
pub(super) fn enter() -> Failure {
    let failed = |error: std::io::Error| Failure::failed(format!("cannot enter namespaces: {error}"));
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return failed(error),
    };
    let mut command = std::process::Command::new("unshare");
    command.args(namespaces()).args(["sh", "-c", PREPARE]).arg(program).args(std::env::args_os().skip(1));
    command.env(LEFT, network_of("self").unwrap_or_default()).env("PATH", path());
    failed(command.exec())
}

fn path() -> OsString {
    let mut path = std::env::var_os("PATH").unwrap_or_default();
    path.push(":");
    path.push(TOOL_FOLDERS);
    path
}

/// The library that fakes the time.
pub(super) fn library() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").into_iter().flatten().flatten().map(|entry| entry.path());
    let mut places = folders.chain(["/usr/lib", "/usr/lib64", "/usr/local/lib"].map(PathBuf::from));
    places.find_map(|folder| Some(folder.join(LIBRARY)).filter(|file| file.is_file()))
}

/// Runs a tool with this on its standard input; what it says is the failure if it fails.
pub(super) async fn run(
    tool: &str,
    words: impl IntoIterator<Item = impl AsRef<OsStr>>,
    input: &str,
) -> Result<(), Failure> {
    let cannot = |error: std::io::Error| {
        Failure::failed(format!("cannot run {tool}: {error}")).hint("install it, or add its folder to PATH")
    };
    let mut command = tokio::process::Command::new(tool);
    command.args(words).env("PATH", path()).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    // Ctrl-C is for the drill, which then puts things right with tools such as this.
    command.process_group(0).kill_on_drop(true);
    let mut child = command.spawn().map_err(cannot)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that takes none says why itself.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(cannot)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(Failure::failed(format!("{tool}: {}", said.lines().next().unwrap_or("failed and said nothing"))))
}

/// Copies a folder with all that is in it.
pub(super) async fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    run("cp", [OsStr::new("-a"), from.as_os_str(), to.as_os_str()], "").await
}
