//! A process inside another program: the same driver and tasks, on a socket and a store that the program has made, and
//! by the clock of its tokio runtime, which may be a paused one. `tests/turmoil` runs clusters so.
//!
//! It is alone on its host, since deaths of siblings are the kernel's to tell: it has no run file, no signals and no
//! supervisor. What the store does takes no time of the clock.

use std::sync::Arc;

use super::clock::Clock;
use super::driver::{Ending, Supervision};
use super::joined::{Joined, Parts, join};
use super::process::{NodeOptions, RunError, Site, node_config, start_error};
use super::writer::Writing;
use crate::net::{CertBook, CloseCode, NodeEndpoint};
use crate::store::Store;

/// What the program gives to a process.
pub struct Ground {
    /// Where it listens, with its key.
    pub endpoint: NodeEndpoint,
    /// Its host's store. It outlives the process.
    pub store: Arc<dyn Store>,
    /// The keys of all.
    pub book: CertBook,
}

/// Runs a process that is alone on its host, until it cannot go on, or is dropped, which is a crash.
pub async fn run_embedded(options: &NodeOptions, ground: Ground) -> Result<(), RunError> {
    let site = Site::of(options)?;
    let parts = Parts {
        config: node_config(options)?,
        endpoint: ground.endpoint.clone(),
        store: ground.store,
        book: ground.book,
        clock: Clock::start(),
        writing: Writing::InTask,
        supervision: Supervision::Alone,
    };
    let joined = join(parts, &site.host, &site.data, std::iter::empty()).map_err(start_error)?;
    // Ends its tasks with it, however it ends.
    let _end = joined.cancel.clone().drop_guard();
    let Joined { driver, first, .. } = joined;
    let ending = driver.run(first).await;
    ground.endpoint.close(CloseCode::Goodbye, "");
    match ending {
        Ending::Clean | Ending::Aborted => Ok(()),
        Ending::Failed(reason) => Err(RunError::Failed(reason)),
    }
}
