//! Which sandboxes are kept ready, and for what: the bookkeeping of the pool, without processes.
//!
//! A sandbox is a parked init with namespaces, groups, /proc, /dev and /sys of one template: what containers here usually have in common.
//! There is one template at a time, learned from what is asked for; anything else is made cold.

use shoal_protocol::oci::Spec;
use shoal_runtime::sys::process;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Sandboxes kept ready when `--pool` says nothing: a burst of a scheduler on a small machine.
pub const SIZE_DEFAULT: usize = 8;
/// Most that `--pool` takes; each is two small processes and a network namespace.
pub const SIZE_MAX: usize = 256;
/// So many creations of another template in a row, with none of the present one between them, change the template.
const CHANGES_AFTER: u32 = 2;
/// A template whose sandboxes fail so often in a row is tried again only once for each container that asks for it.
const FAILURES_MAX: u32 = 3;
/// Nobody has waited for a container for this long before sandboxes are made: longer than a batch of starts pauses between two of them.
const QUIET: Duration = Duration::from_millis(10);
/// The same when none is left: longer than from the answer of a creation to the request to start it.
const QUIET_EMPTY: Duration = Duration::from_millis(1);

/// A parked init with its monitor, which discards both when `control` closes.
#[derive(Debug)]
pub struct Sandbox {
    /// Its directory, locked by the monitor.
    pub path: PathBuf,
    pub control: OwnedFd,
    /// Its root has to be mounted `nodev`.
    pub nodev: bool,
}

impl Sandbox {
    /// Whether its monitor is there: nothing is said before it is used, so that there is something to read only at its end.
    fn is_alive(&self) -> bool {
        let mut fds = [libc::pollfd {
            fd: self.control.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        }];
        process::poll(&mut fds, 0).is_ok_and(|ready| ready == 0)
    }
}

/// One sandbox to be made.
#[derive(Debug, Clone)]
pub struct Order {
    pub template: Spec,
    generation: u64,
}

#[derive(Default)]
struct State {
    template: Option<Spec>,
    /// Counts changes of the template, so that a sandbox of a former one is told apart.
    generation: u64,
    other: Option<(Spec, u32)>,
    ready: Vec<Sandbox>,
    failures: u32,
    /// Somebody was told why there are no sandboxes.
    told: bool,
    /// Creations and starts under way: while there are any, nothing is made ready.
    busy: usize,
    /// When that came to 0.
    idle_since: Option<Instant>,
    closed: bool,
}

impl State {
    fn is_wanted(&self, size: usize) -> bool {
        self.ready.len() < size && self.failures < FAILURES_MAX && self.template.is_some()
    }

    /// How long it is still too early to make a sandbox.
    fn wait(&self, now: Instant) -> Duration {
        let quiet = if self.ready.is_empty() {
            QUIET_EMPTY
        } else {
            QUIET
        };
        match self.idle_since {
            Some(since) => quiet.saturating_sub(now.saturating_duration_since(since)),
            None => Duration::ZERO,
        }
    }
}

/// The pool of one core.
pub struct Pool {
    size: usize,
    state: Mutex<State>,
    changed: Condvar,
}

/// Somebody waits for a container: as long as this lives, making sandboxes has time.
pub struct Busy<'a>(&'a Pool);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.busy -= 1;
        if state.busy == 0 {
            state.idle_since = Some(Instant::now());
            if state.is_wanted(self.0.size) {
                self.0.changed.notify_all();
            }
        }
    }
}

impl Pool {
    /// An empty pool that wants `size` sandboxes once it knows of what template; 0 for none ever.
    pub fn new(size: usize) -> Self {
        Self {
            size,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the pool is used at all.
    pub fn is_on(&self) -> bool {
        self.size > 0
    }

    /// Says that somebody waits.
    pub fn busy(&self) -> Busy<'_> {
        self.lock().busy += 1;
        Busy(self)
    }

    /// Whether nobody has waited for a container for a while.
    pub fn is_quiet(&self) -> bool {
        let state = self.lock();
        let since = state.idle_since.map(|since| since.elapsed());
        state.busy == 0 && since.is_none_or(|since| since >= QUIET)
    }

    /// A sandbox of this template, if one is ready; what is asked for often enough becomes the template.
    /// What no longer fits is given back in `left`, to be discarded by the caller.
    pub fn take(&self, template: Spec, left: &mut Vec<Sandbox>) -> Option<Sandbox> {
        let mut state = self.lock();
        if self.size == 0 || state.closed {
            return None;
        }
        if state.template.as_ref() == Some(&template) {
            state.other = None;
            state.failures = state.failures.min(FAILURES_MAX - 1);
            let taken = state.ready.pop()?;
            if taken.is_alive() {
                return Some(taken);
            }
            // Whatever killed it may have killed others.
            let (alive, dead) = std::mem::take(&mut state.ready)
                .into_iter()
                .partition(Sandbox::is_alive);
            state.ready = alive;
            left.push(taken);
            left.extend::<Vec<Sandbox>>(dead);
            return state.ready.pop();
        }
        let seen = match state.other.take() {
            Some((other, seen)) if other == template => seen + 1,
            _ => 1,
        };
        if state.template.is_some() && seen < CHANGES_AFTER {
            state.other = Some((template, seen));
            return None;
        }
        left.append(&mut state.ready);
        state.template = Some(template);
        state.generation += 1;
        (state.failures, state.told) = (0, false);
        None
    }

    /// Waits until a sandbox is wanted and nobody has been in a hurry for a while. None when the pool is closed.
    pub fn next(&self) -> Option<Order> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            // Whoever ends being busy, or takes one, says so.
            if state.busy > 0 || !state.is_wanted(self.size) {
                let waited = self.changed.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let early = state.wait(Instant::now());
            if early.is_zero()
                && let Some(template) = &state.template
            {
                return Some(Order {
                    template: template.clone(),
                    generation: state.generation,
                });
            }
            drop(state);
            // Not woken by anybody, as that would cost whoever does it more than waiting this little longer.
            std::thread::sleep(early);
            state = self.lock();
        }
    }

    /// A sandbox that was ordered is ready; given back when it is dead or not wanted any more.
    pub fn add(&self, order: &Order, sandbox: Sandbox) -> Result<(), Sandbox> {
        let mut state = self.lock();
        if state.closed || state.generation != order.generation {
            return Err(sandbox);
        }
        if !sandbox.is_alive() {
            // Killed since it said that it is ready; kept, it would stand for one that works until somebody takes it.
            state.failures += 1;
            return Err(sandbox);
        }
        (state.failures, state.told) = (0, false);
        state.ready.push(sandbox);
        Ok(())
    }

    /// A sandbox that was ordered could not be made; true when it is time to say why.
    pub fn failed(&self, order: &Order) -> bool {
        let mut state = self.lock();
        if state.generation != order.generation {
            return false;
        }
        state.failures += 1;
        state.failures >= FAILURES_MAX && !std::mem::replace(&mut state.told, true)
    }

    /// Ends the pool and gives all that is in it.
    pub fn close(&self) -> Vec<Sandbox> {
        let mut state = self.lock();
        state.closed = true;
        self.changed.notify_all();
        std::mem::take(&mut state.ready)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_runtime::sys::socket;

    fn template(name: &str) -> Spec {
        Spec {
            hostname: name.to_owned(),
            ..Spec::default()
        }
    }

    /// A sandbox and its monitor's end.
    fn pair(name: &str) -> (Sandbox, OwnedFd) {
        let (control, theirs) = socket::pair().expect("pair");
        let path = name.into();
        let sandbox = Sandbox {
            path,
            control,
            nodev: false,
        };
        (sandbox, theirs)
    }

    fn sandbox(name: &str) -> Sandbox {
        let (sandbox, theirs) = pair(name);
        std::mem::forget(theirs);
        sandbox
    }

    #[test]
    fn take_passes_over_the_dead_and_gives_them_back() {
        let pool = Pool::new(3);
        take(&pool, "a");
        let order = pool.next().expect("order");
        let mut monitors = Vec::new();
        for name in ["one", "two", "three"] {
            let (sandbox, theirs) = pair(name);
            pool.add(&order, sandbox).expect("wanted");
            monitors.push(theirs);
        }
        monitors.truncate(1);
        assert_eq!(take(&pool, "a"), (Some("one".into()), 2));
    }

    #[test]
    fn add_gives_a_dead_one_back_and_counts_it_as_a_failure() {
        let pool = Pool::new(1);
        take(&pool, "a");
        let order = pool.next().expect("order");
        let dead = || pair("dead").0;
        for _ in 1..FAILURES_MAX {
            assert!(pool.add(&order, dead()).is_err());
        }
        assert!(pool.lock().is_wanted(1), "one more try");
        assert!(pool.add(&order, dead()).is_err());
        assert!(!pool.lock().is_wanted(1), "the template is given up");
    }

    fn take(pool: &Pool, name: &str) -> (Option<PathBuf>, usize) {
        let mut left = Vec::new();
        let taken = pool.take(template(name), &mut left);
        (taken.map(|sandbox| sandbox.path), left.len())
    }

    #[test]
    fn take_learns_the_template_and_changes_it_only_for_a_run_of_another() {
        let pool = Pool::new(2);
        assert_eq!(take(&pool, "a"), (None, 0));
        let order = pool.next().expect("a wants sandboxes");
        pool.add(&order, sandbox("one")).expect("wanted");
        assert_eq!(take(&pool, "b"), (None, 0));
        assert_eq!(take(&pool, "a"), (Some("one".into()), 0));
        pool.add(&order, sandbox("two")).expect("wanted");
        // The one of `a` in between began the count anew.
        assert_eq!(take(&pool, "b"), (None, 0));
        assert_eq!(take(&pool, "b"), (None, 1));
        assert!(pool.add(&order, sandbox("late")).is_err(), "it is of `a`");
        assert_eq!(pool.next().expect("order").template, template("b"));
    }

    #[test]
    fn next_waits_while_somebody_is_busy_and_ends_with_the_pool() {
        let pool = Pool::new(1);
        take(&pool, "a");
        let busy = pool.busy();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| pool.next().map(|order| order.template));
            drop(busy);
            assert_eq!(waiting.join().expect("joined"), Some(template("a")));
        });
        let order = pool.next().expect("order");
        pool.add(&order, sandbox("x")).expect("wanted");
        assert_eq!(pool.close().len(), 1);
        assert!(pool.next().is_none());
        assert!(pool.add(&order, sandbox("y")).is_err());
    }

    #[test]
    fn failed_gives_a_template_up_and_a_pool_of_none_takes_nothing() {
        let pool = Pool::new(1);
        take(&pool, "a");
        let order = pool.next().expect("order");
        assert_eq!([(); 3].map(|()| pool.failed(&order)), [false, false, true]);
        // Each that asks has it tried once more, and nobody is told again.
        take(&pool, "a");
        assert!(!pool.failed(&pool.next().expect("order")));
        take(&pool, "b");
        take(&pool, "b");
        assert_eq!(pool.next().expect("order").template, template("b"));
        let none = Pool::new(0);
        assert_eq!(take(&none, "a"), (None, 0));
        assert!(!none.is_on());
    }
}
