//! Help and version texts, made from the table of commands.

use crate::args::{Flag, Kind};
use crate::table::{COMMANDS, Command, GLOBAL};
use std::fmt::Write;

/// What the program is, in the words by which callers know an OCI runtime.
const ABOUT: &str = "Open Container Initiative runtime of Shoal";
/// The runtime specification that is followed.
pub const SPEC_VERSION: &str = "1.2.1";

/// The help of the whole program.
pub fn program(name: &str) -> String {
    let mut text = format!(
        "NAME:\n   {name} - {ABOUT}\n\nUSAGE:\n   {name} [OPTION...] COMMAND [OPTION...] [ARGUMENT...]\n\nCOMMANDS:\n"
    );
    for command in COMMANDS {
        push(&mut text, command.name, command.about);
    }
    for (name, about) in [
        (
            "serve",
            "run as the resident core of a node: serve --root DIR --socket PATH [--cgroup-parent PATH]",
        ),
        (
            "init",
            "run as the first process of a machine: init [--keep] [--restart] -- COMMAND [ARG...]",
        ),
    ] {
        push(&mut text, name, about);
    }
    text.push_str("\nGLOBAL OPTIONS:\n");
    flags(&mut text, GLOBAL);
    text
}

/// The help of one command.
pub fn command(name: &str, command: &Command) -> String {
    let mut text = format!(
        "NAME:\n   {name} {} - {}\n\nUsage: {name} [OPTION...] {} {}\n\nOPTIONS:\n",
        command.name, command.about, command.name, command.operands
    );
    flags(&mut text, command.flags);
    text
}

/// The lines of `--version`, as callers of runc and crun take them apart.
pub fn version(name: &str) -> String {
    format!(
        "{name} version {}\ncommit: {}\nspec: {SPEC_VERSION}\n+SECCOMP +APPARMOR +SELINUX +CAP +EBPF +JSON\n",
        env!("CARGO_PKG_VERSION"),
        COMMIT.unwrap_or("unknown"),
    )
}

/// The commit that the build was told of.
pub const COMMIT: Option<&str> = option_env!("SHOAL_COMMIT");

fn flags(text: &mut String, flags: &[Flag]) {
    for flag in flags {
        let value = if flag.kind == Kind::Switch {
            ""
        } else {
            " value"
        };
        let mut left = format!("--{}{value}", flag.long);
        if let Some(short) = flag.short {
            write!(left, ", -{short}{value}").expect("writing to a string");
        }
        push(text, &left, flag.help);
    }
}

fn push(text: &mut String, left: &str, right: &str) {
    writeln!(text, "   {left:<32}  {right}").expect("writing to a string");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_names_every_command_and_flag() {
        let whole = program("x");
        for entry in COMMANDS {
            assert!(whole.contains(entry.name));
            let own = command("x", entry);
            assert!(own.starts_with("NAME:\n"), "{}", entry.name);
            assert_eq!(
                own.lines()
                    .nth(1)
                    .map(|line| line.trim().starts_with(&format!("x {}", entry.name))),
                Some(true)
            );
            for flag in entry.flags {
                assert!(
                    own.contains(&format!("--{}", flag.long)),
                    "{} {}",
                    entry.name,
                    flag.long
                );
            }
        }
    }

    #[test]
    fn version_is_read_like_runcs() {
        let text = version("runc");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("runc version 0."));
        assert!(lines[1].starts_with("commit: "));
        assert!(lines[2].starts_with("spec: 1."));
    }
}
