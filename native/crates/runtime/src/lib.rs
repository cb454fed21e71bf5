//! How one Linux container is made, told apart, limited and ended: the verbs that the resident core and an OCI command line share.

pub mod caps;
pub mod cgroup;
pub mod devices;
pub mod id;
pub mod init;
pub mod lookup;
pub mod masks;
pub mod mount_options;
pub mod mounts;
pub mod plan;
pub mod proc;
pub mod rlimits;
pub mod root;
pub mod signals;
pub mod sys;
pub mod sysctl;
pub mod within;
