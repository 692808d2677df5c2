//! Clusters of real processes, people on them, and a history that is checked against what every host shows.

pub(crate) mod cli;
pub(crate) mod cluster;
pub(crate) mod history;
pub(crate) mod keeper;
pub(crate) mod load;
pub(crate) mod person;
pub(crate) mod ports;
pub(crate) mod status;

use std::time::Duration;

pub(crate) use cli::Chat;
pub(crate) use cluster::{Cluster, HOSTS, Ups};
pub(crate) use history::History;
pub(crate) use load::Load;
pub(crate) use person::{Person, Watcher};
pub(crate) use status::Status;

/// How long any condition is waited for. Only a test that fails waits so long, so that it may be far above what a loaded
/// machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The pause between two looks at a condition.
pub(crate) const LOOK: Duration = Duration::from_millis(50);
