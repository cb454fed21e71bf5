//! What a hostile image or program would try: each known way out of a container, closed (spec: native.md B5).

mod support;

use serde_json::{Value, json};
use std::ffi::CString;
use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use support::{Client, Core, possible, rounds};

/// Runs a shell script in a container that `change` has altered; gives its output. It must exit with 0.
fn output_of(core: &Core, id: &str, script: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut client = core.client();
    let mut create = core.create(id, &["sh", "-c", script]);
    change(&mut create);
    let exit = client.run(create);
    client.delete(id);
    let text = core.log_text(id);
    assert_eq!(exit["exitCode"], 0, "{id}: {text}");
    text
}

/// Lets a program of this machine run in the container.
fn bind_host_libraries(create: &mut Value) {
    let mounts = create["spec"]["mounts"].as_array_mut().expect("mounts");
    let there = |dir: &str| Path::new(dir).exists();
    for dir in ["/usr", "/lib", "/lib64"]
        .into_iter()
        .filter(|dir| there(dir))
    {
        mounts.push(
            json!({"destination": dir, "type": "bind", "source": dir, "options": ["rbind", "ro"]}),
        );
    }
}

fn pid_of(client: &mut Client, id: &str) -> i64 {
    client.by_id("state", id)["pid"].as_i64().expect("pid")
}

/// CVE-2025-31133, CVE-2025-52881: what is masked shows nothing and what is read-only takes nothing.
#[test]
fn masked_paths_show_nothing_and_read_only_paths_take_nothing() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let create = core.create("x", &["true"]);
    let linux = &create["spec"]["linux"];
    let list = |name: &str| -> Vec<String> {
        let paths = linux[name].as_array().expect("paths");
        paths
            .iter()
            .filter_map(|path| path.as_str().map(str::to_owned))
            .collect()
    };
    let (masked, readonly) = (list("maskedPaths"), list("readonlyPaths"));
    assert!(masked.len() >= 10 && readonly.len() == 5);
    let script = format!(
        r#"
        for path in {}; do
            [ -e $path ] || continue
            echo seen
            if [ -d $path ]; then
                [ -z "$(ls -A $path)" ] || echo "shown: $path"
                mkdir $path/x 2>/dev/null && echo "taken: $path"
            else
                [ -z "$(cat $path 2>/dev/null)" ] || echo "shown: $path"
            fi
        done
        for path in {}; do
            [ -e $path ] || continue
            echo seen
            [ -w $path ] && [ ! -d $path ] && echo x 2>/dev/null > $path && echo "taken: $path"
            grep -q " $path ro," /proc/self/mountinfo || echo "not read-only: $path"
        done
        for file in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/sys/kernel/hostname; do
            echo x 2>/dev/null > $file && echo "taken: $file"
        done
        true"#,
        masked.join(" "),
        readonly.join(" ")
    );
    let text = output_of(&core, "masks", &script, |_| {});
    assert!(
        text.lines().count() >= 8 && text.lines().all(|line| line == "seen"),
        "{text}"
    );
    core.expect_clean();
}

/// CVE-2019-5736: before exec, init is a process of ours inside the container's namespaces. Its binary is a sealed copy,
/// and nobody who has only what a container may have looks into it.
#[test]
fn a_parked_init_cannot_be_looked_into_and_its_binary_cannot_be_written() {
    if !possible() {
        return;
    }
    // All of this core's processes lack CAP_SYS_PTRACE, so that between them the kernel's only objection is "not dumpable".
    let without = [
        "setpriv",
        "--bounding-set=-sys_ptrace",
        "--inh-caps=-sys_ptrace",
    ];
    let core = Core::start_as(&without, &[]);
    let mut client = core.client();
    client.ok(core.create("parked", &["sleep", "100"]));
    let init = pid_of(&mut client, "parked");
    let state = fs::read(core.dir.join("core/parked/state.json")).expect("state");
    let monitor = serde_json::from_slice::<Value>(&state).expect("JSON")["monitorPid"].clone();
    let look = |pid: &str| {
        let output = Command::new(without[0])
            .args(&without[1..])
            .args(["readlink", &format!("/proc/{pid}/exe")])
            .output()
            .expect("readlink runs");
        String::from_utf8_lossy(&output.stdout).into_owned()
    };
    assert!(
        look(&monitor.to_string()).contains("memfd:shoal-core"),
        "the same look at a process that does not hide succeeds"
    );
    assert_eq!(look(&init.to_string()), "");
    // With every privilege: it is not the file on disk, and cannot be opened for writing.
    let exe = format!("/proc/{init}/exe");
    let link = fs::read_link(&exe).expect("root may look");
    assert!(
        link.to_string_lossy().contains("memfd:shoal-core"),
        "{link:?}"
    );
    assert!(fs::OpenOptions::new().write(true).open(&exe).is_err());
    // Not only while it is executed.
    let file = fs::File::open(&exe).expect("root may read");
    // SAFETY: no pointers.
    let seals = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) };
    for seal in [
        libc::F_SEAL_WRITE,
        libc::F_SEAL_GROW,
        libc::F_SEAL_SHRINK,
        libc::F_SEAL_SEAL,
    ] {
        assert!(
            seals >= 0 && seals & seal != 0,
            "{seals:#x} without {seal:#x}"
        );
    }
    drop(file);
    client.by_id("start", "parked");
    let link = fs::read_link(&exe).expect("root may look");
    assert!(link.ends_with("bin/busybox"), "{link:?}");
    client.delete("parked");
    core.expect_clean();
}

/// CVE-2024-21626: a working directory by way of a descriptor of the host.
#[test]
fn a_working_directory_outside_the_root_is_refused() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let layer = core.dir.join("cwd-layer");
    fs::create_dir_all(&layer).expect("layer");
    let mut client = core.client();
    let mut cwds = vec!["/proc/self/cwd/x".to_owned()];
    for number in 3..16 {
        symlink(
            format!("/proc/self/fd/{number}"),
            layer.join(format!("fd{number}")),
        )
        .expect("link");
        cwds.push(format!("/proc/self/fd/{number}"));
        cwds.push(format!("/fd{number}"));
    }
    for cwd in cwds {
        let mut create = core.create("cwd", &["sh", "-c", "ls -la . ..; pwd"]);
        create["spec"]["process"]["cwd"] = json!(cwd);
        create["rootfs"]["layers"] = json!([core.dir.join("layer"), layer]);
        if client.call(create)["ok"] == true {
            client.fails(json!({"call": "start", "containerId": "cwd"}));
            assert_ne!(client.exit("cwd")["exitCode"], 0);
            client.delete("cwd");
        }
        assert_eq!(core.log_text("cwd"), "", "{cwd}");
        core.expect_clean();
    }
}

/// CVE-2024-21626: the same by a link that takes the directory's place between create, which looks, and start, which enters.
#[test]
fn a_working_directory_that_is_swapped_before_start_is_refused() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    let shared = core.dir.join("shared");
    let mut outside = 0;
    for number in 3..20 {
        fs::create_dir_all(shared.join("work")).expect("dir");
        let mut create = core.create("swap", &["sh", "-c", "ls -la . ..; pwd"]);
        create["spec"]["process"]["cwd"] = json!("/shared/work");
        let bind = json!({"destination": "/shared", "type": "bind", "source": shared, "options": ["rbind"]});
        create["spec"]["mounts"]
            .as_array_mut()
            .expect("mounts")
            .push(bind);
        client.ok(create);
        fs::remove_dir(shared.join("work")).expect("swapped");
        symlink(format!("/proc/self/fd/{number}"), shared.join("work")).expect("swapped");
        let failure = client.fails(json!({"call": "start", "containerId": "swap"}));
        let text = failure["message"].as_str().expect("message");
        outside += u32::from(text.contains("outside the container's root"));
        client.delete("swap");
        assert_eq!(core.log_text("swap"), "");
        fs::remove_file(shared.join("work")).expect("clean");
    }
    assert!(
        outside > 0,
        "no descriptor of the host was among them: the test shows nothing"
    );
    core.expect_clean();
}

/// CVE-2024-21626: a descriptor that whoever started the core had left open.
#[test]
fn no_descriptor_of_the_host_reaches_the_program() {
    if !possible() {
        return;
    }
    let leak = "exec 7<>/dev/null 8</ 9</etc/passwd; exec \"$@\"";
    let core = Core::start_as(&["sh", "-c", leak, "sh"], &[]);
    let text = output_of(
        &core,
        "fds",
        "ls /proc/self/fd | wc -l; ls /proc/$$/fd",
        |_| {},
    );
    // Three streams and the directory that is being listed; the shell has the streams (and 10 in some builds of it).
    assert!(text.starts_with("4\n0\n1\n2\n"), "{text}");
    for leaked in ["\n7\n", "\n8\n", "\n9\n"] {
        assert!(!text.contains(leaked), "{text}");
    }
    core.expect_clean();
}

/// CVE-2026-41579, CVE-2026-47766: /proc, /sys or /dev of an image that lead elsewhere.
#[test]
fn the_places_of_kernel_file_systems_must_be_real_directories() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let mut client = core.client();
    for name in ["proc", "sys", "dev"] {
        for target in ["/tmp", "../../../../tmp", "/nowhere"] {
            let layer = core.dir.join("link-layer");
            fs::create_dir_all(&layer).expect("layer");
            symlink(target, layer.join(name)).expect("link");
            let mut create = core.create("links", &["true"]);
            create["rootfs"]["layers"] = json!([layer]);
            let failure = client.fails(create);
            assert_eq!(failure["code"], "invalid", "{failure}");
            core.expect_clean();
            fs::remove_dir_all(&layer).expect("clean");
        }
    }
}

/// Keys of the host's session are not the container's, and no two containers share a session.
#[test]
fn each_container_has_a_session_keyring_of_its_own() {
    if !possible() {
        return;
    }
    if !Path::new("/usr/bin/perl").exists() {
        eprintln!("\n!!! SKIPPED: asking for a keyring's number needs /usr/bin/perl !!!\n");
        return;
    }
    const KEYCTL_GET_KEYRING_ID: i64 = 0;
    const SESSION_KEYRING: i64 = -3;
    // SAFETY: no pointers.
    let ours =
        unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_GET_KEYRING_ID, SESSION_KEYRING, 1) };
    let core = Core::start();
    let ask = format!(
        "exec /usr/bin/perl -e 'print syscall({}, {KEYCTL_GET_KEYRING_ID}, {SESSION_KEYRING}, 0)'",
        libc::SYS_keyctl
    );
    let mut seen = vec![ours.to_string()];
    for id in ["one", "two"] {
        let text = output_of(&core, id, &ask, |create| {
            bind_host_libraries(create);
        });
        assert!(
            text.parse::<i64>().is_ok_and(|number| number > 0),
            "{text:?}"
        );
        assert!(!seen.contains(&text), "{text} is somebody else's: {seen:?}");
        seen.push(text);
    }
    core.expect_clean();
}

/// CVE-2021-30465: somebody swaps a mount's target between a directory and a link to the host while it is being mounted.
#[test]
fn a_mount_target_that_is_swapped_meanwhile_leads_nowhere() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let (shared, victim) = (core.dir.join("shared"), core.dir.join("victim"));
    fs::create_dir_all(shared.join("a")).expect("dir");
    fs::create_dir_all(&victim).expect("dir");
    symlink(&victim, shared.join("b")).expect("link");
    let name = |path: &Path| CString::new(path.display().to_string()).expect("path");
    let (a, b) = (name(&shared.join("a")), name(&shared.join("b")));
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                // SAFETY: both names are NUL-terminated and live over the call.
                unsafe {
                    libc::renameat2(
                        libc::AT_FDCWD,
                        a.as_ptr(),
                        libc::AT_FDCWD,
                        b.as_ptr(),
                        libc::RENAME_EXCHANGE,
                    )
                };
            }
        });
        let mut client = core.client();
        for round in 0..rounds("SHOAL_RACE_ROUNDS", 30) {
            let id = format!("race{round}");
            let mut create = core.create(&id, &["true"]);
            let mounts = create["spec"]["mounts"].as_array_mut().expect("mounts");
            let source = core.dir.join("layer/etc");
            mounts.push(json!({"destination": "/shared", "type": "bind", "source": shared, "options": ["rbind"]}));
            mounts.push(json!({"destination": "/shared/a/made", "type": "bind", "source": source, "options": ["rbind"]}));
            // Either way it is well, as long as nothing happens at the other end of the link.
            if client.call(create)["ok"] == true {
                client.delete(&id);
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(fs::read_dir(&victim).expect("victim").count(), 0);
    core.expect_clean();
}

/// Device nodes can be made, as with docker; only the harmless ones can be used. For the kernel's log (1:11) nothing but the device rules
/// is in the way of who writes to it; memory (1:1) would need a capability as well.
#[test]
fn devices_of_the_host_cannot_be_opened() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let text = output_of(
        &core,
        "devices",
        "mknod /m c 1 1; mknod /k c 1 11; mknod /dev/shm/n c 1 11; for node in /m /k /dev/shm/n; do head -c 1 $node >/dev/null 2>&1 && echo opened $node; (: > $node) 2>/dev/null && echo opened $node; done; head -c 1 /dev/zero | wc -c",
        |_| {},
    );
    assert_eq!(text, "1\n");
    core.expect_clean();
}

#[test]
fn every_namespace_is_the_containers_own() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let kinds = ["mnt", "pid", "net", "uts", "ipc", "cgroup"];
    let script = format!(
        "for kind in {}; do readlink /proc/self/ns/$kind; done",
        kinds.join(" ")
    );
    let text = output_of(&core, "spaces", &script, |_| {});
    assert_eq!(text.lines().count(), kinds.len());
    for (kind, theirs) in kinds.iter().zip(text.lines()) {
        let ours = fs::read_link(format!("/proc/self/ns/{kind}")).expect("namespace");
        assert_ne!(ours.to_string_lossy(), theirs);
    }
    core.expect_clean();
}

/// A setuid program of the image gives nothing to whom no_new_privs was promised to, and to nobody more than the bounding set.
#[test]
fn a_setuid_program_gains_no_more_than_it_may() {
    if !possible() {
        return;
    }
    let core = Core::start();
    let layer = core.dir.join("suid-layer");
    fs::create_dir_all(layer.join("bin")).expect("layer");
    // Not busybox, which gives the privilege back by itself.
    fs::copy("/bin/cat", layer.join("bin/suid")).expect("cat");
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o4755);
    fs::set_permissions(layer.join("bin/suid"), mode).expect("setuid");
    for (id, promised, uid, effective) in [
        ("promised", true, "1000", "0000000000000000"),
        ("usual", false, "0", "00000000a80425fb"),
    ] {
        let text = output_of(&core, id, "/bin/suid /proc/self/status", |create| {
            create["rootfs"]["layers"] = json!([core.dir.join("layer"), layer]);
            let process = &mut create["spec"]["process"];
            process["user"] = json!({"uid": 1000, "gid": 1000, "additionalGids": []});
            process["noNewPrivileges"] = json!(promised);
            bind_host_libraries(create);
        });
        for wanted in [
            format!("Uid:\t1000\t{uid}\t{uid}\t{uid}\n"),
            format!("CapEff:\t{effective}\nCapBnd:\t00000000a80425fb\n"),
            format!("NoNewPrivs:\t{}\n", u8::from(promised)),
        ] {
            assert!(
                text.contains(&wanted),
                "{id}: {wanted:?} is not in:\n{text}"
            );
        }
    }
    core.expect_clean();
}
