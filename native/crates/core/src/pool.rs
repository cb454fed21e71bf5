//! Which sandboxes are kept ready, and for what: the bookkeeping of the pool, without processes.
//!
//! A sandbox is a parked init with namespaces, groups, /proc, /dev and /sys of one template: what containers here usually have in common.
//! There is one template at a time, learned from what is asked for; anything else is made cold. When containers of the template go on to
//! have one and the same image, sandboxes are parked in a root of its layers.

use shoal_protocol::calls::Rootfs;
use shoal_protocol::oci::Spec;
use shoal_runtime::sys::process;
use std::fs;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Sandboxes kept ready when `--pool` says nothing: a burst of a scheduler on a small machine.
pub const SIZE_DEFAULT: usize = 8;
/// Most that `--pool` takes; each is two small processes and a network namespace.
pub const SIZE_MAX: usize = 256;
/// So many creations of another template in a row, with none of the present one between them, change the template.
const CHANGES_AFTER: u32 = 2;
/// A template whose sandboxes fail so often in a row is tried again only once for each container that asks for it.
const FAILURES_MAX: u32 = 3;
/// So many creations in a row with the same layers, and sandboxes are made with roots of these.
const SAME_ROOT_AFTER: u32 = 3;
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
    /// Its monitor and its init.
    pub pids: [i32; 2],
    /// Its root has to be mounted `nodev`.
    pub nodev: bool,
    /// None when it gets its root at use.
    pub warm: Option<Warm>,
}

/// What the roots of containers of one image have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    pub layers: Vec<String>,
    /// The directory that the containers' own directories are in.
    pub parent: String,
}

impl Root {
    /// None for a directory that has none above it, or that is there already: it may hold anything.
    pub fn of(rootfs: &Rootfs) -> Option<Self> {
        let (parent, name) = rootfs.directory.rsplit_once('/')?;
        let plain = !parent.is_empty() && !matches!(name, "" | "." | "..");
        let free = || fs::symlink_metadata(&rootfs.directory).is_err();
        (plain && free()).then(|| Self {
            layers: rootfs.layers.clone(),
            parent: parent.to_owned(),
        })
    }

    /// Device and inode of each layer: another directory of the same name is another layer.
    pub fn identify(&self) -> io::Result<Vec<(u64, u64)>> {
        let identity = |layer: &String| fs::metadata(layer).map(|of| (of.dev(), of.ino()));
        self.layers.iter().map(identity).collect()
    }
}

/// The root that a sandbox is parked in.
#[derive(Debug)]
pub struct Warm {
    pub root: Root,
    /// `Root::identify` when it was made.
    pub identities: Vec<(u64, u64)>,
    /// The container's own directory, to be renamed.
    pub directory: String,
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
    pub template: Arc<Spec>,
    pub root: Option<Root>,
    generation: u64,
}

/// What there is to do for the pool's thread.
#[derive(Debug)]
pub enum Work {
    Make(Box<Order>),
    Discard(Vec<Sandbox>),
}

#[derive(Default)]
struct State {
    template: Option<Arc<Spec>>,
    /// Counts changes of the template, so that a sandbox of a former one is told apart.
    generation: u64,
    other: Option<(Arc<Spec>, u32)>,
    ready: Vec<Sandbox>,
    /// Parked in roots that nobody asks for any more.
    unwanted: Vec<Sandbox>,
    /// What the last creation's root was, and how many creations in a row have had it.
    root: Option<(Root, u32)>,
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

    /// Takes note of what is asked for; the root is None for one that no sandbox can have.
    fn note_root(&mut self, root: Option<&Root>) {
        self.root = match (self.root.take(), root) {
            (Some((last, seen)), Some(root)) if last == *root => {
                Some((last, seen.saturating_add(1)))
            }
            // Such a creation says nothing about the next one.
            (last, None) => last,
            (_, Some(root)) => Some((root.clone(), 1)),
        };
        if let Some(usual) = self.usual_root().cloned() {
            // Those of the image before this one only keep others from being made.
            let of_another = |sandbox: &mut Sandbox| {
                let warm = sandbox.warm.as_ref();
                warm.is_some_and(|warm| warm.root != usual)
            };
            let old: Vec<_> = self.ready.extract_if(.., of_another).collect();
            self.unwanted.extend(old);
        }
    }

    /// The root that is asked for again and again.
    fn usual_root(&self) -> Option<&Root> {
        let (root, seen) = self.root.as_ref()?;
        (*seen >= SAME_ROOT_AFTER).then_some(root)
    }

    /// A sandbox for a container with this root: one that is parked in it, or else one without a root.
    fn pick(&mut self, root: Option<&Root>) -> Option<Sandbox> {
        let parked_in = |sandbox: &Sandbox| sandbox.warm.as_ref().map(|warm| &warm.root) == root;
        let plain = |sandbox: &Sandbox| sandbox.warm.is_none();
        let warm = root.and_then(|_| self.ready.iter().rposition(parked_in));
        let at = warm.or_else(|| self.ready.iter().rposition(plain));
        if at.is_none() && !self.ready.is_empty() {
            // One is given up for one that fits every image.
            self.unwanted.push(self.ready.remove(0));
        }
        at.map(|at| self.ready.remove(at))
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

fn is_same(one: &Arc<Spec>, other: &Arc<Spec>) -> bool {
    Arc::ptr_eq(one, other) || one == other
}

/// Somebody waits for a container: as long as this lives, making sandboxes has time.
pub struct Busy<'a>(&'a Pool);

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.busy -= 1;
        if state.busy == 0 {
            state.idle_since = Some(Instant::now());
            if state.is_wanted(self.0.size) || !state.unwanted.is_empty() {
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
    pub fn take(
        &self,
        template: Arc<Spec>,
        root: Option<&Root>,
        left: &mut Vec<Sandbox>,
    ) -> Option<Sandbox> {
        let mut state = self.lock();
        if self.size == 0 || state.closed {
            return None;
        }
        if state
            .template
            .as_ref()
            .is_some_and(|known| is_same(known, &template))
        {
            // The one that the next call will have, so that they need not be compared.
            state.template = Some(template);
            state.other = None;
            state.failures = state.failures.min(FAILURES_MAX - 1);
            state.note_root(root);
            let taken = state.pick(root)?;
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
            return state.pick(root);
        }
        let seen = match state.other.take() {
            Some((other, seen)) if is_same(&other, &template) => seen + 1,
            _ => 1,
        };
        if state.template.is_some() && seen < CHANGES_AFTER {
            state.other = Some((template, seen));
            return None;
        }
        left.append(&mut state.ready);
        state.template = Some(template);
        state.root = None;
        state.note_root(root);
        state.generation += 1;
        (state.failures, state.told) = (0, false);
        None
    }

    /// Waits until a sandbox is wanted, or one is not wanted any more, and nobody has been in a hurry for a while. None when the pool is
    /// closed.
    pub fn next(&self) -> Option<Work> {
        let mut state = self.lock();
        loop {
            if state.closed {
                return None;
            }
            // Whoever ends being busy, or takes one, says so.
            let has_work = state.is_wanted(self.size) || !state.unwanted.is_empty();
            if state.busy > 0 || !has_work {
                let waited = self.changed.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
                continue;
            }
            let early = state.wait(Instant::now());
            if early.is_zero() && !state.unwanted.is_empty() {
                return Some(Work::Discard(std::mem::take(&mut state.unwanted)));
            }
            if early.is_zero()
                && let Some(template) = &state.template
            {
                return Some(Work::Make(Box::new(Order {
                    template: Arc::clone(template),
                    root: state.usual_root().cloned(),
                    generation: state.generation,
                })));
            }
            drop(state);
            // Not woken by anybody, as that would cost whoever does it more than waiting this little longer.
            std::thread::sleep(early);
            state = self.lock();
        }
    }

    /// A sandbox that was ordered is ready; given back when it is dead or not wanted any more.
    pub fn add(&self, order: &Order, sandbox: Sandbox) -> Result<(), Box<Sandbox>> {
        let mut state = self.lock();
        if state.closed || state.generation != order.generation {
            return Err(sandbox.into());
        }
        if !sandbox.is_alive() {
            // Killed since it said that it is ready; kept, it would stand for one that works until somebody takes it.
            state.failures += 1;
            return Err(sandbox.into());
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
        if order.root.is_some() {
            // It may be the image, which says nothing of the template. It is tried again after as many creations.
            state.root = None;
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
        let mut all = std::mem::take(&mut state.ready);
        all.append(&mut state.unwanted);
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use shoal_runtime::sys::socket;

    fn template(name: &str) -> Arc<Spec> {
        Arc::new(Spec {
            hostname: name.to_owned(),
            ..Spec::default()
        })
    }

    /// A sandbox and its monitor's end.
    fn pair(name: &str) -> (Sandbox, OwnedFd) {
        let (control, theirs) = socket::pair().expect("pair");
        let path = name.into();
        let sandbox = Sandbox {
            path,
            control,
            pids: [0; 2],
            nodev: false,
            warm: None,
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
        let ordered = order(&pool);
        let mut monitors = Vec::new();
        for name in ["one", "two", "three"] {
            let (sandbox, theirs) = pair(name);
            pool.add(&ordered, sandbox).expect("wanted");
            monitors.push(theirs);
        }
        monitors.truncate(1);
        assert_eq!(take(&pool, "a"), (Some("one".into()), 2));
    }

    #[test]
    fn add_gives_a_dead_one_back_and_counts_it_as_a_failure() {
        let pool = Pool::new(1);
        take(&pool, "a");
        let ordered = order(&pool);
        let dead = || pair("dead").0;
        for _ in 1..FAILURES_MAX {
            assert!(pool.add(&ordered, dead()).is_err());
        }
        assert!(pool.lock().is_wanted(1), "one more try");
        assert!(pool.add(&ordered, dead()).is_err());
        assert!(!pool.lock().is_wanted(1), "the template is given up");
    }

    fn take(pool: &Pool, name: &str) -> (Option<PathBuf>, usize) {
        take_with(pool, name, None)
    }

    fn take_with(pool: &Pool, name: &str, root: Option<&Root>) -> (Option<PathBuf>, usize) {
        let mut left = Vec::new();
        let taken = pool.take(template(name), root, &mut left);
        (taken.map(|sandbox| sandbox.path), left.len())
    }

    fn order(pool: &Pool) -> Order {
        match pool.next() {
            Some(Work::Make(order)) => *order,
            other => panic!("{other:?} is no order"),
        }
    }

    fn root(layer: &str) -> Root {
        Root {
            layers: vec![layer.to_owned()],
            parent: "/containers".to_owned(),
        }
    }

    fn warm(name: &str, order: &Order) -> Sandbox {
        let root = order.root.clone().expect("a root is asked for");
        Sandbox {
            warm: Some(Warm {
                root,
                identities: Vec::new(),
                directory: format!("/containers/{name}"),
            }),
            ..sandbox(name)
        }
    }

    #[test]
    fn roots_are_made_ahead_for_one_image_and_discarded_when_it_changes() {
        let pool = Pool::new(2);
        let (one, two) = (root("/one"), root("/two"));
        take_with(&pool, "a", Some(&one));
        assert_eq!(order(&pool).root, None, "once is not a habit");
        for _ in 1..SAME_ROOT_AFTER {
            take_with(&pool, "a", Some(&one));
        }
        let ordered = order(&pool);
        assert_eq!(ordered.root.as_ref(), Some(&one));
        pool.add(&ordered, warm("w1", &ordered)).expect("wanted");
        pool.add(&ordered, sandbox("plain")).expect("wanted");
        assert_eq!(take_with(&pool, "a", Some(&one)), (Some("w1".into()), 0));
        pool.add(&ordered, warm("w2", &ordered)).expect("wanted");
        // Another image, or a root that must be made at use, gets what has none.
        assert_eq!(take_with(&pool, "a", None), (Some("plain".into()), 0));
        assert_eq!(take_with(&pool, "a", Some(&two)), (None, 0));
        match pool.next() {
            Some(Work::Discard(sandboxes)) => assert_eq!(sandboxes[0].path, PathBuf::from("w2")),
            other => panic!("{other:?} should discard"),
        }
        assert_eq!(order(&pool).root, None);
    }

    #[test]
    fn an_image_that_no_sandbox_can_be_parked_in_costs_the_template_nothing() {
        let pool = Pool::new(1);
        for _ in 0..SAME_ROOT_AFTER {
            take_with(&pool, "a", Some(&root("/bad")));
        }
        let ordered = order(&pool);
        assert!(ordered.root.is_some() && !pool.failed(&ordered));
        assert_eq!(order(&pool).root, None);
        assert_eq!(pool.lock().failures, 0);
    }

    #[test]
    fn take_learns_the_template_and_changes_it_only_for_a_run_of_another() {
        let pool = Pool::new(2);
        assert_eq!(take(&pool, "a"), (None, 0));
        let ordered = order(&pool);
        pool.add(&ordered, sandbox("one")).expect("wanted");
        assert_eq!(take(&pool, "b"), (None, 0));
        assert_eq!(take(&pool, "a"), (Some("one".into()), 0));
        pool.add(&ordered, sandbox("two")).expect("wanted");
        // The one of `a` in between began the count anew.
        assert_eq!(take(&pool, "b"), (None, 0));
        assert_eq!(take(&pool, "b"), (None, 1));
        assert!(pool.add(&ordered, sandbox("late")).is_err(), "it is of `a`");
        assert_eq!(order(&pool).template, template("b"));
    }

    #[test]
    fn next_waits_while_somebody_is_busy_and_ends_with_the_pool() {
        let pool = Pool::new(1);
        take(&pool, "a");
        let busy = pool.busy();
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| matches!(pool.next(), Some(Work::Make(order)) if order.template == template("a")));
            drop(busy);
            assert!(waiting.join().expect("joined"));
        });
        let ordered = order(&pool);
        pool.add(&ordered, sandbox("x")).expect("wanted");
        assert_eq!(pool.close().len(), 1);
        assert!(pool.next().is_none());
        assert!(pool.add(&ordered, sandbox("y")).is_err());
    }

    #[test]
    fn failed_gives_a_template_up_and_a_pool_of_none_takes_nothing() {
        let pool = Pool::new(1);
        take(&pool, "a");
        let ordered = order(&pool);
        assert_eq!(
            [(); 3].map(|()| pool.failed(&ordered)),
            [false, false, true]
        );
        // Each that asks has it tried once more, and nobody is told again.
        take(&pool, "a");
        assert!(!pool.failed(&order(&pool)));
        take(&pool, "b");
        take(&pool, "b");
        assert_eq!(order(&pool).template, template("b"));
        let none = Pool::new(0);
        assert_eq!(take(&none, "a"), (None, 0));
        assert!(!none.is_on());
    }
}
