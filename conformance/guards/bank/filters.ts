/** Guards of system call filters: what they let through, how they are loaded and cached. */
import { type Guard, testsOf } from "../guard.ts";

const hostile = testsOf("shoal-core", "hostile");
const containers = testsOf("shoal-runtime", "containers");
const seccomp = testsOf("shoal-seccomp", "kernel");
const cache = testsOf("shoal-seccomp", "cache");

export const filterGuards: readonly Guard[] = [
  {
    name: "filter-not-loaded",
    item: "seccomp",
    what: "the program may make every system call",
    removals: [
      {
        file: "runtime/src/program.rs",
        find: "let Some(filter) = program.seccomp else {",
        replace: "let Some(filter) = program.seccomp.filter(|_| false) else {",
      },
    ],
    test: hostile("the_default_filter_judges_the_program"),
  },
  {
    name: "exec-without-filter",
    item: "seccomp",
    what: "a further process makes calls that the first one may not",
    removals: [
      {
        file: "oci/src/commands/exec.rs",
        find: "        seccomp: seccomp.as_ref(),",
        replace: "        seccomp: seccomp.as_ref().filter(|_| false),",
      },
    ],
    test: hostile("an_exec_is_judged_by_the_containers_filter"),
  },
  {
    name: "core-exec-without-filter",
    item: "seccomp",
    what: "a further process of the core makes calls that the first one may not",
    removals: [
      {
        file: "core/src/monitor/execs.rs",
        find: "            seccomp: self.seccomp.",
        replace: "            seccomp: self.seccomp.clone().filter(|_| false).",
      },
    ],
    test: hostile("the_default_filter_judges_an_exec"),
  },
  {
    name: "filter-before-the-last-steps",
    item: "seccomp",
    what: "a profile must allow what the runtime itself does on its way to the program",
    removals: [
      {
        file: "runtime/src/program.rs",
        find: "fn release(program: &Program<'_>) -> Result<(), Failure> {\n",
        replace:
          "fn release(program: &Program<'_>) -> Result<(), Failure> {\n    if let Some(filter) = program.seccomp { drop(shoal_seccomp::load(filter)); }\n",
      },
    ],
    test: containers("a_filter_is_loaded_last"),
  },
  {
    name: "default-filter-left-out",
    item: "seccomp",
    what: "a container that was to have the default filter has none",
    removals: [
      {
        file: "core/src/seccomp.rs",
        find: "    let bounding = plan.caps.bounding;\n",
        replace:
          "    let bounding = plan.caps.bounding;\n    if create.seccomp == calls::Seccomp::Default {\n        return Ok(None);\n    }\n",
      },
    ],
    test: hostile("the_default_filter_judges_the_program"),
  },
  {
    name: "new-calls-denied-not-missing",
    item: "seccomp",
    what: "calls newer than the profile answer EPERM, which programs take for an answer",
    removals: [
      {
        file: "seccomp/src/compile.rs",
        find: "Some(newest) if number > newest => Treatment::Always(ret::ERRNO | ENOSYS),",
        replace: "Some(newest) if number > newest => Treatment::Always(profile.default),",
      },
    ],
    test: seccomp("the_kernel_takes_the_default_profile_and_answers_as_docker_does"),
  },
  {
    name: "foreign-architecture-allowed",
    item: "seccomp",
    what: "32-bit calls, whose numbers mean something else, pass by the filter",
    removals: [
      {
        file: "seccomp/src/compile.rs",
        find: "let mut next = Target::Return(ret::KILL_THREAD);",
        replace: "let mut next = Target::Return(ret::ALLOW);",
      },
    ],
    test: seccomp("another_architecture_kills"),
  },
  {
    name: "x32-allowed",
    item: "seccomp",
    what: "x32's calls, which have numbers of their own, pass by the filter",
    removals: [
      {
        file: "seccomp/src/compile.rs",
        find: "(X32_BIT, Treatment::Always(ret::KILL_THREAD)),",
        replace: "(X32_BIT, Treatment::Always(profile.default)),",
      },
    ],
    test: seccomp("another_architecture_kills"),
  },
  {
    name: "clone-makes-namespaces",
    item: "seccomp",
    what: "a program makes itself a user namespace and is root in it",
    removals: [
      {
        file: "seccomp/src/default.rs",
        find: "const CLONE_NAMESPACES: u64 = 0x7e02_0000;",
        replace: "const CLONE_NAMESPACES: u64 = 0;",
      },
    ],
    test: seccomp("the_kernel_takes_the_default_profile_and_answers_as_docker_does"),
  },
  {
    name: "clone3-allowed",
    item: "seccomp",
    what: "clone3, whose flags no filter sees, makes what clone may not",
    removals: [
      {
        file: "seccomp/src/default.rs",
        find: '            names: vec!["clone3".to_owned()],\n            action: "SCMP_ACT_ERRNO".to_owned(),\n            errno_ret: Some(ENOSYS),',
        replace:
          '            names: vec!["clone3".to_owned()],\n            action: "SCMP_ACT_ALLOW".to_owned(),\n            errno_ret: None,',
      },
    ],
    test: seccomp("the_kernel_takes_the_default_profile_and_answers_as_docker_does"),
  },
  {
    name: "capability-calls-for-all",
    item: "seccomp",
    what: "calls that come with a capability are open to who has it not",
    removals: [
      {
        file: "seccomp/src/default.rs",
        find: "            .filter(|(capability, _)| has(*capability))\n",
        replace: "",
      },
    ],
    test: seccomp("the_kernel_takes_the_default_profile_and_answers_as_docker_does"),
  },
  {
    name: "filter-of-a-stranger",
    item: "seccomp",
    what: "a compiled filter is taken from a directory that others may write to",
    removals: [
      {
        file: "seccomp/src/cache.rs",
        find: "is.is_dir() && is.uid() == user && is.mode() & 0o022 == 0",
        replace: "is.is_dir() && is.uid() == user",
      },
    ],
    test: cache("a_directory_that_others_may_write_to_or_that_is_a_link_is_not_used"),
  },
];
