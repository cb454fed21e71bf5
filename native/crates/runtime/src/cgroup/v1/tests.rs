//! Tests of the v1 driver on recorded files.
use super::super::files::recording::Recording;
use super::*;

fn driver_of(recording: &Recording, names: &[&str]) -> V1 {
    V1 {
        hierarchies: names
            .iter()
            .map(|name| Hierarchy {
                mount: format!("/c/{name}").into(),
                controllers: name.split(',').map(str::to_owned).collect(),
            })
            .collect(),
        files: Box::new(recording.clone()),
        unified: None,
        named: false,
    }
}

fn driver(recording: &Recording) -> V1 {
    driver_of(
        recording,
        &["memory", "pids", "cpu,cpuacct", "cpuset", "blkio"],
    )
}

fn hybrid(recording: &Recording) -> V1 {
    V1 {
        unified: Some(v2::V2 {
            mount: "/c/unified".into(),
            files: Box::new(recording.clone()),
            duty: v2::Duty::BesideV1 { devices: false },
        }),
        ..driver_of(recording, &["memory"])
    }
}

fn resources(json: &str) -> Resources {
    serde_json::from_str(json).expect(json)
}

#[test]
fn create_makes_only_what_is_needed_and_writes_limits() {
    let recording = Recording::default();
    driver(&recording)
        .create(
            "/shoal/a",
            &resources(
                r#"{"memory":{"limit":64,"swap":128},"cpu":{"shares":512,"quota":50000,"period":100000},"pids":{"limit":7}}"#,
            ),
        )
        .expect("created");
    assert_eq!(
        recording.lines(),
        [
            "mkdir /c/memory/shoal",
            "mkdir /c/memory/shoal/a",
            "/c/memory/shoal/a/memory.limit_in_bytes=64",
            "/c/memory/shoal/a/memory.memsw.limit_in_bytes=128",
            "mkdir /c/pids/shoal",
            "mkdir /c/pids/shoal/a",
            "/c/pids/shoal/a/pids.max=7",
            "mkdir /c/cpu,cpuacct/shoal",
            "mkdir /c/cpu,cpuacct/shoal/a",
            "/c/cpu,cpuacct/shoal/a/cpu.shares=512",
            "/c/cpu,cpuacct/shoal/a/cpu.cfs_period_us=100000",
            "/c/cpu,cpuacct/shoal/a/cpu.cfs_quota_us=50000",
        ]
    );
}

#[test]
fn create_writes_the_default_devices_behind_a_closed_door() {
    let recording = Recording::default();
    driver_of(&recording, &["devices"])
        .create("/a", &Resources::default())
        .expect("created");
    let lines = recording.lines();
    assert_eq!(
        lines[..3],
        [
            "mkdir /c/devices/a",
            "/c/devices/a/devices.deny=a",
            "/c/devices/a/devices.allow=c *:* m"
        ]
    );
    assert_eq!(lines.len(), 13, "{lines:?}");
}

#[test]
fn create_passes_over_default_devices_that_the_group_above_may_not_use_and_no_others() {
    let recording = Recording::default();
    recording.refuse_once("devices.deny", libc::ENOENT);
    let driver = driver_of(&recording, &["devices"]);
    assert!(driver.create("/a", &Resources::default()).is_err());
    recording.refuse_once("devices.allow", libc::EPERM);
    driver
        .create("/a", &Resources::default())
        .expect("defaults");
    let asked = resources(
        r#"{"devices":[{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}]}"#,
    );
    recording.refuse_once("devices.allow", libc::EPERM);
    let refused = driver.create("/b", &asked).expect_err("asked for");
    assert!(refused.to_string().contains("c 10:229 rw"), "{refused}");
}

#[test]
fn create_goes_on_without_swap_accounting_and_replaces_a_leftover() {
    let recording = Recording {
        missing: vec!["memory.memsw.limit_in_bytes"],
        ..Recording::default()
    };
    let limits = resources(r#"{"memory":{"limit":64,"swap":64}}"#);
    let driver = driver(&recording);
    driver.create("/a", &limits).expect("no memsw");
    driver.create("/a", &limits).expect("leftover");
    assert!(recording.lines().contains(&"rmdir /c/memory/a".to_owned()));
}

#[test]
fn create_inherits_a_cpuset_before_it_narrows_it() {
    let recording = Recording {
        contents: vec![("cpuset.cpus", ""), ("cpuset.mems", "0")],
        ..Recording::default()
    };
    driver(&recording)
        .create("/p/a", &resources(r#"{"cpu":{"cpus":"1"}}"#))
        .expect("created");
    let lines = recording.lines();
    let at = |wanted: &str| lines.iter().position(|line| line == wanted).expect(wanted);
    assert!(at("/c/cpuset/p/cpuset.cpus=") < at("/c/cpuset/p/a/cpuset.cpus="));
    assert!(at("/c/cpuset/p/a/cpuset.cpus=") < at("/c/cpuset/p/a/cpuset.cpus=1"));
}

#[test]
fn create_that_fails_takes_back_what_it_made() {
    let recording = Recording::default();
    recording.refuse_once("pids.max", libc::EIO);
    let limits = resources(r#"{"pids":{"limit":7}}"#);
    driver(&recording)
        .create("/p/a", &limits)
        .expect_err("a limit that cannot be set");
    assert!(recording.dirs.lock().expect("dirs").is_empty());
}

#[test]
fn create_names_a_limit_whose_controller_the_machine_lacks() {
    let recording = Recording::default();
    let driver = driver(&recording);
    for (json, field) in [
        (r#"{"network":{"classID":5}}"#, "network.classID"),
        (
            r#"{"hugepageLimits":[{"pageSize":"2MB","limit":1}]}"#,
            "hugepageLimits",
        ),
        (r#"{"rdma":{"mlx":{"hcaHandles":1}}}"#, "rdma.mlx"),
        (
            r#"{"unified":{"memory.min":"1"}}"#,
            "unified: invalid configuration",
        ),
    ] {
        let refused = driver.create("/a", &resources(json)).expect_err(json);
        assert!(refused.to_string().contains(field), "{refused}");
    }
    assert!(
        recording.lines().is_empty(),
        "refused before anything is made"
    );
}

#[test]
fn create_without_a_right_is_only_an_error_when_something_was_asked() {
    let recording = Recording::default();
    let driver = driver(&recording);
    recording.refuse_once("a", libc::EACCES);
    driver
        .create_with("/a", &Resources::default(), Access::Optional)
        .expect("no limits");
    recording.refuse_once("a", libc::EACCES);
    let limits = resources(r#"{"pids":{"limit":7}}"#);
    let refused = driver
        .create_with("/a", &limits, Access::Optional)
        .expect_err("a limit");
    assert!(
        refused.to_string().starts_with("cannot set pids limit"),
        "{refused}"
    );
    recording.refuse_once("a", libc::EACCES);
    let refused = driver
        .create("/a", &Resources::default())
        .expect_err("a path");
    assert!(
        refused.to_string().ends_with("permission denied"),
        "{refused}"
    );
}

#[test]
fn hybrid_uses_the_v2_mount_for_what_only_it_has() {
    let recording = Recording {
        contents: vec![
            ("/c/unified/cgroup.controllers", "hugetlb\n"),
            ("/c/unified/a/cgroup.controllers", "hugetlb\n"),
        ],
        ..Recording::default()
    };
    let driver = hybrid(&recording);
    let limits = resources(
        r#"{"memory":{"limit":5},"hugepageLimits":[{"pageSize":"2MB","limit":9}],"unified":{"hugetlb.1GB.max":"0"}}"#,
    );
    driver.create("/a", &limits).expect("created");
    assert_eq!(
        recording.lines(),
        [
            "mkdir /c/memory/a",
            "/c/memory/a/memory.limit_in_bytes=5",
            "mkdir /c/unified/a",
            "/c/unified/a/hugetlb.2MB.max=9",
            "/c/unified/a/hugetlb.2MB.rsvd.max=9",
            "/c/unified/a/hugetlb.1GB.max=0",
        ]
    );
    let refused = driver
        .create("/b", &resources(r#"{"unified":{"memory.min":"1"}}"#))
        .expect_err("memory is v1's");
    assert!(
        refused.to_string().contains("invalid configuration"),
        "{refused}"
    );
    recording.forget();
    driver.attach("/a", 7).expect("attached");
    assert_eq!(
        recording.lines(),
        ["/c/memory/a/cgroup.procs=7", "/c/unified/a/cgroup.procs=7"]
    );
}

#[test]
fn admit_gives_the_entrances_of_the_groups_that_are_there_and_the_freezers_last() {
    let recording = Recording::default();
    let driver = driver_of(&recording, &["freezer", "memory", "blkio", "pids"]);
    driver.create("/a", &Resources::default()).expect("created");
    recording.forget();
    let entrances = driver.admit("/a", 7).expect("admitted");
    assert_eq!(entrances.len(), 3);
    assert_eq!(
        recording.lines(),
        [
            "open /c/memory/a/tasks",
            "open /c/pids/a/tasks",
            "open /c/freezer/a/tasks"
        ]
    );
}

#[test]
fn admit_attaches_itself_where_the_entrances_may_not_be_opened() {
    let recording = Recording::default();
    let driver = driver_of(&recording, &["memory", "pids"]);
    driver.create("/a", &Resources::default()).expect("created");
    recording.forget();
    recording.refuse_once("/c/pids/a/tasks", libc::EACCES);
    let entrances = driver.admit("/a", 7).expect("admitted");
    assert!(entrances.is_empty());
    assert_eq!(
        recording.lines(),
        [
            "open /c/memory/a/tasks",
            "/c/memory/a/cgroup.procs=7",
            "/c/pids/a/cgroup.procs=7"
        ]
    );
}

#[test]
fn a_container_has_a_group_in_the_v2_mount_beside_only_where_something_is_asked_of_it() {
    let recording = Recording {
        contents: vec![("/c/unified/cgroup.controllers", "hugetlb\n")],
        ..Recording::default()
    };
    let driver = V1 {
        hierarchies: driver_of(&recording, &["memory", "freezer"]).hierarchies,
        ..hybrid(&recording)
    };
    let plain = resources(r#"{"memory":{"limit":5}}"#);
    let beside = resources(r#"{"hugepageLimits":[{"pageSize":"2MB","limit":9}]}"#);
    assert!(!driver.clones_into(&plain) && driver.clones_into(&beside));
    driver.create("/a", &plain).expect("created");
    assert_eq!(
        recording.lines(),
        [
            "mkdir /c/memory/a",
            "/c/memory/a/memory.limit_in_bytes=5",
            "mkdir /c/freezer/a"
        ]
    );
}

#[test]
fn update_writes_what_is_asked_and_moves_nothing_where_the_group_is() {
    let recording = Recording {
        contents: vec![("cgroup.procs", "")],
        ..Recording::default()
    };
    driver(&recording)
        .update(
            "/a",
            &resources(r#"{"memory":{"limit":9},"pids":{"limit":-1}}"#),
        )
        .expect("updated");
    assert_eq!(
        recording.lines(),
        [
            "/c/memory/a/memory.limit_in_bytes=9",
            "/c/pids/a/pids.max=max"
        ]
    );
}

#[test]
fn update_raises_and_lowers_memory_and_swap_in_the_order_the_kernel_takes() {
    let recording = Recording {
        contents: vec![("cgroup.procs", "")],
        ..Recording::default()
    };
    recording.refuse_once("memory.limit_in_bytes", libc::EINVAL);
    driver_of(&recording, &["memory"])
        .update("/a", &resources(r#"{"memory":{"limit":60,"swap":80}}"#))
        .expect("raised");
    assert_eq!(
        recording.lines(),
        [
            "/c/memory/a/memory.memsw.limit_in_bytes=80",
            "/c/memory/a/memory.limit_in_bytes=60"
        ]
    );
}

#[test]
fn update_of_devices_changes_only_the_difference() {
    let recording = Recording {
        contents: vec![
            ("cgroup.procs", ""),
            (
                "devices.list",
                "c *:* m\nb *:* m\nc 1:3 rwm\nc 1:5 rwm\nc 1:7 rwm\nc 1:8 rwm\nc 1:9 rwm\nc 5:0 rwm\nc 5:1 rwm\nc 5:2 rwm\nc 136:* rwm\nc 10:200 rwm\n",
            ),
        ],
        ..Recording::default()
    };
    driver_of(&recording, &["devices"])
        .update(
            "/a",
            &resources(
                r#"{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}]}"#,
            ),
        )
        .expect("updated");
    assert_eq!(
        recording.lines(),
        [
            "/c/devices/a/devices.allow=c 10:229 rw",
            "/c/devices/a/devices.deny=c 10:200 rwm"
        ]
    );
}

#[test]
fn attach_below_puts_a_process_where_each_controller_says() {
    let recording = Recording {
        contents: vec![("cgroup.procs", "")],
        ..Recording::default()
    };
    let driver = driver_of(&recording, &["memory", "pids", "cpu,cpuacct"]);
    let below = ["memory:m", "cpuacct:c/d"].map(|text| Below::parse(text).expect(text));
    driver.attach_below("/a", &below, 7).expect("attached");
    assert_eq!(
        recording.lines(),
        [
            "/c/memory/a/m/cgroup.procs=7",
            "/c/pids/a/cgroup.procs=7",
            "/c/cpu,cpuacct/a/c/d/cgroup.procs=7"
        ]
    );
    let unknown = [Below::parse("nope:x").expect("read")];
    assert!(driver.attach_below("/a", &unknown, 7).is_err());
}

#[test]
fn attach_below_gives_the_container_a_group_in_each_hierarchy_that_is_asked_for() {
    let recording = Recording {
        missing: vec!["cgroup.procs"],
        ..Recording::default()
    };
    let driver = V1 {
        unified: hybrid(&recording).unified,
        ..driver_of(&recording, &["memory", "blkio", "name=systemd"])
    };
    let below = [Below::parse("blkio:sub").expect("read")];
    driver
        .attach_below("/a", &below, 7)
        .expect_err("there is no group sub in it");
    assert_eq!(recording.lines(), ["mkdir /c/blkio/a"]);
    recording.forget();
    driver
        .attach_below("/a", &[Below::parse("/").expect("read")], 7)
        .expect_err("nothing can be written here");
    // The leftover of before is replaced, as it is empty.
    assert_eq!(
        recording.lines(),
        [
            "mkdir /c/memory/a",
            "rmdir /c/blkio/a",
            "mkdir /c/blkio/a",
            "mkdir /c/name=systemd/a",
            "mkdir /c/unified/a"
        ]
    );
}

#[test]
fn place_makes_a_group_that_is_only_a_name_where_that_is_wanted() {
    let recording = Recording::default();
    let mut driver = hybrid(&recording);
    assert!(driver.place("/a").expect("nothing to do").is_none());
    assert!(recording.lines().is_empty());
    driver.named = true;
    recording.refuse_once("a", libc::EACCES);
    assert!(driver.place("/a").expect("without a right").is_none());
    driver
        .place("/a")
        .expect_err("nothing is there to be opened");
    assert_eq!(recording.lines(), ["mkdir /c/unified/a"]);
    driver.withdraw("/a");
    assert_eq!(
        recording.lines().last().expect("a line"),
        "rmdir /c/unified/a"
    );
}
