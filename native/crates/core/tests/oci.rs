//! The OCI command line: the life of a container, exit codes, errors and what they leave behind, on real containers.

mod bundle;

use bundle::{Bundle, eventually, possible, said};
use serde_json::{Value, json};
use std::fs;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

#[test]
fn a_container_is_created_started_killed_and_deleted() {
    if !possible() {
        return;
    }
    let bundle = Bundle::new();
    bundle.write();
    let id = bundle.id.as_str();
    assert_eq!(bundle.leave(&["create", "--pid-file", "pid", id]).code, 0);
    let state = bundle.state(id).expect("state");
    assert_eq!(state["status"], "created");
    assert_eq!(state["bundle"], bundle.dir.display().to_string());
    assert_eq!(
        state["rootfs"],
        bundle.dir.join("rootfs").display().to_string()
    );
    let pid = fs::read_to_string(bundle.dir.join("pid")).expect("pid file");
    assert_eq!(state["pid"].to_string(), pid);
    assert!(!bundle::groups(id).is_empty(), "it has a group");

    bundle.ok(&["start", id]);
    assert_eq!(bundle.status(id), "running");
    let again = bundle.say(&["start", id]);
    assert_eq!(
        (again.code, again.err.as_str()),
        (1, "cannot start an already running container\n")
    );
    let early = bundle.say(&["delete", id]);
    assert_eq!(early.code, 1);
    assert!(
        early.err.contains(&format!(
            "cannot delete container {id} that is not stopped: running"
        )),
        "{early:?}"
    );

    bundle.ok(&["kill", id, "KILL"]);
    bundle.wait_status(id, "stopped");
    assert_eq!(bundle.state(id).expect("state")["pid"], 0);
    let late = bundle.say(&["kill", id, "0"]);
    assert_eq!(late.code, 1);
    assert!(late.err.contains("container not running"), "{late:?}");
    bundle.ok(&["kill", "--all", id, "KILL"]);
    bundle.ok(&["delete", id]);
    bundle.assert_nothing_left(id);
    let missing = bundle.say(&["delete", id]);
    assert_eq!(missing.code, 1);
    assert!(
        missing
            .err
            .contains(&format!("container {id:?} does not exist")),
        "{missing:?}"
    );
    bundle.ok(&["delete", "--force", id]);
}

#[test]
fn run_gives_the_programs_exit_code_and_leaves_nothing() {
    if !possible() {
        return;
    }
    for (script, code) in [
        ("exit 0", 0),
        ("exit 7", 7),
        ("kill -TERM $$; exit 1", 1),
        ("exit 255", 255),
    ] {
        let bundle = Bundle::script(script);
        bundle.write();
        assert_eq!(bundle.say(&["run", &bundle.id]).code, code, "{script}");
        bundle.assert_nothing_left(&bundle.id);
    }
    let bundle = Bundle::script("kill -9 $$ & wait; echo alive; exec sleep 1000");
    bundle.write();
    let mut run = bundle.spawn(&["run", &bundle.id]);
    eventually("the program runs", || {
        bundle.status(&bundle.id) == "running"
    });
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    assert_eq!(run.wait().expect("run").code(), Some(137));
    bundle.assert_nothing_left(&bundle.id);
}

#[test]
fn run_keeps_what_it_is_told_to_keep() {
    if !possible() {
        return;
    }
    let bundle = Bundle::script("exit 3");
    bundle.write();
    assert_eq!(bundle.say(&["run", "--keep", &bundle.id]).code, 3);
    assert_eq!(bundle.status(&bundle.id), "stopped");
    bundle.ok(&["delete", &bundle.id]);
    bundle.assert_nothing_left(&bundle.id);
}

#[test]
fn run_forwards_signals() {
    if !possible() {
        return;
    }
    let bundle =
        Bundle::script("trap 'echo got; exit 9' USR1; echo ready; while :; do sleep 0.05; done");
    bundle.write();
    let mut run = bundle.spawn(&["run", &bundle.id]);
    let mut out = run.stdout.take().expect("piped");
    let mut byte = [0u8; 6];
    out.read_exact(&mut byte).expect("ready");
    assert_eq!(&byte, b"ready\n");
    let pid = i32::try_from(run.id()).expect("pid");
    // SAFETY: our own child, not waited for yet.
    assert_eq!(unsafe { libc::kill(pid, libc::SIGUSR1) }, 0);
    let mut rest = String::new();
    out.read_to_string(&mut rest).expect("output");
    assert_eq!(rest, "got\n");
    assert_eq!(run.wait().expect("run").code(), Some(9));
}

#[test]
fn an_id_is_taken_once() {
    if !possible() {
        return;
    }
    let bundle = Bundle::new();
    bundle.write();
    // All at once: exactly one wins, whoever it is.
    let children: Vec<_> = (0..6)
        .map(|_| {
            bundle
                .command(&["run", "--detach", &bundle.id])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("spawned")
        })
        .collect();
    let codes: Vec<i32> = children
        .into_iter()
        .map(|mut child| child.wait().expect("waited").code().unwrap_or(-1))
        .collect();
    assert_eq!(
        codes.iter().filter(|code| **code == 0).count(),
        1,
        "{codes:?}"
    );
    let again = bundle.say(&["create", &bundle.id]);
    assert_eq!(again.code, 1);
    assert!(
        again.err.contains("container with given ID already exists"),
        "{again:?}"
    );
    assert_eq!(bundle.status(&bundle.id), "running");
    bundle.ok(&["delete", "--force", &bundle.id]);
    bundle.assert_nothing_left(&bundle.id);
}

/// What is wrong with a configuration, and the words that the one line must have.
type Wrong = (&'static str, fn(&mut Value), &'static [&'static str]);

#[test]
fn a_hostile_bundle_gives_one_line_and_leaves_nothing() {
    if !possible() {
        return;
    }
    let cases: [Wrong; 17] = [
        (
            "no version",
            |c| c["ociVersion"] = json!(""),
            &["ociVersion"],
        ),
        (
            "another version",
            |c| c["ociVersion"] = json!("2.0.0"),
            &["ociVersion", "2.0.0"],
        ),
        ("no root", |c| c["root"] = Value::Null, &["root.path"]),
        (
            "a root that is not there",
            |c| c["root"]["path"] = json!("nothere"),
            &["nothere"],
        ),
        (
            "no args",
            |c| c["process"]["args"] = json!([]),
            &["process.args"],
        ),
        (
            "no cwd",
            |c| c["process"]["cwd"] = json!(""),
            &["process.cwd"],
        ),
        (
            "a relative cwd",
            |c| c["process"]["cwd"] = json!("x"),
            &["process.cwd", "\"x\""],
        ),
        (
            "a wrong type",
            |c| c["process"]["user"]["uid"] = json!("root"),
            &["process.user.uid"],
        ),
        (
            "a negative uid",
            |c| c["process"]["user"]["uid"] = json!(-1),
            &["process.user.uid"],
        ),
        (
            "an unknown namespace",
            |c| c["linux"]["namespaces"][0]["type"] = json!("pud"),
            &["pud"],
        ),
        (
            "a namespace path",
            |c| c["linux"]["namespaces"][4]["path"] = json!("/nonexistent/ns"),
            &["/nonexistent/ns"],
        ),
        (
            "an escaping group",
            |c| c["linux"]["cgroupsPath"] = json!("/../../x"),
            &["cgroupsPath"],
        ),
        (
            "dots in a mount",
            |c| c["mounts"][0]["destination"] = json!("/../proc"),
            &["/../proc"],
        ),
        (
            "an unknown program",
            |c| c["process"]["args"] = json!(["nope"]),
            &["\"nope\"", "executable file not found in $PATH"],
        ),
        (
            "a program that is not there",
            |c| c["process"]["args"] = json!(["/nope"]),
            &["/nope", "no such file or directory"],
        ),
        (
            "a foreign sysctl",
            |c| c["linux"]["sysctl"] = json!({"kernel.panic": "1"}),
            &["kernel.panic"],
        ),
        (
            "a NUL",
            |c| c["process"]["args"] = json!(["a\0b"]),
            &["process"],
        ),
    ];
    for (name, spoil, words) in cases {
        let mut bundle = Bundle::new();
        spoil(&mut bundle.config);
        bundle.write();
        for command in ["create", "run"] {
            let said = bundle.leave(&[command, &bundle.id]);
            assert_eq!(said.code, 1, "{name}: {said:?}");
            assert_eq!(said.err.trim_end().lines().count(), 1, "{name}: {said:?}");
            for word in words {
                assert!(
                    said.err.contains(word),
                    "{name}: {word:?} is not in {said:?}"
                );
            }
            bundle.assert_nothing_left(&bundle.id);
        }
    }
}

#[test]
fn a_configuration_that_cannot_be_read_is_told_by_its_place() {
    if !possible() {
        return;
    }
    let bundle = Bundle::new();
    let path = bundle.dir.join("config.json");
    for (bytes, word) in [
        (&b"{\"ociVersion\":"[..], "config.json"),
        (&b"\xff\xfe"[..], "config.json"),
        (&b""[..], "config.json"),
    ] {
        fs::write(&path, bytes).expect("written");
        let said = bundle.say(&["run", &bundle.id]);
        assert_eq!(
            (said.code, said.err.trim_end().lines().count()),
            (1, 1),
            "{said:?}"
        );
        assert!(said.err.contains(word), "{said:?}");
    }
    fs::remove_file(&path).expect("removed");
    let said = bundle.say(&["run", &bundle.id]);
    assert!(
        said.err.contains("JSON specification file") && said.err.contains("not found"),
        "{said:?}"
    );
    let said = bundle.say(&["run", "--bundle", "/nonexistent", &bundle.id]);
    assert!(said.err.contains("/nonexistent"), "{said:?}");
    for id in ["", "..", "a/b", "a b", ".x"] {
        bundle.write();
        let said = bundle.say(&["run", id]);
        assert_eq!(said.code, 1, "{id:?}");
        assert!(
            said.err.contains("invalid container ID format"),
            "{id:?}: {said:?}"
        );
    }
    bundle.assert_nothing_left(&bundle.id);
}

#[test]
fn the_log_holds_the_error_as_callers_parse_it() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    bundle.config["process"]["args"] = json!(["nope"]);
    bundle.write();
    let said = bundle.leave(&[
        "--log",
        "log.json",
        "--log-format",
        "json",
        "create",
        &bundle.id,
    ]);
    assert_eq!(said.code, 1);
    let log = fs::read_to_string(bundle.dir.join("log.json")).expect("log");
    let last: Value = serde_json::from_str(log.lines().last().expect("a line")).expect("JSON");
    assert_eq!(last["level"], "error");
    let message = last["msg"].as_str().expect("msg");
    assert!(
        message.contains("exec: \"nope\": executable file not found in $PATH"),
        "{message}"
    );
    assert_eq!(said.err.trim_end(), message);
}

#[test]
fn hooks_see_the_container_and_a_failing_one_leaves_nothing() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::script("exit 0");
    let core = bundle::binary();
    let note = |kind: &str, bundle: &Bundle| {
        let script = format!(
            "{{ echo {kind}; cat; echo; {core} --root {} state {} | grep status; }} >> {}",
            bundle.root().display(),
            bundle.id,
            bundle.dir.join("hooks").display()
        );
        json!([{"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]}])
    };
    bundle.config["hooks"] = json!({
        "createRuntime": note("createRuntime", &bundle),
        "poststart": note("poststart", &bundle),
        "poststop": note("poststop", &bundle),
    });
    bundle.write();
    let said = bundle.say(&["run", &bundle.id]);
    assert_eq!(said.code, 0, "{said:?}");
    let text = fs::read_to_string(bundle.dir.join("hooks")).expect("hooks ran");
    let order: Vec<&str> = text.lines().filter(|line| !line.contains('"')).collect();
    assert_eq!(order, ["createRuntime", "poststart", "poststop"], "{text}");
    assert!(text.contains("\"status\": \"creating\""), "{text}");
    assert!(text.contains("\"status\":\"stopped\""), "{text}");

    for kind in [
        "prestart",
        "createRuntime",
        "createContainer",
        "startContainer",
        "poststart",
    ] {
        let mut bundle = Bundle::new();
        let program = if kind == "startContainer" {
            "/bin/false"
        } else {
            "/usr/bin/false"
        };
        bundle.config["hooks"] = json!({kind: [{"path": program}]});
        bundle.write();
        let said = bundle.leave(&["run", &bundle.id]);
        assert_ne!(said.code, 0, "{kind}: {said:?}");
        assert!(
            said.err.contains(&format!("running {kind} hook #0")),
            "{kind}: {said:?}"
        );
        bundle.assert_nothing_left(&bundle.id);
    }
}

#[test]
fn the_remains_of_a_killed_creator_are_deleted() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    let gate = bundle.dir.join("in-hook");
    let script = format!("echo x > {}; sleep 1000", gate.display());
    bundle.config["hooks"] = json!({"createRuntime": [
        {"path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"]},
    ]});
    bundle.write();
    let mut create = bundle
        .command(&["create", &bundle.id])
        .process_group(0)
        .spawn()
        .expect("spawned");
    eventually("the hook runs", || gate.exists());
    assert_eq!(bundle.status(&bundle.id), "creating");
    // The command and its hook, which is in its process group.
    let group = -i32::try_from(create.id()).expect("pid");
    // SAFETY: the group is our own child's, which is not waited for yet.
    assert_eq!(unsafe { libc::kill(group, libc::SIGKILL) }, 0);
    create.wait().expect("killed");
    bundle.wait_status(&bundle.id, "stopped");
    bundle.ok(&["delete", &bundle.id]);
    bundle.assert_nothing_left(&bundle.id);
}

#[test]
fn descriptors_are_passed_as_asked() {
    if !possible() {
        return;
    }
    let bundle = Bundle::script("cat <&3; echo $LISTEN_FDS $LISTEN_PID; ls /proc/self/fd");
    bundle.write();
    fs::write(bundle.dir.join("passed"), "hello\n").expect("file");
    let file = fs::File::open(bundle.dir.join("passed")).expect("file");
    let number = file.as_raw_fd();
    let with = |args: &[&str], env: Option<(&str, &str)>| {
        let mut command = bundle.command(args);
        command.envs(env);
        // SAFETY: only system calls between fork and exec.
        unsafe {
            command.pre_exec(move || match libc::dup2(number, 3) {
                -1 => Err(std::io::Error::last_os_error()),
                _ => {
                    libc::fcntl(3, libc::F_SETFD, 0);
                    Ok(())
                }
            })
        };
        said(command.output().expect("run"))
    };
    let kept = with(&["run", "--preserve-fds", "1", &bundle.id], None);
    assert!(kept.out.starts_with("hello\n"), "{kept:?}");
    let activated = with(&["run", &bundle.id], Some(("LISTEN_FDS", "1")));
    assert!(activated.out.contains("1 1\n"), "{activated:?}");
    let without = bundle.say(&["run", &bundle.id]);
    assert!(!without.out.contains("hello"), "{without:?}");
    let missing = bundle.say(&["run", "--preserve-fds", "40", &bundle.id]);
    assert_eq!(missing.code, 1);
    assert!(missing.err.contains("--preserve-fds"), "{missing:?}");
}

#[test]
fn the_runtimes_own_file_cannot_be_written_through_a_container() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::new();
    bundle.write();
    // A file that nobody else executes. Not copied by this process: a fork beside this test would hold it open for writing.
    let own = bundle.dir.join("runtime").display().to_string();
    let copied = Command::new("cp").args([&bundle.binary, &own]).status();
    assert!(copied.is_ok_and(|status| status.success()), "{own}");
    bundle.binary = own;
    let mut run = bundle.spawn(&["run", &bundle.id]);
    eventually("the program runs", || {
        bundle.status(&bundle.id) == "running"
    });
    // As a process of the container would get hold of it while the runtime enters.
    let held = fs::OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_PATH)
        .open(format!("/proc/{}/exe", run.id()))
        .expect("held");
    bundle.ok(&["kill", &bundle.id, "KILL"]);
    run.wait().expect("run");
    // Nothing executes it any more, so that only the read-only mount (or the seal) is in the way.
    let again = format!("/proc/self/fd/{}", held.as_raw_fd());
    let mut kind = None;
    // As long as the last process of this container executes it, that alone is the answer.
    eventually("nobody executes the file", || {
        let opened = fs::OpenOptions::new().append(true).open(&again).map(drop);
        kind = opened.expect_err("not writable").raw_os_error();
        kind != Some(libc::ETXTBSY)
    });
    assert!(matches!(kind, Some(libc::EROFS | libc::EPERM)), "{kind:?}");
}
