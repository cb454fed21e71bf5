//! An OCI runtime-spec 1.x configuration (config.md, config-linux.md), typed; unknown fields are ignored, absent and null are alike.

mod features;
mod field;
mod hooks;
mod linux;
mod mounts;
mod parse;
mod process;
mod resources;
mod seccomp;
mod state;

pub use features::*;
pub use hooks::{Hook, Hooks};
pub use linux::*;
pub use mounts::{IdMapping, Mount, Root};
pub use parse::parse;
pub use process::*;
pub use resources::*;
pub use seccomp::*;
pub use state::{State, Status};

use crate::Failure;
pub(crate) use field::is_default;
use field::part;
use std::collections::BTreeMap;

/// The version of the specification that is implemented, as `state` and `features` tell it.
pub const VERSION: &str = "1.2.1";
/// The oldest version whose configurations are understood.
pub const VERSION_MIN: &str = "1.0.0";

part! {
    /// A whole configuration: config.json.
    pub struct Spec {
        pub oci_version: String,
        pub process: Process,
        pub root: Root,
        pub hostname: String,
        pub domainname: String,
        pub mounts: Vec<Mount>,
        pub hooks: Hooks,
        pub annotations: BTreeMap<String, String>,
        pub linux: Linux,
    }
}

impl Spec {
    /// Reads a config.json; what is wrong is told with the path of its field. Versions newer than ours are taken.
    pub fn parse(bytes: &[u8]) -> Result<Self, Failure> {
        let spec: Self = parse("config.json", bytes)?;
        check_version(&spec.oci_version)?;
        Ok(spec)
    }
}

/// Refuses a version of the specification that is not 1.x (SemVer 2.0.0; config.md "Specification version").
pub fn check_version(version: &str) -> Result<(), Failure> {
    let doing = "reading config.json";
    if version.is_empty() {
        return Err(Failure::invalid(
            doing,
            format!("ociVersion is missing; set it to {VERSION:?}"),
        ));
    }
    let core = version.split(['-', '+']).next().unwrap_or_default();
    let numbers: Vec<Option<u64>> = core.split('.').map(|part| part.parse().ok()).collect();
    match numbers[..] {
        [Some(1), Some(_), Some(_)] => Ok(()),
        [Some(_), Some(_), Some(_)] => Err(Failure::invalid(
            doing,
            format!("ociVersion {version:?} is not supported; versions 1.x are"),
        )),
        _ => Err(Failure::invalid(
            doing,
            format!("ociVersion {version:?} is not a version such as {VERSION:?}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spec_takes_null_absent_and_unknown_fields_alike() {
        let spec = Spec::parse(
            br#"{"ociVersion":"1.99.9-dev","zzz":1,"process":{"args":["a"],"env":null,"user":{"uid":7}},"mounts":[{"destination":"/x","options":null}],"linux":null,"hooks":null,"windows":{"x":1}}"#,
        )
        .expect("a lenient configuration");
        assert_eq!(spec.process.args, ["a"]);
        assert_eq!(spec.process.user.uid, 7);
        assert!(spec.mounts[0].options.is_empty());
        assert_eq!(spec.linux, Linux::default());
    }

    #[test]
    fn versions_of_one_are_taken_and_others_refused_by_value() {
        for good in [
            "1.0.0",
            "1.0.2-dev",
            "1.2.1",
            "1.3.0-rc.1+build",
            "1.999.999",
        ] {
            check_version(good).expect(good);
        }
        for bad in [
            "", "0.9.0", "2.0.0", "1", "1.0", "v1.0.0", "1.0.0.0", "1.a.0",
        ] {
            let failure = check_version(bad).expect_err(bad);
            assert!(failure.message.contains("ociVersion"), "{failure}");
            assert!(failure.message.contains(bad), "{failure}");
        }
    }

    #[test]
    fn spec_comes_back_from_its_own_json_and_empty_fields_are_left_out() {
        let text = r#"{"ociVersion":"1.2.0","process":{"args":["a"],"cwd":"/"},"linux":{"resources":{"devices":[{"allow":true,"type":"c","major":1,"access":"rwm"}],"pids":{"limit":0}}}}"#;
        let spec = Spec::parse(text.as_bytes()).expect("spec");
        assert_eq!(serde_json::to_string(&spec).expect("json"), text);
    }
}
