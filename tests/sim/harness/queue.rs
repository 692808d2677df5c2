//! What will happen, in the order of its time; of two at the same time, what was scheduled first comes first.
//!
//! Half of what a run does is to put events in and to take them out. So only times move in the heap; the events, which
//! are larger, stay where they are until they are due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::world::Event;

/// When an event comes: its time, and how many were scheduled before it.
pub(crate) type Due = (u64, u64);

/// The events to come.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    scheduled: u64,
    /// With the place of the event.
    order: BinaryHeap<Reverse<(Due, usize)>>,
    places: Vec<Option<Event>>,
    free: Vec<usize>,
}

impl Queue {
    pub(crate) fn push(&mut self, at: u64, event: Event) {
        self.scheduled += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(None);
            self.places.len() - 1
        });
        self.places[place] = Some(event);
        self.order.push(Reverse(((at, self.scheduled), place)));
    }

    /// Takes out what comes next, unless it comes later than this.
    pub(crate) fn pop_until(&mut self, until: u64) -> Option<(Due, Event)> {
        let Reverse(((at, _), _)) = self.order.peek()?;
        if *at > until {
            return None;
        }
        let Reverse((due, place)) = self.order.pop()?;
        self.free.push(place);
        self.places[place].take().map(|event| (due, event))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_by_time_and_then_as_they_were_scheduled() {
        let mut queue = Queue::default();
        for (proc, at) in [5, 3, 5, 4].into_iter().enumerate() {
            queue.push(at, Event::Start { proc });
        }
        let mut next = |until| match queue.pop_until(until) {
            Some(((at, _), Event::Start { proc })) => Some((at, proc)),
            _ => None,
        };
        assert_eq!([next(2), next(4), next(4), next(4)], [None, Some((3, 1)), Some((4, 3)), None]);
        assert_eq!([next(9), next(9), next(9)], [Some((5, 0)), Some((5, 2)), None]);
    }
}
