/** Guards of what a process of a container may do and see: privilege, filters, descriptors, its own binary, keys, limits, labels. */
import { type Guard, testsOf } from "../guard.ts";
import { filterGuards } from "./filters.ts";

const security = testsOf("shoal-core", "security");
const hostile = testsOf("shoal-core", "hostile");
const containers = testsOf("shoal-runtime", "containers");
const runtime = testsOf("shoal-runtime", "--lib");
const oci = testsOf("shoal-core", "oci");

const privilege: readonly Guard[] = [
  {
    name: "bounding-set-kept",
    item: "capabilities",
    what: "a setuid program of the image gets every capability that the maker has",
    removals: [
      {
        file: "runtime/src/program.rs",
        find: "caps::drop_bounding(&program.caps),",
        replace: "Ok(()),",
      },
    ],
    test: security("a_setuid_program_gains_no_more_than_it_may"),
  },
  {
    name: "inheritable-kept",
    item: "capabilities",
    what: "what the maker could hand on is handed on to programs with inheritable file capabilities (CVE-2022-24769)",
    removals: [
      {
        file: "runtime/src/caps.rs",
        find: "inheritable: half(masks.inheritable & ours, index),",
        replace: "inheritable: half(ours, index),",
      },
    ],
    test: hostile("nothing_of_the_callers_privilege_reaches_the_program"),
  },
  {
    name: "ambient-kept",
    item: "capabilities",
    what: "ambient capabilities of the maker stay ambient in the container",
    removals: [
      {
        file: "runtime/src/caps.rs",
        find: "                libc::PR_CAP_AMBIENT_CLEAR_ALL,",
        replace: "                libc::PR_CAP_AMBIENT_IS_SET,",
      },
    ],
    test: hostile("nothing_of_the_callers_privilege_reaches_the_program"),
  },
  {
    name: "groups-kept",
    item: "capabilities",
    what: "the program keeps the supplementary groups of its maker",
    removals: [
      {
        file: "runtime/src/sys/process.rs",
        find: "check(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }.into())",
        replace:
          "if groups.is_empty() { Ok(0) } else { check(unsafe { libc::setgroups(groups.len(), groups.as_ptr()) }.into()) }",
      },
    ],
    test: hostile("nothing_of_the_callers_privilege_reaches_the_program"),
  },
  {
    name: "new-privileges",
    item: "no_new_privs",
    what: "a setuid program of the image gains privilege though none was promised",
    removals: [
      {
        file: "runtime/src/program.rs",
        find: 'doing("setting no_new_privs", process::no_new_privileges())?;',
        replace: "",
      },
    ],
    test: security("a_setuid_program_gains_no_more_than_it_may"),
  },
  {
    name: "uid-of-minus-one",
    item: "CVE-2026-30892 exec -u",
    what: "user 4294967295 of a configuration leaves the program root, as setresuid(2) reads -1",
    removals: [
      {
        file: "runtime/src/plan.rs",
        find: "if id > user::ID_MAX {",
        replace: "if false {",
      },
    ],
    test: runtime("plan::tests::new_refuses_bad_fields_by_name"),
  },
  {
    name: "exec-user-minus-one",
    item: "CVE-2026-30892 exec -u",
    what: "exec -u 4294967295 is root",
    removals: [
      {
        file: "runtime/src/user.rs",
        find: "        .filter(|id| *id <= ID_MAX)",
        replace: "",
      },
    ],
    test: runtime("user::tests::ids_are_numbers_and_nothing_else"),
  },
  {
    name: "exec-user-with-a-sign",
    item: "CVE-2026-30892 exec -u",
    what: "+0 and the like are numbers to one parser and names to another",
    removals: [
      {
        file: "runtime/src/user.rs",
        find: "let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());",
        replace: "let digits = !text.is_empty();",
      },
    ],
    test: runtime("user::tests::find_refuses_what_it_does_not_know_and_never_makes_it_root"),
  },
  {
    name: "exec-user-unknown-is-root",
    item: "CVE-2026-30892 exec -u",
    what: "a user that /etc/passwd does not have is user 0",
    removals: [
      {
        file: "runtime/src/user.rs",
        find: '(None, None) => return Err(refuse(wanted, "is no user of the container\'s /etc/passwd")),',
        replace: "(None, None) => (0, 0),",
      },
    ],
    test: runtime("user::tests::find_refuses_what_it_does_not_know_and_never_makes_it_root"),
  },
  {
    name: "passwd-of-the-host",
    item: "CVE-2026-30892 exec -u",
    what: "/etc/passwd of the image may be a link to the host's",
    removals: [
      {
        file: "runtime/src/user.rs",
        find: "file::open_at2(root, path, flags, IN_ROOT)",
        replace: "file::open_at2(root, path, flags, IN_ROOT & 0)",
      },
    ],
    test: runtime("user::tests::look_up_stays_inside_the_root"),
  },
  {
    name: "passwd-that-is-a-pipe",
    item: "CVE-2026-30892 exec -u",
    what: "/etc/passwd of the image may be anything, a pipe or a device",
    removals: [
      {
        file: "runtime/src/user.rs",
        find: "if file::stat(fd.as_fd())?.0 & libc::S_IFMT != libc::S_IFREG {",
        replace: "if false {",
      },
    ],
    test: runtime("user::tests::look_up_stays_inside_the_root"),
  },
];

const binary: readonly Guard[] = [
  {
    name: "binary-not-protected",
    item: "CVE-2019-5736 /proc/self/exe",
    what: "the command line runs from the very file that a container can reach by /proc/PID/exe",
    removals: [
      {
        file: "oci/src/sealed.rs",
        find: "    if file::is_read_only(own.as_fd())? {",
        replace: "    if file::is_read_only(own.as_fd())? || true {",
      },
    ],
    test: oci("the_runtimes_own_file_cannot_be_written_through_a_container"),
  },
  {
    name: "binary-mount-writable",
    item: "CVE-2019-5736 /proc/self/exe",
    what: "the mount that the command line runs from can be written through",
    removals: [
      {
        file: "oci/src/sealed.rs",
        find: "mount::change(tree.as_fd(), &read_only, false)?;",
        replace: "let _ = read_only;",
      },
    ],
    test: oci("the_runtimes_own_file_cannot_be_written_through_a_container"),
  },
  {
    name: "binary-copy-not-sealed",
    item: "CVE-2019-5736 /proc/self/exe",
    what: "the copy in memory, where mounts are forbidden, can be written to",
    removals: [
      {
        file: "oci/src/sealed.rs",
        find: "libc::fcntl(copy.as_raw_fd(), libc::F_ADD_SEALS, SEALS)",
        replace: "libc::fcntl(copy.as_raw_fd(), libc::F_ADD_SEALS, SEALS & 0)",
      },
    ],
    test: hostile("where_mounts_are_forbidden_the_binary_is_a_sealed_copy"),
  },
  {
    name: "zygote-not-sealed",
    item: "CVE-2019-5736 /proc/self/exe",
    what: "the copy from which all inits of the core come can be written to once nobody executes it",
    removals: [
      {
        file: "core/src/zygote.rs",
        find: "let seals = libc::F_SEAL_SEAL | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;",
        replace: "let seals = libc::F_SEAL_SHRINK;",
      },
    ],
    test: security("a_parked_init_cannot_be_looked_into_and_its_binary_cannot_be_written"),
  },
  {
    name: "init-dumpable",
    item: "CVE-2019-5736 /proc/self/exe",
    what: "a container looks into an init of ours that shares its pid namespace",
    removals: [
      {
        file: "runtime/src/init.rs",
        find: '    doing(\n        "hiding init from the container",\n        process::set_dumpable(false),\n    )?;\n    doing("making a session", process::new_session())?;',
        replace: '    doing("making a session", process::new_session())?;',
      },
    ],
    test: security("a_parked_init_cannot_be_looked_into_and_its_binary_cannot_be_written"),
  },
  {
    name: "exec-dumpable",
    item: "CVE-2019-5736 /proc/self/exe",
    what: "a container looks into a process of ours that is on its way to be an exec in it (CVE-2016-9962)",
    removals: [
      {
        file: "runtime/src/join.rs",
        find: '    doing(\n        "hiding the process from the container",\n        process::set_dumpable(false),\n    )?;\n    let pid = orders.join.pid;',
        replace: "    let pid = orders.join.pid;",
      },
    ],
    test: containers("an_exec_on_its_way_cannot_be_looked_into"),
  },
];

const descriptors: readonly Guard[] = [
  {
    name: "descriptors-kept",
    item: "CVE-2024-21626 descriptors",
    what: "what the core's own caller left open is open in the program",
    removals: [
      {
        file: "runtime/src/init.rs",
        find: "    close_others(orders);\n",
        replace: "",
      },
      {
        file: "runtime/src/streams.rs",
        find: "        process::close_on_exec_from(first)?;\n",
        replace: "",
      },
    ],
    because: "init closes what is not its own, and everything is close-on-exec before the program",
    test: security("no_descriptor_of_the_host_reaches_the_program"),
  },
  {
    name: "exec-descriptors-kept",
    item: "CVE-2024-21626 descriptors",
    what: "what the caller of exec left open is open in the process",
    removals: [
      {
        file: "runtime/src/join.rs",
        find: "    streams::close_all_but(&mut kept);\n",
        replace: "",
      },
      {
        file: "runtime/src/streams.rs",
        find: "        process::close_on_exec_from(first)?;\n",
        replace: "",
      },
    ],
    because:
      "the process closes what is not its own, and everything is close-on-exec before the program",
    test: hostile("no_descriptor_of_the_caller_reaches_an_exec"),
  },
  {
    name: "cwd-not-checked",
    item: "CVE-2024-21626 descriptors",
    what: "a working directory by way of a descriptor of the host is entered",
    removals: [
      {
        file: "runtime/src/program.rs",
        find: '    if !dir.starts_with(b"/") {',
        replace: "    if false {",
      },
    ],
    test: security("a_working_directory_that_is_swapped_before_start_is_refused"),
  },
  {
    name: "exec-cwd-not-checked",
    item: "CVE-2024-21626 descriptors",
    what: "exec --cwd by way of a descriptor of the host is entered",
    removals: [
      {
        file: "runtime/src/program.rs",
        find: '    if !dir.starts_with(b"/") {',
        replace: "    if false {",
      },
      {
        file: "runtime/src/join.rs",
        find: "    streams::close_all_but(&mut kept);\n",
        replace: "",
      },
    ],
    because: "a process that has closed what is not its own has no descriptor to be led by",
    test: containers("an_exec_does_not_leak_or_escape_by_cwd"),
  },
];

const rest: readonly Guard[] = [
  {
    name: "keyring-of-the-host",
    item: "keyring",
    what: "a container reads and uses the keys of its maker's session",
    removals: [
      {
        file: "runtime/src/program.rs",
        find: "        drop(process::join_session_keyring(name));",
        replace: "        let _ = name;",
      },
    ],
    test: security("each_container_has_a_session_keyring_of_its_own"),
  },
  {
    name: "oom-score-kept",
    item: "limits",
    what: "the kernel spares a container for memory as it spares its maker",
    removals: [
      {
        file: "runtime/src/launch.rs",
        find: "        set_oom_score(pid, score)?;",
        replace: "        let _ = score;",
      },
    ],
    test: containers("attributes_are_set"),
  },
  {
    name: "rlimits-kept",
    item: "limits",
    what: "a program has its maker's resource limits",
    removals: [
      {
        file: "runtime/src/program.rs",
        find: "        rlimits::apply(&process.rlimits)?;",
        replace: "",
      },
    ],
    test: testsOf("shoal-core", "containers")("identity_limits_and_settings_are_as_asked"),
  },
  {
    name: "rlimit-above-ours-left-alone",
    item: "limits",
    what: "a limit that the machine forbids to be raised leaves also its soft half as it was",
    removals: [
      {
        file: "runtime/src/rlimits.rs",
        find: "            set(soft.min(ours.rlim_max), hard.min(ours.rlim_max))",
        replace: "            set(ours.rlim_cur, ours.rlim_max)",
      },
    ],
    test: hostile("a_limit_above_what_the_machine_allows_becomes_ours"),
  },
  {
    name: "rlimit-soft-above-hard",
    item: "limits",
    what: "a soft limit above its hard one is found out only when the container is half made",
    removals: [
      {
        file: "runtime/src/rlimits.rs",
        find: "        if limit.soft > limit.hard {",
        replace: "        if false {",
      },
    ],
    test: runtime("rlimits::tests::validate_names_what_is_wrong"),
  },
  {
    name: "sysctl-of-the-host",
    item: "sysctl",
    what: "a setting that no namespace holds, core_pattern say, is set for the whole machine",
    removals: [
      {
        file: "runtime/src/sysctl.rs",
        find: "            None => refuse(format!(",
        replace:
          "            None => Ok(()),\n            #[allow(unreachable_patterns)]\n            _ => refuse(format!(",
      },
    ],
    test: runtime("sysctl::tests::validate_allows_own_namespaces_only"),
  },
  {
    name: "sysctl-of-a-shared-namespace",
    item: "sysctl",
    what: "a container that shares the host's network sets the host's network",
    removals: [
      {
        file: "runtime/src/sysctl.rs",
        find: "Some((kind, _)) if owns(kind) => Ok(()),",
        replace: "Some((kind, _)) if owns(kind) || true => Ok(()),",
      },
    ],
    test: runtime("sysctl::tests::validate_allows_own_namespaces_only"),
  },
  {
    name: "sysctl-climbs",
    item: "sysctl",
    what: "net/../kernel/core_pattern is taken for a setting of the network",
    removals: [
      {
        file: "runtime/src/sysctl.rs",
        find: "namespace_of(&name).filter(|_| clean)",
        replace: "namespace_of(&name).filter(|_| clean || true)",
      },
    ],
    test: runtime("sysctl::tests::validate_allows_own_namespaces_only"),
  },
  {
    name: "label-without-module",
    item: "labels",
    what: "a container that was to be confined by a module that the machine lacks runs unconfined",
    removals: [
      {
        file: "runtime/src/labels.rs",
        find: "    if !enabled {",
        replace: "    if false {",
      },
    ],
    test: runtime("labels::tests::read_refuses_a_label_that_nothing_would_heed"),
  },
  {
    name: "label-not-written",
    item: "labels",
    what: "the program runs without the label that it was promised",
    removals: [
      {
        file: "runtime/src/labels.rs",
        find: 'written.map_err(|error| Failure::io(format!("setting {}", wish.label), &error))?;',
        replace: "drop(written);",
      },
    ],
    test: runtime("labels::tests::apply_fails_where_the_kernel_does_not_take_the_label"),
  },
  {
    name: "device-given-away",
    item: "streams",
    what: "a device node of the host that is a program's stream becomes its user's for ever",
    removals: [
      {
        file: "runtime/src/streams.rs",
        find: "    let result = if pipe {",
        replace: "    let result = if pipe || !own_terminal {",
      },
    ],
    test: containers("only_pipes_and_own_terminals_are_given_to_the_user"),
  },
  {
    name: "fifo-given-away",
    item: "streams",
    what: "a named pipe of the host that is a program's stream becomes its user's for ever",
    removals: [
      {
        file: "runtime/src/streams.rs",
        find: "mode & libc::S_IFMT == libc::S_IFIFO && file::file_system(stream)? == PIPEFS_MAGIC;",
        replace: "mode & libc::S_IFMT == libc::S_IFIFO;",
      },
    ],
    test: containers("only_pipes_and_own_terminals_are_given_to_the_user"),
  },
];

export const processGuards: readonly Guard[] = [
  ...privilege,
  ...filterGuards,
  ...binary,
  ...descriptors,
  ...rest,
];
