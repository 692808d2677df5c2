//! `backup`: of one host, on its own machine.

use std::path::PathBuf;

use serde_json::{Map, Value, json};
use tokio_util::sync::CancellationToken;

use crate::cli::args::BackupAction;
use crate::cli::context::{Context, Loaded};
use crate::cli::failure::{Failure, Kind};
use crate::cli::harmless::harmless;
use crate::cli::interrupted;
use crate::cli::output::{rfc3339, seconds_text};
use crate::cli::status::bytes_text;
use crate::cli::up::unknown_host;
use crate::id::HostId;
use crate::runtime::{
    BackupError, BackupHead, BackupPlace, BackupSummary, Blame, create_backup, hosts_here, restore_backup,
    verify_backup,
};

impl From<BackupError> for Failure {
    fn from(error: BackupError) -> Self {
        let kind = match error.blame {
            Blame::Request => Kind::Usage,
            Blame::Machine => Kind::Failed,
            Blame::Interrupted => Kind::Interrupted,
        };
        Self::new(kind, error.message).hint(error.hint)
    }
}

/// Runs the verb; it ends soon after an interruption, and leaves nothing behind.
pub(crate) async fn run(context: &Context, action: BackupAction) -> Result<u8, Failure> {
    let stop = interrupted();
    let work = match action {
        BackupAction::Create { file, host } => Work::Create(place_here(context.topology()?, host)?, file),
        BackupAction::Verify { file } => Work::Verify(file),
        BackupAction::Restore { file, host } => Work::Restore(place_of(context.topology()?, host)?, file),
    };
    let cancel = CancellationToken::new();
    let (ours, theirs) = (work.clone(), cancel.clone());
    let mut working = tokio::task::spawn_blocking(move || ours.perform(&theirs));
    let joined = tokio::select! {
        joined = &mut working => joined,
        () = stop => {
            cancel.cancel();
            working.await
        }
    };
    let summary = joined.map_err(|error| Failure::failed(format!("the work broke off: {error}")))??;
    context.out.say(&work.to_json(&summary), &work.to_text(&summary))?;
    Ok(0)
}

/// What is to be done with which file.
#[derive(Debug, Clone)]
enum Work {
    Create(BackupPlace, PathBuf),
    Verify(PathBuf),
    Restore(BackupPlace, PathBuf),
}

fn place_of(loaded: Loaded, host: HostId) -> Result<BackupPlace, Failure> {
    if loaded.topology.host(host).is_none() {
        return Err(unknown_host(&loaded.topology, host));
    }
    let base = loaded.base();
    Ok(BackupPlace { topology: loaded.topology, base, host })
}

/// The host that is named, or the only one whose store is here.
fn place_here(loaded: Loaded, named: Option<HostId>) -> Result<BackupPlace, Failure> {
    if let Some(host) = named {
        return place_of(loaded, host);
    }
    let here = hosts_here(&loaded.topology, &loaded.base());
    match here.as_slice() {
        [host] => place_of(loaded, *host),
        [] => {
            let data = loaded.base().join(&loaded.topology.data);
            Err(Failure::usage(format!("no host of {} has its store in {}", loaded.topology.cluster, data.display()))
                .hint("run this where a host's data is, or name the topology file: --topology FILE"))
        }
        [_, ..] => {
            let names = here.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
            let hint = format!("say which: --host {}", here[0]);
            Err(Failure::usage(format!("several hosts have their stores here: {names}")).hint(hint))
        }
    }
}

impl Work {
    fn perform(&self, cancel: &CancellationToken) -> Result<BackupSummary, BackupError> {
        match self {
            Self::Create(place, file) => create_backup(place, file, cancel),
            Self::Verify(file) => verify_backup(file, cancel),
            Self::Restore(place, file) => restore_backup(place, file, cancel),
        }
    }

    fn to_json(&self, summary: &BackupSummary) -> Value {
        let BackupSummary { head, rows, bytes } = summary;
        let vector: Map<String, Value> =
            head.vector.iter().map(|(origin, seq)| (origin.to_string(), json!(seq.0))).collect();
        let (done, file) = match self {
            Self::Create(_, file) => ("created", file),
            Self::Verify(file) => ("verified", file),
            Self::Restore(_, file) => ("restored", file),
        };
        json!({"v": 1, "backup": done, "file": file.display().to_string(), "cluster": head.cluster,
               "host": head.host.to_string(), "made": rfc3339(head.made), "entries": head.entries, "vector": vector,
               "digest": head.digest.to_string(), "rows": rows, "bytes": bytes})
    }

    fn to_text(&self, summary: &BackupSummary) -> String {
        let BackupSummary { head, rows, bytes } = summary;
        let made = seconds_text(head.made);
        let (bytes, digest) = (bytes_text(*bytes), head.digest.to_string());
        let BackupHead { host, entries, cluster, .. } = head;
        // What the file says is another's word until the topology has the same.
        let cluster = harmless(cluster);
        let what =
            format!("{host} of {cluster} at {made}: {entries} entries, {rows} rows, {bytes}, digest {digest:.12}");
        match self {
            Self::Create(_, file) => format!("{}: holds {what}", harmless(&file.to_string_lossy())),
            Self::Verify(file) => format!("{}: sound, holds {what}", harmless(&file.to_string_lossy())),
            Self::Restore(..) => {
                format!("restored {what}\nstart {host} now: it fetches from the others what came later")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::topology::Topology;

    #[test]
    fn a_host_is_left_out_only_where_one_is_here() {
        let folder = tempfile::tempdir().unwrap();
        let mut text = "cluster = \"c\"\n".to_owned();
        for (host, port) in [("a", 7001), ("b", 7002)] {
            text += &format!(
                "[[host]]\nname = \"{host}\"\n[[host.process]]\nid = \"{host}1\"\nrole = \"worker\"\naddr = \"127.0.0.1:{port}\"\n"
            );
        }
        let topology = Topology::parse(&text, "t.toml").unwrap();
        let data = folder.path().join(&topology.data);
        let loaded = || Loaded { path: folder.path().join("t.toml"), topology: topology.clone() };
        let here = |named: Option<&str>| {
            let place = place_here(loaded(), named.map(|host| host.parse().unwrap()));
            place.map(|place| place.host.to_string()).map_err(|failure| (failure.kind, failure.message))
        };
        let is_usage = |outcome: Result<String, (Kind, String)>, words: &str| {
            let (kind, message) = outcome.unwrap_err();
            assert!(kind == Kind::Usage && message.contains(words), "{message}");
        };
        is_usage(here(None), "no host of c");
        is_usage(here(Some("z")), "no host z");
        for host in ["a", "b"] {
            std::fs::create_dir_all(data.join(host).join("store")).unwrap();
            for file in ["data.mdb", "lock.mdb"] {
                std::fs::write(data.join(host).join("store").join(file), "").unwrap();
            }
            if host == "a" {
                assert_eq!(here(None), Ok("a".into()));
            }
        }
        is_usage(here(None), "several hosts have their stores here: a, b");
        assert_eq!(here(Some("b")), Ok("b".into()));
    }
}
