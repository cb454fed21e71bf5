//! The machine's cgroup driver as this command line uses it: none at all, lenient without rights, or for a further process in a subgroup.

use shoal_protocol::{Failure, oci::Resources};
use shoal_runtime::cgroup::detect::Layout;
use shoal_runtime::cgroup::{self, Access, Below, Driver, OomWatch, Stats};
use std::os::fd::OwnedFd;
use std::path::PathBuf;

/// A driver with the caller's wishes.
pub struct Adapted {
    /// None with `--cgroup-manager disabled`: nothing is made, limited or found.
    pub inner: Option<Box<dyn Driver>>,
    pub access: Access,
    /// Where a further process goes (`exec --cgroup`).
    pub below: Vec<Below>,
    /// The init of the container that a further process goes to.
    pub init: Option<i32>,
}

impl Adapted {
    /// The driver of a machine with this layout.
    pub fn of(layout: &Layout, access: Access) -> Self {
        Self {
            inner: Some(cgroup::driver_for_callers(layout)),
            access,
            below: Vec::new(),
            init: None,
        }
    }
}

impl Driver for Adapted {
    fn create_with(
        &self,
        path: &str,
        resources: &Resources,
        access: Access,
    ) -> Result<(), Failure> {
        let access = match (access, self.access) {
            (Access::Required, Access::Required) => Access::Required,
            _ => Access::Optional,
        };
        match &self.inner {
            Some(inner) => inner.create_with(path, resources, access),
            None => Ok(()),
        }
    }

    fn clones_into(&self, resources: &Resources) -> bool {
        self.inner
            .as_ref()
            .is_some_and(|inner| inner.clones_into(resources))
    }

    fn clone_target(&self, path: &str) -> Result<Option<OwnedFd>, Failure> {
        let Some(inner) = &self.inner else {
            return Ok(None);
        };
        match (&self.below[..], self.init) {
            ([], Some(init)) => inner.join_target(path, init),
            ([], None) => inner.clone_target(path),
            ([below, ..], _) => inner.clone_target(&format!("{path}/{}", below.path)),
        }
    }

    fn place(&self, path: &str) -> Result<Option<OwnedFd>, Failure> {
        match &self.inner {
            Some(inner) => inner.place(path),
            None => Ok(None),
        }
    }

    fn withdraw(&self, path: &str) {
        if let Some(inner) = &self.inner {
            inner.withdraw(path);
        }
    }

    fn attach(&self, path: &str, pid: i32) -> Result<(), Failure> {
        match &self.inner {
            None => Ok(()),
            Some(inner) if self.below.is_empty() => inner.attach(path, pid),
            Some(inner) => inner.attach_below(path, &self.below, pid),
        }
    }

    fn admit(&self, path: &str, pid: i32) -> Result<Vec<OwnedFd>, Failure> {
        match &self.inner {
            Some(inner) if self.below.is_empty() => inner.admit(path, pid),
            _ => self.attach(path, pid).map(|()| Vec::new()),
        }
    }

    fn attach_below(&self, path: &str, below: &[Below], pid: i32) -> Result<(), Failure> {
        match &self.inner {
            Some(inner) => inner.attach_below(path, below, pid),
            None => Ok(()),
        }
    }

    fn update(&self, path: &str, resources: &Resources) -> Result<(), Failure> {
        match &self.inner {
            Some(inner) => inner.update(path, resources),
            None => Ok(()),
        }
    }

    fn freeze(&self, path: &str) -> Result<(), Failure> {
        match &self.inner {
            Some(inner) => inner.freeze(path),
            None => Ok(()),
        }
    }

    fn thaw(&self, path: &str) -> Result<(), Failure> {
        match &self.inner {
            Some(inner) => inner.thaw(path),
            None => Ok(()),
        }
    }

    fn is_frozen(&self, path: &str) -> bool {
        self.inner
            .as_ref()
            .is_some_and(|inner| inner.is_frozen(path))
    }

    fn stats(&self, path: &str) -> Stats {
        self.inner
            .as_ref()
            .map(|inner| inner.stats(path))
            .unwrap_or_default()
    }

    fn kill_all(&self, path: &str, signal: i32) -> Result<(), Failure> {
        match &self.inner {
            Some(inner) => inner.kill_all(path, signal),
            None => Ok(()),
        }
    }

    fn directories(&self, path: &str) -> Vec<PathBuf> {
        self.inner
            .as_ref()
            .map(|inner| inner.directories(path))
            .unwrap_or_default()
    }

    fn oom_kills(&self, path: &str) -> u64 {
        self.inner.as_ref().map_or(0, |inner| inner.oom_kills(path))
    }

    fn oom_watch(&self, path: &str) -> Option<OomWatch> {
        self.inner.as_ref()?.oom_watch(path)
    }

    fn views(&self, resources: &Resources) -> Option<Vec<(String, String)>> {
        self.inner.as_ref()?.views(resources)
    }

    fn limits_devices(&self) -> bool {
        // Without groups nothing is limited; the host's own rules hold, as with crun.
        self.inner
            .as_ref()
            .is_none_or(|inner| inner.limits_devices())
    }
}
