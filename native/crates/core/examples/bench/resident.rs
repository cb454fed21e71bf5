//! The resident core over its socket: from request to exec, full lives a second, memory.

use crate::report::{Report, Samples, print_head, print_row};
use crate::timing::micros;
use crate::{Options, bundles, memory};
use serde_json::{Value, json};
use shoal_protocol::{read_frame, write_frame};
use std::collections::HashMap;
use std::fs;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Between two isolated starts.
const APART: Duration = Duration::from_millis(100);
/// Lives before the timed ones: they start threads and fill the pool.
const WARM_LIVES: usize = 12;
/// Lives without a pause: as many as the pool holds, so that in a hot loop it has one for each.
const BLOCK_LIVES: usize = 8;
/// Containers at once in the measurement of rates: what keeps two processors busy without queueing for long.
const IN_FLIGHT: usize = 8;
/// How long the rates are measured, in lives.
const RATE_LIVES: usize = 600;
const IDLE_CONTAINERS: usize = 50;
/// A file system in memory, which every Linux has.
const MEMORY: &str = "/dev/shm";
const BURSTS: usize = 20;

/// How a core is started for each way of making containers.
const WAYS: [(&str, &[&str]); 2] = [("cold", &["--pool", "0"]), ("pool", &["--pool", "8"])];

/// All parts that `--only` wants.
pub fn run(options: &Options, report: &mut Report) -> Result<(), String> {
    let mut cores = WAYS
        .iter()
        .map(|(way, words)| Core::start(options, way, words))
        .collect::<Result<Vec<Core>, String>>()?;
    if options.wants("resident") {
        for apart in [false, true] {
            latencies(options, report, &mut cores, apart)?;
        }
    }
    for core in &mut cores {
        if options.wants("rate") {
            rates(report, core)?;
        }
        if options.wants("memory") {
            idle_memory(report, core)?;
        }
    }
    Ok(())
}

fn latencies(
    options: &Options,
    report: &mut Report,
    cores: &mut [Core],
    apart: bool,
) -> Result<(), String> {
    let mode = if apart { "100 ms apart" } else { "hot" };
    print_head(&format!(
        "resident core, {mode}: from the request to the answer that the program runs"
    ));
    let mut lives: Vec<[Life; 2]> = cores.iter().map(|_| Default::default()).collect();
    // In blocks, by turns: what a block leaves to be done is not paid by the other core's lives.
    let mut done = 0;
    while done < options.rounds {
        let block = BLOCK_LIVES.min(options.rounds - done);
        for (core, lives) in cores.iter_mut().zip(&mut lives) {
            if done == 0 {
                for _ in 0..WARM_LIVES {
                    core.life(How::InTwo)?;
                }
            }
            for (how, life) in [How::AtOnce, How::InTwo].into_iter().zip(lives) {
                // The pool fills, and what former lives have left is removed.
                std::thread::sleep(APART);
                for _ in 0..block {
                    if apart {
                        std::thread::sleep(APART);
                    }
                    life.add(&core.life(how)?);
                }
            }
        }
        done += block;
    }
    for (core, [at_once, in_two]) in cores.iter().zip(&lives) {
        for (part, samples) in [
            ("run (request to exec'd)", &at_once.both),
            ("create, then start", &in_two.both),
            ("  create", &in_two.create),
            ("  start", &in_two.start),
            ("exec'd to exit heard", &in_two.exit),
            ("delete", &in_two.delete),
        ] {
            print_row(&format!("{:<5} {part}", core.way), samples);
        }
        let limit = match (core.way, apart) {
            ("cold", false) => 2.2,
            ("pool", false) => 0.7,
            ("pool", true) => 3.0,
            // What an isolated start costs without a pool is only told.
            _ => continue,
        };
        report.at_most(
            format!("request to exec'd, {}, {mode}", core.way),
            at_once.both.median_ms(),
            limit,
            "ms",
        );
    }
    Ok(())
}

fn rates(report: &mut Report, core: &mut Core) -> Result<(), String> {
    let (steady, burst) = (rate(core)?, burst(core)?);
    let way = core.way;
    println!(
        "\n{way}: {steady:.0} full lives a second (create, start, exit, delete) with {IN_FLIGHT} in flight; {burst:.0} from create to exit a second in bursts of {IN_FLIGHT}"
    );
    if way == "pool" {
        report.at_least(
            format!("full starts a second, bursts of {IN_FLIGHT} from the pool"),
            Some(burst),
            450.0,
            "/s",
        );
    } else {
        report.at_least(
            format!("full starts a second, cold, {IN_FLIGHT} in flight"),
            Some(steady),
            280.0,
            "/s",
        );
    }
    Ok(())
}

/// How a container is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum How {
    /// `run`: one request.
    AtOnce,
    /// `create`, then `start`, with time for networks in between.
    InTwo,
}

/// The parts of one life, in microseconds, and of many.
#[derive(Default)]
struct Life {
    create: Samples,
    start: Samples,
    both: Samples,
    exit: Samples,
    delete: Samples,
}

struct LifeTook {
    create: f64,
    start: f64,
    exit: f64,
    delete: f64,
}

impl Life {
    fn add(&mut self, took: &LifeTook) {
        self.create.add_wall(took.create);
        self.start.add_wall(took.start);
        self.both.add_wall(took.create + took.start);
        self.exit.add_wall(took.exit);
        self.delete.add_wall(took.delete);
    }
}

/// Lives with `IN_FLIGHT` at once over one connection, in lives a second.
fn rate(core: &mut Core) -> Result<f64, String> {
    for _ in 0..WARM_LIVES {
        core.life(How::InTwo)?;
    }
    let began = Instant::now();
    let (mut begun, mut done) = (0, 0);
    let mut asked: HashMap<u64, (String, &str)> = HashMap::new();
    while done < RATE_LIVES {
        while begun < RATE_LIVES && begun - done < IN_FLIGHT {
            let id = core.next_id();
            let request = core.create(&id, &["/bin/true"]);
            asked.insert(core.client.send(request)?, (id, "create"));
            begun += 1;
        }
        let frame = core.client.receive()?;
        if frame["event"] == "exit" {
            let id = frame["containerId"].as_str().unwrap_or_default().to_owned();
            let request = json!({"call": "delete", "containerId": id, "force": false});
            asked.insert(core.client.send(request)?, (id, "delete"));
            continue;
        }
        let Some((id, call)) = frame["id"].as_u64().and_then(|id| asked.remove(&id)) else {
            continue;
        };
        if frame["ok"] != true {
            return Err(format!("{call} of {id}: {frame}"));
        }
        match call {
            "create" => {
                let request = json!({"call": "start", "containerId": id});
                asked.insert(core.client.send(request)?, (id, "start"));
            }
            "delete" => done += 1,
            _ => {}
        }
    }
    Ok(RATE_LIVES as f64 / began.elapsed().as_secs_f64())
}

/// As many lives at once as the pool holds, from create to the exit heard, with time in between for the pool to fill: a scheduler's batch.
fn burst(core: &mut Core) -> Result<f64, String> {
    let mut spent = Duration::ZERO;
    for _ in 0..BURSTS {
        std::thread::sleep(APART);
        let ids: Vec<String> = (0..IN_FLIGHT).map(|_| core.next_id()).collect();
        let requests: Vec<Value> = ids
            .iter()
            .map(|id| core.create(id, &["/bin/true"]))
            .collect();
        let began = Instant::now();
        let mut asked = HashMap::new();
        for (id, request) in ids.iter().zip(requests) {
            asked.insert(core.client.send(request)?, (id.clone(), "create"));
        }
        while !asked.is_empty() {
            let frame = core.client.receive()?;
            let Some((id, call)) = frame["id"].as_u64().and_then(|id| asked.remove(&id)) else {
                core.client.events.push(frame);
                continue;
            };
            if frame["ok"] != true {
                return Err(format!("{call} of {id}: {frame}"));
            }
            if call == "create" {
                let request = json!({"call": "start", "containerId": id});
                asked.insert(core.client.send(request)?, (id, "start"));
            }
        }
        for id in &ids {
            core.client.exit(id)?;
        }
        spent += began.elapsed();
        for id in &ids {
            core.client
                .ok(json!({"call": "delete", "containerId": id, "force": false}))?;
        }
    }
    Ok((BURSTS * IN_FLIGHT) as f64 / spent.as_secs_f64())
}

fn idle_memory(report: &mut Report, core: &mut Core) -> Result<(), String> {
    let ids: Vec<String> = (0..IDLE_CONTAINERS).map(|_| core.next_id()).collect();
    for id in &ids {
        let request = core.create(id, &["/bin/sleep", "1d"]);
        core.client.ok(request)?;
        core.client
            .ok(json!({"call": "start", "containerId": id}))?;
    }
    // Those made last are not idle yet.
    std::thread::sleep(APART);
    let monitors: Vec<i32> = ids.iter().filter_map(|id| core.monitor(id)).collect();
    let mut pss: Vec<u64> = monitors
        .iter()
        .filter_map(|pid| memory::pss_kb(*pid))
        .collect();
    pss.sort_unstable();
    let core_pid = i32::try_from(core.child.id()).unwrap_or(0);
    let rss = memory::rss_kb(core_pid);
    let mean = pss.iter().sum::<u64>() as f64 / pss.len().max(1) as f64;
    println!(
        "\n{IDLE_CONTAINERS} idle containers: monitor PSS mean {mean:.0} kB, largest {} kB ({} monitors); core RSS {} kB, PSS {} kB",
        pss.last().copied().unwrap_or(0),
        pss.len(),
        rss.unwrap_or(0),
        memory::pss_kb(core_pid).unwrap_or(0)
    );
    report.at_most(
        "monitor PSS a container, mean of 50",
        (pss.len() == IDLE_CONTAINERS).then_some(mean / 1000.0),
        0.2,
        "MB",
    );
    report.at_most(
        "core RSS with 50 containers",
        rss.map(|rss| rss as f64 / 1000.0),
        6.0,
        "MB",
    );
    for id in &ids {
        core.client
            .ok(json!({"call": "delete", "containerId": id, "force": true}))?;
    }
    Ok(())
}

/// A core of the bench's own; it goes with all that it made.
struct Core {
    way: &'static str,
    child: Child,
    dir: PathBuf,
    records: PathBuf,
    rootfs: PathBuf,
    parent: String,
    client: Client,
    number: usize,
}

impl Core {
    fn start(options: &Options, way: &'static str, words: &[&str]) -> Result<Self, String> {
        let dir = options.dir.join(way);
        fs::create_dir_all(dir.join("containers")).map_err(|error| error.to_string())?;
        let parent = format!("/shoal-bench-{}-{way}", std::process::id());
        // Where shoald has them is memory on most machines (/run); the containers' own directories are on disk.
        let records = Path::new(MEMORY).join(format!("shoal-bench-{}-{way}", std::process::id()));
        let socket = dir.join("core.sock");
        let mut child = Command::new(&options.core)
            .args(["serve", "--cgroup-parent", &parent])
            .args(words)
            .arg("--root")
            .arg(&records)
            .arg("--socket")
            .arg(&socket)
            .stdin(Stdio::null())
            .spawn()
            .map_err(|error| format!("{}: {error}", options.core.display()))?;
        let limit = Instant::now() + Duration::from_secs(20);
        let stream = loop {
            if let Ok(stream) = UnixStream::connect(&socket) {
                break stream;
            }
            if Instant::now() > limit || child.try_wait().is_ok_and(|ended| ended.is_some()) {
                return Err("the core does not listen".into());
            }
            std::thread::sleep(Duration::from_millis(5));
        };
        let mut client = Client {
            stream,
            next: 0,
            events: Vec::new(),
        };
        client.ok(json!({"call": "hello", "version": shoal_protocol::VERSION}))?;
        Ok(Self {
            way,
            child,
            dir,
            records,
            rootfs: bundles::rootfs(&options.dir),
            parent,
            client,
            number: 0,
        })
    }

    fn next_id(&mut self) -> String {
        self.number += 1;
        format!("bench{}", self.number)
    }

    fn life(&mut self, how: How) -> Result<LifeTook, String> {
        let id = self.next_id();
        let mut request = self.create(&id, &["/bin/true"]);
        let at_once = how == How::AtOnce;
        if at_once {
            request["call"] = json!("run");
        }
        let began = Instant::now();
        self.client.ok(request)?;
        let created = Instant::now();
        if !at_once {
            self.client
                .ok(json!({"call": "start", "containerId": id}))?;
        }
        let started = Instant::now();
        self.client.exit(&id)?;
        let ended = Instant::now();
        self.client
            .ok(json!({"call": "delete", "containerId": id, "force": false}))?;
        Ok(LifeTook {
            create: micros(created - began),
            start: micros(started - created),
            exit: micros(ended - started),
            delete: micros(ended.elapsed()),
        })
    }

    fn monitor(&self, id: &str) -> Option<i32> {
        let text = fs::read(self.records.join(id).join("state.json")).ok()?;
        let state: Value = serde_json::from_slice(&text).ok()?;
        i32::try_from(state["monitorPid"].as_i64()?).ok()
    }

    /// What shoald sends for a service without options: Docker's capabilities, mounts, masks and log.
    fn create(&self, id: &str, args: &[&str]) -> Value {
        let safe = ["nosuid", "noexec", "nodev"];
        let mount = |at: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": at, "type": kind, "source": source, "options": options});
        let containers = self.dir.join("containers");
        json!({
            "call": "create",
            "containerId": id,
            "spec": {
                "ociVersion": "1.2.0",
                "process": {
                    "terminal": false,
                    "user": {"uid": 0, "gid": 0, "additionalGids": []},
                    "args": args,
                    "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"],
                    "cwd": "/",
                    "capabilities": {"bounding": bundles::CAPS, "effective": bundles::CAPS, "permitted": bundles::CAPS, "inheritable": [], "ambient": []},
                    "rlimits": [],
                    "noNewPrivileges": false,
                    "oomScoreAdj": null
                },
                "root": {"path": "rootfs", "readonly": false},
                "hostname": "bench",
                "mounts": [
                    mount("/proc", "proc", "proc", &safe),
                    mount("/dev", "tmpfs", "tmpfs", &["nosuid", "strictatime", "mode=755", "size=65536k"]),
                    mount("/dev/pts", "devpts", "devpts", &["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]),
                    mount("/sys", "sysfs", "sysfs", &["nosuid", "noexec", "nodev", "ro"]),
                    mount("/sys/fs/cgroup", "cgroup", "cgroup", &["ro", "nosuid", "noexec", "nodev"]),
                    mount("/dev/mqueue", "mqueue", "mqueue", &safe),
                    mount("/dev/shm", "tmpfs", "shm", &["nosuid", "noexec", "nodev", "mode=1777", "size=67108864"])
                ],
                "annotations": {},
                "linux": {
                    "namespaces": (["mount", "network", "uts", "pid", "ipc", "cgroup"].map(|kind| json!({"type": kind, "path": null}))),
                    "resources": {"memory": {"limit": 268_435_456, "reservation": null, "swap": 536_870_912}, "cpu": null, "pids": {"limit": 100}},
                    "cgroupsPath": format!("{}/{id}", self.parent),
                    "maskedPaths": ["/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"],
                    "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
                    "sysctl": {}
                }
            },
            "rootfs": {"layers": [self.rootfs], "directory": containers.join(id)},
            "log": {"path": containers.join(format!("{id}.log")), "maxSizeBytes": null, "maxFiles": 1}
        })
    }
}

impl Drop for Core {
    fn drop(&mut self) {
        let listed = self.client.ok(json!({"call": "list"})).unwrap_or_default();
        for container in listed["containers"].as_array().cloned().unwrap_or_default() {
            // One that cannot be deleted is seen as a leftover.
            drop(self.client.ok(
                json!({"call": "delete", "containerId": container["containerId"], "force": true}),
            ));
        }
        // Its answer may be cut off by its end.
        drop(self.client.ok(json!({"call": "shutdown"})));
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.records));
        for line in fs::read_to_string("/proc/self/mountinfo")
            .unwrap_or_default()
            .lines()
        {
            let at = line.split(' ').nth(4).unwrap_or_default();
            if Path::new(at).starts_with(&self.dir) {
                let path = std::ffi::CString::new(at).expect("no NUL in mountinfo");
                // SAFETY: the path is NUL-terminated; the mount is below the bench's own directory.
                unsafe { libc::umount2(path.as_ptr(), libc::MNT_DETACH) };
            }
        }
    }
}

/// One connection; exit events are kept until they are asked for.
struct Client {
    stream: UnixStream,
    next: u64,
    events: Vec<Value>,
}

impl Client {
    fn send(&mut self, mut request: Value) -> Result<u64, String> {
        self.next += 1;
        request["id"] = json!(self.next);
        write_frame(&mut self.stream, request.to_string().as_bytes())
            .map_err(|error| error.to_string())?;
        Ok(self.next)
    }

    fn receive(&mut self) -> Result<Value, String> {
        let body = read_frame(&mut self.stream).map_err(|error| error.to_string())?;
        serde_json::from_slice(&body.ok_or("the core has gone")?).map_err(|error| error.to_string())
    }

    fn ok(&mut self, request: Value) -> Result<Value, String> {
        let call = request["call"].clone();
        let id = self.send(request)?;
        loop {
            let frame = self.receive()?;
            if frame["id"] != id {
                self.events.push(frame);
            } else if frame["ok"] == true {
                return Ok(frame["value"].clone());
            } else {
                return Err(format!("{call}: {frame}"));
            }
        }
    }

    fn exit(&mut self, id: &str) -> Result<Value, String> {
        let wanted = |frame: &Value| frame["event"] == "exit" && frame["containerId"] == id;
        if let Some(at) = self.events.iter().position(wanted) {
            return Ok(self.events.swap_remove(at));
        }
        loop {
            let frame = self.receive()?;
            if wanted(&frame) {
                return Ok(frame);
            }
            self.events.push(frame);
        }
    }
}
