#!/usr/bin/env node
// Writes src/syscalls.rs: node generate.mjs DIR >src/syscalls.rs, where DIR is the src directory of the crate linux-raw-sys (0.12.1 holds Linux 6.17's headers).
import { readFileSync } from "node:fs";

const architectures = ["x86_64", "x86", "x32", "aarch64", "arm", "riscv64", "loongarch64"];
/** What the headers of 6.18 have beyond those of 6.17. */
const later = { x86_64: [["uprobe", 336]], x32: [["uprobe", 0x40000000 + 336]] };
/** Names that the headers of one architecture have and that are no system calls. */
const never = new Set(["OABI_SYSCALL_BASE", "SYSCALL_MASK", "SYSCALL_BASE", "BASE", "syscalls", "arch_specific_syscall"]);

const directory = process.argv[2];
if (directory === undefined) throw new Error("give the src directory of linux-raw-sys");
const names = new Map();
for (const [column, architecture] of architectures.entries()) {
  const text = readFileSync(`${directory}/${architecture}/general.rs`, "utf8");
  const found = [...text.matchAll(/const __(?:ARM_)?NR_(\w+): u32 = (\d+);/g)]
    .map(([, name, number]) => [name, Number(number)])
    .filter(([name]) => !never.has(name));
  const numbers = new Map([...found, ...(later[architecture] ?? [])]);
  for (const [name, number] of numbers) {
    const row = names.get(name) ?? architectures.map(() => null);
    row[column] = number;
    names.set(name, row);
  }
}
const rows = [...names].sort(([left], [right]) => (left < right ? -1 : 1));
const written = (number) => (number === null ? "NO" : number > 0x40000000 ? `X | ${number - 0x40000000}` : number === 0x40000000 ? "X" : String(number));
process.stdout.write(`//! Numbers of Linux's system calls (6.18), one row a name; written by generate.mjs, not by hand.

/// The call does not exist on that architecture.
pub const NO: u32 = u32::MAX;
/// The bit that tells x32's calls from x86_64's.
const X: u32 = 0x4000_0000;

/// Name, and numbers in the order of \`Arch::column\`: ${architectures.join(", ")}. Sorted by name.
#[rustfmt::skip]
pub static SYSCALLS: [(&str, [u32; ${architectures.length}]); ${rows.length}] = [
${rows.map(([name, row]) => `    ("${name}", [${row.map(written).join(", ")}]),`).join("\n")}
];
`);
