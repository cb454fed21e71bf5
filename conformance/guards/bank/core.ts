/** Guards of the processes around a container: its id, and the pool of parked sandboxes. */
import { type Guard, testsOf } from "../guard.ts";

const runtime = testsOf("shoal-runtime", "--lib");
const oci = testsOf("shoal-core", "hostile");
const pool = testsOf("shoal-core", "pool");

export const coreGuards: readonly Guard[] = [
  {
    name: "id-is-a-path",
    item: "container id",
    what: "a container's id with slashes names files and groups outside its own",
    removals: [
      {
        file: "runtime/src/id.rs",
        find: "rest.iter().all(|byte| allowed(*byte) || *byte == b'.')",
        replace: "rest.iter().all(|byte| allowed(*byte) || *byte != b'.')",
      },
    ],
    test: runtime("id::tests::check_takes_names_and_refuses_paths"),
  },
  {
    name: "id-begins-with-a-dot",
    item: "container id",
    what: "a container's id may be .., or a name of the core's own",
    removals: [
      {
        file: "runtime/src/id.rs",
        find: "                && allowed(*first)\n",
        replace: "                && (allowed(*first) || *first == b'.')\n",
      },
    ],
    test: runtime("id::tests::check_takes_names_and_refuses_paths"),
  },
  {
    name: "pool-keeps-old-limits",
    item: "pool",
    what: "a container from the pool has no limits, or those of another",
    removals: [
      {
        file: "core/src/monitor/parking.rs",
        find: "    driver.update(&plan.cgroup, &plan.spec.linux.resources)?;\n",
        replace: "",
      },
    ],
    test: pool("a_container_from_the_pool_is_the_same_as_a_cold_one"),
  },
  {
    name: "pool-keeps-the-score",
    item: "pool",
    what: "a container from the pool is spared for memory as its maker is",
    removals: [
      {
        file: "core/src/monitor/parking.rs",
        find: "Some(score) => launch::set_oom_score(pid, score),",
        replace: "Some(_) => Ok(()),",
      },
    ],
    test: pool("a_container_from_the_pool_is_the_same_as_a_cold_one"),
  },
  {
    name: "pool-root-of-other-layers",
    item: "pool",
    what: "a container has the layers that had the names of its own when its sandbox was parked",
    removals: [
      {
        file: "core/src/containers/parking.rs",
        find: "if self.root.identify().map_err(doing)? != self.identities {",
        replace: "if self.root.identify().map_err(doing)?.len() != self.identities.len() {",
      },
    ],
    test: pool("a_root_made_ahead_is_not_used_for_a_layer_or_a_directory_that_is_another"),
  },
  {
    name: "pool-for-other-options",
    item: "pool",
    what: "a container whose masks, settings or namespaces differ is made of a sandbox that has the usual ones",
    removals: [
      {
        file: "runtime/src/sandbox.rs",
        find: "rest == ",
        replace: "true || rest == ",
      },
    ],
    test: pool("what_a_sandbox_cannot_be_is_made_cold"),
  },
  {
    name: "pool-for-other-masks",
    item: "pool",
    what: "a path outside the staged trees that was to be masked is not",
    removals: [
      {
        file: "runtime/src/sandbox.rs",
        find: '        .all(|path| first(path).is_some() && !path.contains(".."));',
        replace: '        .all(|path| first(path).is_some() || !path.contains(".."));',
      },
    ],
    test: testsOf("shoal-runtime", "templates")("what_must_be_known_early_is_made_cold"),
  },
  {
    name: "pool-for-joined-namespaces",
    item: "pool",
    what: "a container that was to join another's network is made of a sandbox with one of its own",
    removals: [
      {
        file: "runtime/src/sandbox.rs",
        find: "namespace.path.as_deref().unwrap_or_default().is_empty();",
        replace: "namespace.path.as_deref().unwrap_or_default().is_empty() || true;",
      },
    ],
    test: testsOf("shoal-runtime", "templates")("what_must_be_known_early_is_made_cold"),
  },
  {
    name: "pool-for-labelled",
    item: "pool",
    what: "a program that was to be labelled is started without by a sandbox",
    removals: [
      {
        file: "runtime/src/sandbox.rs",
        find: ".process.apparmor_profile.is_empty() ||",
        replace: ".process.apparmor_profile.is_ascii() ||",
      },
    ],
    test: testsOf("shoal-runtime", "templates")("what_must_be_known_early_is_made_cold"),
  },
  {
    name: "oci-id-leads-out",
    item: "container id",
    what: "commands take an id that leads to a state out of --root",
    removals: [
      {
        file: "oci/src/store.rs",
        find: "        check_id(id)?;\n        let path = self.path.join(id);\n        let dir = open_dir(&path)",
        replace: "        let path = self.path.join(id);\n        let dir = open_dir(&path)",
      },
    ],
    test: oci("an_id_that_is_a_path_is_refused_by_every_command"),
  },
  {
    name: "oci-id-made-outside",
    item: "container id",
    what: "create makes its state where an id leads out of --root",
    removals: [
      {
        file: "oci/src/store.rs",
        find: "        check_id(id)?;\n        let taken = || {",
        replace: "        let taken = || {",
      },
      { file: "oci/src/create.rs", find: "    check_id(&request.id)?;\n", replace: "" },
    ],
    because: "the id is checked before the bundle is read, and where its directory is made",
    test: oci("an_id_that_is_a_path_is_refused_by_every_command"),
  },
];
