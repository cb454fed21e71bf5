//! Create calls of a kind that is known by its text.

use crate::parts;
use shoal_protocol::Failure;
use shoal_protocol::calls::Create;
use shoal_protocol::oci::Capabilities;
use shoal_runtime::plan::{Input, Plan, RootSource};
use shoal_runtime::sandbox;
use shoal_runtime::usual::{Usual, Usually};
use std::sync::Arc;

fn check(create: &mut Create) -> Result<Plan, Failure> {
    let spec = std::mem::take(&mut create.spec);
    Plan::new(Input {
        container_id: create.container_id.clone(),
        cgroup: spec.linux.cgroups_path.clone(),
        spec,
        root: RootSource::Overlay(create.rootfs.clone()),
    })
}

/// What reading a call as a whole gives, if it is one for the pool.
fn whole(call: &[u8]) -> Option<Usually> {
    let mut create: Create = serde_json::from_slice(call).ok()?;
    let plan = check(&mut create).ok()?;
    let (template, mut own) = sandbox::split(plan.spec)?;
    own.process.capabilities = Capabilities::default();
    Some(Usually {
        create,
        cgroup: plan.cgroup,
        namespaces: plan.namespaces,
        caps: plan.caps,
        template: Arc::new(template),
        own,
    })
}

/// Two calls: the second, read with the kind of the first known, is what it is as a whole, or is not known.
pub fn usual_calls(bytes: &[u8]) {
    let [first, second] = parts(bytes);
    let usual = Usual::default();
    if let Some(first_whole) = whole(first) {
        usual.note(first, &first_whole.template, first_whole.caps);
    }
    for call in [first, second] {
        if let Some(read) = usual.read(call, check) {
            let whole = whole(call).expect("nothing is taken that is refused as a whole");
            assert_eq!(format!("{read:?}"), format!("{whole:?}"));
        }
    }
}
