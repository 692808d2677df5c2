//! The writer thread: the only one in this process that writes to the store.
//!
//! Waiting for the store's write lock has no limit, so it happens here and never on the driver. Everything that waits
//! under one epoch is folded into one commit, so that all share one sync. Orders are performed in the order in which
//! they came: what was asked before `TakeEpoch` is answered before it.

use std::sync::Arc;

use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use super::clock::Clock;
use super::event::Event;
use crate::core::io::{Input, StoreTrouble};
use crate::id::Epoch;
use crate::limits;
use crate::service::ledger::{Write, WriteId, WriterMark};
use crate::store::{Store, StoreError};

/// What the thread is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum WriteOrder {
    /// `Output::TakeEpoch`.
    TakeEpoch,
    /// `Output::Persist`.
    Persist(WriteId, Epoch, Write),
}

/// Orders that may wait: the core's own bounds on people's writes and on every other host's runs, and room for the rest.
/// One more would be refused as if the disk were full.
pub(super) const ORDERS_WAITING_MAX: usize =
    limits::WRITES_WAITING_MAX + limits::RUNS_WAITING_MAX * (limits::HOSTS_MAX - 1) + 1_024;

/// Where the writer runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writing {
    /// In a thread of its own, for a store that makes one wait.
    InThread,
    /// In a task, for one that does not: under a simulated clock no thread may stand beside it.
    InTask,
}

/// Starts the writer; it ends when the orders' sender or the events' receiver is gone.
pub(super) fn start(
    store: Arc<dyn Store>,
    mark: WriterMark,
    clock: Clock,
    events: mpsc::Sender<Event>,
    writing: Writing,
    tasks: &TaskTracker,
) -> std::io::Result<mpsc::Sender<WriteOrder>> {
    let (sender, orders) = mpsc::channel(ORDERS_WAITING_MAX);
    let writer = Writer { store, mark, clock, orders, held_back: None };
    match writing {
        Writing::InThread => {
            // Not waited for at the end: it may wait for a lock that nobody gives back.
            std::thread::Builder::new().name("writer".into()).spawn(move || writer.run(&events))?;
        }
        Writing::InTask => drop(tasks.spawn(writer.run_in_task(events))),
    }
    Ok(sender)
}

struct Writer {
    store: Arc<dyn Store>,
    mark: WriterMark,
    clock: Clock,
    orders: mpsc::Receiver<WriteOrder>,
    /// Taken from the queue, but not of the same kind or epoch as the batch before it.
    held_back: Option<WriteOrder>,
}

impl Writer {
    fn run(mut self, events: &mpsc::Sender<Event>) {
        while let Some(order) = self.held_back.take().or_else(|| self.orders.blocking_recv()) {
            if events.blocking_send(self.perform(order)).is_err() {
                return;
            }
        }
    }

    async fn run_in_task(mut self, events: mpsc::Sender<Event>) {
        loop {
            let order = match self.held_back.take() {
                Some(order) => Some(order),
                None => self.orders.recv().await,
            };
            let Some(order) = order else { return };
            if events.send(self.perform(order)).await.is_err() {
                return;
            }
        }
    }

    fn perform(&mut self, order: WriteOrder) -> Event {
        Event::Input(match order {
            WriteOrder::TakeEpoch => Input::EpochTaken(self.store.take_epoch(&self.mark).map_err(trouble)),
            WriteOrder::Persist(id, epoch, write) => self.commit(epoch, (id, write)),
        })
    }

    /// Commits this write and all that wait behind it under the same epoch.
    fn commit(&mut self, epoch: Epoch, first: (WriteId, Write)) -> Input {
        let mut batch = vec![first];
        while batch.len() < limits::COMMIT_WRITES_MAX {
            match self.orders.try_recv() {
                Ok(WriteOrder::Persist(id, same, write)) if same == epoch => batch.push((id, write)),
                Ok(other @ (WriteOrder::Persist(..) | WriteOrder::TakeEpoch)) => {
                    self.held_back = Some(other);
                    break;
                }
                Err(_) => break,
            }
        }
        let writes = batch.iter().map(|(id, _)| *id).collect();
        let result = self.store.commit(epoch, self.clock.now().wall, batch).map_err(trouble);
        Input::Persisted { writes, result }
    }
}

/// The store's error in the core's words.
pub(super) fn trouble(error: StoreError) -> StoreTrouble {
    match error {
        StoreError::Fenced(fenced) => StoreTrouble::Fenced(fenced),
        StoreError::Full(reason) => {
            tracing::warn!(reason, "nothing was stored");
            StoreTrouble::Full
        }
        StoreError::Failed(reason) => StoreTrouble::Failed(reason),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Condvar, Mutex};
    use std::time::Duration;

    use super::*;
    use crate::core::testing::standing;
    use crate::id::Vector;
    use crate::service::ledger::{Committed, Fenced, Standing, Wrote};
    use crate::service::rows::Rows;
    use crate::time::Wall;

    /// Remembers what it was asked, and lets nobody through before `open`.
    #[derive(Debug, Default)]
    struct Gate {
        open: Mutex<bool>,
        opened: Condvar,
        batches: Mutex<Vec<(Epoch, usize)>>,
    }

    impl Gate {
        fn wait(&self) {
            let mut open = self.open.lock().unwrap();
            while !*open {
                open = self.opened.wait(open).unwrap();
            }
        }

        fn open(&self) {
            *self.open.lock().unwrap() = true;
            self.opened.notify_all();
        }
    }

    impl Store for Gate {
        fn take_epoch(&self, _writer: &WriterMark) -> Result<Standing, StoreError> {
            self.wait();
            Ok(standing(2, None))
        }

        fn commit(&self, epoch: Epoch, _: Wall, writes: Vec<(WriteId, Write)>) -> Result<Committed, StoreError> {
            self.wait();
            self.batches.lock().unwrap().push((epoch, writes.len()));
            if epoch == Epoch(9) {
                return Err(Fenced { newest: Epoch(10) }.into());
            }
            let outcomes = writes.into_iter().map(|(id, _)| (id, Wrote::Done)).collect();
            Ok(Committed { outcomes, standing: standing(epoch.0, None), proved: std::collections::BTreeMap::new() })
        }

        fn read(&self, _reader: &mut dyn FnMut(&dyn Rows)) -> Result<(), StoreError> {
            Ok(())
        }

        fn sibling_died(&self) {}
    }

    #[tokio::test]
    async fn what_waits_under_one_epoch_is_one_commit_and_answers_keep_the_order() {
        let gate = Arc::new(Gate::default());
        let (events, mut inbox) = mpsc::channel(8);
        let mark = WriterMark { process: "W5".parse().unwrap(), pid: 1 };
        let (writing, tasks) = (Writing::InThread, TaskTracker::new());
        let orders = start(Arc::<Gate>::clone(&gate), mark, Clock::start(), events, writing, &tasks).unwrap();
        let persist = |id, epoch| WriteOrder::Persist(WriteId(id), Epoch(epoch), Write::Cut(Vector::new()));
        // The first order holds the thread at the gate while the others queue up behind it.
        for order in [WriteOrder::TakeEpoch, persist(1, 2), persist(2, 2), persist(3, 9), persist(4, 2)] {
            orders.try_send(order).unwrap();
        }
        gate.open();
        let mut answers = Vec::new();
        while answers.len() < 4 {
            let event = tokio::time::timeout(Duration::from_secs(5), inbox.recv()).await.unwrap().unwrap();
            if let Event::Input(Input::Persisted { writes, result }) = event {
                answers.push((writes, result.is_ok()));
            } else if let Event::Input(Input::EpochTaken(taken)) = event {
                answers.push((vec![], taken.is_ok()));
            } else {
                panic!("{event:?}");
            }
        }
        let expected =
            [(vec![], true), (vec![WriteId(1), WriteId(2)], true), (vec![WriteId(3)], false), (vec![WriteId(4)], true)];
        assert_eq!(answers, expected);
        assert_eq!(*gate.batches.lock().unwrap(), [(Epoch(2), 2), (Epoch(9), 1), (Epoch(2), 1)]);
        drop(orders);
        // The thread ends, and with it the last sender of events.
        let end = tokio::time::timeout(Duration::from_secs(5), inbox.recv()).await.unwrap();
        assert!(end.is_none(), "{end:?}");
    }
}
