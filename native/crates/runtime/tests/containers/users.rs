//! User namespaces: mapped by the maker, joined by path.

use super::Test;
use super::support::Place;
use serde_json::json;
use std::fs;
use std::os::unix::fs::lchown;
use std::path::Path;

pub const TESTS: &[Test] = &[
    ("a_user_namespace_maps_root_and_users", mapped),
    (
        "a_user_namespace_without_root_is_its_users",
        rootless_inside,
    ),
    ("a_user_namespace_is_joined_by_path", joined),
    ("a_user_namespace_joins_a_network_of_the_host", with_network),
    ("an_exec_enters_the_user_namespace", exec),
];

const MAPPED: &str = "cat /proc/self/uid_map | (read a b c; echo $a $b $c); id -u; touch /tmp/mine; stat -c %u /tmp/mine; grep -c 'nodev\\|.' /proc/mounts >/dev/null; echo x > /dev/null && echo null; readlink /proc/self/ns/user";

fn mapping() -> serde_json::Value {
    json!([{"containerID": 0, "hostID": 100_000, "size": 1000}])
}

/// A place whose root belongs to the mapped ids, as whoever sets up such a container makes it.
fn place() -> Place {
    let place = Place::new();
    own(&place.root(), 100_000);
    place
}

fn own(path: &Path, id: u32) {
    lchown(path, Some(id), Some(id)).expect("given");
    if path.is_dir() && !path.is_symlink() {
        for entry in fs::read_dir(path).expect("directory").flatten() {
            own(&entry.path(), id);
        }
    }
}

fn with_user(spec: &mut serde_json::Value) {
    spec["linux"]["namespaces"]
        .as_array_mut()
        .expect("namespaces")
        .push(json!({"type": "user"}));
    spec["linux"]["uidMappings"] = mapping();
    spec["linux"]["gidMappings"] = mapping();
}

fn mapped() {
    let place = place();
    for uid in [0, 7] {
        let text = place.shell(MAPPED, |spec| {
            with_user(spec);
            spec["process"]["user"] = json!({"uid": uid, "gid": uid, "additionalGids": [5]});
            spec["process"]["rlimits"] =
                json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
        });
        let lines: Vec<&str> = text.lines().collect();
        let shown = uid.to_string();
        assert_eq!(
            lines[..4],
            ["0 100000 1000", &shown, &shown, "null"],
            "{text}"
        );
        let outside = fs::metadata(place.root().join("tmp/mine")).expect("file");
        assert_eq!(std::os::unix::fs::MetadataExt::uid(&outside), 100_000 + uid);
        fs::remove_file(place.root().join("tmp/mine")).expect("clean");
    }
}

fn rootless_inside() {
    let place = place();
    let text = place.shell("id -u; id -g", |spec| {
        with_user(spec);
        let one = json!([{"containerID": 7, "hostID": 100_007, "size": 1}]);
        spec["linux"]["uidMappings"] = one.clone();
        spec["linux"]["gidMappings"] = one;
        spec["process"]["user"] = json!({"uid": 7, "gid": 7});
        own(&place.root(), 100_007);
        spec["mounts"] = json!([{"destination": "/proc", "type": "proc", "source": "proc"}]);
    });
    assert_eq!(text, "7\n7\n");
}

fn joined() {
    let place = place();
    let mut spec = place.spec(&["sleep", "60"]);
    with_user(&mut spec);
    let mut first = place.create("first", &spec).expect("first");
    first.start().expect("started");
    let pid = first.pid;
    let text = place.shell(
        "readlink /proc/self/ns/user; id -u; readlink /proc/self/ns/net",
        |spec| {
            spec["linux"]["namespaces"] = json!([
                {"type": "mount"}, {"type": "pid"},
                {"type": "network", "path": format!("/proc/{pid}/ns/net")},
                {"type": "user", "path": format!("/proc/{pid}/ns/user")}
            ]);
        },
    );
    let theirs = |kind: &str| {
        let link = fs::read_link(format!("/proc/{pid}/ns/{kind}")).expect("link");
        link.to_string_lossy().into_owned()
    };
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [theirs("user").as_str(), "0", theirs("net").as_str()]
    );
}

fn with_network() {
    let place = place();
    let mut first = place
        .create("first", &place.spec(&["sleep", "60"]))
        .expect("first");
    first.start().expect("started");
    let path = format!("/proc/{}/ns/net", first.pid);
    let text = place.shell("id -u; readlink /proc/self/ns/net", |spec| {
        with_user(spec);
        spec["linux"]["namespaces"] = json!([
            {"type": "mount"}, {"type": "pid"}, {"type": "user"},
            {"type": "network", "path": path}
        ]);
    });
    let theirs = fs::read_link(&path).expect("link");
    assert_eq!(text, format!("0\n{}\n", theirs.display()));
}

fn exec() {
    let place = place();
    let mut spec = place.spec(&["sleep", "60"]);
    with_user(&mut spec);
    let mut container = place.create("host", &spec).expect("created");
    container.start().expect("started");
    let (code, text) = container
        .exec(|process| {
            process["args"] = json!(["sh", "-c", "readlink /proc/self/ns/user; id -u; id -G; grep Seccomp: /proc/self/status >/dev/null; cat /proc/self/limits | grep -c '100  *200 .*files'"]);
            process["user"] = json!({"uid": 7, "gid": 7, "additionalGids": [5]});
            process["rlimits"] = json!([{"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200}]);
        })
        .expect("a process");
    let theirs = fs::read_link(format!("/proc/{}/ns/user", container.pid)).expect("link");
    assert_eq!(
        (code, text),
        (0, format!("{}\n7\n7 5\n1\n", theirs.display()))
    );
}
