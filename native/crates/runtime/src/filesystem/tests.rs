//! What is done for typical and for hostile configurations, call by call, without privilege.

use super::*;
use crate::sys::recording::{Entry, Recording};
use serde_json::{Value, json};

const ALL: i32 = libc::CLONE_NEWNS
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWCGROUP;

fn plan(spec: Value, owned: i32) -> Result<Plan, Failure> {
    let spec: Spec = serde_json::from_value(spec).expect("a configuration");
    Plan::new(
        &spec,
        RootSource::Directory("/r".into()),
        owned.cast_unsigned().into(),
    )
}

/// Builds the files with the fake kernel; what it did, and how it ended.
fn build(
    fake: &Recording,
    spec: Value,
    owned: i32,
    around: &Surroundings,
) -> (Vec<String>, Result<(), Failure>) {
    let plan = plan(spec, owned).expect("a plan");
    let act = || -> Result<(), Failure> {
        let mut files = Filesystem::begin(fake, &plan, around, plan.sources(fake)?, None)?;
        files.mount_all(&mut || Ok(()), &mut || Ok(()))?;
        files.finish()?;
        files.enter(false)
    };
    let done = act();
    (fake.lines(), done)
}

fn built(fake: &Recording, spec: Value) -> Vec<String> {
    let (lines, done) = build(fake, spec, ALL, &Surroundings::default());
    done.expect("built");
    lines
}

fn refused(fake: &Recording, spec: Value) -> (Vec<String>, Failure) {
    let (lines, done) = build(fake, spec, ALL, &Surroundings::default());
    (lines, done.expect_err("refused"))
}

fn position(lines: &[String], line: &str) -> usize {
    lines
        .iter()
        .position(|known| known == line)
        .unwrap_or_else(|| panic!("{line:?} is not in {lines:#?}"))
}

/// Lines in this order, whatever is between them.
fn expect_order(lines: &[String], wanted: &[&str]) {
    let places: Vec<usize> = wanted.iter().map(|line| position(lines, line)).collect();
    assert!(places.is_sorted(), "{wanted:?} in {lines:#?}");
}

const DIR: Entry = Entry::Dir;

fn usual() -> Value {
    json!({
        "root": {"path": "r", "readonly": true},
        "process": {"cwd": "/work"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc", "options": ["nosuid", "noexec", "nodev"]},
            {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
            {"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
            {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
            {"destination": "/etc/hosts", "type": "bind", "source": "/srv/hosts", "options": ["rbind", "rprivate", "ro"]}
        ],
        "linux": {
            "maskedPaths": ["/proc/kcore", "/proc/asound", "/proc/nothere", "/proc//kcore"],
            "readonlyPaths": ["/proc/sys"],
            "sysctl": {"net.ipv4.ip_forward": "1"}
        }
    })
}

#[test]
fn the_usual_container_is_built_in_this_order() {
    let fake = Recording::new(&[
        ("/proc", DIR),
        ("/dev", DIR),
        ("/sys", DIR),
        ("/etc", DIR),
        ("host:/srv/hosts", Entry::File),
        ("host:/proc/kcore", Entry::File),
    ]);
    let lines = built(&fake, usual());
    let wanted = [
        r#"mount "" / "" recursive,private """#,
        "copy host:/r recursive",
        "change / private",
        "attach / to host:/r",
        "new proc nosuid,nodev,noexec",
        "attach new(proc) to /proc",
        "new tmpfs,mode=755,size=65536k nosuid,strictatime",
        "attach new(tmpfs) to /dev",
        "mknod /dev/null 20666 1:3",
        "mknod /dev/zero 20666 1:5",
        "mknod /dev/full 20666 1:7",
        "mknod /dev/random 20666 1:8",
        "mknod /dev/urandom 20666 1:9",
        "mknod /dev/tty 20666 5:0",
        "symlink /dev/fd /proc/self/fd",
        "symlink /dev/stdin /proc/self/fd/0",
        "symlink /dev/stdout /proc/self/fd/1",
        "symlink /dev/stderr /proc/self/fd/2",
        "symlink /dev/ptmx pts/ptmx",
        "symlink /dev/core /proc/kcore",
        "mkdir /dev/pts 755",
        "new devpts,newinstance,ptmxmode=0666,mode=0620,gid=5 nosuid,noexec",
        "attach new(devpts) to /dev/pts",
        "new sysfs ro,nosuid,nodev,noexec",
        "attach new(sysfs) to /sys",
        "copy host:/srv/hosts recursive",
        "create /etc/hosts",
        "change copy(host:/srv/hosts) +ro -nosuid,nodev,noexec,nosymfollow",
        "change copy(host:/srv/hosts) recursive private",
        "attach copy(host:/srv/hosts) to /etc/hosts",
        "mkdir /work 755",
        "new proc nosuid,nodev,noexec",
        r#"write new(proc)/sys/net/ipv4/ip_forward "1""#,
        "copy /proc/sys recursive",
        "change copy(/proc/sys) recursive +ro",
        "attach copy(/proc/sys) to /proc/sys",
        "copy host:/dev/null",
        "change copy(host:/dev/null) +ro",
        "attach copy(host:/dev/null) to /proc/kcore",
        "new tmpfs,size=0,nr_inodes=1 ro,nosuid,nodev,noexec",
        "attach new(tmpfs) to /proc/asound",
        "change / +ro",
        "chdir /",
        "pivot",
        "unmount .",
        "chdir to /",
    ];
    assert_eq!(lines, wanted);
}

#[test]
fn an_image_with_links_where_the_kernel_is_mounted_is_refused() {
    for (path, target) in [
        ("/proc", "/etc"),
        ("/dev", "/etc"),
        ("/sys", "etc"),
        ("/dev", "/proc/self/cwd"),
    ] {
        let mut files = vec![("/proc", DIR), ("/dev", DIR), ("/sys", DIR), ("/etc", DIR)];
        files.retain(|(known, _)| *known != path);
        files.push((path, Entry::Link(target)));
        files.push(("host:/srv/hosts", Entry::File));
        let fake = Recording::new(&files);
        let (lines, failure) = refused(&fake, usual());
        assert!(failure.message.contains("symlink"), "{failure}");
        let led = |line: &String| line.contains("/etc") || line.ends_with(&format!(" to {path}"));
        assert!(!lines.iter().any(led), "{lines:#?}");
    }
    // Also for a mount below it, and where only devices are made.
    let link = || Recording::new(&[("/dev", Entry::Link("/etc")), ("/etc", DIR)]);
    let below = json!({"mounts": [{"destination": "/dev/shm", "type": "tmpfs"}]});
    assert!(refused(&link(), below).1.message.contains("symlink"));
    assert!(refused(&link(), json!({})).1.message.contains("symlink"));
    // /sys too, of which nothing else would tell.
    let fake = Recording::new(&[("/dev", DIR), ("/sys", Entry::Link("/etc")), ("/etc", DIR)]);
    let below = json!({"mounts": [{"destination": "/sys/fs/own", "type": "tmpfs"}]});
    let (lines, failure) = refused(&fake, below);
    assert!(failure.message.contains("symlink"), "{failure}");
    assert!(
        !lines.iter().any(|line| line.contains("/etc")),
        "{lines:#?}"
    );
}

#[test]
fn nothing_is_mounted_into_proc_by_a_link_of_the_image() {
    let fake = Recording::new(&[
        ("/proc", DIR),
        ("/dev", DIR),
        ("/away", Entry::Link("/proc/sys")),
        ("host:/x", DIR),
    ]);
    let (lines, failure) = refused(
        &fake,
        json!({"mounts": [
            {"destination": "/proc", "type": "proc"},
            {"destination": "/away", "type": "bind", "source": "/x", "options": ["bind"]}
        ]}),
    );
    assert!(
        failure.message.contains("/proc") && failure.doing.contains("/away"),
        "{failure}"
    );
    assert!(
        !lines
            .iter()
            .any(|line| line.starts_with("attach copy(host:/x)"))
    );
    // What lxcfs shows is allowed.
    let fake = Recording::new(&[("/proc", DIR), ("/dev", DIR), ("host:/x", Entry::File)]);
    let lines = built(
        &fake,
        json!({"mounts": [
            {"destination": "/proc", "type": "proc"},
            {"destination": "/proc/cpuinfo", "type": "bind", "source": "/x"}
        ]}),
    );
    position(&lines, "attach copy(host:/x) to /proc/cpuinfo");
}

#[test]
fn proc_may_only_be_a_procfs() {
    let spec = || json!({"mounts": [{"destination": "/proc", "type": "bind", "source": "/x"}]});
    let fake = Recording::new(&[("/proc", DIR), ("/dev", DIR), ("host:/x", DIR)]);
    let (lines, failure) = refused(&fake, spec());
    assert!(failure.message.contains("not of type proc"), "{failure}");
    assert!(!lines.iter().any(|line| line.ends_with("to /proc")));
    let fake = Recording::new(&[("/proc", DIR), ("/dev", DIR), ("host:/proc", DIR)]);
    let spec = json!({"mounts": [{"destination": "/proc", "type": "bind", "source": "/proc", "options": ["rbind"]}]});
    position(&built(&fake, spec), "attach copy(host:/proc) to /proc");
}

#[test]
fn links_of_the_image_are_followed_inside_the_root_only() {
    let fake = Recording::new(&[
        ("/dev", DIR),
        ("/etc", DIR),
        ("/run", DIR),
        ("/etc/resolv.conf", Entry::Link("../../../run/resolv.conf")),
        ("host:/srv/resolv", Entry::File),
    ]);
    let lines = built(
        &fake,
        json!({"mounts": [{"destination": "/etc/resolv.conf", "type": "bind", "source": "/srv/resolv"}]}),
    );
    expect_order(
        &lines,
        &[
            "create /run/resolv.conf",
            "attach copy(host:/srv/resolv) to /run/resolv.conf",
        ],
    );
}

#[test]
fn a_dev_null_that_is_another_device_masks_nothing() {
    let fake = Recording::new(&[
        ("/dev", DIR),
        ("/secret", Entry::File),
        ("host:/dev/null", Entry::Char(1, 8)),
    ]);
    let (lines, failure) = refused(&fake, json!({"linux": {"maskedPaths": ["/secret"]}}));
    assert!(failure.doing.contains("/secret"), "{failure}");
    assert!(!lines.iter().any(|line| line.contains("host:/dev/null")));
}

#[test]
fn the_first_mask_is_itself_and_the_others_are_copies_of_it() {
    let fake = Recording::new(&[("/dev", DIR), ("/a", DIR), ("/b", DIR)]);
    let lines = built(&fake, json!({"linux": {"maskedPaths": ["/a", "/b"]}}));
    expect_order(
        &lines,
        &[
            "attach new(tmpfs) to /a",
            "copy new(tmpfs)",
            "attach copy(new(tmpfs)) to /b",
        ],
    );
}

#[test]
fn a_root_that_is_given_is_put_in_its_place_and_none_is_made() {
    let fake = Recording::new(&[("/dev", DIR)]);
    let plan = plan(json!({}), ALL).expect("a plan");
    let given = fake.clone_path("/r", true).expect("a tree");
    let around = Surroundings::default();
    let files = Filesystem::begin(&fake, &plan, &around, Sources::default(), Some(given));
    drop(files.expect("a root"));
    expect_order(
        &fake.lines(),
        &[
            r#"mount "" / "" recursive,private """#,
            "attach / to host:/r",
        ],
    );
    let made = fake.lines();
    let copies = made.iter().filter(|line| line.starts_with("copy"));
    assert_eq!(copies.count(), 1, "the one that was given: {made:?}");
}

#[test]
fn devices_are_bound_where_they_may_not_be_made() {
    let mut fake = Recording::new(&[
        ("/dev", DIR),
        ("host:/dev/zero", Entry::Char(1, 5)),
        ("host:/dev/full", Entry::Char(1, 7)),
        ("host:/dev/random", Entry::Char(1, 8)),
        ("host:/dev/urandom", Entry::Char(1, 9)),
        ("host:/dev/tty", Entry::Char(5, 0)),
        ("host:/dev/fuse", Entry::Char(10, 230)),
    ]);
    fake.refuse = vec![("mknod", libc::EPERM)];
    let spec = json!({"linux": {"devices": [{"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229}]}});
    let (_, failure) = refused(&fake, spec);
    assert!(
        failure.doing.contains("/dev/fuse"),
        "the host's is another device: {failure}"
    );
    fake.refuse = vec![("mknod", libc::EPERM)];
    let lines = built(&fake, json!({}));
    expect_order(
        &lines,
        &[
            "!mknod /dev/null 20666 1:3",
            "create /dev/null",
            "copy host:/dev/null",
            "attach copy(host:/dev/null) to /dev/null",
        ],
    );
}

#[test]
fn devices_of_the_configuration_have_their_owners_and_parents() {
    let fake = Recording::new(&[("/dev", DIR)]);
    let lines = built(
        &fake,
        json!({"linux": {"devices": [
            {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o600, "uid": 5, "gid": 6},
            {"path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o600}
        ]}}),
    );
    expect_order(
        &lines,
        &[
            "mkdir /dev/net 755",
            "mknod /dev/net/tun 20600 10:200",
            "chown /dev/net/tun 5:6",
            "mknod /dev/null 20600 1:3",
            "mknod /dev/zero 20666 1:5",
        ],
    );
    assert!(!lines.contains(&"mknod /dev/null 20666 1:3".to_owned()));
    // The image's own node is good when it is that device, and only then.
    let image = |device| Recording::new(&[("/dev", DIR), ("/dev/null", device)]);
    built(&image(Entry::Char(1, 3)), json!({}));
    let (_, failure) = refused(&image(Entry::Char(1, 1)), json!({}));
    assert!(failure.doing.contains("/dev/null"), "{failure}");
}

#[test]
fn a_dev_of_the_host_is_left_alone() {
    let fake = Recording::new(&[("/dev", DIR), ("host:/dev", DIR)]);
    let lines = built(
        &fake,
        json!({"mounts": [{"destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind"]}]}),
    );
    assert!(
        lines
            .iter()
            .all(|line| !line.starts_with("mknod") && !line.starts_with("symlink")),
        "{lines:#?}"
    );
}

#[test]
fn a_read_only_tmpfs_is_writable_until_the_end() {
    let fake = Recording::new(&[("/dev", DIR)]);
    let lines = built(
        &fake,
        json!({"mounts": [
            {"destination": "/dev", "type": "tmpfs", "options": ["ro", "nosuid"]},
            {"destination": "/dev/shm", "type": "tmpfs"}
        ]}),
    );
    expect_order(
        &lines,
        &[
            "new tmpfs,mode=755 nosuid",
            "mknod /dev/null 20666 1:3",
            "mkdir /dev/shm 755",
            "change new(tmpfs) +ro",
            "pivot",
        ],
    );
}

#[test]
fn volumes_that_listen_stay_slaves_and_a_shared_root_stays_a_peer() {
    let volume = |propagation: &str| json!([{"destination": "/v", "type": "bind", "source": "/x", "options": ["rbind", propagation]}]);
    let image = || Recording::new(&[("/dev", DIR), ("host:/x", DIR)]);
    let lines = built(&image(), json!({"mounts": volume("rslave")}));
    expect_order(
        &lines,
        &[
            r#"mount "" / "" recursive,slave """#,
            "change copy(host:/x) recursive slave",
        ],
    );
    let mut fake = image();
    fake.refuse = vec![(r#"mount "" /r"#, libc::EINVAL)];
    let lines = built(
        &fake,
        json!({"mounts": volume("rshared"), "linux": {"rootfsPropagation": "rshared"}}),
    );
    expect_order(
        &lines,
        &[
            r#"!mount "" /r "" private """#,
            r#"mount "" / "" private """#,
            "change / private",
            "change copy(host:/x) recursive shared",
            "pivot",
            r#"mount "" . "" recursive,slave """#,
            "unmount .",
            r#"mount "" / "" recursive,shared """#,
        ],
    );
}

#[test]
fn control_groups_are_the_containers_own() {
    let image = || {
        Recording::new(&[
            ("/dev", DIR),
            ("/sys", DIR),
            ("/sys/fs", DIR),
            ("/sys/fs/cgroup", DIR),
            ("host:/sys/fs/cgroup/cpu,cpuacct/c/a", DIR),
            ("host:/sys/fs/cgroup/a", DIR),
        ])
    };
    let spec = || json!({"mounts": [{"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro", "nosuid"]}]});
    let v1 = Surroundings {
        cgroups: Some(vec![("cpu,cpuacct".into(), "cpu,cpuacct".into())]),
        groups: vec!["/sys/fs/cgroup/cpu,cpuacct/c/a".into()],
        ..Surroundings::default()
    };
    let (lines, done) = build(&image(), spec(), ALL, &v1);
    done.expect("built");
    expect_order(
        &lines,
        &[
            "new tmpfs,mode=755 nosuid,nodev,noexec",
            "mkdir new(tmpfs)/cpu,cpuacct 755",
            "new cgroup,cpu,cpuacct ro,nosuid,nodev,noexec",
            "attach new(cgroup) to new(tmpfs)/cpu,cpuacct",
            "symlink new(tmpfs)/cpu cpu,cpuacct",
            "change new(tmpfs) recursive +ro,nosuid,nodev,noexec",
        ],
    );
    let without = ALL & !libc::CLONE_NEWCGROUP;
    let (lines, done) = build(&image(), spec(), without, &v1);
    done.expect("built");
    expect_order(
        &lines,
        &[
            "copy host:/sys/fs/cgroup/cpu,cpuacct/c/a recursive",
            "attach copy(host:/sys/fs/cgroup/cpu,cpuacct/c/a) to new(tmpfs)/cpu,cpuacct",
            "change new(tmpfs) recursive +ro,nosuid,nodev,noexec",
        ],
    );
    assert!(!lines.iter().any(|line| line.starts_with("new cgroup")));
    let v2 = Surroundings {
        groups: vec!["/sys/fs/cgroup/a".into()],
        ..Surroundings::default()
    };
    let (lines, done) = build(&image(), spec(), without, &v2);
    done.expect("built");
    expect_order(
        &lines,
        &[
            "change copy(host:/sys/fs/cgroup/a) recursive +ro,nosuid,nodev,noexec",
            "attach copy(host:/sys/fs/cgroup/a) to /sys/fs/cgroup",
        ],
    );
}

#[test]
fn unusual_file_systems_are_mounted_onto_the_open_mount_point() {
    let fake = Recording::new(&[("/dev", DIR), ("/mnt", DIR), ("/link", Entry::Link("/mnt"))]);
    let lines = built(
        &fake,
        json!({"mounts": [{"destination": "/link", "type": "ext4", "source": "/dev/vdb", "options": ["ro", "sync", "data=journal", "private"]}]}),
    );
    expect_order(
        &lines,
        &[
            r#"mount "/dev/vdb" /mnt "ext4" ro,sync "data=journal""#,
            "change /mnt private",
        ],
    );
}

#[test]
fn a_bind_that_names_an_attribute_has_exactly_those_that_it_names() {
    let fake = Recording::new(&[("/dev", DIR), ("host:/x", DIR)]);
    let lines = built(
        &fake,
        json!({"mounts": [{"destination": "/v", "type": "bind", "source": "/x", "options": ["rbind", "ro", "rnosuid", "exec"]}]}),
    );
    expect_order(
        &lines,
        &[
            "copy host:/x recursive",
            "change copy(host:/x) +ro -nosuid,nodev,noexec,nosymfollow",
            "change copy(host:/x) recursive +nosuid",
            "attach copy(host:/x) to /v",
        ],
    );
}

#[test]
fn a_missing_source_makes_nothing_in_the_image() {
    let fake = Recording::new(&[("/dev", DIR)]);
    let (lines, failure) = refused(
        &fake,
        json!({"mounts": [{"destination": "/v", "type": "bind", "source": "/none"}]}),
    );
    assert_eq!(failure.message, "bind source path does not exist: /none");
    assert!(
        !lines.iter().any(|line| line.starts_with("mkdir")),
        "{lines:#?}"
    );
}

#[test]
fn plan_refuses_bad_paths_by_name() {
    for (linux, word) in [
        (json!({"maskedPaths": ["proc"]}), "linux.maskedPaths"),
        (json!({"maskedPaths": ["/"]}), "linux.maskedPaths"),
        (json!({"readonlyPaths": ["/a/../b"]}), "/a/../b"),
        (json!({"rootfsPropagation": "ro"}), "\"ro\""),
        (
            json!({"sysctl": {"kernel.core_pattern": "|/x"}}),
            "kernel.core_pattern",
        ),
        (
            json!({"devices": [{"path": "dev/x", "type": "c"}]}),
            "dev/x",
        ),
    ] {
        let failure = plan(json!({"linux": linux}), ALL).expect_err(word);
        assert!(failure.to_string().contains(word), "{failure}");
    }
}

#[test]
fn without_a_mount_namespace_the_hosts_mounts_keep_their_propagation() {
    let fake = Recording::new(&[("/dev", DIR)]);
    let (lines, done) = build(&fake, json!({}), 0, &Surroundings::default());
    done.expect("built");
    assert!(
        !lines.iter().any(|line| line.starts_with("mount")),
        "{lines:#?}"
    );
    expect_order(&lines, &["chdir /", "chroot", "chdir to /"]);
    assert!(!lines.contains(&"pivot".to_owned()));
}

#[test]
fn a_mount_label_without_selinux_is_left_out() {
    let fake = Recording::new(&[("/dev", DIR)]);
    let spec = json!({
        "mounts": [{"destination": "/t", "type": "tmpfs"}],
        "linux": {"mountLabel": "system_u:object_r:svirt_sandbox_file_t:s0"}
    });
    position(&built(&fake, spec), "new tmpfs ");
}

#[test]
fn data_of_a_bind_is_ignored_with_a_warning() {
    let spec = json!({"mounts": [{"destination": "/v", "type": "bind", "source": "/x", "options": ["bind", "mode=755"]}]});
    let warnings = plan(spec.clone(), ALL).expect("plan").warnings();
    assert!(
        warnings.len() == 1 && warnings[0].contains("mode"),
        "{warnings:?}"
    );
    let fake = Recording::new(&[("/dev", DIR), ("host:/x", DIR)]);
    position(&built(&fake, spec), "attach copy(host:/x) to /v");
}
