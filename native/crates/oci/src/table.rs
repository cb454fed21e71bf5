//! The commands and their flags: one table that the parser reads and the help prints.

use crate::args::{Flag, many, switch, text};

/// One command of the command line.
#[derive(Debug, Clone, Copy)]
pub struct Command {
    pub name: &'static str,
    pub about: &'static str,
    /// Operands as the usage line shows them.
    pub operands: &'static str,
    pub least: usize,
    pub most: usize,
    /// Flags end at the first operand, as what follows belongs to another program.
    pub in_order: bool,
    pub flags: &'static [Flag],
}

/// Flags before the command.
pub const GLOBAL: &[Flag] = &[
    text(
        "root",
        None,
        "directory of the containers' state (it should be on a tmpfs)",
    ),
    text(
        "log",
        None,
        "file that errors and warnings are appended to (standard error when not given)",
    ),
    text(
        "log-format",
        None,
        "format of the log: text (default) or json",
    ),
    switch("debug", None, "log what is being done"),
    switch(
        "systemd-cgroup",
        None,
        "read linux.cgroupsPath as slice:prefix:name and use the path that systemd gives it",
    ),
    text(
        "cgroup-manager",
        None,
        "cgroupfs (default), systemd or disabled",
    ),
    text(
        "rootless",
        None,
        "ignore what cgroups forbid: true, false or auto (default)",
    ),
    text("criu", None, "ignored, kept for old callers"),
    switch("version", Some('v'), "print the version"),
    switch("help", Some('h'), "print this help"),
];

const HELP: Flag = switch("help", Some('h'), "print this help");
const BUNDLE: Flag = text(
    "bundle",
    Some('b'),
    "directory of the bundle (default: the working directory)",
);
const CONFIG: Flag = text(
    "config",
    Some('f'),
    "the configuration's path (default: config.json in the bundle)",
);
const CONSOLE: Flag = text(
    "console-socket",
    None,
    "unix socket that gets the master end of the container's terminal",
);
const PIDFD: Flag = text(
    "pidfd-socket",
    None,
    "unix socket that gets a descriptor of the new process",
);
const PID_FILE: Flag = text("pid-file", None, "file to write the process id to");
const NO_PIVOT: Flag = switch(
    "no-pivot",
    None,
    "enter the root by chroot; for a root on a ramdisk",
);
const NO_KEYRING: Flag = switch("no-new-keyring", None, "keep the caller's session keyring");
const PRESERVE: Flag = text(
    "preserve-fds",
    None,
    "pass this many descriptors beyond the standard streams and $LISTEN_FDS",
);
const NO_SUBREAPER: Flag = switch(
    "no-subreaper",
    None,
    "do not reap processes that the container leaves behind",
);

const CREATE: &[Flag] = &[
    BUNDLE,
    CONFIG,
    CONSOLE,
    PIDFD,
    PID_FILE,
    NO_PIVOT,
    NO_KEYRING,
    PRESERVE,
    NO_SUBREAPER,
    HELP,
];
const RUN: &[Flag] = &[
    BUNDLE,
    CONFIG,
    CONSOLE,
    PIDFD,
    PID_FILE,
    NO_PIVOT,
    NO_KEYRING,
    PRESERVE,
    NO_SUBREAPER,
    switch(
        "detach",
        Some('d'),
        "leave the container running and return",
    ),
    switch(
        "keep",
        None,
        "keep the container's state after it has ended",
    ),
    HELP,
];
const EXEC: &[Flag] = &[
    text("process", Some('p'), "JSON file of the process to start"),
    switch("tty", Some('t'), "give the process a terminal"),
    text("user", Some('u'), "user: UID[:GID]"),
    many("env", Some('e'), "set an environment variable"),
    text("cwd", None, "working directory in the container"),
    many("cap", Some('c'), "add a capability"),
    switch("detach", Some('d'), "do not wait for the process"),
    PID_FILE,
    text("apparmor", None, "AppArmor profile of the process"),
    text("process-label", None, "SELinux label of the process"),
    switch("no-new-privs", None, "set no_new_privs"),
    many("additional-gids", Some('g'), "additional group id"),
    PRESERVE,
    many(
        "cgroup",
        None,
        "existing subgroup to run in: [CONTROLLER[,CONTROLLER]:]PATH",
    ),
    CONSOLE,
    PIDFD,
    switch("ignore-paused", None, "allow it in a paused container"),
    HELP,
];
const UPDATE: &[Flag] = &[
    text(
        "resources",
        Some('r'),
        "JSON file of linux.resources, or - for standard input; other flags are then ignored",
    ),
    text("blkio-weight", None, "weight of block devices, 10 to 1000"),
    text(
        "cpu-period",
        None,
        "microseconds of a period of the processor quota",
    ),
    text(
        "cpu-quota",
        None,
        "microseconds of processor time in a period; -1 is no limit",
    ),
    text(
        "cpu-burst",
        None,
        "microseconds that may be saved up for later periods",
    ),
    text("cpu-share", None, "relative weight of processor time"),
    text("cpu-rt-period", None, "microseconds of a realtime period"),
    text(
        "cpu-rt-runtime",
        None,
        "microseconds of realtime in a period",
    ),
    text(
        "cpu-idle",
        None,
        "1: only time that nobody else wants; 0: the default",
    ),
    text("cpuset-cpus", None, "processors, such as 0-2,7"),
    text("cpuset-mems", None, "memory nodes"),
    text(
        "memory",
        None,
        "memory limit in bytes (k, m, g may follow); -1 is no limit",
    ),
    text(
        "memory-reservation",
        None,
        "memory that is kept under pressure, in bytes",
    ),
    text(
        "memory-swap",
        None,
        "memory and swap together, in bytes; -1 is no limit",
    ),
    text(
        "kernel-memory",
        None,
        "ignored, the kernel has no such limit any more",
    ),
    text("kernel-memory-tcp", None, "ignored, as kernel-memory"),
    text("pids-limit", None, "most processes; 0 or less is no limit"),
    text(
        "l3-cache-schema",
        None,
        "line for the L3 cache in resctrl (linux.intelRdt)",
    ),
    text(
        "mem-bw-schema",
        None,
        "line for memory bandwidth in resctrl",
    ),
    HELP,
];
const FORMAT: Flag = text("format", Some('f'), "table (default) or json");

/// Every command, in the order of the help.
pub const COMMANDS: &[Command] = &[
    one("create", "create a container", CREATE),
    one("start", "start the program of a created container", &[HELP]),
    one("state", "print the state of a container", &[HELP]),
    one("run", "create and start a container", RUN),
    Command {
        name: "kill",
        about: "send a signal (default SIGTERM) to the first process of a container",
        operands: "CONTAINER [SIGNAL]",
        least: 1,
        most: 2,
        in_order: false,
        flags: &[
            switch(
                "all",
                Some('a'),
                "signal every process of the container; one that has ended is no error",
            ),
            switch("regex", Some('r'), "the operand is a pattern of ids"),
            HELP,
        ],
    },
    Command {
        name: "delete",
        about: "remove what a container that has ended still holds",
        operands: "CONTAINER...",
        least: 1,
        most: usize::MAX,
        in_order: false,
        flags: &[
            switch(
                "force",
                Some('f'),
                "kill it first when it runs; one that does not exist is no error",
            ),
            switch("regex", Some('r'), "the operand is a pattern of ids"),
            HELP,
        ],
    },
    Command {
        name: "exec",
        about: "start a further process in a container",
        operands: "CONTAINER COMMAND [ARG...]",
        least: 1,
        most: usize::MAX,
        in_order: true,
        flags: EXEC,
    },
    Command {
        name: "ps",
        about: "list the processes of a container",
        operands: "CONTAINER [PS-OPTION...]",
        least: 1,
        most: usize::MAX,
        in_order: true,
        flags: &[FORMAT, HELP],
    },
    Command {
        name: "list",
        about: "list the containers of the state directory",
        operands: "",
        least: 0,
        most: 0,
        in_order: false,
        flags: &[FORMAT, switch("quiet", Some('q'), "ids only"), HELP],
    },
    one("pause", "freeze every process of a container", &[HELP]),
    one("resume", "thaw a paused container", &[HELP]),
    one("update", "change the limits of a container", UPDATE),
    one(
        "events",
        "print statistics and out-of-memory events of a container, a line of JSON each",
        &[
            switch("stats", None, "print the statistics once and end"),
            text(
                "interval",
                None,
                "pause between statistics, such as 5s or 200ms (default 5s)",
            ),
            HELP,
        ],
    ),
    Command {
        name: "spec",
        about: "write a sample config.json",
        operands: "",
        least: 0,
        most: 0,
        in_order: false,
        flags: &[
            BUNDLE,
            switch("rootless", None, "for a caller who is not root"),
            HELP,
        ],
    },
    Command {
        name: "features",
        about: "print what this runtime supports, as the runtime specification's features.md has it",
        operands: "",
        least: 0,
        most: 0,
        in_order: false,
        flags: &[HELP],
    },
    any("checkpoint", "not supported: save a running container"),
    any(
        "restore",
        "not supported: restore a container from a checkpoint",
    ),
];

const fn one(name: &'static str, about: &'static str, flags: &'static [Flag]) -> Command {
    Command {
        name,
        about,
        operands: "CONTAINER",
        least: 1,
        most: 1,
        in_order: false,
        flags,
    }
}

const fn any(name: &'static str, about: &'static str) -> Command {
    Command {
        name,
        about,
        operands: "CONTAINER",
        least: 0,
        most: usize::MAX,
        in_order: true,
        flags: &[HELP],
    }
}

/// The command of this name.
pub fn find(name: &str) -> Option<&'static Command> {
    COMMANDS.iter().find(|command| command.name == name)
}

/// Refuses a wrong number of operands, naming the command.
pub fn check_operands(command: &Command, operands: &[String]) -> Result<(), String> {
    let count = operands.len();
    let name = command.name;
    if command.least == command.most && count != command.least {
        return Err(format!(
            "{name:?} requires exactly {} argument(s), not {count}",
            command.least
        ));
    }
    if count < command.least {
        return Err(format!(
            "{name:?} requires a minimum of {} argument(s)",
            command.least
        ));
    }
    if count > command.most {
        return Err(format!(
            "{name:?} requires a maximum of {} argument(s)",
            command.most
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_flag_is_ambiguous() {
        for (name, flags) in COMMANDS
            .iter()
            .map(|command| (command.name, command.flags))
            .chain([("(global)", GLOBAL)])
        {
            for (index, flag) in flags.iter().enumerate() {
                for other in &flags[index + 1..] {
                    assert_ne!(flag.long, other.long, "{name}");
                    assert!(
                        flag.short.is_none() || flag.short != other.short,
                        "{name}: -{:?}",
                        flag.short
                    );
                }
            }
        }
    }

    #[test]
    fn check_operands_counts() {
        let operands = |count: usize| vec!["x".to_owned(); count];
        for (name, good, bad) in [
            ("create", vec![1], vec![0, 2]),
            ("kill", vec![1, 2], vec![0, 3]),
            ("list", vec![0], vec![1]),
            ("exec", vec![1, 9], vec![0]),
        ] {
            let command = find(name).expect(name);
            for count in good {
                assert_eq!(
                    check_operands(command, &operands(count)),
                    Ok(()),
                    "{name} {count}"
                );
            }
            for count in bad {
                assert!(
                    check_operands(command, &operands(count)).is_err(),
                    "{name} {count}"
                );
            }
        }
    }
}
