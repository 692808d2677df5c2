//! The small verbs of operators: `node`, `drain`, `config`, `completion`, `man`.

use std::io::Write;

use clap::CommandFactory;
use serde_json::json;

use crate::cli::args::{Cli, ConfigAction};
use crate::cli::context::{Context, Loaded};
use crate::cli::failure::{Failure, Kind};
use crate::cli::output::Out;
use crate::cli::session::{Person, Session};
use crate::client::Identity;
use crate::id::ProcessId;
use crate::runtime::{NodeOptions, RunError, run_node};
use crate::topology::Topology;

fn unknown_process(topology: &Topology, id: ProcessId) -> Failure {
    let ids = topology.processes().map(|process| process.id.to_string()).collect::<Vec<_>>().join(", ");
    Failure::usage(format!("the topology has no process {id}")).hint(format!("it has {ids}"))
}

/// `node`: blocks until the process has said goodbye.
pub(crate) fn node(context: &Context, id: ProcessId) -> Result<u8, Failure> {
    let loaded = context.topology()?;
    if loaded.topology.process(id).is_none() {
        return Err(unknown_process(&loaded.topology, id));
    }
    let base = loaded.base();
    run_node(NodeOptions { topology: loaded.topology, base, id }).map_err(|error| {
        let kind = match error {
            RunError::UnknownProcess(_) => Kind::Usage,
            RunError::Identity(_) => Kind::Identity,
            RunError::Running { .. } | RunError::Start(_) | RunError::Failed(_) => Kind::Failed,
        };
        Failure::new(kind, error.to_string())
    })?;
    Ok(0)
}

/// `drain`.
pub(crate) async fn drain(context: &Context, id: ProcessId) -> Result<u8, Failure> {
    let place = context.place()?;
    let known = match &place.loaded {
        Some(loaded) => loaded.topology.process(id).is_some(),
        None => place.entrances.iter().any(|entrance| entrance.id == id),
    };
    if !known {
        return Err(match &place.loaded {
            Some(loaded) => unknown_process(&loaded.topology, id),
            None => Failure::usage(format!("the cluster {} has no process {id}", place.cluster)),
        });
    }
    // An operator is who has a private key of the process's host: the process's own shows it.
    let Some(loaded) = &place.loaded else {
        return Err(Failure::usage("drain needs the topology file, and the private keys beside it")
            .hint("on the machine of that process: gaggle drain ID --topology FILE"));
    };
    let key = loaded.base().join(&loaded.topology.certs).join("private").join(format!("{id}.key"));
    let identity = Identity::load(&key).map_err(|error| {
        Failure::identity(error.to_string()).hint("drain a process on its own machine, as the user who runs it")
    })?;
    let session = Session::open(context, &place, Person::Stranger(identity)).await?;
    session.drain(id).await?;
    context
        .out
        .say(&json!({"v": 1, "draining": id.to_string()}), &format!("{id} hands its duties and clients over"))?;
    Ok(0)
}

/// `config`.
pub(crate) fn config(out: Out, action: &ConfigAction) -> Result<u8, Failure> {
    match action {
        ConfigAction::Check { file } => {
            let loaded = Loaded::read(file)?;
            let topology = &loaded.topology;
            let processes = topology.processes().count();
            let value = json!({"v": 1, "cluster": topology.cluster, "hosts": topology.hosts.len(),
                               "processes": processes, "ack": topology.ack.to_string(),
                               "hash": format!("{:08x}", topology.hash())});
            let text = format!(
                "{}: right: cluster {}, {} hosts, {processes} processes, ack {}, hash {:08x}",
                file.display(),
                topology.cluster,
                topology.hosts.len(),
                topology.ack,
                topology.hash()
            );
            out.say(&value, &text)?;
            Ok(0)
        }
    }
}

/// `completion`.
pub(crate) fn completion(shell: clap_complete::Shell) -> Result<u8, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "gaggle", &mut script);
    write_all(&script)
}

/// `man`.
pub(crate) fn man() -> Result<u8, Failure> {
    let mut page = Vec::new();
    let rendered = clap_mangen::Man::new(Cli::command()).render(&mut page);
    rendered.map_err(|error| Failure::failed(format!("the manual page: {error}")))?;
    write_all(&page)
}

fn write_all(bytes: &[u8]) -> Result<u8, Failure> {
    match std::io::stdout().lock().write_all(bytes) {
        Ok(()) => Ok(0),
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => {
            Err(Failure::new(Kind::OutputClosed, "standard output was closed"))
        }
        Err(error) => Err(Failure::failed(format!("standard output: {error}"))),
    }
}
