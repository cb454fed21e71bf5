/** Mounts of a task, from docker's JSON and back: binds and tmpfs so far. */
import { failure } from "../../lib/errors.ts";
import type { Mount } from "../../model/task.ts";
import type { Fields } from "./fields.ts";
import { withoutUnset } from "./set-fields.ts";

const propagations = ["private", "rprivate", "shared", "rshared", "slave", "rslave"];

/** Reads `Mounts`. Volumes, images, npipes and cluster volumes are refused by name. */
export function readMounts(fields: Fields): readonly Mount[] {
  return fields.objects("Mounts").map(readMount);
}

/** Docker's JSON of a mount. */
export function writeMount(mount: Mount): object {
  return withoutUnset({
    Type: mount.kind,
    Source: mount.source,
    Target: mount.target,
    ReadOnly: mount.readOnly,
    BindOptions: mount.propagation === null ? null : { Propagation: mount.propagation },
    TmpfsOptions: withoutUnset({ SizeBytes: mount.sizeBytes, Mode: mount.mode }),
  });
}

function readMount(mount: Fields): Mount {
  // Docker's default type is a volume.
  const kind = mount.text("Type") || "volume";
  if (kind !== "bind" && kind !== "tmpfs") {
    if (!["volume", "image", "npipe", "cluster"].includes(kind)) {
      throw failure("invalid", `invalid MountType: "${kind}"`);
    }
    throw mount.unsupported(`mounts of type ${kind} are not supported yet (bind and tmpfs are)`);
  }
  // Consistency is for Docker Desktop on macOS; dockerd on linux ignores it too.
  mount.ignore("Consistency");
  mount.refuse("VolumeOptions", "volume options");
  mount.refuse("ImageOptions", "image mount options");
  mount.refuse("ClusterOptions", "cluster volume options");
  const bind = mount.object("BindOptions");
  const tmpfs = mount.object("TmpfsOptions");
  const read: Mount = {
    kind,
    source: mount.textOrNull("Source"),
    target: mount.text("Target"),
    readOnly: mount.flag("ReadOnly"),
    propagation: bind === null ? null : readPropagation(bind),
    sizeBytes: tmpfs?.numberOrNull("SizeBytes") ?? null,
    mode: tmpfs?.numberOrNull("Mode", "uint64") ?? null,
  };
  tmpfs?.refuse("Options", "tmpfs mount options");
  tmpfs?.done();
  mount.done();
  if (kind === "tmpfs" && bind !== null)
    throw failure("invalid", "cannot mix BindOptions with mount type tmpfs");
  if (kind === "bind" && tmpfs !== null)
    throw failure("invalid", "cannot mix TmpfsOptions with mount type bind");
  return read;
}

function readPropagation(bind: Fields): string | null {
  bind.refuse("NonRecursive", "non-recursive binds");
  bind.refuse("CreateMountpoint", "created bind sources");
  bind.refuse("ReadOnlyNonRecursive", "non-recursive read-only binds");
  bind.refuse("ReadOnlyForceRecursive", "forced recursive read-only binds");
  const propagation = bind.textOrNull("Propagation");
  bind.done();
  if (propagation !== null && !propagations.includes(propagation)) {
    throw failure("invalid", `invalid MountPropagation: "${propagation}"`);
  }
  return propagation;
}
