//! Many lives one after the other: the machine and the core's processes look afterwards as they did before.

mod support;

use serde_json::json;
use std::fs;
use std::time::{Duration, Instant};
use support::{Core, possible, rounds, until};

/// What a life could leave behind, counted.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Counts {
    core_fds: usize,
    zygote_fds: usize,
    core_mounts: usize,
    children: usize,
}

fn entries(path: &str) -> usize {
    fs::read_dir(path).map_or(0, Iterator::count)
}

fn counts(core: &Core) -> Counts {
    let pid = core.child.id();
    let zygote = core.zygote().expect("a zygote");
    let mounts = fs::read_to_string(format!("/proc/{pid}/mountinfo")).expect("mountinfo");
    let ours = |line: &&str| line.contains(&core.name);
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"))
        .unwrap_or_default()
        + &fs::read_to_string(format!("/proc/{zygote}/task/{zygote}/children")).unwrap_or_default();
    Counts {
        core_fds: entries(&format!("/proc/{pid}/fd")),
        zygote_fds: entries(&format!("/proc/{zygote}/fd")),
        core_mounts: mounts.lines().filter(ours).count(),
        children: children.split_whitespace().count(),
    }
}

/// Network namespaces of the whole machine that are not quite gone: other work on it counts too.
fn network_namespaces() -> Option<u64> {
    let slabs = fs::read_to_string("/proc/slabinfo").ok()?;
    let line = slabs
        .lines()
        .find(|line| line.starts_with("net_namespace "))?;
    line.split_whitespace().nth(1)?.parse().ok()
}

/// Kibibytes of memory that a process holds alone.
fn private_kib(pid: u32) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let lines = text
        .lines()
        .filter(|line| line.starts_with("Private_Dirty:"));
    lines
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum()
}

/// One life; every second container is parked, and every third killed, so that each end is among them.
fn live(core: &Core, client: &mut support::Client, number: u64) {
    let id = format!("l{number}");
    client.ok(core.create(&id, &["sh", "-c", "echo x; sleep 100"]));
    if !number.is_multiple_of(4) {
        client.by_id("start", &id);
    }
    if number % 4 > 1 {
        client.ok(json!({"call": "kill", "containerId": id, "signal": "KILL", "all": false}));
        assert_eq!(client.exit(&id)["exitCode"], 137);
    }
    client.delete(&id);
    client.events.clear();
    fs::remove_file(core.log_path(&id)).expect("its log");
}

#[test]
fn many_lives_leave_no_mount_group_namespace_descriptor_or_process() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let lives = rounds("SHOAL_LEAK_ROUNDS", 200);
    // The first lives start threads and fill buffers that stay.
    for number in 0..60 {
        live(&core, &mut client, number);
    }
    let full = || core.parked().len() == 4;
    core.expect_clean();
    // A sandbox that is being made has descriptors of the core's.
    until("a full pool", full);
    let before = counts(&core);
    let threads = || entries(&format!("/proc/{}/task", core.child.id()));
    let threads_before = threads();
    let (namespaces_before, kib_before) = (network_namespaces(), private_kib(core.child.id()));
    let began = Instant::now();
    for number in 0..lives {
        live(&core, &mut client, number);
    }
    eprintln!("{lives} lives: {:?}", began.elapsed());
    core.expect_clean();
    until("a full pool", full);
    until("what there was before", || counts(&core) == before);
    // A lane starts one more when two calls happen to meet; none is started for a life.
    assert!(
        threads() < threads_before + 8,
        "{threads_before} threads became {}",
        threads()
    );
    // A thread more brings a stack and an arena of its own; a leak of a kibibyte a life does not pass.
    let kib = private_kib(core.child.id());
    let more = threads().saturating_sub(threads_before) as u64;
    eprintln!("{kib_before} KiB became {kib}, with {more} threads more");
    assert!(
        kib < kib_before + 180 + 300 * more,
        "{kib_before} KiB became {kib}, with {more} threads more"
    );
    if let Some(before) = namespaces_before {
        // The kernel takes them away behind our back, and other tests of this machine have theirs.
        let limit = Instant::now() + Duration::from_secs(20);
        let allowed = before + lives / 2;
        while network_namespaces().is_some_and(|now| now > allowed) {
            assert!(
                Instant::now() < limit,
                "{before} network namespaces became {:?}",
                network_namespaces()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}
