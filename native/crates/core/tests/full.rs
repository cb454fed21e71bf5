//! Full disks: what cannot be made is refused as `full` and leaves nothing; what runs goes on, and its end is still told and kept.

mod support;

use serde_json::{Value, json};
use std::fs::{self, OpenOptions};
use std::io::Write;
use std::path::Path;
use support::{BALLAST, Core, GATE, mount_tmpfs, possible, until};

/// Unit of a tmpfs's size, in bytes.
const PAGE_BYTES: u64 = 4096;
/// More pages and inodes than one creation takes.
const BUDGET_MAX: u64 = 64;

/// Fills the disk at `dir` but for so many pages.
fn fill(dir: &Path, pages_free: u64) {
    let path = dir.join(BALLAST);
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(&path)
        .expect("ballast");
    let page = [1u8; PAGE_BYTES as usize];
    while file.write_all(&page).is_ok() {}
    let length = file.metadata().expect("ballast").len();
    let whole = length - length % PAGE_BYTES;
    file.set_len(whole - pages_free * PAGE_BYTES)
        .expect("room given back");
}

fn expect_full(failure: &Value, budget: &str) {
    assert_eq!(
        (&failure["code"], &failure["errno"]),
        (&json!("full"), &json!(libc::ENOSPC)),
        "with {budget}: {failure}"
    );
}

#[test]
fn a_full_exec_root_refuses_creations_and_keeps_the_exits_of_what_runs() {
    if !possible() {
        return;
    }
    let mut core = Core::start_as(&[], &[("core", "size=512k,nr_inodes=200")]);
    let root = core.dir.join("core");
    let mut client = core.client();
    let script = format!("{GATE} exit 6");
    let create = core.with_gates(core.create("a", &["sh", "-c", &script]));
    let mut refused = 0;
    let mut made = false;
    for pages in 0..BUDGET_MAX {
        fill(&root, pages);
        let reply = client.call(create.clone());
        if reply["ok"] == true {
            made = true;
            break;
        }
        expect_full(&reply, &format!("{pages} free pages"));
        core.expect_clean();
        refused += 1;
    }
    assert!(made && refused >= 3, "refused {refused} times");

    // Not a byte is left from here on.
    fill(&root, 0);
    assert!(fs::write(root.join("x"), [0u8; 1]).is_err(), "really full");
    drop(fs::remove_file(root.join("x")));
    client.by_id("start", "a");
    core.open_gate();
    let exit = client.exit("a");
    assert_eq!(
        (&exit["exitCode"], &exit["exitCodeKnown"]),
        (&json!(6), &json!(true))
    );
    core.kill();
    core.restart();
    let mut client = core.client();
    let again = client.exit("a");
    assert_eq!(
        (&again["exitCode"], &again["exitCodeKnown"]),
        (&json!(6), &json!(true)),
        "the exit is on disk"
    );
    client.delete("a");
    core.expect_clean();
}

#[test]
fn an_exec_root_without_inodes_refuses_creations() {
    if !possible() {
        return;
    }
    let core = Core::start_as(&[], &[("core", "size=4m,nr_inodes=200")]);
    refuse_until_inodes_suffice(&core, "core");
}

#[test]
fn a_data_root_without_inodes_refuses_creations() {
    if !possible() {
        return;
    }
    let core = Core::start_as(&[], &[("containers", "size=4m,nr_inodes=200")]);
    refuse_until_inodes_suffice(&core, "containers");
}

/// Gives the tmpfs one inode more each time, until a container can be made.
fn refuse_until_inodes_suffice(core: &Core, below: &str) {
    let at = core.dir.join(below);
    let mut client = core.client();
    // A log keeps its inode after its container: not part of what is asked here.
    let create = |core: &Core| {
        let mut create = core.create("a", &["sh", "-c", "touch /x; exit 4"]);
        create["log"] = json!(null);
        // Mount points that the image does not have take inodes too.
        create["spec"]["mounts"].as_array_mut().expect("mounts").push(
            json!({"destination": "/deep/er/file", "type": "bind", "source": core.dir.join("layer/etc/plain"), "options": ["rbind"]}),
        );
        create
    };
    let mut refused = 0;
    for inodes in 1..BUDGET_MAX {
        // Fewer than are in use cannot be had.
        if !mount_tmpfs(&at, &format!("remount,nr_inodes={inodes}")) {
            continue;
        }
        let reply = client.call(create(core));
        if reply["ok"] == true {
            assert!(refused >= 3, "refused {refused} times");
            client.by_id("start", "a");
            client.exit("a");
            client.delete("a");
            core.expect_clean();
            return;
        }
        expect_full(&reply, &format!("{inodes} inodes"));
        core.expect_clean();
        refused += 1;
    }
    panic!("no budget was enough; refused {refused} times");
}

#[test]
fn a_full_data_root_stops_no_container() {
    if !possible() {
        return;
    }
    let core = Core::start_as(&[], &[("containers", "size=1m")]);
    let mut client = core.client();
    let script = format!(
        "echo first; {GATE} cat /dev/zero > /fill 2>/dev/null; echo lost; seq 1 5000; echo last >&2; exit 9"
    );
    client.ok(core.with_gates(core.create("a", &["sh", "-c", &script])));
    client.by_id("start", "a");
    until("its first word", || core.log_text("a").contains("first"));
    core.open_gate();
    let exit = client.exit("a");
    assert_eq!(
        (&exit["exitCode"], &exit["exitCodeKnown"]),
        (&json!(9), &json!(true))
    );
    // Every line that is there is whole.
    assert!(core.log_text("a").starts_with("first\n"));
    let record = fs::read(core.dir.join("core/a/exit.json")).expect("record");
    let record: Value = serde_json::from_slice(&record).expect("JSON");
    assert!(
        record["lostLogRecords"].as_u64() > Some(0),
        "what is lost is counted: {record}"
    );
    client.delete("a");
    core.expect_clean();
}
