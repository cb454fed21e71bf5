/** Guards of unpacking: what an archive may write, where, and how much. */
import { type Guard, testsOf } from "../guard.ts";

const hostile = testsOf("shoal-layers", "hostile");
const refusals = hostile("hostile_archives_are_refused_and_leave_nothing");
const links = testsOf("shoal-layers", "links")("links_of_an_archive_are_never_followed");
const unpack = testsOf("shoal-layers", "unpack");

export const layerGuards: readonly Guard[] = [
  {
    name: "layer-name-climbs",
    item: "layers",
    what: "a name with more `..` than directories is taken",
    removals: [
      {
        file: "layers/src/paths.rs",
        find: "                if parts.pop().is_none() {",
        replace: "                if parts.pop().is_none() && false {",
      },
    ],
    test: refusals,
  },
  {
    name: "layer-links-followed-out",
    item: "layers",
    what: "what is written by a link of the archive lands outside the layer",
    removals: [
      {
        file: "layers/src/sys.rs",
        find: "    how.resolve = libc::RESOLVE_IN_ROOT | libc::RESOLVE_NO_MAGICLINKS;",
        replace: "    how.resolve = 0;",
      },
    ],
    test: refusals,
  },
  {
    name: "layer-hard-link-follows",
    item: "layers",
    what: "a hard link to a link of the archive is one to the host's file behind it",
    removals: [
      {
        file: "layers/src/sys.rs",
        find: "            name.as_ptr(),\n            0,\n        )\n    })\n}\n\n/// Makes a device node",
        replace:
          "            name.as_ptr(),\n            libc::AT_SYMLINK_FOLLOW,\n        )\n    })\n}\n\n/// Makes a device node",
      },
    ],
    test: links,
  },
  {
    name: "layer-owner-follows",
    item: "layers",
    what: "the owner of a link is given to the host's file behind it",
    removals: [
      {
        file: "layers/src/sys.rs",
        find: "            uid,\n            gid,\n            libc::AT_SYMLINK_NOFOLLOW,",
        replace: "            uid,\n            gid,\n            0,",
      },
    ],
    test: links,
  },
  {
    name: "layer-mode-follows",
    item: "layers",
    what: "the mode of a link is given to the host's file behind it",
    removals: [
      {
        file: "layers/src/extract.rs",
        find: "if entry.kind != Kind::SymbolicLink",
        replace: "if entry.kind != Kind::HardLink",
      },
    ],
    test: links,
  },
  {
    name: "layer-time-follows",
    item: "layers",
    what: "the time of a link is given to the host's file behind it",
    removals: [
      {
        file: "layers/src/sys.rs",
        find: "            times.as_ptr(),\n            libc::AT_SYMLINK_NOFOLLOW,",
        replace: "            times.as_ptr(),\n            0,",
      },
    ],
    test: links,
  },
  {
    name: "layer-file-over-a-link",
    item: "layers",
    what: "a file in the place of a link is written to the host's file behind it",
    removals: [
      {
        file: "layers/src/extract.rs",
        find: "sys::remove_file(parent, name)",
        replace: "Ok::<(), io::Error>(())",
      },
      {
        file: "layers/src/sys.rs",
        find: "let flags = libc::O_CREAT | libc::O_EXCL | libc::O_WRONLY | libc::O_NOFOLLOW | libc::O_CLOEXEC;",
        replace: "let flags = libc::O_CREAT | libc::O_WRONLY | libc::O_CLOEXEC;",
      },
    ],
    because: "what is in the way is removed first, and files are only made anew",
    test: unpack("later_entries_replace_earlier_ones"),
  },
  {
    name: "layer-attributes-of-overlayfs",
    item: "layers",
    what: "a layer redirects its directories to others by overlayfs's own attributes",
    removals: [
      {
        file: "layers/src/attributes.rs",
        find: '        _ => on_user_data && key.starts_with(b"user.") && !key.starts_with(b"user.overlay."),',
        replace: "        _ => on_user_data,",
      },
    ],
    test: unpack("every_kind_of_entry_becomes_what_it_says"),
  },
  {
    name: "layer-whiteout-of-the-parent",
    item: "layers",
    what: "a whiteout of `..` or of no name is one of something else",
    removals: [
      {
        file: "layers/src/extract.rs",
        find: '        if matches!(name, b"" | b"." | b"..") {',
        replace: "        if false {",
      },
    ],
    test: refusals,
  },
  {
    name: "layer-replaces-its-root",
    item: "layers",
    what: "an entry of another kind takes the place of the layer's root",
    removals: [
      {
        file: "layers/src/extract.rs",
        find: "            if entry.kind != Kind::Directory {\n                return",
        replace: "            if false {\n                return",
      },
    ],
    test: refusals,
  },
  {
    name: "layer-of-another-digest",
    item: "layers",
    what: "an archive is taken for the one that was asked for though its digest is another",
    removals: [
      {
        file: "layers/src/lib.rs",
        find: ".as_ref().filter(|wanted| *",
        replace: ".as_ref().filter(|wanted| false && *",
      },
    ],
    test: unpack("calls_that_cannot_work_say_why"),
  },
  {
    name: "layer-deep-without-limit",
    item: "layers",
    what: "directories are nested until nothing can remove them any more",
    removals: [
      {
        file: "layers/src/parents.rs",
        find: "        self.check_depth(entry, opened.as_fd())?;\n",
        replace: "",
      },
    ],
    test: refusals,
  },
  {
    name: "layer-header-without-limit",
    item: "layers",
    what: "an extended header makes the node take as much memory as it says",
    removals: [
      {
        file: "layers/src/tar.rs",
        find: "        if size > EXTENDED_HEADER_BYTES_MAX {",
        replace: "        if false {",
      },
    ],
    test: refusals,
  },
  {
    name: "layer-device-nodes",
    item: "layers",
    what: "a layer brings device nodes where nobody has allowed them",
    removals: [
      {
        file: "layers/src/extract.rs",
        find: "            match devices {\n                Devices::Make => {}",
        replace: "            match Devices::Make {\n                Devices::Make => {}",
      },
    ],
    test: refusals,
  },
  {
    name: "layer-sparse-without-limit",
    item: "layers",
    what: "a sparse file of a few bytes says that it is larger than any layer may be",
    removals: [
      {
        file: "layers/src/sparse.rs",
        find: "        if size > TAR_BYTES_MAX {",
        replace: "        if false {",
      },
    ],
    test: testsOf("shoal-layers", "--lib")("sparse::tests::maps_that_cannot_be_are_refused"),
  },
];
