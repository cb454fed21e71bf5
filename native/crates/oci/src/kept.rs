//! What is kept of a container so that later commands need neither its whole configuration nor a look at the machine: where its groups
//! are, the part of the configuration that a further process needs, and the compiled filter.

use serde::{Deserialize, Serialize};
use shoal_protocol::oci::{Linux, Spec};
use shoal_runtime::cgroup::detect::{Hierarchy, Layout, Mode};
use shoal_seccomp::{INSTRUCTIONS_MAX, Program};
use std::path::PathBuf;

/// The layout of control groups when the container was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Groups {
    mode: GroupsMode,
    /// Mount and controllers of each v1 hierarchy.
    hierarchies: Vec<(PathBuf, Vec<String>)>,
    unified: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum GroupsMode {
    V1,
    Hybrid,
    V2,
}

impl From<&Layout> for Groups {
    fn from(layout: &Layout) -> Self {
        Self {
            mode: match layout.mode {
                Mode::V1 => GroupsMode::V1,
                Mode::Hybrid => GroupsMode::Hybrid,
                Mode::V2 => GroupsMode::V2,
            },
            hierarchies: layout
                .hierarchies
                .iter()
                .map(|one| (one.mount.clone(), one.controllers.clone()))
                .collect(),
            unified: layout.unified.clone(),
        }
    }
}

impl From<&Groups> for Layout {
    fn from(groups: &Groups) -> Self {
        Self {
            mode: match groups.mode {
                GroupsMode::V1 => Mode::V1,
                GroupsMode::Hybrid => Mode::Hybrid,
                GroupsMode::V2 => Mode::V2,
            },
            hierarchies: groups
                .hierarchies
                .iter()
                .map(|(mount, controllers)| Hierarchy {
                    mount: mount.clone(),
                    controllers: controllers.clone(),
                })
                .collect(),
            unified: groups.unified.clone(),
        }
    }
}

/// The configuration without what only the creation reads.
pub fn for_exec(spec: &Spec) -> Spec {
    let linux = &spec.linux;
    Spec {
        oci_version: spec.oci_version.clone(),
        process: spec.process.clone(),
        annotations: spec.annotations.clone(),
        linux: Linux {
            namespaces: linux.namespaces.clone(),
            uid_mappings: linux.uid_mappings.clone(),
            gid_mappings: linux.gid_mappings.clone(),
            cgroups_path: linux.cgroups_path.clone(),
            personality: linux.personality.clone(),
            memory_policy: linux.memory_policy.clone(),
            mount_label: linux.mount_label.clone(),
            // The listener's address; the rules are in the compiled filter.
            seccomp: linux
                .seccomp
                .as_ref()
                .map(|seccomp| shoal_protocol::oci::Seccomp {
                    syscalls: Vec::new(),
                    architectures: Vec::new(),
                    ..seccomp.clone()
                }),
            ..Linux::default()
        },
        ..Spec::default()
    }
}

const MAGIC: &[u8; 8] = b"shoalsc1";
const HEADER_BYTES: usize = 12;
const INSTRUCTION_BYTES: usize = 8;

/// A filter as bytes.
pub fn filter_bytes(program: &Program) -> Vec<u8> {
    let mut bytes =
        Vec::with_capacity(HEADER_BYTES + program.instructions.len() * INSTRUCTION_BYTES);
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&program.flags.to_le_bytes());
    for one in &program.instructions {
        bytes.extend_from_slice(&one.code.to_le_bytes());
        bytes.extend_from_slice(&[one.jt, one.jf]);
        bytes.extend_from_slice(&one.k.to_le_bytes());
    }
    bytes
}

/// The filter that `filter_bytes` wrote; None for anything else.
pub fn filter(bytes: &[u8]) -> Option<Program> {
    let (header, body) = bytes.split_at_checked(HEADER_BYTES)?;
    let (magic, flags) = header.split_at_checked(MAGIC.len())?;
    let (instructions, rest) = body.as_chunks::<INSTRUCTION_BYTES>();
    if magic != MAGIC
        || !rest.is_empty()
        || instructions.is_empty()
        || instructions.len() > INSTRUCTIONS_MAX
    {
        return None;
    }
    Some(Program {
        flags: u32::from_le_bytes(flags.try_into().ok()?),
        instructions: instructions
            .iter()
            .map(|[a, b, jt, jf, k @ ..]| libc::sock_filter {
                code: u16::from_le_bytes([*a, *b]),
                jt: *jt,
                jf: *jf,
                k: u32::from_le_bytes(*k),
            })
            .collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_comes_back_whole_or_not_at_all() {
        let one = |code, k| libc::sock_filter {
            code,
            jt: 1,
            jf: 2,
            k,
        };
        let program = Program {
            flags: 4,
            instructions: vec![one(0x20, 4), one(0x06, 0x7fff_0000)],
        };
        let bytes = filter_bytes(&program);
        assert_eq!(filter(&bytes), Some(program));
        for cut in [0, 5, HEADER_BYTES, bytes.len() - 1] {
            assert_eq!(filter(&bytes[..cut]), None, "{cut}");
        }
        let mut other = bytes.clone();
        other[0] ^= 1;
        assert_eq!(filter(&other), None);
    }

    #[test]
    fn groups_come_back_as_they_were() {
        let layout = Layout {
            mode: Mode::Hybrid,
            hierarchies: vec![Hierarchy {
                mount: "/sys/fs/cgroup/cpu,cpuacct".into(),
                controllers: vec!["cpu".into(), "cpuacct".into()],
            }],
            unified: Some("/sys/fs/cgroup/unified".into()),
        };
        let text = serde_json::to_string(&Groups::from(&layout)).expect("json");
        let read: Groups = serde_json::from_str(&text).expect("groups");
        assert_eq!(Layout::from(&read), layout);
    }
}
