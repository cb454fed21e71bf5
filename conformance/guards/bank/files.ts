/** Guards of what a container sees as its files: root, mounts, masks, terminals, devices, and what is written to /proc for it. */
import { type Guard, testsOf } from "../guard.ts";
import { deviceGuards } from "./devices.ts";

const security = testsOf("shoal-core", "security");
const hostile = testsOf("shoal-core", "hostile");
const containers = testsOf("shoal-runtime", "containers");
const runtime = testsOf("shoal-runtime", "--lib");
const files = testsOf("shoal-runtime", "filesystem");
const places = testsOf("shoal-runtime", "hostile_files");

const root: readonly Guard[] = [
  {
    name: "old-root-stays",
    item: "the root",
    what: "after the pivot the host's files are still mounted in the container's namespace",
    removals: [
      {
        file: "runtime/src/filesystem/mod.rs",
        find: '        self.calls.unmount(c".", libc::MNT_DETACH)?;\n',
        replace: "",
      },
    ],
    test: places("nothing_of_the_host_is_left_in_the_namespace"),
  },
  {
    name: "procfs-under-moved-root",
    item: "the root",
    what: "without a pivot a whole procfs of the host stays in the container's namespace",
    removals: [
      {
        file: "runtime/src/filesystem/bare.rs",
        find: 'let wanted = matches!(mount.kind.as_str(), "proc" | "sysfs");',
        replace: 'let wanted = mount.kind == "procfs";',
      },
    ],
    test: containers("no_namespace_has_a_procfs_without_masks"),
  },
  {
    name: "mounts-reach-the-host",
    item: "the root",
    what: "what is mounted in the container appears on the host",
    removals: [
      {
        file: "runtime/src/filesystem/mod.rs",
        find: "            _ => libc::MS_PRIVATE | libc::MS_REC,\n        }\n    }\n}",
        replace: "            _ => libc::MS_SHARED | libc::MS_REC,\n        }\n    }\n}",
      },
    ],
    test: files("mount_points_are_made_as_their_sources_are"),
  },
  {
    name: "volume-tells-the-host",
    item: "the root",
    what: "a volume that was opened outside tells the host of mounts that the container makes in it",
    removals: [
      {
        file: "runtime/src/mounts/bind.rs",
        find: "if from_outside && options.propagation.is_empty() {",
        replace: "if false && from_outside {",
      },
    ],
    test: places("a_volume_that_was_opened_outside_tells_the_host_nothing"),
  },
  {
    name: "read-only-root-writable",
    item: "the root",
    what: "a root that was to be read-only takes writes",
    removals: [
      {
        file: "runtime/src/filesystem/mod.rs",
        find: "        if self.plan.readonly {",
        replace: "        if self.plan.readonly && false {",
      },
    ],
    test: files("what_is_masked_is_empty_and_what_is_read_only_takes_nothing"),
  },
  {
    name: "root-of-the-host",
    item: "the root",
    what: "root.path / makes the host's files the container's",
    removals: [
      {
        file: "runtime/src/root.rs",
        find: 'if crate::within::check(|| format!("reading {field}"), path)? == 0 {',
        replace: 'if crate::within::check(|| format!("reading {field}"), path)? == 0 && false {',
      },
    ],
    test: runtime("plan::tests::new_refuses_bad_fields_by_name"),
  },
  {
    name: "group-climbs",
    item: "limits",
    what: "cgroupsPath /../x is a group outside the hierarchy's mount",
    removals: [
      {
        file: "runtime/src/plan.rs",
        find: "        cgroup::check_path(&cgroup)?;\n",
        replace: "",
      },
    ],
    test: runtime("plan::tests::new_refuses_bad_fields_by_name"),
  },
  {
    name: "mounts-without-limit",
    item: "limits",
    what: "a configuration fills the kernel with mounts",
    removals: [
      {
        file: "runtime/src/mounts/planned.rs",
        find: "    if spec.mounts.len() > MOUNTS_MAX {",
        replace: "    if false {",
      },
    ],
    test: runtime("mounts::planned::tests::plan_refuses_by_name"),
  },
];

const masks: readonly Guard[] = [
  {
    name: "nothing-masked",
    item: "CVE-2025-31133 masked paths",
    what: "masked paths show what they hold",
    removals: [
      {
        file: "runtime/src/filesystem/mod.rs",
        find: "        masks::mask(self.calls, self.root.as_fd(), &self.plan.masked)?;\n",
        replace: "",
      },
    ],
    test: security("masked_paths_show_nothing_and_read_only_paths_take_nothing"),
  },
  {
    name: "powercap-shown",
    item: "CVE-2025-31133 masked paths",
    what: "a container of the sample configuration reads secrets off the machine's power meter",
    removals: [
      {
        file: "oci/src/commands/sample.json",
        find: '\t\t\t"/sys/firmware",\n\t\t\t"/sys/devices/virtual/powercap"',
        replace: '\t\t\t"/sys/firmware"',
      },
    ],
    test: testsOf("shoal-oci", "--lib")("commands::spec::tests::samples_are_configurations"),
  },
  {
    name: "null-not-proven",
    item: "CVE-2025-31133 masked paths",
    what: "whatever is at /dev/null of the host covers a masked path, or is a program's stdin",
    removals: [
      {
        file: "runtime/src/devices.rs",
        find: "let right = found.is(kind) && (found.major, found.minor) == (major, minor);",
        replace:
          "let right = found.is(kind) || (found.major, found.minor) == (major, minor) || true;",
      },
    ],
    test: runtime("filesystem::tests::a_dev_null_that_is_another_device_masks_nothing"),
  },
  {
    name: "mask-directory-writable",
    item: "CVE-2025-31133 masked paths",
    what: "the empty directory over a masked one takes files, in memory that nobody counts",
    removals: [
      {
        file: "runtime/src/masks.rs",
        find: '            draft.set("size", "0")?;\n            draft.set("nr_inodes", "1")?;\n',
        replace: "",
      },
      {
        file: "runtime/src/masks.rs",
        find: "                mount::ATTR_RDONLY | mount::ATTR_NOSUID | mount::ATTR_NODEV | mount::ATTR_NOEXEC,",
        replace: "                mount::ATTR_NOSUID | mount::ATTR_NODEV | mount::ATTR_NOEXEC,",
      },
    ],
    because: "it is read-only, and has room for itself alone",
    test: security("masked_paths_show_nothing_and_read_only_paths_take_nothing"),
  },
  {
    name: "mask-changes-the-hosts-null",
    item: "CVE-2025-31133 masked paths",
    what: "by a masked file the container changes mode and owner of the host's /dev/null",
    removals: [
      {
        file: "runtime/src/masks.rs",
        find: "            self.calls.change_mount(tree.as_fd(), &READ_ONLY, false)?;\n            Ok(tree)",
        replace: "            Ok(tree)",
      },
    ],
    test: hostile("a_masked_file_is_no_way_to_the_hosts_null"),
  },
  {
    name: "read-only-paths-writable",
    item: "CVE-2025-31133 masked paths",
    what: "read-only paths take writes",
    removals: [
      {
        file: "runtime/src/masks.rs",
        find: "        calls.change_mount(tree.as_fd(), &READ_ONLY, true)?;\n",
        replace: "",
      },
    ],
    test: security("masked_paths_show_nothing_and_read_only_paths_take_nothing"),
  },
  {
    name: "read-only-paths-shallow",
    item: "CVE-2025-31133 masked paths",
    what: "a mount below a read-only path takes writes",
    removals: [
      {
        file: "runtime/src/masks.rs",
        find: "        calls.change_mount(tree.as_fd(), &READ_ONLY, true)?;\n",
        replace: "        calls.change_mount(tree.as_fd(), &READ_ONLY, false)?;\n",
      },
    ],
    test: places("a_mount_below_a_read_only_path_takes_nothing"),
  },
];

const console: readonly Guard[] = [
  {
    name: "console-through-a-link",
    item: "CVE-2025-52565 /dev/console",
    what: "/dev/console of the image leads the terminal's bind elsewhere",
    removals: [
      {
        file: "runtime/src/filesystem/mod.rs",
        find: '                self.calls\n                    .open_at(dev.as_fd(), "console", libc::O_PATH | libc::O_NOFOLLOW, 0)?;',
        replace: '                self.calls.open_at(dev.as_fd(), "console", libc::O_PATH, 0)?;',
      },
    ],
    test: containers("a_console_that_is_a_link_is_refused"),
  },
  {
    name: "terminal-by-its-path",
    item: "CVE-2025-52565 /dev/console",
    what: "the terminal that belongs to a ptmx is looked up by a path of whoever made /dev",
    removals: [
      {
        file: "runtime/src/console.rs",
        find: "let slave = process::terminal_peer(master.as_fd())?;",
        replace: 'let slave = file::open("/dev/pts/0", libc::O_RDWR | libc::O_NOCTTY)?;',
      },
    ],
    test: containers("a_terminal_is_the_containers_own"),
  },
  {
    name: "terminal-of-any-directory",
    item: "CVE-2025-52565 /dev/console",
    what: "/dev/pts of the image need not be a devpts for a terminal to be opened in it",
    removals: [
      {
        file: "runtime/src/console.rs",
        find: "    if kind != DEVPTS_SUPER_MAGIC {",
        replace: "    if false {",
      },
    ],
    test: containers("a_terminal_is_of_a_real_devpts_only"),
  },
  {
    name: "pts-through-a-link",
    item: "CVE-2025-52565 /dev/console",
    what: "/dev/pts of the image leads to another container's or the host's terminals",
    removals: [
      {
        file: "runtime/src/console.rs",
        find: "const STRICT: u64 = libc::RESOLVE_BENEATH | file::NO_SYMLINKS | libc::RESOLVE_NO_MAGICLINKS;",
        replace: "const STRICT: u64 = file::NO_SYMLINKS & 0;",
      },
    ],
    test: containers("a_terminal_is_of_a_real_devpts_only"),
  },
];

const proc: readonly Guard[] = [
  {
    name: "sysctl-by-the-containers-proc",
    item: "CVE-2025-52881 writes to /proc",
    what: "settings are written to whatever the image has at /proc",
    removals: [
      {
        file: "runtime/src/filesystem/mod.rs",
        find: "let proc_root = sysctl::private_proc(self.calls)?;",
        replace:
          'let proc_root = doing("opening /proc", self.calls.open_at2(self.root.as_fd(), "proc", libc::O_PATH, 0))?;',
      },
    ],
    test: places("settings_are_made_by_a_procfs_of_our_own"),
  },
  {
    name: "sysctl-through-a-link",
    item: "CVE-2025-52881 writes to /proc",
    what: "a setting's path is followed through links",
    removals: [
      {
        file: "runtime/src/sysctl.rs",
        find: "        let resolve = file::NO_XDEV | file::NO_SYMLINKS;\n        calls\n",
        replace: "        let resolve = file::NO_XDEV;\n        calls\n",
      },
    ],
    test: places("settings_are_written_to_a_bare_procfs_only"),
  },
  {
    name: "sysctl-through-a-mount",
    item: "CVE-2025-52881 writes to /proc",
    what: "a setting's path is followed through mounts",
    removals: [
      {
        file: "runtime/src/sysctl.rs",
        find: "        let resolve = file::NO_XDEV | file::NO_SYMLINKS;\n        calls\n",
        replace: "        let resolve = file::NO_SYMLINKS;\n        calls\n",
      },
    ],
    test: places("settings_are_written_to_a_bare_procfs_only"),
  },
  {
    name: "sysctl-to-another-file-system",
    item: "CVE-2025-52881 writes to /proc",
    what: "a setting is written to a file that is not procfs's",
    removals: [
      {
        file: "runtime/src/sysctl.rs",
        find: "                if calls.file_system(fd.as_fd())? != PROC_SUPER_MAGIC {",
        replace: "                if false {",
      },
    ],
    test: places("settings_are_written_to_a_bare_procfs_only"),
  },
  {
    name: "label-through-links-and-mounts",
    item: "CVE-2025-52881 writes to /proc",
    what: "an LSM label's path is followed through links and mounts",
    removals: [
      {
        file: "runtime/src/labels.rs",
        find: "    let resolve = file::NO_XDEV | file::NO_SYMLINKS;\n",
        replace: "    let resolve = 0;\n",
      },
    ],
    test: runtime("labels::tests::a_label_is_written_to_a_bare_procfs_only"),
  },
  {
    name: "label-to-another-file-system",
    item: "CVE-2025-52881 writes to /proc",
    what: "an LSM label is written to a file that is not procfs's, and the program runs without",
    removals: [
      {
        file: "runtime/src/labels.rs",
        find: "    if calls.file_system(fd.as_fd())? != PROC_SUPER_MAGIC {",
        replace: "    if false {",
      },
    ],
    test: runtime("labels::tests::a_label_is_written_to_a_bare_procfs_only"),
  },
  {
    name: "proc-is-anything",
    item: "CVE-2025-52881 writes to /proc",
    what: "a directory of the host is mounted at /proc, and what relies on it is led astray",
    removals: [
      {
        file: "runtime/src/mounts/bind.rs",
        find: '        if planned.destination == ["proc"] {',
        replace: '        if planned.destination == ["proc", ""] {',
      },
    ],
    test: runtime("filesystem::tests::proc_may_only_be_a_procfs"),
  },
  {
    name: "mounts-inside-proc",
    item: "CVE-2025-52881 writes to /proc",
    what: "a mount of the configuration covers files of /proc",
    removals: [
      {
        file: "runtime/src/mounts/planned.rs",
        find: "    check_proc(mount, &options, &destination)?;\n",
        replace: "",
      },
    ],
    test: runtime("mounts::planned::tests::plan_refuses_by_name"),
  },
  {
    name: "mounts-inside-proc-by-a-link",
    item: "CVE-2025-52881 writes to /proc",
    what: "a link of the image leads a mount into /proc (CVE-2019-19921)",
    removals: [
      {
        file: "runtime/src/mounts/mod.rs",
        find: "        self.guard_proc(planned, target.fd.as_fd())?;\n",
        replace: "",
      },
    ],
    test: places("links_of_an_image_lead_nowhere"),
  },
];

const links: readonly Guard[] = [
  {
    name: "dev-is-a-link",
    item: "CVE-2026-41579 /dev symlink",
    what: "/dev, /proc or /sys of the image leads what is mounted there elsewhere",
    removals: [
      {
        file: "runtime/src/within.rs",
        find: "            libc::O_PATH | libc::O_DIRECTORY,\n            libc::RESOLVE_BENEATH | file::NO_SYMLINKS,\n        )\n    };",
        replace:
          "            libc::O_PATH | libc::O_DIRECTORY,\n            file::IN_ROOT,\n        )\n    };",
      },
    ],
    test: security("the_places_of_kernel_file_systems_must_be_real_directories"),
  },
  {
    name: "dev-above-a-mount-is-a-link",
    item: "CVE-2026-41579 /dev symlink",
    what: "/dev of the image leads a mount below it elsewhere",
    removals: [
      {
        file: "runtime/src/mounts/mod.rs",
        find: "            self.expect_real(planned)?;\n",
        replace: "",
      },
    ],
    test: runtime("filesystem::tests::an_image_with_links_where_the_kernel_is_mounted_is_refused"),
  },
  {
    name: "image-resolved-by-string",
    item: "bind targets",
    what: "links of the image lead mounts to the host's files",
    removals: [
      {
        file: "runtime/src/within.rs",
        find: "calls.open_at2(root, &relative(parts), libc::O_PATH, file::IN_ROOT)",
        replace: "calls.open_at2(root, &relative(parts), libc::O_PATH, 0)",
      },
    ],
    test: runtime("within::tests::make_stays_inside_the_root_through_links"),
  },
  {
    name: "target-looked-up-again",
    item: "bind targets",
    what: "between a target's check and its mount somebody puts a link in its place (CVE-2021-30465)",
    removals: [
      {
        file: "runtime/src/mounts/bind.rs",
        find: "self.put(tree.as_fd(), target.fd.as_fd(), options)",
        replace:
          'self.put(tree.as_fd(), self.calls.open(&format!("{}/{}", crate::sys::file::proc_path(self.root), planned.destination.join("/")), libc::O_PATH)?.as_fd(), options)',
      },
    ],
    test: places("a_link_of_the_image_leads_no_mount_out"),
  },
  {
    name: "missing-target-made-by-string",
    item: "bind targets",
    what: "a mount point is made where a link that appeared meanwhile leads",
    removals: [
      {
        file: "runtime/src/within.rs",
        find: "            let flags = libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW | libc::O_WRONLY;",
        replace: "            let flags = libc::O_CREAT | libc::O_WRONLY;",
      },
    ],
    test: runtime("within::tests::make_stays_inside_the_root_through_links"),
  },
  {
    name: "destination-climbs",
    item: "bind targets",
    what: "`..` in a destination is interpreted",
    removals: [
      {
        file: "runtime/src/within.rs",
        find: '    if named(path).any(|part| part == "..") {',
        replace: "    if false {",
      },
    ],
    test: runtime("within::tests::components_refuses_what_leaves"),
  },
];

export const fileGuards: readonly Guard[] = [
  ...root,
  ...masks,
  ...console,
  ...proc,
  ...links,
  ...deviceGuards,
];
