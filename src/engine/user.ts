/** Which numbers `user[:group]` stands for, by the image's own /etc/passwd and /etc/group (moby, runc libcontainer/user). */
import { failure } from "../lib/errors.ts";

export interface ContainerUser {
  readonly uid: number;
  readonly gid: number;
  readonly additionalGids: readonly number[];
  /** For HOME. */
  readonly home: string;
}
/** The files, as text; null when the image has none. */
export interface UserFiles {
  readonly passwd: string | null;
  readonly group: string | null;
}

/** Largest id that Linux takes here (2^31-1, as docker). */
const idMax = 2 ** 31 - 1;

/** Finds `text` (empty is root) and the added `groups`. Throws invalid in docker's words. */
export function findUser(text: string, groups: readonly string[], files: UserFiles): ContainerUser {
  const colon = text.indexOf(":");
  const userText = colon < 0 ? text : text.slice(0, colon);
  const groupText = colon < 0 ? "" : text.slice(colon + 1);
  const users = rows(files.passwd);
  const groupRows = rows(files.group);

  const uid = userText === "" ? 0 : idOf(userText);
  const row = users.find((fields) =>
    uid === null ? fields[0] === userText : fields[0] === userText || fields[2] === String(uid),
  );
  if (row === undefined && uid === null) {
    throw failure("invalid", `unable to find user ${userText}: no matching entries in passwd file`);
  }
  const name = row?.[0] ?? null;
  const gid = groupText === "" ? (idOf(row?.[3] ?? "") ?? 0) : groupOf(groupText, groupRows);
  // Membership counts only when no group was named, as docker has it.
  const memberships =
    name === null || groupText !== ""
      ? []
      : groupRows
          .filter((fields) => (fields[3] ?? "").split(",").includes(name))
          .flatMap((fields) => idOf(fields[2] ?? "") ?? []);
  const added = groups.map((group) => groupOf(group, groupRows));
  return {
    uid: idOf(row?.[2] ?? "") ?? uid ?? 0,
    gid,
    // The primary group too, or a process could leave it behind (CVE-2022-36109).
    additionalGids: [...new Set([gid, ...memberships, ...added])],
    home: row?.[5] || "/",
  };
}

function groupOf(text: string, groups: readonly (readonly string[])[]): number {
  const row = groups.find((fields) => fields[0] === text);
  const id = idOf(row?.[2] ?? "") ?? idOf(text);
  if (id === null) {
    throw failure("invalid", `unable to find group ${text}: no matching entries in group file`);
  }
  return id;
}

/** A decimal id; null when it is none. Throws when it is too large. */
function idOf(text: string): number | null {
  if (!/^\d+$/.test(text)) return null;
  const id = Number(text);
  if (id > idMax) {
    throw failure("invalid", `uids and gids must be in range 0-${idMax}: ${text}`);
  }
  return id;
}

function rows(text: string | null): readonly (readonly string[])[] {
  return (text ?? "")
    .split("\n")
    .map((line) => line.trim())
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => line.split(":"));
}
