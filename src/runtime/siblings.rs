//! Watches the other processes of this host: deaths by pidfd, at once; stops by a look at `/proc`; starts by run file.
//!
//! Nothing is concluded here: what the kernel shows becomes `Input::Sibling`, once for each sibling at the start and
//! then at each change. A look costs one short read for each sibling that lives, and one of a tiny file for each that
//! does not, twenty times a second; heartbeats need not be fast for that.

use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::process::Signal;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::event::Event;
use super::pids::{Living, ProcessStamp, RunFile, Shown, read_run, run_path};
use crate::core::io::Input;
use crate::id::{HostId, ProcessId};
use crate::limits;
use crate::wire::heartbeat::Life;

/// Orders that wait for the watcher.
const ORDERS_WAITING_MAX: usize = 64;

/// What the driver asks of the watcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Look now: there is reason to believe that something changed.
    Look,
    /// SIGKILL.
    Kill(ProcessId),
    /// The pidfd of this process became readable.
    Ended(ProcessId, ProcessStamp),
}

/// One process of this host, as it was last told.
#[derive(Debug)]
struct Sibling {
    id: ProcessId,
    path: PathBuf,
    living: Option<Living>,
    told: Option<(Life, u32)>,
}

/// The watcher, before and while it runs.
#[derive(Debug)]
pub(super) struct Watcher {
    siblings: Vec<Sibling>,
    orders: mpsc::Receiver<Order>,
    sender: mpsc::Sender<Order>,
}

/// Registers a pidfd with the runtime.
#[expect(deprecated, reason = "the hazard is a type whose descriptor changes: an OwnedFd keeps its own until dropped")]
fn watch(pidfd: OwnedFd) -> std::io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::with_interest(pidfd, Interest::READABLE)
}

impl Watcher {
    /// A watcher of these processes; nothing is looked at yet.
    pub(super) fn new(data: &std::path::Path, host: HostId, others: impl Iterator<Item = ProcessId>) -> Self {
        let siblings = others.map(|id| Sibling { id, path: run_path(data, host, id), living: None, told: None });
        let (sender, orders) = mpsc::channel(ORDERS_WAITING_MAX);
        Self { siblings: siblings.collect(), orders, sender }
    }

    /// Where orders go.
    pub(super) fn orders(&self) -> mpsc::Sender<Order> {
        self.sender.clone()
    }

    /// Looks at everybody, and returns what changed since the last look.
    pub(super) fn look(&mut self) -> Vec<Input> {
        self.siblings.iter_mut().filter_map(Sibling::look).collect()
    }

    /// Watches until cancelled; the first look is the caller's.
    pub(super) async fn run(mut self, tasks: TaskTracker, cancel: CancellationToken, events: mpsc::Sender<Event>) {
        let mut ticks = tokio::time::interval(limits::PROC_LOOK);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut held: Vec<Option<ProcessStamp>> = vec![None; self.siblings.len()];
        loop {
            self.wait_for_ends(&mut held, &tasks, &cancel);
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = ticks.tick() => {}
                order = self.orders.recv() => match order {
                    Some(Order::Look) | None => {}
                    Some(Order::Kill(id)) => self.kill(id),
                    Some(Order::Ended(id, stamp)) => self.ended(id, stamp),
                },
            }
            for input in self.look() {
                if events.send(Event::Input(input)).await.is_err() {
                    return;
                }
            }
        }
    }

    /// Starts one small task for each newly held process, which sleeps until the kernel tells of its end.
    fn wait_for_ends(&self, held: &mut [Option<ProcessStamp>], tasks: &TaskTracker, cancel: &CancellationToken) {
        for (sibling, held) in self.siblings.iter().zip(held) {
            let stamp = sibling.living.as_ref().map(Living::stamp);
            if *held == stamp {
                continue;
            }
            *held = stamp;
            let Some(living) = &sibling.living else { continue };
            match living.wait_fd().and_then(watch) {
                Ok(pidfd) => {
                    let (id, stamp, sender, cancel) = (sibling.id, living.stamp(), self.sender.clone(), cancel.clone());
                    tasks.spawn(async move {
                        tokio::select! {
                            () = cancel.cancelled() => {}
                            _ = pidfd.readable() => { let _ = sender.send(Order::Ended(id, stamp)).await; }
                        }
                    });
                }
                // The looks go on and find the end within PROC_LOOK.
                Err(error) => tracing::warn!(sibling = %sibling.id, %error, "cannot wait on a pidfd"),
            }
        }
    }

    fn kill(&self, id: ProcessId) {
        let living = self.siblings.iter().find(|sibling| sibling.id == id).and_then(|sibling| sibling.living.as_ref());
        let Some(living) = living else { return };
        tracing::warn!(sibling = %id, pid = living.stamp().pid, "killing a process that holds the store's lock");
        if let Err(error) = living.signal(Signal::KILL) {
            tracing::warn!(sibling = %id, %error, "kill failed");
        }
    }

    /// The pidfd told of the end; the next look says how it ended.
    fn ended(&mut self, id: ProcessId, stamp: ProcessStamp) {
        for sibling in self.siblings.iter_mut().filter(|sibling| sibling.id == id) {
            if sibling.living.as_ref().is_some_and(|living| living.stamp() == stamp) {
                sibling.living = None;
            }
        }
    }
}

impl Sibling {
    /// How it is now, if that is news.
    fn look(&mut self) -> Option<Input> {
        let (life, pid) = match self.living.as_ref().map(|living| (living.look(), living.stamp().pid)) {
            Some((Shown::Running, pid)) => (Life::Up, pid),
            Some((Shown::Stopped, pid)) => (Life::Stopped, pid),
            Some((Shown::Gone, _)) | None => self.look_at_file(),
        };
        let news = self.told != Some((life, pid));
        self.told = Some((life, pid));
        news.then_some(Input::Sibling { process: self.id, life, pid })
    }

    /// It does not live, as far as we know: what does its run file say?
    fn look_at_file(&mut self) -> (Life, u32) {
        self.living = None;
        match read_run(&self.path) {
            RunFile::Absent => (Life::Dead, 0),
            RunFile::Left => (Life::Left, 0),
            RunFile::Process(stamp) => match Living::hold(stamp) {
                Some(living) => {
                    let life = if living.look() == Shown::Stopped { Life::Stopped } else { Life::Up };
                    self.living = Some(living);
                    (life, stamp.pid)
                }
                None => (Life::Dead, 0),
            },
        }
    }
}

/// Frees what a dead sibling held, off the driver: it may wait for a lock that the dead one held.
pub(super) fn free_what_it_held(tasks: &TaskTracker, store: &Arc<dyn crate::store::Store>) {
    let store = Arc::clone(store);
    tasks.spawn_blocking(move || store.sibling_died());
}

#[cfg(test)]
mod tests {
    use std::process::{Child, Command};
    use std::time::Duration;

    use rustix::process::{Pid, kill_process};

    use super::super::pids::{run_folder, stamp_of, write_left, write_run};
    use super::*;

    fn sleeper() -> Child {
        Command::new("sleep").arg("60").spawn().unwrap()
    }

    fn signal(child: &Child, signal: Signal) {
        kill_process(Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap(), signal).unwrap();
    }

    async fn next(events: &mut mpsc::Receiver<Event>) -> Input {
        let event = tokio::time::timeout(Duration::from_secs(5), events.recv()).await.unwrap().unwrap();
        let Event::Input(input) = event else { panic!("{event:?}") };
        input
    }

    #[tokio::test]
    async fn the_kernel_tells_of_stops_deaths_starts_and_goodbyes() {
        let folder = tempfile::tempdir().unwrap();
        let (host, id): (HostId, ProcessId) = ("h".parse().unwrap(), "W5".parse().unwrap());
        std::fs::create_dir_all(run_folder(folder.path(), host)).unwrap();
        let path = run_path(folder.path(), host, id);
        let told = |life, pid| Input::Sibling { process: id, life, pid };

        let mut watcher = Watcher::new(folder.path(), host, [id].into_iter());
        assert_eq!(watcher.look(), [told(Life::Dead, 0)], "told once even when there is no file");
        assert_eq!(watcher.look(), []);
        let orders = watcher.orders();
        let (events, mut inbox) = mpsc::channel(8);
        let (tasks, cancel) = (TaskTracker::new(), CancellationToken::new());
        tasks.spawn(watcher.run(tasks.clone(), cancel.clone(), events));

        let mut child = sleeper();
        write_run(&path, stamp_of(child.id()).unwrap()).unwrap();
        assert_eq!(next(&mut inbox).await, told(Life::Up, child.id()));
        signal(&child, Signal::STOP);
        assert_eq!(next(&mut inbox).await, told(Life::Stopped, child.id()));
        signal(&child, Signal::CONT);
        assert_eq!(next(&mut inbox).await, told(Life::Up, child.id()));
        orders.send(Order::Kill(id)).await.unwrap();
        assert_eq!(next(&mut inbox).await, told(Life::Dead, 0), "before anybody reaped it");
        child.wait().unwrap();

        let mut child = sleeper();
        write_run(&path, stamp_of(child.id()).unwrap()).unwrap();
        assert_eq!(next(&mut inbox).await, told(Life::Up, child.id()));
        write_left(&path).unwrap();
        signal(&child, Signal::TERM);
        assert_eq!(next(&mut inbox).await, told(Life::Left, 0));
        child.wait().unwrap();
        cancel.cancel();
        tasks.close();
        tasks.wait().await;
    }
}
