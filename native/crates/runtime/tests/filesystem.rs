//! A container's files on the real kernel: each test builds them in a thread with namespaces of its own, enters them, and looks around.

mod place;

use place::{OWNED, Place, mount_points, mount_tmpfs, mounted, possible, run, with_proc};
use serde_json::{Value, json};
use shoal_protocol::{Failure, oci::Spec};
use shoal_runtime::filesystem::{Filesystem, Plan, RootSource};
use shoal_runtime::mounts::Surroundings;
use shoal_runtime::sys::{Kernel, process};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::time::{Duration, Instant};

#[test]
fn options_of_mounts_are_what_mountinfo_shows() {
    if !possible() {
        return;
    }
    let place = Place::new();
    let cases = [
        (vec!["ro"], "ro,relatime"),
        (
            vec!["nosuid", "nodev", "noexec"],
            "rw,nosuid,nodev,noexec,relatime",
        ),
        (vec!["ro", "rw"], "rw,relatime"),
        (vec!["noatime"], "rw,noatime"),
        (vec!["strictatime"], "rw"),
        (vec!["nodiratime", "relatime"], "rw,nodiratime,relatime"),
        (vec!["nosymfollow"], "rw,relatime,nosymfollow"),
        (vec!["rnosuid", "rro"], "ro,nosuid,relatime"),
        (
            vec![
                "defaults",
                "async",
                "atime",
                "suid",
                "dev",
                "exec",
                "symfollow",
            ],
            "rw,relatime",
        ),
    ];
    let mut mounts = Vec::new();
    for (index, (options, _)) in cases.iter().enumerate() {
        let mut bind = options.clone();
        bind.push("bind");
        mounts.push(json!({"destination": format!("/bind{index}"), "type": "none", "source": place.path("volume"), "options": bind}));
        mounts.push(
            json!({"destination": format!("/tmpfs{index}"), "type": "tmpfs", "options": options}),
        );
        mounts.push(
            json!({"destination": format!("/ramfs{index}"), "type": "ramfs", "options": options}),
        );
        // By mount(2).
        mounts.push(
            json!({"destination": format!("/bpf{index}"), "type": "bpf", "options": options}),
        );
    }
    place
        .inside(with_proc(mounts), || {
            for (index, (options, want)) in cases.iter().enumerate() {
                for kind in ["bind", "tmpfs", "ramfs", "bpf"] {
                    let found = mounted(&format!("/{kind}{index}")).0;
                    let sorted = |text: &str| {
                        let mut words: Vec<String> = text.split(',').map(str::to_owned).collect();
                        words.sort();
                        words
                    };
                    assert_eq!(sorted(&found), sorted(want), "{kind} {options:?}");
                }
            }
        })
        .expect("built");
}

#[test]
fn flags_of_file_systems_reach_them() {
    if !possible() {
        return;
    }
    let place = Place::new();
    let spec = with_proc(vec![
        json!({"destination": "/a", "type": "tmpfs", "options": ["sync", "dirsync", "size=4096k", "mode=1700"]}),
        json!({"destination": "/b", "type": "bpf", "options": ["sync"]}),
        json!({"destination": "/c", "type": "tmpfs", "options": ["lazytime", "nr_inodes=7"]}),
    ]);
    place
        .inside(spec, || {
            let (_, _, _, options) = mounted("/a");
            for word in ["sync", "dirsync", "size=4096k", "mode=1700"] {
                assert!(
                    options.split(',').any(|known| known == word),
                    "{word} in {options}"
                );
            }
            assert!(mounted("/b").3.contains("sync"));
            let options = mounted("/c").3;
            assert!(
                options.contains("lazytime") && options.contains("nr_inodes=7"),
                "{options}"
            );
        })
        .expect("built");
}

#[test]
fn read_only_binds_are_recursive_only_when_asked() {
    if !possible() {
        return;
    }
    let place = Place::new();
    let volume = place.path("volume");
    let bind = |to: &str, options: &[&str]| json!({"destination": to, "type": "bind", "source": volume, "options": options});
    let spec = with_proc(vec![
        bind("/ro", &["rbind", "ro"]),
        bind("/rro", &["rbind", "rro"]),
        bind("/kept", &["rbind"]),
        bind("/cleared", &["rbind", "rdev", "rsuid"]),
        bind("/single", &["bind"]),
    ]);
    let below = format!("{volume}/below");
    fs::create_dir(&below).expect("dir");
    let before = || {
        run("mount", &["--make-rprivate", "/"]);
        mount_tmpfs(&below, "nosuid,nodev");
    };
    place
        .inside_of(spec, OWNED, &Surroundings::default(), before, || {
            let flags = |point: &str| mounted(point).0;
            assert!(flags("/ro").starts_with("ro") && flags("/ro/below").starts_with("rw"));
            assert!(flags("/rro").starts_with("ro") && flags("/rro/below").starts_with("ro"));
            assert!(
                flags("/kept/below").contains("nosuid,nodev"),
                "what the source has stays"
            );
            assert!(!flags("/cleared/below").contains("nosuid"));
            assert!(!mount_points("/proc/thread-self/mountinfo").contains(&"/single/below".into()));
            assert_eq!(
                fs::write("/ro/x", "").expect_err("read-only").kind(),
                ErrorKind::ReadOnlyFilesystem
            );
            fs::write("/ro/below/x", "").expect("not read-only below");
        })
        .expect("built");
}

#[test]
fn propagation_is_what_mountinfo_shows() {
    if !possible() {
        return;
    }
    let place = Place::new();
    let volume = place.path("volume");
    let words = [
        "private",
        "rprivate",
        "slave",
        "rslave",
        "shared",
        "rshared",
        "unbindable",
        "runbindable",
    ];
    let mounts = words
        .iter()
        .map(|word| json!({"destination": format!("/{word}"), "type": "bind", "source": volume, "options": ["rbind", word]}))
        .collect();
    let before = || {
        run("mount", &["--make-rprivate", "/"]);
        mount_tmpfs(&volume, "");
        run("mount", &["--make-shared", &volume]);
    };
    place
        .inside_of(
            with_proc(mounts),
            OWNED,
            &Surroundings::default(),
            before,
            || {
                for word in words {
                    let fields = mounted(&format!("/{word}")).1;
                    let has = |field: &str| fields.contains(field);
                    let right = match word.trim_start_matches('r') {
                        "private" => fields.is_empty(),
                        // In this thread's namespace the volume was made a slave with everything else.
                        "slave" => has("master:") || fields.is_empty(),
                        "shared" => has("shared:"),
                        _ => has("unbindable"),
                    };
                    assert!(right, "{word}: {fields:?}");
                }
                assert_eq!(mounted("/").1, "", "the root itself stays private");
            },
        )
        .expect("built");
}

#[test]
fn the_roots_own_propagation_is_set_at_the_end() {
    if !possible() {
        return;
    }
    for (word, field) in [
        ("shared", "shared:"),
        ("rslave", ""),
        ("rprivate", ""),
        ("unbindable", "unbindable"),
    ] {
        let place = Place::new();
        let mut spec = with_proc(vec![]);
        spec["linux"] = json!({"rootfsPropagation": word});
        // The thread's mounts are peers of nobody else's, so that "shared" here reaches nothing of the machine.
        let before = || {
            run("mount", &["--make-rprivate", "/"]);
            run("mount", &["--make-rshared", "/"]);
        };
        place
            .inside_of(spec, OWNED, &Surroundings::default(), before, || {
                let fields = mounted("/").1;
                assert!(fields.contains(field), "{word}: {fields:?}");
                assert!(
                    field == "shared:" || !fields.contains("shared:"),
                    "{word}: {fields:?}"
                );
            })
            .expect(word);
    }
}

#[test]
fn mount_points_are_made_as_their_sources_are() {
    if !possible() {
        return;
    }
    let place = Place::new();
    fs::write(place.dir.join("file"), "content").expect("file");
    symlink("file", place.dir.join("link")).expect("link");
    symlink("/run/there", place.image("dangling")).expect("link");
    symlink("/etc", place.image("inside")).expect("link");
    let bind = |from: &str, to: &str, option: &str| json!({"destination": to, "type": "bind", "source": place.path(from), "options": ["bind", option]});
    let spec = with_proc(vec![
        bind("file", "/a/b/file", "private"),
        bind("volume", "/c/d", "private"),
        bind("link", "/followed", "private"),
        bind("link", "/copied", "copy-symlink"),
        bind("file", "/dangling", "private"),
        bind("volume", "/inside/e", "private"),
        bind("volume", "/relative", "private"),
    ]);
    place
        .inside(spec, || {
            for path in ["/a/b/file", "/followed", "/dangling", "/run/there"] {
                assert_eq!(fs::read_to_string(path).expect(path), "content");
            }
            assert!(Path::new("/c/d").is_dir() && Path::new("/etc/e").is_dir());
            assert_eq!(fs::read_link("/copied").expect("a link"), Path::new("file"));
        })
        .expect("built");
    assert!(!place.dir.join("run").exists(), "nothing beside the root");
}

#[test]
fn a_tmpfs_takes_over_mode_and_contents_when_asked() {
    if !possible() {
        return;
    }
    let place = Place::new();
    let there = place.image("there");
    fs::create_dir_all(there.join("sub")).expect("dir");
    fs::write(there.join("sub/file"), "text").expect("file");
    fs::set_permissions(there.join("sub/file"), fs::Permissions::from_mode(0o4711)).expect("mode");
    symlink("/etc/shadow", there.join("link")).expect("link");
    std::os::unix::fs::chown(there.join("sub"), Some(12), Some(34)).expect("owner");
    fs::set_permissions(&there, fs::Permissions::from_mode(0o701)).expect("mode");
    let spec = with_proc(vec![
        json!({"destination": "/copy", "type": "bind", "source": place.path("root/there"), "options": ["bind"]}),
        json!({"destination": "/copy", "type": "tmpfs", "options": ["tmpcopyup", "ro", "nosuid"]}),
        json!({"destination": "/there", "type": "tmpfs"}),
        json!({"destination": "/missing", "type": "tmpfs"}),
    ]);
    place
        .inside(spec, || {
            let mode = |path: &str| fs::symlink_metadata(path).expect(path).mode() & 0o7777;
            assert_eq!(
                fs::read_to_string("/copy/sub/file").expect("copied"),
                "text"
            );
            assert_eq!(mode("/copy/sub/file"), 0o4711);
            assert_eq!(fs::metadata("/copy/sub").expect("dir").uid(), 12);
            assert_eq!(
                fs::read_link("/copy/link").expect("link"),
                Path::new("/etc/shadow")
            );
            assert_eq!(
                fs::write("/copy/x", "").expect_err("ro").kind(),
                ErrorKind::ReadOnlyFilesystem
            );
            assert_eq!(
                (mode("/copy"), mode("/there"), mode("/missing")),
                (0o701, 0o701, 0o1777)
            );
            assert_eq!(fs::read_dir("/there").expect("dir").count(), 0);
        })
        .expect("built");
}

#[test]
fn owners_are_mapped_where_asked() {
    if !possible() {
        return;
    }
    let place = Place::new();
    let file = place.dir.join("volume/file");
    fs::write(&file, "").expect("file");
    std::os::unix::fs::chown(&file, Some(7), Some(8)).expect("owner");
    let maps = |host: u32| json!([{"containerID": 0, "hostID": host, "size": 65536}]);
    let spec = with_proc(vec![
        json!({"destination": "/mapped", "type": "bind", "source": place.path("volume"), "options": ["bind", "idmap"], "uidMappings": maps(1000), "gidMappings": maps(2000)}),
        json!({"destination": "/plain", "type": "bind", "source": place.path("volume"), "options": ["bind"]}),
    ]);
    let owners = place.inside(spec, || {
        ["/mapped/file", "/plain/file"].map(|path| {
            let stat = fs::metadata(path).expect(path);
            (stat.uid(), stat.gid())
        })
    });
    assert_eq!(owners.expect("built"), [(1007, 2008), (7, 8)]);
    let spec = with_proc(vec![
        json!({"destination": "/m", "type": "bind", "source": "/proc", "options": ["bind", "idmap"], "uidMappings": maps(1), "gidMappings": maps(1)}),
    ]);
    let failure = place
        .inside(spec, || ())
        .expect_err("procfs has no mapped mounts");
    assert!(failure.message.contains("idmapped"), "{failure}");
}

#[test]
fn devices_are_what_the_configuration_says() {
    if !possible() {
        return;
    }
    let place = Place::new();
    let spec = json!({
        "mounts": [{"destination": "/dev", "type": "tmpfs", "options": ["mode=755"]}],
        "linux": {"devices": [
            {"path": "/dev/net/tun", "type": "c", "major": 10, "minor": 200, "fileMode": 0o640, "uid": 3, "gid": 4},
            {"path": "/dev/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o600},
            {"path": "/dev/disk", "type": "b", "major": 7, "minor": 3},
            {"path": "/run/pipe", "type": "p"}
        ]}
    });
    place
        .inside(spec, || {
            let look = |path: &str| fs::symlink_metadata(path).expect(path);
            let tun = look("/dev/net/tun");
            assert_eq!((tun.mode() & 0o7777, tun.uid(), tun.gid()), (0o640, 3, 4));
            assert_eq!(tun.rdev(), libc::makedev(10, 200));
            assert_eq!(look("/dev/full").mode() & 0o7777, 0o600);
            assert!(look("/dev/disk").file_type().is_block_device());
            assert!(look("/run/pipe").file_type().is_fifo());
            for (name, major, minor) in [
                ("null", 1, 3),
                ("zero", 1, 5),
                ("random", 1, 8),
                ("urandom", 1, 9),
                ("tty", 5, 0),
            ] {
                let node = look(&format!("/dev/{name}"));
                assert_eq!(node.rdev(), libc::makedev(major, minor), "{name}");
                assert_eq!(node.mode() & 0o7777, 0o666, "{name}");
            }
            for (name, target) in [
                ("fd", "/proc/self/fd"),
                ("stdin", "/proc/self/fd/0"),
                ("stderr", "/proc/self/fd/2"),
                ("ptmx", "pts/ptmx"),
            ] {
                assert_eq!(
                    fs::read_link(format!("/dev/{name}")).expect(name),
                    Path::new(target)
                );
            }
        })
        .expect("built");
}

#[test]
fn what_is_masked_is_empty_and_what_is_read_only_takes_nothing() {
    if !possible() {
        return;
    }
    let place = Place::new();
    fs::create_dir(place.image("hidden")).expect("dir");
    fs::write(place.image("hidden/secret"), "secret").expect("file");
    fs::write(place.image("key"), "secret").expect("file");
    symlink("../../../key", place.image("link")).expect("link");
    let mut spec = with_proc(vec![]);
    spec["linux"] = json!({
        "maskedPaths": ["/hidden", "/key", "/link", "/absent", "/proc/version", "/proc/asound", "/key/below"],
        "readonlyPaths": ["/proc/sys", "/etc", "/absent"],
        "sysctl": {"net.ipv4.ip_forward": "1", "kernel.shmmni": "1234", "kernel.domainname": "example"}
    });
    spec["root"] = json!({"path": "root", "readonly": true});
    place
        .inside(spec, || {
            assert_eq!(fs::read_dir("/hidden").expect("dir").count(), 0);
            for path in ["/key", "/link", "/proc/version"] {
                assert_eq!(fs::read(path).expect(path), b"", "{path}");
            }
            for path in ["/hidden/x", "/etc/x", "/x", "/proc/sys/net/ipv4/ip_forward"] {
                let error = fs::write(path, "0").expect_err(path);
                assert_eq!(error.kind(), ErrorKind::ReadOnlyFilesystem, "{path}");
            }
            let read = |path: &str| fs::read_to_string(path).expect(path);
            assert_eq!(read("/proc/sys/kernel/domainname"), "example\n");
            assert_eq!(read("/proc/sys/kernel/shmmni"), "1234\n");
            let covers = ["/key", "/link"].map(|path| fs::metadata(path).expect(path).rdev());
            assert_eq!(covers, [libc::makedev(1, 3); 2]);
        })
        .expect("built");
    assert_eq!(fs::read(place.image("key")).expect("key"), b"secret");
}

#[test]
fn the_own_groups_are_shown_without_a_cgroup_namespace() {
    if !possible() {
        return;
    }
    let base = Path::new("/sys/fs/cgroup/pids");
    if !base.join("cgroup.procs").exists() {
        eprintln!("skipped: no v1 pids hierarchy");
        return;
    }
    let group = base.join(format!("shoal-files-{}", std::process::id()));
    fs::create_dir(&group).expect("group");
    let place = Place::new();
    let mut spec = with_proc(vec![
        json!({"destination": "/sys", "type": "sysfs", "options": ["ro"]}),
        json!({"destination": "/sys/fs/cgroup", "type": "cgroup", "options": ["ro"]}),
    ]);
    spec["process"] = json!({"cwd": "/"});
    let around = Surroundings {
        cgroups: Some(vec![("pids".into(), "pids".into())]),
        groups: vec![group.clone()],
        ..Surroundings::default()
    };
    let own = group.file_name().expect("a name").to_owned();
    let looked = place.inside_of(
        spec,
        OWNED & !libc::CLONE_NEWCGROUP,
        &around,
        || {},
        || {
            let names = || fs::read_dir("/sys/fs/cgroup/pids").expect("view").flatten();
            let hidden = names().all(|entry| entry.file_name() != own);
            let error = fs::create_dir("/sys/fs/cgroup/pids/x").expect_err("read-only");
            let max = Path::new("/sys/fs/cgroup/pids/pids.max").exists();
            (
                hidden,
                max,
                error.kind(),
                fs::create_dir("/sys/fs/cgroup/y").is_err(),
            )
        },
    );
    fs::remove_dir(&group).expect("an empty group");
    // Only a group that is not the root has a limit: it is the container's own.
    assert_eq!(
        looked.expect("built"),
        (true, true, ErrorKind::ReadOnlyFilesystem, true)
    );
}

#[test]
fn what_a_file_system_refuses_is_named() {
    if !possible() {
        return;
    }
    let place = Place::new();
    for (mount, word) in [
        (
            json!({"destination": "/x", "type": "tmpfs", "options": ["size=much"]}),
            "size",
        ),
        (
            json!({"destination": "/x", "type": "tmpfs", "options": ["nonsense"]}),
            "nonsense",
        ),
        (json!({"destination": "/x", "type": "nosuchfs"}), "nosuchfs"),
        (
            json!({"destination": "/x", "type": "bind", "source": "/nonexistent/a"}),
            "/nonexistent/a",
        ),
        (
            json!({"destination": "/etc", "type": "bind", "source": "/dev/null"}),
            "directory onto a file",
        ),
        (
            json!({"destination": "/none", "type": "bind", "options": ["remount", "ro"]}),
            "/none",
        ),
    ] {
        let failure = place.inside(with_proc(vec![mount]), || ()).expect_err(word);
        let text = failure.to_string();
        assert!(text.contains(word) && text.lines().count() == 1, "{text}");
    }
}

#[test]
fn a_thousand_mounts_take_no_time_and_ten_thousand_are_refused() {
    if !possible() {
        return;
    }
    let place = Place::new();
    let volume = place.path("volume");
    let many = |count: usize| -> Value {
        let bind = |index: usize| json!({"destination": format!("/m/{index}"), "type": "bind", "source": volume, "options": ["rbind", "ro", "rprivate"]});
        with_proc((0..count).map(bind).collect())
    };
    let begun = Instant::now();
    let found = place.inside(many(1000), || {
        mount_points("/proc/thread-self/mountinfo").len()
    });
    assert!(found.expect("built") > 1000);
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
    let failure = place.inside(many(10_000), || ()).expect_err("too many");
    assert!(failure.to_string().contains("10001 mounts"), "{failure}");
}

#[test]
fn without_a_pivot_the_root_is_moved_over_the_hosts() {
    if !possible() {
        return;
    }
    let place = Place::new();
    fs::write(place.image("etc/mark"), "image").expect("file");
    let spec: Spec = serde_json::from_value(with_proc(vec![])).expect("spec");
    let around = Surroundings::default();
    let seen = std::thread::scope(|scope| {
        let built = scope.spawn(|| {
            process::unshare(OWNED).expect("namespaces of the thread's own");
            let source = RootSource::Directory(place.dir.join("root"));
            let plan = Plan::new(&spec, source, OWNED.cast_unsigned().into())?;
            let sources = plan.sources(&Kernel)?;
            let mut files = Filesystem::begin(&Kernel, &plan, &around, sources, None)?;
            files.mount_all(&mut || Ok(()), &mut || Ok(()))?;
            files.finish()?;
            files.enter(true)?;
            let up = fs::read_to_string("../../../etc/mark").expect("no way up");
            Ok::<_, Failure>((up, mounted("/proc").2))
        });
        built.join().expect("no panic inside")
    });
    assert_eq!(seen.expect("built"), ("image".into(), "proc".into()));
    assert!(
        Path::new("/proc/self/exe").exists(),
        "the host keeps its own"
    );
}
