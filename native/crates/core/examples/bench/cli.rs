//! The OCI command line beside crun and runc, every round through all of them, so that drift hits all alike.

use crate::report::{Report, Samples, print_head, print_row};
use crate::timing::{self, Took};
use crate::{Options, bundles};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Between two starts of the isolated runs.
const APART: Duration = Duration::from_millis(100);
/// Rounds before the timed ones.
const WARM_ROUNDS: usize = 2;
const BUNDLES: [&str; 2] = ["base", "dockerlike"];

struct Engine {
    name: &'static str,
    command: String,
    root: PathBuf,
    /// Why it is left out from now on.
    broken: Option<String>,
}

/// Both modes, then the bars.
pub fn run(options: &Options, report: &mut Report) -> Result<(), String> {
    bundles::make(&options.dir)?;
    let roots = options.dir.join("roots");
    private_view(&roots)?;
    let mut engines: Vec<Engine> = ["shoal-core", "crun", "runc"]
        .iter()
        .map(|name| Engine {
            name,
            command: if *name == "shoal-core" {
                options.core.display().to_string()
            } else {
                (*name).to_owned()
            },
            root: roots.join(name),
            broken: None,
        })
        .collect();
    for mode in ["hot", "100 ms apart"] {
        let mut table = Table::default();
        let mut work = Work {
            dir: &options.dir,
            apart: mode != "hot",
            number: 0,
        };
        for engine in &mut engines {
            for bundle in ["sleep", "dockerlike-sleep"] {
                work.attempt(engine, |work, engine| work.background(engine, bundle));
            }
        }
        for round in 0..options.rounds + WARM_ROUNDS {
            for step in 0..engines.len() {
                // Each is first, second and last equally often.
                let at = (step + round) % engines.len();
                let samples = work.round(&mut engines[at]);
                if round >= WARM_ROUNDS {
                    table.add(engines[at].name, samples);
                }
            }
        }
        for engine in &engines {
            for bundle in ["sleep", "dockerlike-sleep"] {
                // One that did not come up has nothing to delete.
                drop(engine.run(&["delete", "-f", &format!("bench-{bundle}")]));
            }
        }
        table.print(mode);
        table.judge(mode, report);
    }
    for engine in &engines {
        if let Some(why) = &engine.broken {
            println!("left out: {}: {why}", engine.name);
        }
    }
    // SAFETY: the path is a C string; the tmpfs is this namespace's own.
    unsafe { libc::umount2(c_path(&roots).as_ptr(), libc::MNT_DETACH) };
    Ok(())
}

impl Engine {
    fn run(&self, words: &[&str]) -> Result<Took, String> {
        let root = self.root.display().to_string();
        let mut all = vec![self.command.as_str(), "--root", &root];
        all.extend(words);
        timing::command(&all)
    }
}

struct Work<'a> {
    dir: &'a Path,
    apart: bool,
    number: usize,
}

impl Work<'_> {
    /// One that fails once is left out: a peer that cannot run here must not end the measurements of the others.
    fn attempt<T>(
        &mut self,
        engine: &mut Engine,
        act: impl FnOnce(&mut Self, &Engine) -> Result<T, String>,
    ) -> Option<T> {
        if engine.broken.is_some() {
            return None;
        }
        match act(self, engine) {
            Ok(value) => Some(value),
            Err(why) => {
                engine.broken = Some(why);
                None
            }
        }
    }

    fn round(&mut self, engine: &mut Engine) -> Vec<(String, Took)> {
        let mut samples = Vec::new();
        for bundle in BUNDLES {
            let took = self.looped(engine, |work, engine| work.once(engine, bundle));
            samples.extend(took.map(|took| (format!("run {bundle}"), took)));
        }
        for bundle in BUNDLES {
            let took = self.looped(engine, |work, engine| work.three_steps(engine, bundle));
            samples.extend(took.map(|took| (format!("create+start+delete {bundle}"), took)));
        }
        for (bundle, name) in [("sleep", "base"), ("dockerlike-sleep", "dockerlike")] {
            let took = self.looped(engine, |work, engine| {
                work.pause();
                engine.run(&["exec", &format!("bench-{bundle}"), "/bin/true"])
            });
            samples.extend(took.map(|took| (format!("exec {name}"), took)));
        }
        samples
    }

    /// One sample. In a hot loop it follows one of the same that is not counted: the first to enter a v1 group after a while waits some
    /// 10 ms for the kernel, whichever engine's turn it is.
    fn looped(
        &mut self,
        engine: &mut Engine,
        act: impl Fn(&mut Self, &Engine) -> Result<Took, String>,
    ) -> Option<Took> {
        if !self.apart {
            self.attempt(engine, &act)?;
        }
        self.attempt(engine, &act)
    }

    fn pause(&mut self) {
        if self.apart {
            std::thread::sleep(APART);
        }
    }

    fn id(&mut self) -> String {
        self.number += 1;
        format!("bench-{}-{}", std::process::id(), self.number)
    }

    fn bundle(&self, name: &str) -> String {
        self.dir.join(name).display().to_string()
    }

    fn once(&mut self, engine: &Engine, bundle: &str) -> Result<Took, String> {
        let id = self.id();
        self.pause();
        engine.run(&["run", "-b", &self.bundle(bundle), &id])
    }

    /// Three processes of the runtime; that the program has ended is waited for between start and delete, and not counted.
    fn three_steps(&mut self, engine: &Engine, bundle: &str) -> Result<Took, String> {
        let id = self.id();
        let pid_file = self.dir.join("pid").display().to_string();
        self.pause();
        let created = engine.run(&[
            "create",
            "-b",
            &self.bundle(bundle),
            "--pid-file",
            &pid_file,
            &id,
        ])?;
        let started = engine.run(&["start", &id])?;
        let pid = fs::read_to_string(&pid_file)
            .ok()
            .and_then(|text| text.trim().parse().ok());
        timing::reap(pid.ok_or_else(|| format!("{}: no pid in {pid_file}", engine.name))?);
        let deleted = engine.run(&["delete", &id])?;
        Ok(created.and(started).and(deleted))
    }

    fn background(&mut self, engine: &Engine, bundle: &str) -> Result<(), String> {
        let id = format!("bench-{bundle}");
        engine
            .run(&["run", "-d", "-b", &self.bundle(bundle), &id])
            .map(drop)
    }
}

#[derive(Default)]
struct Table {
    rows: BTreeMap<(String, &'static str), Samples>,
    order: Vec<String>,
}

impl Table {
    fn add(&mut self, engine: &'static str, samples: Vec<(String, Took)>) {
        for (what, took) in samples {
            if !self.order.contains(&what) {
                self.order.push(what.clone());
            }
            self.rows.entry((what, engine)).or_default().add(took);
        }
    }

    fn print(&self, mode: &str) {
        print_head(&format!("command line, {mode}"));
        for what in &self.order {
            for engine in ["shoal-core", "crun", "runc"] {
                if let Some(samples) = self.rows.get(&(what.clone(), engine)) {
                    print_row(&format!("{what:<24} {engine}"), samples);
                }
            }
            let ratio = |peer| {
                self.ratio(what, peer)
                    .map_or("-".to_owned(), |ratio| format!("{ratio:.2}"))
            };
            println!(
                "{what:<24} ours/crun {} ours/runc {}",
                ratio("crun"),
                ratio("runc")
            );
        }
    }

    fn ratio(&self, what: &str, peer: &'static str) -> Option<f64> {
        let of = |engine| self.rows.get(&(what.to_owned(), engine))?.median_ms();
        Some(of("shoal-core")? / of(peer)?)
    }

    fn judge(&self, mode: &str, report: &mut Report) {
        for (what, limit) in [
            ("run base", 0.7),
            ("run dockerlike", 0.35),
            ("create+start+delete base", 0.6),
            ("exec base", 0.7),
        ] {
            report.at_most(
                format!("{what}, {mode}: ours/crun"),
                self.ratio(what, "crun"),
                limit,
                "x",
            );
        }
    }
}

fn c_path(path: &Path) -> std::ffi::CString {
    std::ffi::CString::new(path.as_os_str().as_encoded_bytes()).expect("no NUL in a path of ours")
}

/// A mount namespace without the cgroup2 mount, which crun 1.8 refuses beside v1, and with the runtimes' records in memory, as /run is.
fn private_view(roots: &Path) -> Result<(), String> {
    let failed = |what: &str| format!("{what}: {}", std::io::Error::last_os_error());
    fs::create_dir_all(roots).map_err(|error| format!("{}: {error}", roots.display()))?;
    // SAFETY: no pointers but static C strings and nulls; this process has one thread here.
    unsafe {
        if libc::prctl(libc::PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) < 0 {
            return Err(failed("becoming a subreaper"));
        }
        if libc::unshare(libc::CLONE_NEWNS) < 0 {
            return Err(failed("making a mount namespace"));
        }
        let private = libc::MS_REC | libc::MS_PRIVATE;
        let (none, root) = (std::ptr::null(), c"/".as_ptr());
        if libc::mount(none, root, none, private, none.cast()) < 0 {
            return Err(failed("making it private"));
        }
    }
    let roots = c_path(roots);
    // SAFETY: all strings are NUL-terminated and live over the call.
    let mounted = unsafe {
        libc::mount(
            c"tmpfs".as_ptr(),
            roots.as_ptr(),
            c"tmpfs".as_ptr(),
            0,
            c"mode=700".as_ptr().cast(),
        )
    };
    if mounted < 0 {
        return Err(failed("mounting a tmpfs for the runtimes' records"));
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").map_err(|error| error.to_string())?;
    let v1 = mounts.lines().any(|line| line.contains(" - cgroup "));
    for line in mounts
        .lines()
        .filter(|line| v1 && line.contains(" - cgroup2 "))
    {
        let Some(at) = line.split(' ').nth(4) else {
            continue;
        };
        // SAFETY: the path is NUL-terminated.
        if unsafe { libc::umount2(c_path(Path::new(at)).as_ptr(), libc::MNT_DETACH) } < 0 {
            return Err(failed("hiding the cgroup2 mount from crun"));
        }
        println!(
            "unlike a plain machine: {at} is hidden for the command line part (crun 1.8 refuses it beside v1)"
        );
    }
    Ok(())
}
