//! The OCI command line: exec, terminals, and the commands that look at a container or change its limits.

mod bundle;

use bundle::{Bundle, eventually, possible};
use serde_json::{Value, json};
use std::fs;
use std::io::{Read, Write};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::os::unix::process::CommandExt;

fn running() -> Bundle {
    let bundle = Bundle::new();
    bundle.write();
    let said = bundle.leave(&["run", "--detach", &bundle.id]);
    assert_eq!(said.code, 0, "{said:?}");
    bundle
}

#[test]
fn exec_runs_in_the_container_with_what_the_flags_say() {
    if !possible() {
        return;
    }
    let bundle = running();
    let id = bundle.id.as_str();
    assert_eq!(bundle.ok(&["exec", id, "echo", "-n", "a b"]), "a b");
    assert_eq!(bundle.say(&["exec", id, "sh", "-c", "exit 42"]).code, 42);
    assert_eq!(
        bundle.say(&["exec", id, "sh", "-c", "kill -9 $$"]).code,
        137
    );
    assert_eq!(bundle.ok(&["exec", "--cwd", "/tmp", id, "pwd"]), "/tmp\n");
    assert_eq!(
        bundle.ok(&[
            "exec",
            "-e",
            "X=1",
            "--env=Y=2",
            id,
            "sh",
            "-c",
            "echo $X$Y$PATH"
        ]),
        "12/bin\n"
    );
    let user = bundle.ok(&["exec", "--user", "1000:1001", "-g", "7", id, "id"]);
    assert!(user.starts_with("uid=1000 gid=1001"), "{user}");
    assert!(user.contains('7'), "{user}");
    assert_eq!(
        bundle
            .ok(&[
                "exec",
                id,
                "sh",
                "-c",
                "hostname; readlink /proc/self/ns/pid"
            ])
            .lines()
            .count(),
        2
    );

    fs::write(
        bundle.dir.join("process.json"),
        json!({"args": ["echo", "from file"], "cwd": "/", "env": ["PATH=/bin"], "user": {"uid": 0, "gid": 0}}).to_string(),
    )
    .expect("process.json");
    assert_eq!(
        bundle.ok(&["exec", "--process", "process.json", id]),
        "from file\n"
    );

    let missing = bundle.say(&["exec", id, "nope"]);
    assert_eq!(missing.code, 255);
    assert!(
        missing.err.contains("exec failed: ")
            && missing
                .err
                .contains("exec: \"nope\": executable file not found in $PATH"),
        "{missing:?}"
    );
    assert_eq!(bundle.say(&["exec", "--user", "foo", id, "true"]).code, 255);
    assert_eq!(bundle.say(&["exec", id]).code, 255);

    let left = bundle.leave(&[
        "exec",
        "--detach",
        "--pid-file",
        "exec.pid",
        id,
        "sleep",
        "1000",
    ]);
    assert_eq!(left.code, 0, "{left:?}");
    let pid: i32 = fs::read_to_string(bundle.dir.join("exec.pid"))
        .expect("pid")
        .parse()
        .expect("a number");
    let listed: Vec<i32> =
        serde_json::from_str(&bundle.ok(&["ps", "-f", "json", id])).expect("pids");
    assert!(listed.contains(&pid), "{pid} in {listed:?}");

    bundle.ok(&["kill", id, "KILL"]);
    bundle.wait_status(id, "stopped");
    let late = bundle.say(&["exec", id, "true"]);
    assert_eq!(late.code, 255);
    assert!(
        late.err.contains("cannot exec in a stopped container"),
        "{late:?}"
    );
    bundle.ok(&["delete", id]);
    bundle.assert_nothing_left(id);
}

#[test]
fn a_paused_container_takes_no_exec_and_resumes() {
    if !possible() {
        return;
    }
    let bundle = running();
    let id = bundle.id.as_str();
    bundle.ok(&["pause", id]);
    assert_eq!(bundle.status(id), "paused");
    let said = bundle.say(&["exec", id, "true"]);
    assert_eq!(said.code, 255);
    assert!(
        said.err.contains("cannot exec in a paused container"),
        "{said:?}"
    );
    let again = bundle.say(&["pause", id]);
    assert_eq!(again.code, 1, "{again:?}");
    bundle.ok(&["resume", id]);
    assert_eq!(bundle.status(id), "running");
    assert_eq!(bundle.ok(&["exec", id, "echo", "on"]), "on\n");
    let again = bundle.say(&["resume", id]);
    assert!(
        again.code == 1 && again.err.contains("container not paused"),
        "{again:?}"
    );
    // A frozen one dies all the same.
    bundle.ok(&["pause", id]);
    bundle.ok(&["delete", "--force", id]);
    bundle.assert_nothing_left(id);
}

#[test]
fn list_ps_events_and_update_tell_and_change() {
    if !possible() {
        return;
    }
    let bundle = running();
    let id = bundle.id.as_str();
    assert_eq!(bundle.ok(&["list", "-q"]), format!("{id}\n"));
    let list: Value =
        serde_json::from_str(&bundle.ok(&["list", "--format", "json"])).expect("json");
    assert_eq!(
        (&list[0]["id"], &list[0]["status"]),
        (&json!(id), &json!("running"))
    );
    assert!(
        bundle
            .ok(&["list"])
            .lines()
            .nth(1)
            .is_some_and(|line| line.starts_with(id))
    );
    assert!(bundle.ok(&["ps", id]).contains("sleep"));
    let event: Value = serde_json::from_str(&bundle.ok(&["events", "--stats", id])).expect("json");
    assert_eq!(
        (&event["type"], &event["id"]),
        (&json!("stats"), &json!(id))
    );
    assert!(
        event["data"]["memory"]["usage"]["usage"]
            .as_u64()
            .is_some_and(|bytes| bytes > 0),
        "{event}"
    );
    assert_eq!(event["data"]["pids"]["current"], 1, "{event}");

    bundle.ok(&["update", "--pids-limit", "123", id]);
    let event: Value = serde_json::from_str(&bundle.ok(&["events", "--stats", id])).expect("json");
    assert_eq!(event["data"]["pids"]["limit"], 123, "{event}");
    let bad = bundle.say(&["update", "--memory", "1x", id]);
    assert!(
        bad.code == 1 && bad.err.contains("--memory") && bad.err.contains("1x"),
        "{bad:?}"
    );
    let mut update = bundle.command(&["update", "-r", "-", id]);
    update.stdin(std::process::Stdio::piped());
    let mut child = update.spawn().expect("update");
    child
        .stdin
        .take()
        .expect("piped")
        .write_all(br#"{"pids": {"limit": 77}}"#)
        .expect("written");
    assert!(child.wait().expect("update").success());
    let event: Value = serde_json::from_str(&bundle.ok(&["events", "--stats", id])).expect("json");
    assert_eq!(event["data"]["pids"]["limit"], 77, "{event}");
    bundle.ok(&["delete", "-f", "--regex", &format!("^{id}$")]);
    bundle.assert_nothing_left(id);
}

#[test]
fn a_created_container_takes_exec_and_a_forced_delete() {
    if !possible() {
        return;
    }
    let bundle = Bundle::new();
    bundle.write();
    let id = bundle.id.as_str();
    assert_eq!(bundle.leave(&["create", id]).code, 0);
    assert_eq!(bundle.ok(&["exec", id, "echo", "early"]), "early\n");
    assert_eq!(bundle.status(id), "created");
    bundle.ok(&["delete", "--force", id]);
    bundle.assert_nothing_left(id);
}

/// A terminal of the test's own: its master, and its slave as a path.
fn terminal() -> (OwnedFd, String) {
    // SAFETY: no pointers but the buffer of the last call, which is ours.
    unsafe {
        let master = libc::posix_openpt(libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC);
        assert!(master >= 0, "a terminal");
        assert_eq!(libc::grantpt(master), 0);
        assert_eq!(libc::unlockpt(master), 0);
        let mut name = [0 as libc::c_char; 128];
        assert_eq!(libc::ptsname_r(master, name.as_mut_ptr(), name.len()), 0);
        let name = std::ffi::CStr::from_ptr(name.as_ptr())
            .to_string_lossy()
            .into_owned();
        let size = libc::winsize {
            ws_row: 33,
            ws_col: 77,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        assert_eq!(libc::ioctl(master, libc::TIOCSWINSZ, &raw const size), 0);
        (OwnedFd::from_raw_fd(master), name)
    }
}

fn settings(fd: i32) -> (u32, u32, u32) {
    // SAFETY: termios is plain data that tcgetattr fills.
    unsafe {
        let mut settings: libc::termios = std::mem::zeroed();
        assert_eq!(libc::tcgetattr(fd, &raw mut settings), 0);
        (settings.c_iflag, settings.c_oflag, settings.c_lflag)
    }
}

#[test]
fn a_foreground_terminal_is_carried_sized_and_given_back() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::script("tty; stty size; read line; echo heard $line; exit 5");
    bundle.config["process"]["terminal"] = json!(true);
    bundle.write();
    let (master, name) = terminal();
    let slave = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .open(&name)
        .expect("slave");
    let before = settings(slave.as_raw_fd());
    let mut command = bundle.command(&["run", &bundle.id]);
    command
        .stdin(slave.try_clone().expect("slave"))
        .stdout(slave.try_clone().expect("slave"))
        .stderr(slave.try_clone().expect("slave"));
    // SAFETY: only system calls between fork and exec.
    unsafe {
        command.pre_exec(|| {
            libc::setsid();
            libc::ioctl(0, libc::TIOCSCTTY, 0);
            Ok(())
        })
    };
    let mut run = command.spawn().expect("run");
    drop(command);
    let mut master = fs::File::from(master);
    let mut text = String::new();
    let mut read_until = |word: &str, master: &mut fs::File| {
        let mut buffer = [0u8; 512];
        while !text.contains(word) {
            let count = master.read(&mut buffer).expect("output");
            assert!(count > 0, "the terminal closed after {text:?}");
            text.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        text.clone()
    };
    let said = read_until("33 77", &mut master);
    assert!(said.contains("/dev/pts/0"), "{said:?}");
    master.write_all(b"you\n").expect("input");
    read_until("heard you", &mut master);
    assert_eq!(run.wait().expect("run").code(), Some(5));
    assert_eq!(
        settings(slave.as_raw_fd()),
        before,
        "the caller's settings are back"
    );
    bundle.assert_nothing_left(&bundle.id);
}

#[test]
fn a_detached_terminal_goes_to_the_console_socket() {
    if !possible() {
        return;
    }
    let mut bundle = Bundle::script("echo there; read line; echo heard $line");
    bundle.config["process"]["terminal"] = json!(true);
    bundle.write();
    let without = bundle.leave(&["create", &bundle.id]);
    assert!(
        without.code == 1 && without.err.contains("--console-socket"),
        "{without:?}"
    );
    bundle.assert_nothing_left(&bundle.id);
    let listener = UnixListener::bind(bundle.dir.join("console")).expect("socket");
    let said = bundle.leave(&["create", "--console-socket", "console", &bundle.id]);
    assert_eq!(said.code, 0, "{said:?}");
    let (connection, _) = listener.accept().expect("connected");
    let mut name = [0u8; 256];
    let (_, mut fds) = shoal_runtime::sys::socket::receive_with_fds(
        std::os::fd::AsFd::as_fd(&connection),
        &mut name,
    )
    .expect("a message");
    let mut master = fs::File::from(fds.pop().expect("a master"));
    bundle.ok(&["start", &bundle.id]);
    master.write_all(b"you\n").expect("input");
    let mut text = String::new();
    let mut buffer = [0u8; 512];
    while let Ok(count @ 1..) = master.read(&mut buffer) {
        text.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    assert!(
        text.contains("there") && text.contains("heard you"),
        "{text:?}"
    );
    bundle.wait_status(&bundle.id, "stopped");
    bundle.ok(&["delete", &bundle.id]);
    bundle.assert_nothing_left(&bundle.id);
}

#[test]
fn help_version_spec_and_features_need_no_container() {
    let bundle_dir = std::env::temp_dir().join(format!("shoci-help-{}", std::process::id()));
    fs::create_dir_all(&bundle_dir).expect("dir");
    let say = |args: &[&str]| {
        let output = std::process::Command::new(bundle::binary())
            .current_dir(&bundle_dir)
            .args(args)
            .output()
            .expect("runs");
        bundle::said(output)
    };
    for args in [&["--help"][..], &["-h"], &["help"], &[]] {
        let said = say(args);
        assert!(
            said.code == 0 && said.out.starts_with("NAME:\n"),
            "{args:?}: {said:?}"
        );
    }
    for command in [
        "create",
        "start",
        "state",
        "run",
        "kill",
        "delete",
        "exec",
        "ps",
        "list",
        "pause",
        "resume",
        "update",
        "events",
        "spec",
        "features",
        "checkpoint",
        "restore",
    ] {
        let said = say(&[command, "--help"]);
        assert!(
            said.code == 0 && said.out.contains(&format!("shoal-core {command} - ")),
            "{command}: {said:?}"
        );
    }
    assert!(say(&["--version"]).out.starts_with("shoal-core version "));
    let unknown = say(&["foo"]);
    assert!(
        unknown.code == 1 && unknown.err.contains("foo"),
        "{unknown:?}"
    );
    let refused = say(&["checkpoint", "x"]);
    assert!(
        refused.code == 1 && refused.err.contains("not supported"),
        "{refused:?}"
    );
    assert_eq!(say(&["spec"]).code, 0);
    let config: Value =
        serde_json::from_slice(&fs::read(bundle_dir.join("config.json")).expect("config"))
            .expect("json");
    assert_eq!(config["process"]["user"]["uid"], 0);
    assert_eq!(say(&["spec"]).code, 1, "an existing config.json is kept");
    let features: Value = serde_json::from_str(&say(&["features"]).out).expect("json");
    assert_eq!(features["ociVersionMin"], "1.0.0");
    fs::remove_dir_all(&bundle_dir).expect("clean");
    eventually("gone", || !bundle_dir.exists());
}
