//! Terminals: opened in the container's devpts, sent over the console socket, bound to /dev/console.

use super::Test;
use super::support::{Place, read_all};
use serde_json::json;
use shoal_runtime::launch::{self, Park};
use shoal_runtime::streams::Stdio;
use shoal_runtime::sys::{process, socket};
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::symlink;

pub const TESTS: &[Test] = &[
    ("a_terminal_is_the_containers_own", own),
    ("a_terminal_without_devpts_is_refused", without_devpts),
    ("a_console_that_is_a_link_is_refused", linked_console),
    ("an_exec_has_a_terminal_of_its_own", exec),
];

fn master(socket: &OwnedFd) -> OwnedFd {
    let mut name = [0u8; 64];
    let (length, fds) = socket::receive_with_fds(socket.as_fd(), &mut name).expect("a message");
    assert!(length > 0, "the descriptor comes with a word");
    fds.into_iter().next().expect("the master")
}

fn own() {
    let place = Place::new();
    let mut spec = place.spec(&["sh", "-c", "tty; stty size; test -t 0 -a -t 2 && echo whole; stat -c %t:%T /dev/console; stat -c %u /dev/pts/0; echo > /dev/tty && echo controlling"]);
    spec["process"]["terminal"] = json!(true);
    spec["process"]["consoleSize"] = json!({"height": 33, "width": 77});
    spec["process"]["user"] = json!({"uid": 7});
    let plan = place.plan("tty", &spec).expect("plan");
    let (ours, console_socket) = socket::pair().expect("pair");
    let options = place.options(Stdio::Terminal { console_socket }, Park::Channel);
    let parked = launch::create(&plan, &options).expect("created");
    drop(options);
    let master = master(&ours);
    let pid = parked.pid;
    parked.start().expect("started");
    let text = read_all(master).replace('\r', "");
    process::wait(pid, 0).expect("child");
    assert_eq!(text, "/dev/pts/0\n33 77\nwhole\n88:0\n7\n\ncontrolling\n");
    drop(shoal_runtime::cgroup::destroy(
        place.driver.as_ref(),
        &plan.cgroup,
    ));
}

fn without_devpts() {
    let place = Place::new();
    let mut spec = place.spec(&["true"]);
    spec["process"]["terminal"] = json!(true);
    spec["mounts"].as_array_mut().expect("mounts").pop();
    let plan = place.plan("tty", &spec).expect("plan");
    let (_ours, console_socket) = socket::pair().expect("pair");
    let options = place.options(Stdio::Terminal { console_socket }, Park::Channel);
    let failure = launch::create(&plan, &options).err().expect("no devpts");
    assert!(failure.doing.contains("/dev/pts"), "{failure}");
}

/// CVE-2025-52565: an image whose /dev/console leads the bind elsewhere.
fn linked_console() {
    let place = Place::new();
    let dev = place.dir.join("dev");
    fs::create_dir_all(dev.join("pts")).expect("dev");
    symlink("/etc/passwd", dev.join("console")).expect("link");
    let mut spec = place.spec(&["true"]);
    spec["process"]["terminal"] = json!(true);
    spec["mounts"][1] =
        json!({"destination": "/dev", "type": "bind", "source": dev, "options": ["bind"]});
    let plan = place.plan("tty", &spec).expect("plan");
    let (_ours, console_socket) = socket::pair().expect("pair");
    let options = place.options(Stdio::Terminal { console_socket }, Park::Channel);
    let failure = launch::create(&plan, &options).err().expect("a link");
    assert!(failure.doing.contains("/dev/console"), "{failure}");
}

fn exec() {
    let place = Place::new();
    let mut container = place
        .create("host", &place.spec(&["sleep", "60"]))
        .expect("created");
    container.start().expect("started");
    let (ours, console_socket) = socket::pair().expect("pair");
    let joined = container
        .exec_with(Stdio::Terminal { console_socket }, |process| {
            process["terminal"] = json!(true);
            process["consoleSize"] = json!({"height": 11, "width": 22});
            process["args"] = json!([
                "sh",
                "-c",
                "tty; stty size; echo > /dev/tty && echo controlling"
            ]);
        })
        .expect("a process");
    let text = read_all(master(&ours)).replace('\r', "");
    process::wait(joined.pid, 0).expect("child");
    assert_eq!(text, "/dev/pts/0\n11 22\n\ncontrolling\n");
}
