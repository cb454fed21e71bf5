//! config.json and process.json: read, checked as a whole, written and read again.

use crate::is_one_line;
use shoal_protocol::oci::{Process, Spec, parse};
use shoal_runtime::plan::{self, Input, Plan, RootSource};
use shoal_runtime::{cgroup, id};
use std::path::PathBuf;

/// A configuration is refused in one line or becomes a plan; what was read is read again the same from what is written.
pub fn config_json(bytes: &[u8]) {
    let spec: Spec = match parse("config.json", bytes) {
        Ok(spec) => spec,
        Err(failure) => return is_one_line(&failure),
    };
    let written = serde_json::to_vec(&spec).expect("a configuration is plain data");
    let again: Spec = parse("config.json", &written).expect("what was written");
    assert_eq!(spec, again);
    for refused in [
        cgroup::check(&spec.linux.resources).err(),
        id::check(&spec.hostname).err(),
        spec.linux
            .seccomp
            .as_ref()
            .and_then(|profile| shoal_seccomp::compile(profile).err()),
    ] {
        refused.iter().for_each(is_one_line);
    }
    let input = Input {
        container_id: "fuzz".to_owned(),
        cgroup: "/fuzz".to_owned(),
        spec,
        root: RootSource::Directory(PathBuf::from("/no/such/root")),
    };
    if let Err(failure) = Plan::new(input) {
        is_one_line(&failure);
    }
}

/// The same for the process of an `exec -p`.
pub fn process_json(bytes: &[u8]) {
    match parse::<Process>("process.json", bytes) {
        Ok(process) => {
            if let Err(failure) = plan::check_process(&process) {
                is_one_line(&failure);
            }
        }
        Err(failure) => is_one_line(&failure),
    }
}
