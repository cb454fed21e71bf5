//! How one Linux container is made, told apart, limited and ended: the verbs that the resident core and an OCI command line share.

pub mod attributes;
pub mod caps;
pub mod cgroup;
pub mod channel;
mod console;
pub mod devices;
pub mod filesystem;
mod filling;
mod home;
pub mod hooks;
pub mod id;
mod init;
mod inner_sources;
pub mod join;
pub mod labels;
pub mod launch;
pub mod lookup;
pub mod masks;
pub mod mount_options;
pub mod mounts;
pub mod namespaces;
pub mod net_devices;
pub mod plan;
pub mod proc;
mod program;
pub mod rlimits;
pub mod root;
pub mod sandbox;
pub mod signals;
pub mod streams;
pub mod sys;
pub mod sysctl;
pub mod user;
pub mod userns;
pub mod within;

pub use shoal_seccomp::Program as Filter;
