//! What whoever calls, and what a bundle asks for, must not bring into a container (spec: native.md B5), on the command line and the core.

mod bundle;
mod support;

use bundle::{Bundle, possible, said};
use serde_json::json;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::process::{Command, Stdio};

/// A command of the bundle behind other words, which exec it: `setpriv ...`.
fn behind(words: &[&str], bundle: &Bundle, args: &[&str]) -> Command {
    let command = bundle.command(args);
    let mut whole = Command::new(words[0]);
    whole
        .args(&words[1..])
        .arg(command.get_program())
        .args(command.get_args())
        .current_dir(&bundle.dir)
        .stdin(Stdio::null())
        .env_remove("LISTEN_FDS");
    whole
}

/// A caller with groups, inheritable and ambient capabilities: the program has what its configuration says and nothing of these.
#[test]
fn nothing_of_the_callers_privilege_reaches_the_program() {
    if !possible() {
        return;
    }
    const KILL: u64 = 1 << 5;
    let mut bundle = Bundle::script("grep -E '^(Groups|Cap)' /proc/self/status");
    let own = json!(["CAP_KILL"]);
    bundle.config["process"]["capabilities"] =
        json!({"bounding": own, "effective": own, "permitted": own, "inheritable": own});
    bundle.write();
    let caller = [
        "setpriv",
        "--groups=4242,4243",
        "--inh-caps=+kill,+net_admin,+sys_ptrace",
        "--ambient-caps=+kill,+net_admin,+sys_ptrace",
    ];
    let run = behind(&caller, &bundle, &["run", &bundle.id]).output();
    let run = said(run.expect("setpriv runs"));
    let mut wanted = "Groups:\t \n".to_owned();
    for (set, mask) in [
        ("Inh", KILL),
        ("Prm", KILL),
        ("Eff", KILL),
        ("Bnd", KILL),
        ("Amb", 0),
    ] {
        wanted += &format!("Cap{set}:\t{mask:016x}\n");
    }
    assert_eq!(
        (run.code, run.out.as_str()),
        (0, wanted.as_str()),
        "{run:?}"
    );
    bundle.assert_nothing_left(&bundle.id);
}

/// With docker's default filter a program makes itself no user namespace.
#[test]
fn the_default_filter_judges_the_program() {
    if !possible() {
        return;
    }
    let core = support::Core::start();
    let mut client = core.client();
    let script = "grep -E '^Seccomp:' /proc/self/status; /bin/busybox unshare -U true && echo made";
    let mut create = core.create("filtered", &["sh", "-c", script]);
    create["seccomp"] = json!("default");
    client.run(create);
    client.delete("filtered");
    let text = core.log_text("filtered");
    assert!(text.contains("Seccomp:\t2\n"), "{text}");
    assert!(text.contains("Operation not permitted"), "{text}");
    assert!(!text.contains("made"), "{text}");
    core.expect_clean();
}

/// The same for a further process: made of the same container, it may make no more.
#[test]
fn the_default_filter_judges_an_exec() {
    if !possible() {
        return;
    }
    let core = support::Core::start();
    let mut client = core.client();
    let mut create = core.create("filtered", &["sleep", "1000"]);
    create["seccomp"] = json!("default");
    client.ok(create);
    client.by_id("start", "filtered");
    for (name, program, code) in [("may", "/bin/true", 0), ("may-not", "/bin/busybox", 1)] {
        // `true` takes no notice of arguments.
        let mut exec = core.exec("filtered", name, &[program, "unshare", "-U", "/bin/true"]);
        (exec["stdout"], exec["stderr"]) = (json!(false), json!(false));
        client.ok(exec);
        let event = client.event("exec-exit", "filtered");
        assert_eq!(
            (&event["execId"], &event["exitCode"]),
            (&json!(name), &json!(code))
        );
    }
    client.delete("filtered");
    core.expect_clean();
}

/// A further process is judged by the container's filter, as the first one is.
#[test]
fn an_exec_is_judged_by_the_containers_filter() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    bundle.config["linux"]["seccomp"] = json!({
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 99}]
    });
    bundle.write();
    let run = bundle.leave(&["run", "-d", &bundle.id]);
    assert_eq!(run.code, 0, "{run:?}");
    let made = bundle.say(&["exec", &bundle.id, "mkdir", "/tmp/made"]);
    assert_ne!(made.code, 0, "{made:?}");
    assert!(!bundle.dir.join("rootfs/tmp/made").exists());
    bundle.ok(&["delete", "--force", &bundle.id]);
    bundle.assert_nothing_left(&bundle.id);
}

/// CVE-2019-5736 where the runtime may not mount: it runs from a copy in memory that nothing can change any more.
#[test]
fn where_mounts_are_forbidden_the_binary_is_a_sealed_copy() {
    if !possible() {
        return;
    }
    let bundle = Bundle::new();
    bundle.write();
    let caller = [
        "setpriv",
        "--bounding-set=-sys_admin",
        "--inh-caps=-sys_admin",
    ];
    let run = behind(&caller, &bundle, &["run", &bundle.id]).output();
    let run = said(run.expect("setpriv runs"));
    // It gets as far as making namespaces, which it may not either.
    assert_eq!(run.code, 1, "{run:?}");
    assert!(!run.err.contains("own binary"), "{run:?}");
    assert!(run.err.contains("Operation not permitted"), "{run:?}");
    bundle.assert_nothing_left(&bundle.id);
}

/// CVE-2024-21626 by exec: descriptors that the caller had open.
#[test]
fn no_descriptor_of_the_caller_reaches_an_exec() {
    if !possible() {
        return;
    }
    let bundle = Bundle::new();
    bundle.write();
    let run = bundle.leave(&["run", "-d", &bundle.id]);
    assert_eq!(run.code, 0, "{run:?}");
    let leak = "exec 7<>/dev/null 8</ 9</etc/passwd; exec \"$@\"";
    let args = ["exec", &bundle.id, "ls", "/proc/self/fd"];
    let exec = behind(&["sh", "-c", leak, "sh"], &bundle, &args).output();
    let exec = said(exec.expect("sh runs"));
    // Three streams and the directory that is being listed.
    assert_eq!(
        (exec.code, exec.out.as_str()),
        (0, "0\n1\n2\n3\n"),
        "{exec:?}"
    );
    bundle.ok(&["delete", "--force", &bundle.id]);
    bundle.assert_nothing_left(&bundle.id);
}

/// A hard limit above the caller's, whom the machine lets raise none: the caller's stays, and the soft limit is as asked.
#[test]
fn a_limit_above_what_the_machine_allows_becomes_ours() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::script("ulimit -n; ulimit -Hn");
    bundle.config["process"]["rlimits"] =
        json!([{"type": "RLIMIT_NOFILE", "soft": 111, "hard": 222_222}]);
    bundle.write();
    let limit = "ulimit -Sn 400; ulimit -Hn 500; exec setpriv --bounding-set=-sys_resource --inh-caps=-sys_resource \"$@\"";
    let run = behind(&["sh", "-c", limit, "sh"], &bundle, &["run", &bundle.id]).output();
    let run = said(run.expect("sh runs"));
    assert_eq!((run.code, run.out.as_str()), (0, "111\n500\n"), "{run:?}");
    bundle.assert_nothing_left(&bundle.id);
}

/// CVE-2025-31133: what covers a masked file is the host's /dev/null itself, whose mode and owner are not the container's to change.
#[test]
fn a_masked_file_is_no_way_to_the_hosts_null() {
    if !possible() {
        return;
    }
    let script = "/bin/busybox chmod 666 /etc/secret && echo changed; /bin/busybox chown 0:0 /etc/secret && echo given; echo x > /etc/secret && echo written";
    let mut bundle = Bundle::script(script);
    fs::write(bundle.dir.join("rootfs/etc/secret"), "secret").expect("secret");
    bundle.config["linux"]["maskedPaths"] = json!(["/etc/secret"]);
    bundle.write();
    // The mode that it has already, so that nothing would be spoilt.
    let null = fs::metadata("/dev/null").expect("null");
    assert_eq!(null.mode() & 0o7777, 0o666);
    let run = bundle.say(&["run", &bundle.id]);
    // A device may be written to on a read-only mount.
    assert_eq!(run.out, "written\n", "{run:?}");
    bundle.assert_nothing_left(&bundle.id);
}

/// An id that leads out of `--root`, where the state of another container lies.
#[test]
fn an_id_that_is_a_path_is_refused_by_every_command() {
    if !possible() {
        return;
    }
    let bundle = Bundle::new();
    bundle.write();
    let run = bundle.leave(&["run", "-d", &bundle.id]);
    assert_eq!(run.code, 0, "{run:?}");
    let root = bundle.root().join(".below");
    fs::create_dir_all(&root).expect("another root");
    let id = format!("../{}", bundle.id);
    let mut commands: Vec<Vec<&str>> = [
        "state", "start", "pause", "resume", "events", "ps", "update", "delete", "create", "run",
    ]
    .map(|command| vec![command, &id])
    .to_vec();
    commands.extend([
        vec!["kill", &id, "KILL"],
        vec!["delete", "--force", &id],
        vec!["exec", &id, "true"],
        vec!["create", "../outside"],
        vec!["create", ".."],
    ]);
    for args in commands {
        let said = said(
            bundle
                .command(&[])
                .arg("--root")
                .arg(&root)
                .args(&args)
                .output()
                .expect("runs"),
        );
        assert_ne!(said.code, 0, "{args:?}: {said:?}");
        let word = "invalid container ID format";
        assert!(said.err.contains(word), "{args:?}: {said:?}");
        assert!(!bundle.root().join("outside").exists(), "{args:?}");
    }
    assert_eq!(bundle.status(&bundle.id), "running");
    fs::remove_dir_all(&root).expect("clean");
    bundle.ok(&["delete", "--force", &bundle.id]);
    bundle.assert_nothing_left(&bundle.id);
}
