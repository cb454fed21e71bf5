//! Control groups on the machine's own kernel: limits, devices, freezing, killing, removal, memory that runs out.
//! Needs root; says so and passes otherwise. Everything is made below `shoal-test-PID` and removed, also when a test fails.

mod groups;

use groups::{Group, Shell, gone, group, is_v1, layout, resources, unified};
use shoal_protocol::oci::Resources;
use shoal_runtime::cgroup::{Below, ebpf};
use std::io::{BufRead, Read};
use std::os::fd::AsRawFd;
use std::path::PathBuf;

#[test]
fn a_process_puts_itself_into_every_group_by_what_admit_gives() {
    let Some(group) = group("admit") else { return };
    group.create(r#"{"pids":{"limit":7}}"#);
    let mut shell = Shell::new();
    let own = group.driver.admit(&group.path, shell.pid());
    let own = own.expect("admitted");
    assert_eq!(own.is_empty(), !is_v1(), "only v1 needs them");
    for entrance in &own {
        // The shell writes itself, through what this process has opened.
        let (pid, number) = (std::process::id(), entrance.as_raw_fd());
        assert_eq!(
            shell.ask(&format!("echo 0 >/proc/{pid}/fd/{number}; echo $?")),
            "0"
        );
    }
    let mut found = 0;
    for dir in group.driver.directories(&group.path) {
        let Ok(inside) = std::fs::read_to_string(dir.join("cgroup.procs")) else {
            continue;
        };
        assert_eq!(inside.trim(), shell.pid().to_string(), "{}", dir.display());
        found += 1;
    }
    assert_eq!(found, own.len().max(1));
}

#[test]
fn limits_are_what_the_kernel_then_says() {
    let Some(group) = group("limits") else { return };
    group.create(
        r#"{"memory":{"limit":33554432,"reservation":25165824,"swap":50331648,"swappiness":10},
            "cpu":{"shares":100,"quota":500000,"period":1000000,"burst":1000,"cpus":"0","mems":"0"},"pids":{"limit":20}}"#,
    );
    let mut shell = group.shell();
    assert_eq!(shell.ask("echo here"), "here");
    if is_v1() {
        for (file, want) in [
            ("memory.limit_in_bytes", "33554432"),
            ("memory.memsw.limit_in_bytes", "50331648"),
            ("memory.soft_limit_in_bytes", "25165824"),
            ("memory.swappiness", "10"),
            ("cpu.shares", "100"),
            ("cpu.cfs_quota_us", "500000"),
            ("cpu.cfs_period_us", "1000000"),
            ("cpu.cfs_burst_us", "1000"),
            ("cpuset.cpus", "0"),
            ("cpuset.mems", "0"),
            ("pids.max", "20"),
        ] {
            assert_eq!(group.read(file), want, "{file}");
        }
        // Raised and lowered together, in whichever order the kernel takes.
        for (limit, swap) in [(60, 80), (30, 50), (90, 90), (10, 20)] {
            let json = format!(
                r#"{{"memory":{{"limit":{},"swap":{}}}}}"#,
                limit << 20,
                swap << 20
            );
            group
                .driver
                .update(&group.path, &resources(&json))
                .expect(&json);
            assert_eq!(
                group.read("memory.limit_in_bytes"),
                (limit << 20).to_string()
            );
            assert_eq!(
                group.read("memory.memsw.limit_in_bytes"),
                (swap << 20).to_string()
            );
        }
        let unlimited = resources(
            r#"{"memory":{"limit":-1},"pids":{"limit":-1},"cpu":{"quota":-1,"burst":0}}"#,
        );
        group
            .driver
            .update(&group.path, &unlimited)
            .expect("no limits");
        assert_eq!(group.read("memory.limit_in_bytes"), "9223372036854771712");
        assert_eq!(
            group.read("memory.memsw.limit_in_bytes"),
            "9223372036854771712"
        );
        assert_eq!(group.read("pids.max"), "max");
        assert_eq!(group.read("cpu.cfs_quota_us"), "-1");
        // A period that is too long for the quota of before comes with one that fits.
        for (period, quota) in [(100_000, 20_000), (20_000, 5_000), (1_000_000, 900_000)] {
            let json = format!(r#"{{"cpu":{{"period":{period},"quota":{quota}}}}}"#);
            group
                .driver
                .update(&group.path, &resources(&json))
                .expect(&json);
            assert_eq!(group.read("cpu.cfs_period_us"), period.to_string());
            assert_eq!(group.read("cpu.cfs_quota_us"), quota.to_string());
        }
    }
}

#[test]
fn update_gives_a_group_in_a_hierarchy_that_the_container_was_not_in() {
    if !is_v1() {
        return;
    }
    let Some(group) = group("later") else { return };
    group.create("{}");
    let mut shell = group.shell();
    assert!(
        !group
            .driver
            .directories(&group.path)
            .iter()
            .any(|dir| dir.join("cpuset.cpus").exists()),
        "no cpuset before one is asked for"
    );
    group
        .driver
        .update(&group.path, &resources(r#"{"cpu":{"cpus":"1"}}"#))
        .expect("updated");
    assert_eq!(group.read("cpuset.cpus"), "1");
    assert_eq!(group.read("cpuset.mems"), "0");
    assert_eq!(
        shell.ask("grep Cpus_allowed_list /proc/self/status"),
        "Cpus_allowed_list:\t1"
    );
}

#[test]
fn values_that_the_kernel_refuses_name_their_field_and_leave_nothing() {
    let Some(group) = group("refused") else {
        return;
    };
    for (json, field) in [
        (r#"{"cpu":{"cpus":"9999"}}"#, "cpu.cpus"),
        (r#"{"cpu":{"period":1}}"#, "cpu."),
        (r#"{"unified":{"memory.min":"7","nope.x":"1"}}"#, "unified"),
    ] {
        let refused = group
            .driver
            .create(&group.path, &resources(json))
            .expect_err(json);
        assert!(
            refused
                .to_string()
                .contains(&format!("linux.resources.{field}")),
            "{json}: {refused}"
        );
        assert!(gone(&group), "{json} left a group");
    }
    // Kept where the machine has the controller, and else refused by name.
    let marked = group
        .driver
        .create(&group.path, &resources(r#"{"network":{"classID":7}}"#));
    let has_it =
        layout().is_some_and(|layout| layout.hierarchies.iter().any(|one| one.has("net_cls")));
    match marked {
        Ok(()) => assert_eq!(group.read("net_cls.classid"), "7"),
        Err(refused) => assert!(
            !has_it && refused.to_string().contains("network.classID"),
            "{refused}"
        ),
    }
}

#[test]
fn a_group_with_processes_or_frozen_is_not_taken() {
    let Some(group) = group("taken") else { return };
    group.create("{}");
    let mut shell = group.shell();
    let refused = group
        .driver
        .create(&group.path, &Resources::default())
        .expect_err("taken");
    assert!(
        refused
            .to_string()
            .contains("container's cgroup is not empty"),
        "{refused}"
    );
    assert_eq!(shell.ask("echo alive"), "alive");
    drop(shell);
    group.driver.freeze(&group.path).expect("frozen");
    let refused = group
        .driver
        .create(&group.path, &Resources::default())
        .expect_err("frozen");
    assert!(
        refused
            .to_string()
            .contains("container's cgroup unexpectedly frozen"),
        "{refused}"
    );
    group.driver.thaw(&group.path).expect("thawed");
    group
        .driver
        .create(&group.path, &Resources::default())
        .expect("a leftover is replaced");
}

fn freeze_and_kill(group: &Group) {
    group.create("{}");
    let mut shell = group.shell();
    // Children in the group, and one in a group made inside.
    assert_eq!(
        shell.ask("sleep 1000 & sleep 1000 & echo started"),
        "started"
    );
    for dir in group.driver.directories(&group.path) {
        if dir.join("cgroup.procs").exists() && dir.join("cgroup.freeze").exists() {
            std::fs::create_dir_all(dir.join("inside/deep")).expect("a group inside");
        }
    }
    assert_eq!(group.driver.pids(&group.path).len(), 3);
    assert!(!group.driver.is_frozen(&group.path));
    group.driver.freeze(&group.path).expect("frozen");
    assert!(group.driver.is_frozen(&group.path));
    // Told while frozen, answered only once it runs again.
    shell.tell("echo thawed");
    group.driver.thaw(&group.path).expect("thawed");
    assert!(!group.driver.is_frozen(&group.path));
    let mut answer = String::new();
    shell.out.read_line(&mut answer).expect("an answer");
    assert_eq!(answer, "thawed\n");
    // Another signal than SIGKILL reaches everything, and leaves a paused container paused.
    assert_eq!(shell.ask("trap 'echo heard' USR1; echo ready"), "ready");
    group.driver.freeze(&group.path).expect("frozen");
    group
        .driver
        .kill_all(&group.path, libc::SIGUSR1)
        .expect("signalled");
    assert!(group.driver.is_frozen(&group.path));
    group.driver.thaw(&group.path).expect("thawed");
    // USR1 ends the sleeps; the shell waits for a line before it runs the trap.
    assert_eq!(shell.ask("wait"), "heard");
    shell.tell("sleep 1000 &");
    assert_eq!(shell.ask("echo again"), "again");
    // A frozen group dies too.
    group.driver.freeze(&group.path).expect("frozen");
    group
        .driver
        .kill_all(&group.path, libc::SIGKILL)
        .expect("killed");
    let mut rest = String::new();
    shell.out.read_to_string(&mut rest).expect("the end");
    assert_eq!(rest, "");
    drop(shell);
    group.driver.remove(&group.path).expect("removed");
    assert!(gone(group));
    group
        .driver
        .remove(&group.path)
        .expect("removed twice is fine");
}

#[test]
fn freeze_thaw_and_kill_reach_every_process() {
    let Some(group) = group("freeze") else { return };
    freeze_and_kill(&group);
}

#[test]
fn freeze_thaw_and_kill_reach_every_process_on_v2() {
    let Some(group) = unified("freeze2", false) else {
        return;
    };
    freeze_and_kill(&group);
}

#[test]
fn kill_reaches_what_forks_faster_than_it_is_signalled() {
    let Some(group) = group("forks") else { return };
    group.create(r#"{"pids":{"limit":60}}"#);
    let mut shell = group.shell();
    shell.tell("f() { while true; do (sleep 0.001) & done; }; f & f & f & echo forking");
    let mut answer = String::new();
    shell.out.read_line(&mut answer).expect("an answer");
    group
        .driver
        .kill_all(&group.path, libc::SIGKILL)
        .expect("killed");
    drop(shell);
    group.driver.remove(&group.path).expect("removed");
    assert!(gone(&group));
}

#[test]
fn remove_takes_groups_made_inside_with_processes_in_them() {
    let Some(group) = group("nested") else { return };
    group.create("{}");
    let shell = group.shell();
    let inside: Vec<PathBuf> = group
        .driver
        .directories(&group.path)
        .into_iter()
        .filter(|dir| dir.exists())
        .map(|dir| dir.join("foo/bar"))
        .collect();
    for dir in &inside {
        std::fs::create_dir_all(dir).expect("inside");
        // A v1 cpuset would need its lists first; it is not among those of a container without one.
        std::fs::write(dir.join("cgroup.procs"), shell.pid().to_string()).expect("moved");
    }
    assert_eq!(group.driver.pids(&group.path), [shell.pid()]);
    group.driver.remove(&group.path).expect("removed");
    assert!(gone(&group));
}

#[test]
fn attach_below_enters_a_group_inside_and_says_which_is_missing() {
    let Some(group) = group("below") else { return };
    group.create("{}");
    let shell = Shell::new();
    let missing = Below::parse("nonexistent").expect("read");
    let refused = group
        .driver
        .attach_below(&group.path, &[missing], shell.pid())
        .expect_err("missing");
    assert!(
        refused.to_string().contains("adding pid ")
            && refused.to_string().contains("o such file or directory"),
        "{refused}"
    );
    // Asked for by name, every hierarchy has a group of the container by now, with the processes that are in it.
    let all = group.driver.directories(&group.path);
    for dir in &all {
        std::fs::create_dir(dir.join("sub")).expect("inside");
        if let Some(list) = Some(dir.join("cpuset.cpus")).filter(|list| list.exists()) {
            for name in ["cpuset.cpus", "cpuset.mems"] {
                let own = std::fs::read_to_string(list.with_file_name(name)).expect("own");
                std::fs::write(dir.join("sub").join(name), own).expect("given");
            }
        }
    }
    let enter = |below: &str| {
        let below = Below::parse(below).expect("read");
        group
            .driver
            .attach_below(&group.path, &[below], shell.pid())
            .expect("attached");
        let own = std::fs::read_to_string(format!("/proc/{}/cgroup", shell.pid()));
        own.expect("its groups")
    };
    let in_all = |own: &str, path: &str| {
        let inside = own.lines().filter(|line| line.ends_with(path)).count();
        assert_eq!(inside, all.len(), "{own}");
    };
    in_all(&enter("sub"), &format!("{}/sub", group.path));
    in_all(&enter("/"), &group.path);
    // From then on whoever comes in comes into all of them.
    let later = group.shell();
    let own = std::fs::read_to_string(format!("/proc/{}/cgroup", later.pid())).expect("groups");
    in_all(&own, &group.path);
}

#[test]
fn stats_count_what_was_used() {
    let Some(group) = group("stats") else { return };
    group.create(r#"{"pids":{"limit":9}}"#);
    let mut shell = group.shell();
    assert_eq!(
        shell.ask("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo $i"),
        "20000"
    );
    let stats = group.driver.stats(&group.path);
    assert!(stats.cpu.usage.total > 0, "{:?}", stats.cpu);
    assert!(
        stats.cpu.usage.user + stats.cpu.usage.kernel > 0,
        "{:?}",
        stats.cpu
    );
    if is_v1() {
        assert_eq!((stats.pids.current, stats.pids.limit), (1, 9));
        assert!(stats.memory.usage.usage > 0 && stats.memory.usage.limit > 0);
        assert!(stats.memory.raw.contains_key("total_inactive_file"));
        assert_eq!(
            stats.cpu.usage.percpu.len(),
            stats.cpu.usage.percpu_user.len()
        );
        assert!(stats.cpu.usage.percpu.iter().sum::<u64>() > 0);
    }
}

#[test]
fn memory_that_runs_out_is_told_and_counted() {
    let Some(group) = group("oom") else { return };
    if group.driver.oom_watch("/").is_none() {
        eprintln!("SKIPPED: this kernel cannot tell when memory runs out");
        return;
    }
    group.create(r#"{"memory":{"limit":8388608,"swap":8388608}}"#);
    let watch = group.driver.oom_watch(&group.path).expect("a watch");
    assert_eq!(group.driver.oom_kills(&group.path), 0);
    let mut shell = group.shell();
    shell.tell("x=a; while true; do x=$x$x; done");
    let mut fds = [libc::pollfd {
        fd: watch.event.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }];
    // SAFETY: pointer and length are of the same array.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), 1, 30_000) };
    assert_eq!(ready, 1, "told within 30 s");
    shell.child.wait().expect("killed");
    assert!(group.driver.oom_kills(&group.path) >= 1);
}

#[test]
fn devices_of_v1_are_denied_by_default_and_can_be_given_and_taken() {
    if !is_v1() {
        return;
    }
    let Some(group) = group("devices") else {
        return;
    };
    group.create(r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":false,"type":"c","major":1,"minor":11,"access":"rwa"}]}"#);
    let mut shell = group.shell();
    let kmsg = "head -c1 /dev/kmsg >/dev/null && echo yes || echo no";
    assert_eq!(shell.ask("echo x >/dev/null && echo yes || echo no"), "yes");
    assert_eq!(shell.ask(kmsg), "no");
    let allow = r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":11,"access":"rw"}]}"#;
    group
        .driver
        .update(&group.path, &resources(allow))
        .expect("given");
    assert!(group.read("devices.list").contains("c 1:11 rw"));
    assert_eq!(shell.ask(kmsg), "yes");
    group
        .driver
        .update(
            &group.path,
            &resources(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#),
        )
        .expect("taken");
    assert_eq!(shell.ask(kmsg), "no");
    group
        .driver
        .update(
            &group.path,
            &resources(r#"{"devices":[{"allow":true,"access":"rwm"}]}"#),
        )
        .expect("everything");
    assert_eq!(group.read("devices.list"), "a *:* rwm");
    assert_eq!(shell.ask(kmsg), "yes");
}

#[test]
fn updates_of_the_same_devices_never_deny_in_between() {
    if !is_v1() {
        return;
    }
    let Some(group) = group("steady") else { return };
    let rules = resources(r#"{"devices":[{"allow":false,"access":"rwm"}]}"#);
    group.driver.create(&group.path, &rules).expect("created");
    let mut shell = group.shell();
    shell.tell("n=0; while [ $n -lt 3000 ]; do echo x 2>/dev/null >/dev/null || echo denied; n=$((n+1)); done; echo done");
    for _ in 0..200 {
        group.driver.update(&group.path, &rules).expect("updated");
    }
    let mut answer = String::new();
    shell.out.read_line(&mut answer).expect("an answer");
    assert_eq!(answer, "done\n");
}

#[test]
fn devices_of_v2_are_denied_by_a_program_that_the_kernel_runs() {
    if layout().is_none() {
        return;
    }
    if !ebpf::available() {
        eprintln!("SKIPPED: this process may not load BPF programs");
        return;
    }
    let Some(group) = unified("bpf", true) else {
        return;
    };
    let deny = r#"{"devices":[{"allow":false,"access":"rwm"}]}"#;
    group.create(deny);
    let mut shell = group.shell();
    let kmsg = "head -c1 /dev/kmsg >/dev/null && echo yes || echo no";
    assert_eq!(shell.ask("echo x >/dev/null && echo yes || echo no"), "yes");
    assert_eq!(shell.ask(kmsg), "no");
    // Reading is given, writing is not; and one rule for each right gives both.
    let given = |access: &str| {
        format!(
            r#"{{"devices":[{{"allow":false,"access":"rwm"}},{}]}}"#,
            access
                .chars()
                .map(|right| format!(
                    r#"{{"allow":true,"type":"c","major":1,"minor":11,"access":"{right}"}}"#
                ))
                .collect::<Vec<_>>()
                .join(",")
        )
    };
    let both = "(exec 3<>/dev/kmsg) && echo yes || echo no";
    group
        .driver
        .update(&group.path, &resources(&given("r")))
        .expect("reading");
    assert_eq!(
        (shell.ask(kmsg), shell.ask(both)),
        ("yes".into(), "no".into())
    );
    group
        .driver
        .update(&group.path, &resources(&given("rw")))
        .expect("both");
    assert_eq!(shell.ask(both), "yes");
    group
        .driver
        .update(&group.path, &resources(deny))
        .expect("taken");
    assert_eq!(shell.ask(kmsg), "no");
    // Nodes may be made, as every container may, and still not be opened.
    let node = format!("/tmp/shoal-test-node-{}", std::process::id());
    let made = shell.ask(&format!(
        "mknod {node} c 1 11 && head -c1 {node} >/dev/null && echo opened || ls {node}"
    ));
    std::fs::remove_file(&node).expect("the node was made");
    assert_eq!(made, node);
}

#[test]
fn hugetlb_limits_are_kept_by_whichever_mount_has_the_controller() {
    let Some(group) = group("huge") else { return };
    let sizes: Vec<_> = std::fs::read_dir("/sys/kernel/mm/hugepages")
        .map(|entries| entries.flatten().collect())
        .unwrap_or_default();
    let json = r#"{"hugepageLimits":[{"pageSize":"2MB","limit":2097152}]}"#;
    match group.driver.create(&group.path, &resources(json)) {
        Ok(()) => {
            let name = if is_v1()
                && layout()
                    .is_some_and(|layout| layout.hierarchies.iter().any(|one| one.has("hugetlb")))
            {
                "hugetlb.2MB.limit_in_bytes"
            } else {
                "hugetlb.2MB.max"
            };
            assert_eq!(group.read(name), "2097152");
        }
        Err(failure) => {
            assert!(failure.to_string().contains("hugepageLimits"), "{failure}");
            eprintln!(
                "SKIPPED: {} page sizes, no controller: {failure}",
                sizes.len()
            );
        }
    }
}
