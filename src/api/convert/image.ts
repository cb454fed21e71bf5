/** Images as docker's JSON tells them. */
import type { Image, ImageConfig } from "../../model/image.ts";
import { withoutNull, withoutUnset } from "./set-fields.ts";
import { timeText } from "./time.ts";

/** An image of a list. Counts that would have to be searched for are -1, as docker says "not calculated". */
export function writeImageSummary(image: Image): object {
  return {
    Containers: -1,
    Created: Math.floor((image.createdAt ?? 0) / 1000),
    Id: image.id,
    Labels: image.config.labels,
    ParentId: "",
    RepoDigests: image.digests,
    RepoTags: image.tags,
    SharedSize: -1,
    Size: image.sizeBytes,
  };
}

/** An inspected image. */
export function writeImage(image: Image, storageDriver: string): object {
  return {
    Id: image.id,
    RepoTags: image.tags,
    RepoDigests: image.digests,
    Parent: "",
    Comment: image.comment,
    ...(image.createdAt !== null && { Created: timeText(image.createdAt) }),
    DockerVersion: "",
    Author: image.author,
    Config: writeConfig(image.config),
    Architecture: image.architecture,
    ...withoutUnset({ Variant: image.variant }),
    Os: image.os,
    Size: image.sizeBytes,
    GraphDriver: { Data: {}, Name: storageDriver },
    RootFS: { Type: "layers", ...withoutUnset({ Layers: image.diffIds }) },
    Metadata: { LastTagTime: "0001-01-01T00:00:00Z" },
  };
}

/** `docker history`: newest first; only the newest line has the image's id, as in docker. */
export function writeHistory(image: Image): readonly object[] {
  const lines = [...image.history].reverse();
  return lines.map((line, index) => ({
    Id: index === 0 ? image.id : "<missing>",
    Created: Math.floor((line.createdAt ?? 0) / 1000),
    CreatedBy: line.createdBy,
    Tags: index === 0 ? image.tags : [],
    // Only the sum of the layers is known here; one layer's share is told where there is one.
    Size: !line.emptyLayer && image.diffIds.length === 1 ? image.sizeBytes : 0,
    Comment: line.comment,
  }));
}

function writeConfig(config: ImageConfig): object {
  return {
    User: config.user,
    ...withoutUnset({ ExposedPorts: keys(config.exposedPorts) }),
    Env: config.env,
    Cmd: config.command,
    ...withoutUnset({ Volumes: keys(config.volumes) }),
    WorkingDir: config.workingDir,
    Entrypoint: config.entrypoint,
    Labels: config.labels,
    ...withoutNull({ StopSignal: config.stopSignal }),
  };
}

/** Go's map[string]struct{} of a list. */
function keys(names: readonly string[]): Readonly<Record<string, object>> {
  return Object.fromEntries(names.map((name) => [name, {}]));
}
