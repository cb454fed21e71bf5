//! Where a container's files come from (config.md "Root", "Mounts").

use super::field::part;

part! {
    /// The root's own options. `path` is relative to the bundle, or absolute; the resident core is told by `Rootfs` instead.
    pub struct Root {
        pub path: String,
        pub readonly: bool,
    }
}

part! {
    /// One mount, in the words of mount(8).
    pub struct Mount {
        pub destination: String,
        #[serde(rename = "type")]
        pub kind: String,
        pub source: String,
        pub options: Vec<String>,
        /// Owners of the mounted files, mapped for this mount; both are set or none.
        pub uid_mappings: Vec<IdMapping>,
        pub gid_mappings: Vec<IdMapping>,
    }
}

part! {
    /// A range of `size` user or group ids, inside and outside.
    pub struct IdMapping {
        #[serde(rename = "containerID")]
        pub container_id: u32,
        #[serde(rename = "hostID")]
        pub host_id: u32,
        pub size: u32,
    }
}
