//! Tests of the v2 driver on recorded files.
use super::super::files::recording::Recording;
use super::*;

fn driver(recording: &Recording) -> V2 {
    V2 {
        mount: "/c/u".into(),
        files: Box::new(recording.clone()),
        duty: Duty::Everything { devices: false },
    }
}

fn resources(json: &str) -> Resources {
    serde_json::from_str(json).expect(json)
}

const LIMITS: &str =
    r#"{"memory":{"limit":100,"swap":150},"cpu":{"shares":1024,"quota":-1},"pids":{"limit":0}}"#;
const WRITTEN: [&str; 5] = [
    "/c/u/p/a/memory.swap.max=50",
    "/c/u/p/a/memory.max=100",
    "/c/u/p/a/cpu.weight=100",
    "/c/u/p/a/cpu.max=max 100000",
    "/c/u/p/a/pids.max=1",
];

#[test]
fn create_enables_controllers_above_and_writes_limits() {
    // The group has nothing at first; as the recording does not change, the limits are refused for it at the end.
    let recording = Recording {
        contents: vec![("/c/u/cgroup.controllers", "cpu memory pids\n")],
        ..Recording::default()
    };
    let refused = driver(&recording)
        .create("/p/a", &resources(LIMITS))
        .expect_err("no controllers below");
    assert!(
        refused
            .to_string()
            .contains("controller \"memory\" not available"),
        "{refused}"
    );
    assert_eq!(
        recording.lines(),
        [
            "mkdir /c/u/p",
            "mkdir /c/u/p/a",
            "/c/u/cgroup.subtree_control=+cpu +memory +pids",
            "/c/u/p/cgroup.subtree_control=+cpu +memory +pids",
            "rmdir /c/u/p/a",
            "rmdir /c/u/p",
        ]
    );
}

#[test]
fn create_writes_limits_at_once_where_controllers_are_given_already() {
    let recording = Recording {
        contents: vec![("cgroup.controllers", "cpu memory pids\n")],
        ..Recording::default()
    };
    driver(&recording)
        .create("/p/a", &resources(LIMITS))
        .expect("created");
    assert_eq!(
        recording.lines(),
        ["mkdir /c/u/p", "mkdir /c/u/p/a"]
            .into_iter()
            .chain(WRITTEN)
            .collect::<Vec<_>>()
    );
}

#[test]
fn create_without_limits_needs_no_controller() {
    let recording = Recording {
        contents: vec![("/c/u/cgroup.controllers", "memory\n")],
        missing: vec!["cgroup.subtree_control"],
        ..Recording::default()
    };
    driver(&recording)
        .create("/a", &Resources::default())
        .expect("created");
}

#[test]
fn create_writes_unified_last_and_names_what_is_not_there() {
    let recording = Recording {
        contents: vec![("cgroup.controllers", "memory\n")],
        ..Recording::default()
    };
    let driver = driver(&recording);
    driver
        .create(
            "/a",
            &resources(
                r#"{"memory":{"limit":100},"unified":{"memory.max":"200","memory.high":"150"}}"#,
            ),
        )
        .expect("created");
    assert_eq!(
        recording.lines()[1..],
        [
            "/c/u/a/memory.max=100",
            "/c/u/a/memory.high=150",
            "/c/u/a/memory.max=200"
        ]
    );
    let refused = driver
        .create("/b", &resources(r#"{"unified":{"nope.max":"1"}}"#))
        .expect_err("no such controller");
    assert!(
        refused.to_string().contains("unified.nope.max")
            && refused
                .to_string()
                .contains("controller \"nope\" not available"),
        "{refused}"
    );
}

#[test]
fn create_below_a_threaded_group_becomes_threaded_or_says_why_not() {
    let recording = Recording {
        contents: vec![
            ("cgroup.controllers", "cpu memory pids\n"),
            ("cgroup.type", "domain invalid\n"),
        ],
        ..Recording::default()
    };
    let driver = driver(&recording);
    driver
        .create("/a", &resources(r#"{"pids":{"limit":5}}"#))
        .expect("threaded");
    assert!(
        recording
            .lines()
            .contains(&"/c/u/a/cgroup.type=threaded".to_owned())
    );
    let refused = driver
        .create("/b", &resources(r#"{"memory":{"limit":5}}"#))
        .expect_err("memory is of whole processes");
    assert!(refused.to_string().contains("invalid state"), "{refused}");
}

#[test]
fn create_steps_aside_when_the_caller_alone_is_in_the_way() {
    let own: &'static str = Box::leak(format!("{}\n", std::process::id()).into_boxed_str());
    let recording = Recording {
        contents: vec![
            ("/c/u/cgroup.controllers", "memory\n"),
            ("/c/u/p/cgroup.procs", own),
        ],
        ..Recording::default()
    };
    recording.dirs.lock().expect("dirs").insert("/c/u/p".into());
    recording.refuse_once("/c/u/p/cgroup.subtree_control", libc::EBUSY);
    driver(&recording)
        .create("/p/a", &Resources::default())
        .expect("created");
    let lines = recording.lines();
    assert!(
        lines.contains(&format!("/c/u/p/{LEAF}/cgroup.procs={}", own.trim()))
            && lines
                .last()
                .is_some_and(|line| line == "/c/u/p/cgroup.subtree_control=+memory"),
        "{lines:?}"
    );
}

#[test]
fn create_refuses_what_v2_cannot_limit() {
    let recording = Recording::default();
    let refused = driver(&recording)
        .create("/a", &resources(r#"{"network":{"classID":5}}"#))
        .expect_err("no net_cls");
    assert!(
        refused
            .to_string()
            .contains("linux.resources.network.classID"),
        "{refused}"
    );
    assert!(recording.lines().is_empty());
}

#[test]
fn update_checks_usage_when_it_is_asked_to() {
    let recording = Recording {
        contents: vec![
            ("cgroup.controllers", "memory\n"),
            ("memory.current", "5000\n"),
            ("memory.swap.current", "0\n"),
        ],
        ..Recording::default()
    };
    let driver = driver(&recording);
    for (json, want) in [
        (
            r#"{"memory":{"limit":1024,"checkBeforeUpdate":true}}"#,
            "rejecting memory limit",
        ),
        (
            r#"{"memory":{"limit":1024,"swap":2048,"checkBeforeUpdate":true}}"#,
            "rejecting memory+swap limit",
        ),
    ] {
        let refused = driver.update("/a", &resources(json)).expect_err(json);
        assert!(refused.to_string().contains(want), "{refused}");
    }
    assert!(recording.lines().is_empty());
    driver
        .update("/a", &resources(r#"{"memory":{"limit":1024}}"#))
        .expect("unasked");
    assert_eq!(recording.lines(), ["/c/u/a/memory.max=1024"]);
}
