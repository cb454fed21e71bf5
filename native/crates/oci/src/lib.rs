//! The OCI command line: create, start, state, kill, delete, run, exec and the rest, as runc and crun have them; works with no core running.

mod adapted;
mod args;
mod bundle;
mod commands;
mod container;
mod context;
mod create;
mod foreground;
mod help;
mod kept;
mod log;
mod pattern;
mod resctrl;
mod sealed;
mod stop;
mod store;
mod table;
mod terminal;
mod time;

use context::Context;
use log::Log;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use stop::Stop;

/// Exit code of a command line that cannot be read.
const EXIT_USAGE: u8 = 1;

/// Runs one command; `args` begins with the program's own name. Errors go to the log and standard error, one line each.
pub fn main(args: impl Iterator<Item = OsString>) -> ExitCode {
    let mut words = Vec::new();
    for arg in args {
        match arg.into_string() {
            Ok(word) => words.push(word),
            Err(arg) => {
                Log::stderr().error(&format!("argument {arg:?} is not valid UTF-8"));
                return ExitCode::from(EXIT_USAGE);
            }
        }
    }
    let name = words
        .first()
        .and_then(|path| path.rsplit('/').next())
        .filter(|name| !name.is_empty())
        .unwrap_or("shoal-core")
        .to_owned();
    let rest = words.get(1..).unwrap_or_default();
    // Before anything is opened.
    let wanted = rest.iter().any(|word| word.contains("-preserve-fds"))
        || std::env::var_os("LISTEN_FDS").is_some();
    let inherited = if wanted { context::inherited() } else { 0 };
    ExitCode::from(run(&name, rest, inherited))
}

fn run(name: &str, args: &[String], inherited: u32) -> u8 {
    let global = match args::parse(table::GLOBAL, args, true) {
        Ok(global) => global,
        Err(complaint) => {
            Log::stderr().error(&complaint);
            return EXIT_USAGE;
        }
    };
    if global.on("version") {
        return print(&help::version(name));
    }
    let Some((word, rest)) = global.operands.split_first() else {
        return print(&help::program(name));
    };
    if global.on("help") || word == "help" {
        return match rest.first().and_then(|word| table::find(word)) {
            Some(command) => print(&help::command(name, command)),
            None => print(&help::program(name)),
        };
    }
    let log = match Log::open(
        global.text("log"),
        global.text("log-format"),
        global.on("debug"),
    ) {
        Ok(log) => log,
        Err(complaint) => {
            Log::stderr().error(&complaint);
            return EXIT_USAGE;
        }
    };
    let done = (|| -> Result<u8, Stop> {
        if word == "version" {
            return Ok(print(&help::version(name)));
        }
        let Some(command) = table::find(word) else {
            return Err(Stop::new(format!(
                "No help topic for '{word}': it is no command; see {name} --help"
            )));
        };
        let parsed = args::parse(command.flags, rest, command.in_order)?;
        if parsed.on("help") {
            return Ok(print(&help::command(name, command)));
        }
        table::check_operands(command, &parsed.operands)?;
        let context = Context::new(name, &global, &log, inherited)?;
        commands::run(&context, command.name, &parsed)
    })();
    match done {
        Ok(code) => code,
        Err(stop) => {
            log.error(&stop.message);
            stop.exit_code
        }
    }
}

fn print(text: &str) -> u8 {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => 0,
        Err(_) => 1,
    }
}
