//! Hooks: where each runs, what it sees, and what its failure does.

use super::Test;
use super::support::{Place, children};
use serde_json::{Value, json};
use std::fs;

pub const TESTS: &[Test] = &[
    ("hooks_run_in_order_in_their_namespaces", order),
    ("a_failed_hook_ends_the_creation", failed),
    (
        "a_failed_start_container_hook_fails_the_start",
        failed_start,
    ),
];

fn hook(path: &str, script: &str) -> Value {
    json!({"path": path, "args": ["sh", "-c", script], "env": ["PATH=/usr/bin:/bin"], "timeout": 10})
}

fn order() {
    let place = Place::new();
    let log = place.dir.join("log");
    let shared = place.dir.join("shared");
    fs::create_dir(&shared).expect("shared");
    let note = |name: &str| {
        hook(
            "/bin/sh",
            &format!(
                "echo {name} $(readlink /proc/self/ns/mnt) $(cat) >> {}",
                log.display()
            ),
        )
    };
    let mut spec = place.spec(&["true"]);
    spec["mounts"].as_array_mut().expect("mounts").push(
        json!({"destination": "/shared", "type": "bind", "source": shared, "options": ["bind"]}),
    );
    spec["process"]["env"] = json!(["PATH=/bin", "OF=program"]);
    spec["hooks"] = json!({
        "prestart": [note("prestart")],
        "createRuntime": [note("createRuntime")],
        "createContainer": [note("createContainer")],
        // The path is the container's.
        "startContainer": [{"path": "/bin/sh", "args": ["sh", "-c", "test $OF = program"]}, hook("/bin/sh", "echo $(readlink /proc/self/ns/mnt) $(cat) > /shared/start")],
    });
    let mut container = place.create("hooked", &spec).expect("created");
    let host = fs::read_link("/proc/self/ns/mnt").expect("link");
    let inner = fs::read_link(format!("/proc/{}/ns/mnt", container.pid)).expect("link");
    let text = fs::read_to_string(&log).expect("log");
    let lines: Vec<&str> = text.lines().collect();
    let pid = format!("\"pid\":{}", container.pid);
    for (line, (name, mount, pid, status)) in lines.iter().zip([
        // As runc tells it, and runtime-tools wants it.
        ("prestart", &host, pid.as_str(), "created"),
        ("createRuntime", &host, pid.as_str(), "creating"),
        ("createContainer", &inner, "\"pid\":1,", "creating"),
    ]) {
        assert!(
            line.starts_with(&format!("{name} {} ", mount.display())),
            "{text}"
        );
        assert!(
            line.contains(&format!("\"status\":\"{status}\"")) && line.contains(pid),
            "{text}"
        );
        assert!(line.contains("\"id\":\"hooked\""), "{text}");
    }
    assert_eq!(lines.len(), 3, "{text}");
    assert!(!shared.join("start").exists(), "not before the start");
    container.start().expect("started");
    let text = fs::read_to_string(shared.join("start")).expect("start");
    assert!(text.starts_with(&format!("{} ", inner.display())), "{text}");
    assert!(text.contains("\"status\":\"created\""), "{text}");
    container.end();
}

fn failed() {
    let place = Place::new();
    for name in ["prestart", "createRuntime", "createContainer"] {
        let mut spec = place.spec(&["true"]);
        spec["hooks"] = json!({});
        spec["hooks"][name] = json!([
            hook("/bin/sh", "true"),
            hook("/bin/sh", "echo no >&2; exit 7")
        ]);
        let failure = place.create("failed", &spec).err().expect(name);
        assert_eq!(
            failure.to_string(),
            format!("error running {name} hook #1: /bin/sh: exit status 7: no")
        );
        assert!(place.groups().is_empty() && !children());
    }
}

fn failed_start() {
    let place = Place::new();
    let mut spec = place.spec(&["true"]);
    spec["hooks"] = json!({"startContainer": [hook("/nope", "")]});
    let mut container = place.create("failed", &spec).expect("created");
    let failed = container.start().expect_err("a hook that is not there");
    assert!(
        failed
            .failure
            .to_string()
            .starts_with("error running startContainer hook #0: /nope:"),
        "{}",
        failed.failure
    );
    assert_ne!(container.end().0, 0);
}
