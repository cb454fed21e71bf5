//! Bounded queues with threads of their own, so that a slow kind of call holds up no other kind.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// What a thread of a lane does.
pub type Job = Box<dyn FnOnce() + Send>;

/// A queue of at most `waiting_max` jobs and at most `threads_max` threads, started when they are needed.
pub struct Lane {
    shared: Arc<Shared>,
    name: &'static str,
    threads_max: usize,
    waiting_max: usize,
}

struct Shared {
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    threads: usize,
    idle: usize,
}

impl Lane {
    /// A lane without threads yet.
    pub fn new(name: &'static str, threads_max: usize, waiting_max: usize) -> Self {
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            work: Condvar::new(),
        });
        Self {
            shared,
            name,
            threads_max,
            waiting_max,
        }
    }

    /// Queues a job; false when the lane is full (or no thread can be had), and the job will not run.
    pub fn push(&self, job: Job) -> bool {
        self.push_made(job, |job| job).is_none()
    }

    /// Queues the job that `make` makes of `of`, which is given back when the lane is full or no thread can be had.
    pub fn push_made<T>(&self, of: T, make: impl FnOnce(T) -> Job) -> Option<T> {
        let mut state = self
            .shared
            .state
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if state.jobs.len() >= self.waiting_max {
            return Some(of);
        }
        if state.idle <= state.jobs.len() && state.threads < self.threads_max {
            let shared = Arc::clone(&self.shared);
            match std::thread::Builder::new()
                .name(self.name.into())
                .spawn(move || shared.run())
            {
                Ok(_) => state.threads += 1,
                Err(_) if state.threads == 0 => return Some(of),
                // The threads there are will come to it.
                Err(_) => {}
            }
        }
        state.jobs.push_back(make(of));
        drop(state);
        self.shared.work.notify_one();
        None
    }
}

impl Shared {
    fn run(&self) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                job();
                state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            } else {
                state.idle += 1;
                state = self
                    .work
                    .wait(state)
                    .unwrap_or_else(PoisonError::into_inner);
                state.idle -= 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn push_refuses_beyond_the_limit_and_keeps_order_with_one_thread() {
        let lane = Lane::new("test", 1, 2);
        let (release, gate) = channel::<()>();
        let (said, heard) = channel::<u32>();
        let (entered, inside) = channel::<()>();
        assert!(lane.push(Box::new(move || {
            entered.send(()).expect("test listens");
            gate.recv().expect("test releases");
        })));
        inside.recv().expect("first job runs");
        for number in [1, 2] {
            let said = said.clone();
            assert!(lane.push(Box::new(move || said.send(number).expect("test listens"))));
        }
        assert!(!lane.push(Box::new(|| {})));
        release.send(()).expect("job waits");
        assert_eq!([heard.recv(), heard.recv()], [Ok(1), Ok(2)]);
    }
}
