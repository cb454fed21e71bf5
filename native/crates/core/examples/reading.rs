//! What it costs to read and check one `run` call, in each process that does: `cargo run --release -p shoal-core --example reading`.
//!
//! Prints microseconds, the median of many rounds: once with everything in the caches, and once after other memory has gone through
//! them, which is what a start meets on a machine that does anything else.

use serde_json::{Value, json};
use shoal_protocol::calls::{Create, Head};
use shoal_protocol::oci::Spec;
use shoal_protocol::packed;
use shoal_runtime::caps::Masks;
use shoal_runtime::own::Own;
use shoal_runtime::plan::{Input, Plan, RootSource};
use shoal_runtime::sandbox;
use shoal_runtime::sys::region;
use shoal_runtime::usual::Usual;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

/// As the core's.
#[global_allocator]
static ALLOCATOR: region::Allocator = region::Allocator;

const ROUNDS: usize = 2000;
const COLD_ROUNDS: usize = 500;
/// More than the second level cache of a core holds, in bytes.
const FLUSH_BYTES: usize = 8 * 1024 * 1024;
const LINE_BYTES: usize = 64;

/// Told the name of each step when it is done.
type Lap<'a> = &'a mut dyn FnMut(&'static str);

fn main() {
    // A thread that is not the first, as in the core: the C library gives it another arena.
    let done = std::thread::spawn(|| {
        let call = call();
        println!(
            "one call of {} bytes; us, median: in the caches, out of them",
            call.len()
        );
        report("core, a call like no other", &|lap| core(&call, lap));
        let usual = Usual::default();
        let first = plan(
            &mut serde_json::from_slice(&call).expect("a create call"),
            None,
        );
        let (template, _) = sandbox::split(first.spec).expect("one for the pool");
        usual.note(&call, &Arc::new(template), first.caps);
        report("core", &|lap| usually(&usual, &call, lap));
        let create: Create = serde_json::from_slice(&call).expect("a create call");
        let (template, own) = own_part(create);
        println!("own part: {} bytes", own.len());
        report("monitor of the pool", &|lap| {
            sandboxed(&own, &template, lap)
        });
        report("init of the pool", &|lap| sandboxed(&own, &template, lap));
        report("monitor of a cold start", &|lap| cold(&call, lap));
    });
    done.join().expect("a bench that ends");
}

/// Runs a process's part again and again, which says `lap` after each of its steps.
fn report(who: &str, part: &dyn Fn(Lap<'_>)) {
    let mut other = vec![0u8; FLUSH_BYTES];
    let mut steps: Vec<(&'static str, Vec<f64>, Vec<f64>)> = Vec::new();
    for round in 0..ROUNDS + COLD_ROUNDS {
        let is_cold = round >= ROUNDS;
        if is_cold {
            for line in other.iter_mut().step_by(LINE_BYTES) {
                *line = line.wrapping_add(1);
            }
            black_box(&other);
        }
        let mut at = 0;
        let mut last = Instant::now();
        part(&mut |step| {
            let us = last.elapsed().as_secs_f64() * 1e6;
            if at == steps.len() {
                steps.push((step, Vec::new(), Vec::new()));
            }
            let (_, hot, cold) = &mut steps[at];
            if is_cold {
                cold.push(us)
            } else {
                hot.push(us)
            }
            at += 1;
            last = Instant::now();
        });
    }
    let (mut hot, mut cold) = (0.0, 0.0);
    for (step, of_hot, of_cold) in &mut steps {
        let (of_hot, of_cold) = (median(of_hot), median(of_cold));
        (hot, cold) = (hot + of_hot, cold + of_cold);
        println!("  {step:<34} {of_hot:>7.1} {of_cold:>7.1}");
    }
    println!("{who:<36} {hot:>7.1} {cold:>7.1}");
}

fn median(of: &mut [f64]) -> f64 {
    of.sort_by(f64::total_cmp);
    of[of.len() / 2]
}

/// The same of a call whose kind is known.
fn usually(usual: &Usual, call: &[u8], lap: Lap<'_>) {
    let head: Head = serde_json::from_slice(call).expect("a head");
    lap("Head");
    let read = usual.read(call, |create| Ok(plan(create, None)));
    lap("what is not known read and planned");
    let read = read.expect("a known kind");
    let told = packed::pack(&Own::new(&read.create, read.own, read.caps));
    lap("own part written");
    black_box((head, told));
}

/// What the core does between the request and the words to monitor and init.
fn core(call: &[u8], lap: Lap<'_>) {
    let head: Head = serde_json::from_slice(call).expect("a head");
    lap("Head");
    let mut create: Create = serde_json::from_slice(call).expect("a create call");
    lap("Create");
    let plan = plan(&mut create, None);
    lap("plan");
    let (template, own) = sandbox::split(plan.spec).expect("one for the pool");
    lap("split");
    let same = black_box(&template) == black_box(&template.clone());
    lap("template compared (and cloned)");
    let told = packed::pack(&Own::new(&create, own, plan.caps));
    lap("own part written");
    black_box((head, told, same));
}

fn own_part(mut create: Create) -> (Spec, Vec<u8>) {
    let plan = plan(&mut create, None);
    let (template, own) = sandbox::split(plan.spec).expect("one for the pool");
    let own = packed::pack(&Own::new(&create, own, plan.caps));
    (template, own)
}

/// What monitor and init of a sandbox do with that.
fn sandboxed(own: &[u8], template: &Spec, lap: Lap<'_>) {
    let own = Own::read(own).expect("an own part");
    lap("own part read");
    let mut create = Create {
        container_id: own.inner.container_id,
        spec: sandbox::complete(own.inner.spec, template),
        rootfs: own.inner.rootfs,
        log: own.log,
        stdin: own.stdin,
        console_size: None,
        seccomp: own.seccomp,
        health: own.health,
    };
    let plan = plan(&mut create, own.inner.caps);
    lap("plan");
    black_box(plan);
}

/// What the monitor of a cold start does with the journal.
fn cold(journal: &[u8], lap: Lap<'_>) {
    let mut create: Create = serde_json::from_slice(journal).expect("a create call");
    lap("journal read");
    let plan = plan(&mut create, None);
    lap("plan");
    black_box(plan);
}

fn plan(create: &mut Create, caps: Option<Masks>) -> Plan {
    let spec = std::mem::take(&mut create.spec);
    let mut plan = Plan::new(Input {
        container_id: create.container_id.clone(),
        cgroup: spec.linux.cgroups_path.clone(),
        spec,
        root: RootSource::Overlay(create.rootfs.clone()),
    })
    .expect("a good configuration");
    if let Some(caps) = caps {
        plan.caps = caps;
    }
    plan
}

/// What shoald sends for a service without options.
fn call() -> Vec<u8> {
    let caps = shoal_seccomp::default::DOCKERS_CAPABILITIES;
    let safe = ["nosuid", "noexec", "nodev"];
    let mount = |at: &str, kind: &str, source: &str, options: &[&str]| json!({"destination": at, "type": kind, "source": source, "options": options});
    let namespaces: Vec<Value> = ["mount", "network", "uts", "pid", "ipc", "cgroup"]
        .map(|kind| json!({"type": kind, "path": null}))
        .to_vec();
    let call = json!({
        "call": "run",
        "containerId": "bench-1",
        "spec": {
            "ociVersion": "1.2.0",
            "process": {
                "terminal": false,
                "user": {"uid": 0, "gid": 0, "additionalGids": []},
                "args": ["/bin/true"],
                "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root"],
                "cwd": "/",
                "capabilities": {"bounding": caps, "effective": caps, "permitted": caps, "inheritable": [], "ambient": []},
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
                "namespaces": namespaces,
                "resources": {"memory": {"limit": 268_435_456, "reservation": null, "swap": 536_870_912}, "cpu": null, "pids": {"limit": 100}},
                "cgroupsPath": "/bench/bench-1",
                "maskedPaths": ["/proc/asound", "/proc/acpi", "/proc/interrupts", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi", "/sys/firmware", "/sys/devices/virtual/powercap"],
                "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
                "sysctl": {}
            }
        },
        "rootfs": {"layers": ["/var/lib/bench/rootfs"], "directory": "/var/lib/bench/containers/bench-1"},
        "log": {"path": "/var/lib/bench/containers/bench-1.log", "maxSizeBytes": null, "maxFiles": 1},
        "id": 7
    });
    call.to_string().into_bytes()
}
