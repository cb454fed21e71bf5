//! The OCI command line: what callers of runc and crun rely on, as the outside suites (runc's bats, runtime-tools) have taught.

mod bundle;

use bundle::{Bundle, eventually, groups, possible, said};
use serde_json::json;
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::process::Stdio;

/// The output of a program that must end well.
fn output(bundle: &Bundle) -> String {
    bundle.write();
    let said = bundle.say(&["run", &bundle.id]);
    assert_eq!(said.code, 0, "{said:?}");
    bundle.assert_nothing_left(&bundle.id);
    said.out
}

#[test]
fn the_environment_has_each_name_once_and_a_home() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::script("env | grep -v -e PWD -e SHLVL");
    fs::write(bundle.dir.join("rootfs/etc/passwd"), "root:x:0:0::/root:\n").expect("passwd");
    bundle.config["process"]["env"] = json!(["A=1", "PATH=/bin", "HOME=/x", "A=", "HOME="]);
    let mut lines: Vec<String> = output(&bundle).lines().map(str::to_owned).collect();
    lines.sort();
    assert_eq!(lines, ["A=", "HOME=/root", "PATH=/bin"]);
}

#[test]
fn exec_reads_its_process_from_a_pipe_and_its_user_from_the_container() {
    if !possible() {
        return;
    }
    let bundle = Bundle::new();
    fs::write(
        bundle.dir.join("rootfs/etc/passwd"),
        "root:x:0:0::/root:\nann:x:1000:1001::/home/ann:\n",
    )
    .expect("passwd");
    fs::write(bundle.dir.join("rootfs/etc/group"), "staff:x:50:ann\n").expect("group");
    bundle.write();
    let id = bundle.id.as_str();
    assert_eq!(bundle.leave(&["run", "--detach", id]).code, 0);

    let mut exec = bundle
        .command(&["exec", "--process", "/dev/stdin", id])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("exec");
    let process = json!({"args": ["echo", "piped"], "cwd": "/", "env": ["PATH=/bin"]});
    let mut stdin = exec.stdin.take().expect("piped");
    stdin
        .write_all(process.to_string().as_bytes())
        .expect("written");
    drop(stdin);
    let got = said(exec.wait_with_output().expect("ended"));
    assert_eq!((got.code, got.out.as_str()), (0, "piped\n"), "{got:?}");

    let user = bundle.ok(&["exec", "--user", "ann", id, "id"]);
    assert!(
        user.starts_with("uid=1000(ann) gid=1001") && user.contains("50(staff)"),
        "{user}"
    );
    for nobody in ["bob", ":50", "4294967295"] {
        let got = bundle.say(&["exec", "--user", nobody, id, "id"]);
        assert_eq!(got.code, 255, "{nobody}: {got:?}");
    }
    let got = bundle.say(&["exec", "--cgroup", "../x", id, "true"]);
    assert!(got.err.contains("bad sub cgroup path"), "{got:?}");
    bundle.ok(&["delete", "--force", id]);
    bundle.assert_nothing_left(id);
}

/// Runs the command on the first CPU only.
fn on_one_cpu(command: &mut std::process::Command) {
    // SAFETY: only one system call on plain data between fork and exec.
    unsafe {
        command.pre_exec(|| {
            let mut set: libc::cpu_set_t = std::mem::zeroed();
            libc::CPU_SET(0, &mut set);
            match libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) {
                0 => Ok(()),
                _ => Err(std::io::Error::last_os_error()),
            }
        });
    }
}

#[test]
fn a_program_has_all_cpus_whatever_its_caller_is_bound_to() {
    if !possible() {
        return;
    }
    if std::thread::available_parallelism().map_or(1, usize::from) < 2 {
        eprintln!("\n!!! SKIPPED: one CPU only !!!\n");
        return;
    }
    let bundle = Bundle::script("grep Cpus_allowed_list /proc/self/status; exec sleep 1000");
    bundle.write();
    let out = bundle.dir.join("cpus");
    let mut create = bundle.command(&["run", "--detach", &bundle.id]);
    on_one_cpu(&mut create);
    let file = fs::File::create(&out).expect("file");
    assert!(create.stdout(file).status().expect("run").success());
    eventually("it has said its CPUs", || {
        fs::read_to_string(&out).is_ok_and(|text| text.ends_with('\n'))
    });
    let mut exec = bundle.command(&["exec", &bundle.id, "grep", "Cpus_all", "/proc/self/status"]);
    on_one_cpu(&mut exec);
    let later = said(exec.output().expect("exec"));
    for text in [fs::read_to_string(&out).expect("cpus"), later.out] {
        assert!(
            text.contains("Cpus_allowed_list:") && !text.contains("list:\t0\n"),
            "{text}"
        );
    }
    bundle.ok(&["delete", "--force", &bundle.id]);
}

#[test]
fn hooks_of_the_container_run_with_the_programs_user_and_filter() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::script("cat /tmp/said");
    fs::set_permissions(
        bundle.dir.join("rootfs/tmp"),
        fs::Permissions::from_mode(0o777),
    )
    .expect("mode");
    bundle.config["process"]["user"] = json!({"uid": 1000, "gid": 1000});
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_KILL_PROCESS"}],
    });
    let hook = |script: &str| json!({"startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", script]}]});
    bundle.config["hooks"] =
        hook("{ id -u; echo $HOME; grep -e CapEff -e Seccomp: /proc/self/status; } > /tmp/said");
    let text = output(&bundle);
    assert!(text.starts_with("1000\n/\n"), "{text}");
    assert!(
        text.contains("CapEff:\t0000000000000000") && text.contains("Seccomp:\t2"),
        "{text}"
    );

    bundle.config["hooks"] = hook("mkdir /tmp/forbidden");
    bundle.write();
    let got = bundle.say(&["run", &bundle.id]);
    assert_eq!(got.code, 1, "{got:?}");
    assert!(
        got.err.contains("error running startContainer hook #0")
            && got.err.contains("bad system call"),
        "{got:?}"
    );
    bundle.assert_nothing_left(&bundle.id);
}

#[test]
fn hooks_of_the_creation_hear_their_status_and_begin_in_the_root() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::script("ls /");
    let into = |name: &str| {
        let file = bundle.dir.join(name).display().to_string();
        json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("cat > {file}")]}])
    };
    bundle.config["hooks"] = json!({
        "prestart": into("prestart"),
        "createRuntime": into("create"),
        "createContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "echo x > ./from-hook"]}],
    });
    let listed = output(&bundle);
    assert!(listed.contains("from-hook"), "{listed}");
    for (name, status) in [("prestart", "created"), ("create", "creating")] {
        let text = fs::read_to_string(bundle.dir.join(name)).expect(name);
        let state: serde_json::Value = serde_json::from_str(&text).expect("a state");
        assert_eq!(state["status"], status, "{name}");
    }
}

#[test]
fn a_terminals_output_into_a_pipe_has_plain_line_ends() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::script("test -t 1 && echo one; echo two");
    bundle.config["process"]["terminal"] = json!(true);
    assert_eq!(output(&bundle), "one\ntwo\n");
}

#[test]
fn a_bind_that_names_attributes_has_exactly_those() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::script("grep -e ' /[abc] ' /proc/mounts");
    for name in ["source", "rootfs/a", "rootfs/b", "rootfs/c"] {
        fs::create_dir(bundle.dir.join(name)).expect("directory");
    }
    // The first is the source of the others: its mount is seen by its path below the root.
    let bound = |from: &str, to: &str, options: &[&str]| json!({"destination": to, "type": "bind", "source": bundle.dir.join(from), "options": options});
    let mut mounts = bundle.config["mounts"].as_array().expect("mounts").clone();
    mounts.extend([
        bound("source", "/a", &["bind", "ro", "noexec"]),
        bound("rootfs/a", "/b", &["bind", "nosuid"]),
        bound("rootfs/a", "/c", &["rbind", "rprivate"]),
    ]);
    bundle.config["mounts"] = json!(mounts);
    let text = output(&bundle);
    let options = |path: &str| -> Vec<String> {
        let line = text
            .lines()
            .find(|line| line.contains(&format!(" {path} ")));
        let words = line.expect(path).split(' ').nth(3).expect("options");
        words.split(',').map(str::to_owned).collect()
    };
    let has = |path: &str, word: &str| options(path).iter().any(|one| one == word);
    assert!(has("/a", "ro") && has("/a", "noexec"), "{text}");
    assert!(
        has("/b", "rw") && has("/b", "nosuid") && !has("/b", "noexec"),
        "{text}"
    );
    assert!(has("/c", "ro") && has("/c", "noexec"), "{text}");
}

#[test]
fn owners_are_mapped_by_a_mounts_option() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::script("stat -c %u:%g /a/file");
    for name in ["source", "rootfs/a"] {
        fs::create_dir(bundle.dir.join(name)).expect("directory");
    }
    fs::write(bundle.dir.join("source/file"), "x").expect("file");
    let mut mounts = bundle.config["mounts"].as_array().expect("mounts").clone();
    mounts.push(json!({
        "destination": "/a", "type": "bind", "source": bundle.dir.join("source"),
        "options": ["bind", "idmap=uids=0-1000-10;gids=0-2000-10"],
    }));
    bundle.config["mounts"] = json!(mounts);
    assert_eq!(output(&bundle), "1000:2000\n");
}

#[test]
fn what_is_not_as_the_configuration_says_is_told() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::script("true");
    let sets = &mut bundle.config["process"]["capabilities"];
    sets["bounding"] = json!(["CAP_KILL", "CAP_NOPE"]);
    sets["ambient"] = json!(["CAP_KILL"]);
    bundle.write();
    let got = bundle.say(&["--log", "log", "--log-format", "json", "run", &bundle.id]);
    assert_eq!((got.code, got.err.as_str()), (0, ""), "{got:?}");
    let log = fs::read_to_string(bundle.dir.join("log")).expect("log");
    assert!(
        log.contains(
            r#""level":"warning","msg":"ignoring unknown or unavailable capabilities: [CAP_NOPE]""#
        ),
        "{log}"
    );
    assert!(
        log.contains("can't raise ambient capability CAP_KILL: "),
        "{log}"
    );
}

#[test]
fn a_created_container_holds_no_descriptor_of_the_hosts_devices() {
    if !possible() {
        return;
    }
    let bundle = Bundle::new();
    bundle.write();
    assert_eq!(bundle.leave(&["create", &bundle.id]).code, 0);
    let pid = bundle.state(&bundle.id).expect("state")["pid"].to_string();
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("fd") {
        let entry = entry.expect("entry");
        let number: u32 = entry
            .file_name()
            .to_string_lossy()
            .parse()
            .expect("a number");
        let target = fs::read_link(entry.path()).expect("link");
        assert!(
            number < 3 || target.to_string_lossy().starts_with("socket:"),
            "{number}: {}",
            target.display()
        );
    }
    let early = bundle.say(&["delete", &bundle.id]);
    assert!(
        early.code == 1 && early.err.contains("that is not stopped: created"),
        "{early:?}"
    );
    assert_eq!(bundle.status(&bundle.id), "created");
    bundle.ok(&["kill", &bundle.id, "TERM"]);
    bundle.wait_status(&bundle.id, "stopped");
    bundle.ok(&["delete", &bundle.id]);
    bundle.assert_nothing_left(&bundle.id);
}

#[test]
fn a_process_that_others_have_frozen_is_deleted() {
    if !possible() {
        return;
    }
    let freezer = std::path::Path::new("/sys/fs/cgroup/freezer");
    if !freezer.is_dir() {
        eprintln!("\n!!! SKIPPED: only v1 can freeze by another group !!!\n");
        return;
    }
    let bundle = Bundle::new();
    bundle.write();
    assert_eq!(bundle.leave(&["run", "--detach", &bundle.id]).code, 0);
    let pid = bundle.state(&bundle.id).expect("state")["pid"].to_string();
    let other = freezer.join(format!("{}-other", bundle.id));
    fs::create_dir(&other).expect("group");
    fs::write(other.join("cgroup.procs"), pid).expect("moved");
    fs::write(other.join("freezer.state"), "FROZEN").expect("frozen");
    let got = bundle.say(&["delete", "--force", &bundle.id]);
    // Whatever came of it, nothing stays behind.
    fs::write(other.join("freezer.state"), "THAWED").expect("thawed");
    eventually("the group is empty", || fs::remove_dir(&other).is_ok());
    assert_eq!(got.code, 0, "{got:?}");
    bundle.assert_nothing_left(&bundle.id);
}

#[test]
fn no_pids_at_all_is_one() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    bundle.config["linux"]["resources"] = json!({"pids": {"limit": 0}});
    bundle.write();
    assert_eq!(bundle.leave(&["run", "--detach", &bundle.id]).code, 0);
    let limits: Vec<String> = groups(&bundle.id)
        .iter()
        .filter_map(|group| fs::read_to_string(group.join("pids.max")).ok())
        .collect();
    assert_eq!(limits, ["1\n"]);
    bundle.ok(&["delete", "--force", &bundle.id]);
}

#[test]
fn a_program_that_the_kernel_refuses_is_told_in_one_bare_line() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let script = bundle.dir.join("rootfs/run.sh");
    fs::write(&script, "#!/nowhere\n").expect("script");
    fs::set_permissions(&script, fs::Permissions::from_mode(0o755)).expect("mode");
    bundle.config["process"]["args"] = json!(["/run.sh"]);
    bundle.write();
    let got = bundle.say(&["run", &bundle.id]);
    assert_eq!(got.err, "exec /run.sh: no such file or directory\n");
    assert_eq!(got.code, 1);
    bundle.assert_nothing_left(&bundle.id);
}

/// The groups of a process, one line a hierarchy.
fn lines_of_groups(pid: &str) -> Vec<String> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("its groups");
    text.lines().map(str::to_owned).collect()
}

#[test]
fn a_container_has_its_group_in_the_v2_mount_beside_v1() {
    if !possible() {
        return;
    }
    if !std::path::Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
        eprintln!("\n!!! SKIPPED: no hybrid machine !!!\n");
        return;
    }
    let bundle = Bundle::new();
    bundle.write();
    assert_eq!(bundle.leave(&["run", "--detach", &bundle.id]).code, 0);
    let pid = bundle.state(&bundle.id).expect("state")["pid"].to_string();
    let of_init = lines_of_groups(&pid);
    let last = of_init.last().expect("a line");
    assert!(
        last.starts_with("0::") && last.ends_with(&bundle.id),
        "{last}"
    );
    let of_exec = bundle.ok(&["exec", &bundle.id, "cat", "/proc/self/cgroup"]);
    assert_eq!(of_exec.trim().lines().last(), Some(last.as_str()));
    // Asked for by name, it is in all of them.
    let path = last.trim_start_matches("0::");
    for args in [&["--cgroup", "/"][..], &[]] {
        let line = [
            &["exec"][..],
            args,
            &[&bundle.id, "cat", "/proc/self/cgroup"],
        ]
        .concat();
        let all = bundle.ok(&line);
        assert!(all.lines().all(|line| line.ends_with(path)), "{all}");
    }
    bundle.ok(&["delete", "--force", &bundle.id]);
    bundle.assert_nothing_left(&bundle.id);
}

/// Gives the container a user namespace with these mappings.
fn in_user_namespace(bundle: &mut Bundle) -> serde_json::Value {
    let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    bundle.config["linux"]["uidMappings"] = maps.clone();
    bundle.config["linux"]["gidMappings"] = maps.clone();
    bundle.config["linux"]["namespaces"]
        .as_array_mut()
        .expect("namespaces")
        .push(json!({"type": "user"}));
    maps
}

#[test]
fn a_user_namespace_keeps_what_a_binds_source_may_not_do() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::script("grep ' /mnt ' /proc/self/mounts");
    let source = bundle.dir.join("source");
    fs::create_dir(&source).expect("source");
    fs::create_dir(bundle.dir.join("rootfs/mnt")).expect("mount point");
    in_user_namespace(&mut bundle);
    let mut run = |host: &str, options: serde_json::Value| {
        let mounts = bundle.config["mounts"].as_array_mut().expect("mounts");
        mounts.retain(|mount| mount["destination"] != "/mnt");
        mounts.push(
            json!({"destination": "/mnt", "type": "bind", "source": source, "options": options}),
        );
        bundle.write();
        // The source's own attributes, in a mount namespace that ends with the run.
        let line = format!(
            "mount --bind {0} {0} && mount -o remount,bind,{host} {0} && exec \"$@\"",
            source.display()
        );
        let run = bundle.command(&["run", &bundle.id]);
        let output = std::process::Command::new("unshare")
            .args(["--mount", "--propagation", "private"])
            .args(["sh", "-c", &line, "sh"])
            .arg(run.get_program())
            .args(run.get_args())
            .current_dir(&bundle.dir)
            .stdin(Stdio::null())
            .output()
            .expect("unshare");
        bundle.assert_nothing_left(&bundle.id);
        said(output)
    };
    for (host, options) in [
        ("ro", json!(["bind", "rw"])),
        ("nodev,nosuid", json!(["bind", "dev", "suid"])),
        ("noatime", json!(["bind", "strictatime"])),
        ("relatime", json!(["bind", "nodiratime"])),
    ] {
        let refused = run(host, options);
        assert_ne!(refused.code, 0, "{host}: {refused:?}");
        assert!(
            refused
                .err
                .contains("error during container init: error mounting")
                && refused.err.contains("operation not permitted"),
            "{host}: {refused:?}"
        );
    }
    // A word that only takes something away from access times says nothing, as for mount(8).
    let times = run("nodiratime", json!(["bind", "diratime"]));
    assert!(
        times.code == 0 && times.out.contains("nodiratime"),
        "{times:?}"
    );
    let kept = run("ro,nodev", json!(["bind", "nosuid"]));
    assert_eq!(kept.code, 0, "{kept:?}");
    let words: Vec<&str> = kept.out.split([' ', ',']).collect();
    for attribute in ["ro", "nodev", "nosuid"] {
        assert!(words.contains(&attribute), "{attribute}: {kept:?}");
    }
}

#[test]
fn owners_are_mapped_of_what_earlier_mounts_have_brought_into_the_root() {
    if !possible() {
        return;
    }
    for user in [false, true] {
        let mut bundle = Bundle::script("stat -c %u:%g /plain/file /mapped/file");
        let source = bundle.dir.join("source");
        fs::create_dir(&source).expect("source");
        fs::write(source.join("file"), "x").expect("file");
        std::os::unix::fs::chown(source.join("file"), Some(5), Some(6)).expect("owned");
        let maps = in_user_namespace(&mut bundle);
        if !user {
            let linux = bundle.config["linux"].as_object_mut().expect("linux");
            linux.remove("uidMappings");
            linux.remove("gidMappings");
            linux["namespaces"]
                .as_array_mut()
                .expect("namespaces")
                .retain(|one| one["type"] != "user");
        }
        let root = bundle.dir.join("rootfs");
        for name in ["plain", "mapped"] {
            fs::create_dir(root.join(name)).expect("mount point");
        }
        let mounts = bundle.config["mounts"].as_array_mut().expect("mounts");
        mounts.push(json!({"destination": "/plain", "type": "bind", "source": source, "options": ["rbind"]}));
        mounts.push(
            json!({"destination": "/mapped", "type": "bind", "source": root.join("plain"),
            "options": ["rbind"], "uidMappings": maps, "gidMappings": maps}),
        );
        // Mapped, an owner of the host is 100,000 further: in a container with the same mappings that is the id itself.
        let want = if user {
            "65534:65534\n5:6\n"
        } else {
            "5:6\n100005:100006\n"
        };
        assert_eq!(output(&bundle), want, "user namespace: {user}");
    }
}

#[test]
fn resource_control_is_refused_where_there_is_none() {
    if !possible() {
        return;
    }
    let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    if mounts.contains(" - resctrl ") {
        eprintln!("\n!!! SKIPPED: this machine has resctrl !!!\n");
        return;
    }
    let mut bundle = Bundle::new();
    bundle.config["linux"]["intelRdt"] = json!({"closID": "gold", "schemata": ["L3:0=f"]});
    bundle.write();
    let got = bundle.say(&["run", &bundle.id]);
    assert_eq!(got.code, 1, "{got:?}");
    assert!(
        got.err.contains("linux.intelRdt") && got.err.contains("Intel RDT is not enabled"),
        "{got:?}"
    );
    bundle.assert_nothing_left(&bundle.id);
    bundle.config["linux"]["intelRdt"] = json!(null);
    bundle.write();
    let id = bundle.id.as_str();
    assert_eq!(bundle.leave(&["run", "--detach", id]).code, 0);
    let got = bundle.say(&["update", "--l3-cache-schema", "L3:0=f", id]);
    assert!(got.err.contains("Intel RDT"), "{got:?}");
    bundle.ok(&["delete", "--force", id]);
    bundle.assert_nothing_left(id);
}
