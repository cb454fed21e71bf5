/** Guards of devices: which nodes there are, and who may use them. */
import { type Guard, testsOf } from "../guard.ts";

const security = testsOf("shoal-core", "security");
const runtime = testsOf("shoal-runtime", "--lib");
const files = testsOf("shoal-runtime", "filesystem");
const places = testsOf("shoal-runtime", "hostile_files");
const groups = testsOf("shoal-runtime", "cgroups");

export const deviceGuards: readonly Guard[] = [
  {
    name: "devices-open-v1",
    item: "devices",
    what: "every device of the host can be opened by a node that the container makes (v1)",
    removals: [
      {
        file: "runtime/src/cgroup/devices.rs",
        find: "        let mut list = Self::default();\n        for rule in rules {",
        replace:
          "        let mut list = Self { allow: true, exceptions: Vec::new() };\n        for rule in rules {",
      },
    ],
    test: security("devices_of_the_host_cannot_be_opened"),
  },
  {
    name: "devices-open-v2",
    item: "devices",
    what: "every device of the host can be opened by a node that the container makes (v2)",
    removals: [
      {
        file: "runtime/src/cgroup/ebpf.rs",
        find: "            program.extend(verdict(rule.allow));\n            return program;",
        replace: "            program.extend(verdict(true));\n            return program;",
      },
    ],
    test: groups("devices_of_v2_are_denied_by_a_program_that_the_kernel_runs"),
  },
  {
    name: "devices-that-no-rule-names",
    item: "devices",
    what: "what no rule speaks of is open (v2)",
    removals: [
      {
        file: "runtime/src/cgroup/ebpf.rs",
        find: "    program.extend(verdict(false));\n",
        replace: "    program.extend(verdict(true));\n",
      },
    ],
    test: runtime("cgroup::ebpf::tests::assemble_means_what_the_rules_mean"),
  },
  {
    name: "device-rights-joined",
    item: "devices",
    what: "a rule that gives reading gives writing too (v2)",
    removals: [
      {
        file: "runtime/src/cgroup/ebpf.rs",
        find: "block.push(instruction(AND, RIGHTS, 0, 0, !rights(rule.rights)));",
        replace: "block.push(instruction(AND, RIGHTS, 0, 0, 0));",
      },
    ],
    test: groups("devices_of_v2_are_denied_by_a_program_that_the_kernel_runs"),
  },
  {
    name: "devices-without-rules",
    item: "devices",
    what: "where no device rule can be had, a node of the image opens the host's device",
    removals: [
      {
        file: "runtime/src/filesystem/mod.rs",
        find: "let nodev = if around.nodev { mount::ATTR_NODEV } else { 0 };",
        replace: "let nodev = if around.nodev { 0 } else { 0 };",
      },
    ],
    test: places("without_device_rules_no_node_of_the_image_or_the_container_opens"),
  },
  {
    name: "tmpfs-devices-without-rules",
    item: "devices",
    what: "where no device rule can be had, a node on a tmpfs opens the host's device",
    removals: [
      {
        file: "runtime/src/mounts/typed.rs",
        find: "                options.set |= mount::ATTR_NODEV;\n",
        replace: "",
      },
    ],
    test: places("without_device_rules_no_node_of_the_image_or_the_container_opens"),
  },
  {
    name: "bound-device-not-proven",
    item: "devices",
    what: "where nodes are bound, another device of the host than the one asked for may be",
    removals: [
      {
        file: "runtime/src/devices.rs",
        find: "    prove(calls, host.as_fd(), node.kind, node.major, node.minor)?;\n",
        replace: "",
      },
    ],
    test: runtime("filesystem::tests::devices_are_bound_where_they_may_not_be_made"),
  },
  {
    name: "images-own-device",
    item: "devices",
    what: "a node of the image stands for the device that the configuration asks for",
    removals: [
      {
        file: "runtime/src/devices.rs",
        find: "            if found.is(node.kind) && (device || node.kind == libc::S_IFIFO) {",
        replace: "            if found.is(node.kind) || device {",
      },
    ],
    test: runtime("filesystem::tests::devices_of_the_configuration_have_their_owners_and_parents"),
  },
  {
    name: "images-own-ptmx",
    item: "devices",
    what: "/dev/ptmx of the image opens the host's terminals",
    removals: [
      {
        file: "runtime/src/devices.rs",
        find: 'Err(error) if is(&error, libc::EEXIST) && name == "ptmx" => calls',
        replace: 'Err(error) if is(&error, libc::EEXIST) && name == "ptmx?" => calls',
      },
    ],
    test: places("a_ptmx_of_the_image_is_replaced"),
  },
  {
    name: "copied-up-devices",
    item: "devices",
    what: "tmpcopyup copies what is behind a link, or the content of a device, into the container",
    removals: [
      {
        file: "runtime/src/mounts/copy_up.rs",
        find: "    let there = file::open_at(from, name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;",
        replace: "    let there = file::open_at(from, name, libc::O_PATH, 0)?;",
      },
      {
        file: "runtime/src/mounts/copy_up.rs",
        find: "                libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK,",
        replace: "                libc::O_RDONLY | libc::O_NONBLOCK,",
      },
    ],
    because: "a link is told from a file before and while it is opened",
    test: files("a_tmpfs_takes_over_mode_and_contents_when_asked"),
  },
];
