//! One container as a command sees it: its record, where it is in its life, and its control group.

use crate::adapted::Adapted;
use crate::context::Context;
use crate::stop::Stop;
use crate::store::{Home, Identity, Record};
use serde::Serialize;
use shoal_protocol::Failure;
use shoal_protocol::oci::Status;
use shoal_runtime::cgroup::detect::Layout;
use shoal_runtime::cgroup::{Access, Driver};
use shoal_runtime::sys::{self, process};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;

/// A container that exists.
pub struct Container {
    pub home: Home,
    pub record: Record,
    driver: OnceCell<Adapted>,
}

/// What `state` and `list` print: the specification's state and what runc adds to it.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub oci_version: String,
    pub id: String,
    /// 0 when it has stopped.
    pub pid: i32,
    pub status: Status,
    pub bundle: String,
    pub rootfs: String,
    pub created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    pub owner: String,
}

impl Container {
    /// Finds a container; its lock is not taken, as a hook of a command that holds it may ask.
    pub fn find(context: &Context<'_>, id: &str) -> Result<Self, Stop> {
        let (home, record) = context.root.find(id)?;
        Ok(Self::new(home, record))
    }

    /// Finds a container and keeps other commands from changing it.
    pub fn find_locked(context: &Context<'_>, id: &str) -> Result<Self, Stop> {
        let (home, record) = context.root.find_locked(id)?;
        Ok(Self::new(home, record))
    }

    /// A container whose record is in hand.
    pub fn new(home: Home, record: Record) -> Self {
        Self {
            home,
            record,
            driver: OnceCell::new(),
        }
    }

    /// Where the container is in its life.
    pub fn status(&self) -> Status {
        match self.record.init {
            None if self.record.creator.is_alive() => return Status::Creating,
            None => return Status::Stopped,
            Some(_) => {}
        }
        if self.record.living_init().is_none() {
            return Status::Stopped;
        }
        if self.home.is_parked() {
            return Status::Created;
        }
        if self.is_frozen() {
            return Status::Paused;
        }
        Status::Running
    }

    /// Init, or the words that callers know for a container without one.
    pub fn living_init(&self) -> Result<Identity, Stop> {
        self.record
            .living_init()
            .ok_or_else(|| Stop::new("container not running"))
    }

    /// As `living_init`, with a descriptor that stands for the very process.
    pub fn pin_init(&self) -> Result<(Identity, OwnedFd), Stop> {
        let gone = || Stop::new("container not running");
        let init = self.record.init.ok_or_else(gone)?;
        let pinned = process::pidfd(init.pid).map_err(|error| {
            if sys::is(&error, libc::ESRCH) {
                return gone();
            }
            Failure::io(
                format!("reaching init of container {:?}", self.record.id),
                &error,
            )
            .into()
        })?;
        // The number may have gone to another process before it was pinned.
        match self.record.living_init() {
            Some(init) => Ok((init, pinned)),
            None => Err(gone()),
        }
    }

    /// The driver and path of the container's group, when it has one.
    pub fn group(&self) -> Option<(&dyn Driver, &str)> {
        if self.record.cgroup.is_empty() {
            return None;
        }
        let driver = self
            .driver
            .get_or_init(|| Adapted::of(&Layout::from(&self.record.groups), Access::Required));
        Some((driver, self.record.cgroup.as_str()))
    }

    /// The state as it is printed.
    pub fn report(&self) -> Report {
        let record = &self.record;
        let status = self.status();
        let pid = match (status, record.init) {
            (Status::Stopped, _) | (_, None) => 0,
            (_, Some(init)) => init.pid,
        };
        let uid = std::fs::metadata(&self.home.path).map_or(0, |meta| meta.uid());
        Report {
            oci_version: record.oci_version.clone(),
            id: record.id.clone(),
            pid,
            status,
            bundle: record.bundle.clone(),
            rootfs: record.rootfs.clone(),
            created: record.created.clone(),
            annotations: record.annotations.clone(),
            owner: user_name(uid),
        }
    }

    /// Whether the group is frozen, or about to be.
    pub fn is_frozen(&self) -> bool {
        self.group()
            .is_some_and(|(driver, path)| driver.is_frozen(path))
    }
}

/// The status as the specification words it.
pub fn status_word(status: Status) -> &'static str {
    match status {
        Status::Creating => "creating",
        Status::Created => "created",
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Stopped => "stopped",
    }
}

/// The name of a user of this machine; `#UID` when it has none.
fn user_name(uid: u32) -> String {
    let wanted = uid.to_string();
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    users
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?;
            (fields.nth(1)? == wanted).then(|| name.to_owned())
        })
        .next()
        .unwrap_or_else(|| format!("#{uid}"))
}
