//! Tests of resource control, in a directory of plain files: no machine of ours has resctrl.

use super::*;
use std::sync::atomic::{AtomicU32, Ordering};

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A directory with the files that resctrl has on a machine with L3, MB and their counters.
struct Fake(PathBuf);

impl Fake {
    fn new() -> Self {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("shoal-resctrl-{}-{number}", std::process::id());
        let fake = Self(std::env::temp_dir().join(name));
        for dir in ["info/L3", "info/MB", "info/L3_MON", "mon_groups"] {
            fs::create_dir_all(fake.0.join(dir)).expect("directories");
        }
        fake.put("info/L3/cbm_mask", "fffff\n");
        fake.put("info/L3/num_closids", "16\n");
        fake.put("info/MB/min_bandwidth", "10\n");
        fake.put(
            "info/L3_MON/mon_features",
            "llc_occupancy\nmbm_total_bytes\n",
        );
        fake.put("info/last_cmd_status", "ok\n");
        fake.put("schemata", "    MB:0=100;1=100\n    L3:0=fffff;1=fffff\n");
        fake
    }

    fn put(&self, path: &str, text: &str) {
        fs::write(self.0.join(path), text).expect(path);
    }

    fn get(&self, path: &str) -> String {
        fs::read_to_string(self.0.join(path)).expect(path)
    }

    /// A class that somebody else has made.
    fn class(&self, name: &str, schemata: &str) {
        fs::create_dir_all(self.0.join(name).join("mon_groups")).expect("a class");
        self.put(&format!("{name}/schemata"), schemata);
    }

    fn plan(&self, wanted: &IntelRdt) -> Result<Assignment, Failure> {
        Assignment::plan(Some(self.0.clone()), "box", wanted)
    }

    /// The kernel removes a group with all that is in it.
    fn empty(&self, group: &str) {
        for entry in fs::read_dir(self.0.join(group)).expect(group).flatten() {
            let path = entry.path();
            if path.is_dir() {
                fs::remove_dir_all(path).expect("emptied");
            } else {
                fs::remove_file(path).expect("emptied");
            }
        }
    }
}

impl Drop for Fake {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn wanted(clos_id: &str, schemata: &[&str]) -> IntelRdt {
    IntelRdt {
        clos_id: clos_id.into(),
        schemata: schemata.iter().map(|line| (*line).to_owned()).collect(),
        ..IntelRdt::default()
    }
}

#[test]
fn a_class_of_its_own_is_made_with_all_its_lines_and_removed() {
    let fake = Fake::new();
    let wanted = IntelRdt {
        l3_cache_schema: "L3:0=f".into(),
        mem_bw_schema: "MB:0=20".into(),
        ..wanted("", &["L2:0=3"])
    };
    let assignment = fake.plan(&wanted).expect("planned");
    assert!(!fake.0.join("box").exists(), "nothing is made by a plan");
    assignment.enter(77).expect("entered");
    assert_eq!(fake.get("box/tasks"), "77");
    assert_eq!(fake.get("box/schemata"), "L3:0=f\nMB:0=20\nL2:0=3\n");
    // As a later command reads it.
    let text = serde_json::to_string(&assignment).expect("json");
    let read: Assignment = serde_json::from_str(&text).expect("an assignment");
    read.set(&["MB:0=30".to_owned()]).expect("changed");
    read.join(78).expect("joined");
    assert_eq!(fake.get("box/tasks"), "78");
    assert_eq!(fake.get("box/schemata"), "MB:0=30\n");
    fake.empty("box");
    read.remove().expect("removed");
    assert!(!fake.0.join("box").exists());
    read.remove().expect("nothing to do");
}

#[test]
fn a_class_of_others_must_be_there_and_as_it_is_said_to_be_and_stays() {
    let fake = Fake::new();
    let refused = fake.plan(&wanted("gold", &[])).expect_err("not there");
    assert!(
        refused.doing.contains("closID") && refused.message.contains("\"gold\""),
        "{refused}"
    );
    fake.class("gold", "    MB:0=100;1= 50\n    L3:0=000ff;1=fffff\n");
    for same in [&[][..], &["L3:0=ff"], &["MB:1=50", "L3:1=fffff;0=0ff"]] {
        let assignment = fake.plan(&wanted("gold", same)).expect("as it is");
        assignment.enter(7).expect("entered");
        assert_eq!(fake.get("gold/tasks"), "7");
        assignment.remove().expect("left alone");
        assert!(fake.0.join("gold/schemata").exists());
        assert!(
            fake.get("gold/schemata").contains("L3:0=000ff"),
            "untouched"
        );
    }
    for other in ["L3:0=fe", "L3:2=ff", "L2:0=f", "MB:0=32"] {
        let refused = fake.plan(&wanted("gold", &[other])).expect_err(other);
        assert!(refused.message.contains(other), "{refused}");
        assert_eq!(refused.to_string().lines().count(), 1, "{refused}");
    }
    // One that a configuration describes is made, and stays for the others that name it.
    let assignment = fake.plan(&wanted("silver", &["L3:0=1"])).expect("new");
    assignment.enter(8).expect("entered");
    assert_eq!(fake.get("silver/schemata"), "L3:0=1\n");
    assignment.remove().expect("left alone");
    assert!(fake.0.join("silver").exists());
}

#[test]
fn the_default_class_and_a_monitoring_group() {
    let fake = Fake::new();
    let assignment = fake
        .plan(&IntelRdt {
            enable_monitoring: true,
            enable_cmt: true,
            enable_mbm: true,
            ..wanted("/", &[])
        })
        .expect("planned");
    assignment.enter(9).expect("entered");
    assert_eq!(fake.get("tasks"), "9");
    assert_eq!(fake.get("mon_groups/box/tasks"), "9");
    fs::create_dir_all(fake.0.join("mon_groups/box/mon_data/mon_L3_00")).expect("counters");
    fake.put("mon_groups/box/mon_data/mon_L3_00/llc_occupancy", "4096\n");
    fake.put("mon_groups/box/mon_data/mon_L3_00/mbm_total_bytes", "5\n");
    assert_eq!(
        Value::from(assignment.stats()),
        json!({
            "l3_cache_schema_root": "L3:0=fffff;1=fffff", "l3_cache_schema": "L3:0=fffff;1=fffff",
            "mem_bw_schema_root": "MB:0=100;1=100", "mem_bw_schema": "MB:0=100;1=100",
            "schemata": ["MB:0=100;1=100", "L3:0=fffff;1=fffff"],
            "l3_cache_info": {"cbm_mask": "fffff", "num_closids": 16}, "mem_bw_info": {"min_bandwidth": 10},
            "mbm_stats": [{"mbm_total_bytes": 5}], "cmt_stats": [{"llc_occupancy": 4096}],
        })
    );
    fake.empty("mon_groups/box");
    assignment.remove().expect("removed");
    assert!(!fake.0.join("mon_groups/box").exists() && fake.0.join("schemata").exists());
}

#[test]
fn what_the_machine_or_the_kernel_does_not_have_is_refused_by_field() {
    let none = Assignment::plan(None, "box", &IntelRdt::default()).expect_err("no resctrl");
    assert!(
        none.doing.contains("linux.intelRdt") && none.message.contains("not enabled"),
        "{none}"
    );
    let fake = Fake::new();
    for bad in [".", "..", "a/b", "//", "info", "mon_groups", "a\nb"] {
        let refused = fake.plan(&wanted(bad, &["L3:0=1"])).expect_err(bad);
        assert!(refused.doing.contains("closID"), "{refused}");
    }
    for bad in ["L3", "L3:0=1\nMB:0=1", "L3:\0"] {
        let refused = fake.plan(&wanted("", &[bad])).expect_err(bad);
        assert!(refused.doing.contains("schemata"), "{refused}");
    }
    fs::remove_dir_all(fake.0.join("info")).expect("a poor machine");
    let of = |change: fn(&mut IntelRdt)| {
        let mut wanted = IntelRdt::default();
        change(&mut wanted);
        wanted
    };
    for (field, wanted) in [
        (
            "l3CacheSchema",
            of(|rdt| rdt.l3_cache_schema = "L3:0=1".into()),
        ),
        (
            "memBwSchema",
            of(|rdt| rdt.mem_bw_schema = "MB:0=10".into()),
        ),
        ("enableMonitoring", of(|rdt| rdt.enable_monitoring = true)),
        ("enableCMT", of(|rdt| rdt.enable_cmt = true)),
        ("enableMBM", of(|rdt| rdt.enable_mbm = true)),
    ] {
        let refused = fake.plan(&wanted).expect_err(field);
        assert!(refused.doing.contains(field), "{refused}");
        assert!(refused.message.contains("is not enabled"), "{refused}");
    }
}

#[test]
fn a_refusal_of_the_kernel_has_its_own_words() {
    let fake = Fake::new();
    fake.put("info/last_cmd_status", "Mask out of range\n");
    let assignment = fake.plan(&wanted("", &["L3:0=1"])).expect("planned");
    // A directory where the file would be stands for a write that is refused.
    fs::create_dir_all(fake.0.join("box/schemata")).expect("a hurdle");
    let failure = assignment.enter(1).expect_err("refused");
    assert!(
        failure
            .message
            .contains("last_cmd_status: Mask out of range")
            && failure.doing.contains("L3:0=1"),
        "{failure}"
    );
}

#[test]
fn mount_point_is_found_by_its_file_system() {
    let text = "24 1 0:5 / /sys rw - sysfs sysfs rw\n25 24 0:9 / /sys/fs/res\\040ctrl rw,relatime shared:3 - resctrl resctrl rw\n";
    assert_eq!(mount_point(text), Some("/sys/fs/res ctrl".into()));
    assert_eq!(
        mount_point("24 1 0:5 / /sys rw - sysfs resctrl rw\n\nx - resctrl\n"),
        None
    );
}
