//! shoal-core: the native container core of a Shoal node. See native/README.md.

mod containers;
mod hub;
mod init_command;
mod lanes;
mod layers;
mod logs;
mod monitor;
mod planning;
mod pool;
mod reaper;
mod records;
mod seccomp;
mod serve;
mod stats;
mod store;
mod streaming;
mod watcher;
mod zygote;

use shoal_runtime::sys::region;
use std::path::PathBuf;
use std::process::ExitCode;

/// A monitor opens a region (`monitor::run`); everybody else has the C library's heap.
#[global_allocator]
static ALLOCATOR: region::Allocator = region::Allocator;

const USAGE: &str = "usage:
  shoal-core serve --root DIR --socket PATH [--cgroup-parent PATH] [--pool N]
  shoal-core init [--keep] [--restart] -- COMMAND [ARG...]
  shoal-core --help";
/// Name and version, as `--version` and hello tell them.
const BINARY: &str = concat!("shoal-core ", env!("CARGO_PKG_VERSION"));
/// Where groups go that the caller does not place.
const CGROUP_PARENT: &str = "/shoal";

#[derive(Debug, PartialEq, Eq)]
enum Job {
    Serve(serve::Options),
    Init(init_command::Options),
    Zygote(Option<u64>),
}

fn main() -> ExitCode {
    let own = std::env::args_os().nth(1).is_some_and(|command| {
        ["serve", "init", "zygote"]
            .iter()
            .any(|name| command == *name)
    });
    if !own {
        return shoal_oci::main(std::env::args_os());
    }
    let args: Vec<String> = std::env::args_os()
        .skip(1)
        .map(|arg| arg.to_string_lossy().into_owned())
        .collect();
    match parse(&args) {
        Ok(Job::Zygote(open_files)) => zygote::run(open_files),
        Ok(Job::Serve(options)) => match serve::run(&options) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => {
                eprintln!("shoal-core: {failure}");
                ExitCode::FAILURE
            }
        },
        Ok(Job::Init(options)) => {
            ExitCode::from(u8::try_from(init_command::run(&options)).unwrap_or(255))
        }
        Err(complaint) => {
            eprintln!("shoal-core: {complaint}\n{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn parse(args: &[String]) -> Result<Job, String> {
    let (command, rest) = args.split_first().ok_or("no command")?;
    match command.as_str() {
        "serve" => parse_serve(rest).map(Job::Serve),
        "init" => parse_init(rest).map(Job::Init),
        "zygote" => Ok(Job::Zygote(rest.first().and_then(|text| text.parse().ok()))),
        other => Err(format!("unknown command {other:?}")),
    }
}

fn parse_serve(args: &[String]) -> Result<serve::Options, String> {
    let (mut root, mut socket, mut cgroup_parent, mut pool) = (None, None, None, None);
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        let (name, inline) = match arg.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (arg.as_str(), None),
        };
        let slot = match name {
            "--root" => &mut root,
            "--socket" => &mut socket,
            "--cgroup-parent" => &mut cgroup_parent,
            "--pool" => &mut pool,
            _ => return Err(format!("unknown option {arg:?} of serve")),
        };
        let value = inline
            .or_else(|| rest.next().cloned())
            .ok_or_else(|| format!("option {name} needs a value"))?;
        *slot = Some(value);
    }
    let parent = cgroup_parent.unwrap_or_else(|| CGROUP_PARENT.to_owned());
    shoal_runtime::cgroup::check_path(&parent)
        .map_err(|failure| format!("--cgroup-parent: {failure}"))?;
    let pool = pool.map_or(Ok(pool::SIZE_DEFAULT), |text| {
        let number = text.parse().ok().filter(|size| *size <= pool::SIZE_MAX);
        number.ok_or_else(|| format!("--pool {text:?} is not a number up to {}", pool::SIZE_MAX))
    })?;
    let root = PathBuf::from(root.ok_or("serve needs --root")?);
    // A root below the working directory would not mean the same to every process of the core.
    let root = std::path::absolute(root).map_err(|error| format!("--root: {error}"))?;
    Ok(serve::Options {
        root,
        socket: PathBuf::from(socket.ok_or("serve needs --socket")?),
        cgroup_parent: parent.trim_end_matches('/').to_owned(),
        pool,
    })
}

fn parse_init(args: &[String]) -> Result<init_command::Options, String> {
    let at = args
        .iter()
        .position(|arg| arg == "--")
        .ok_or("init needs `-- COMMAND`")?;
    let (mut keep, mut restart) = (false, false);
    for option in &args[..at] {
        match option.as_str() {
            "--keep" => keep = true,
            "--restart" => restart = true,
            other => return Err(format!("unknown option {other:?} of init")),
        }
    }
    let command = args[at + 1..].to_vec();
    if command.is_empty() {
        return Err("init needs a command after --".into());
    }
    Ok(init_command::Options {
        keep,
        restart,
        command,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn parse_reads_every_command() {
        assert_eq!(
            parse(&words(
                "serve --root /r --socket=/s --cgroup-parent /p/ --pool 3"
            )),
            Ok(Job::Serve(serve::Options {
                root: "/r".into(),
                socket: "/s".into(),
                cgroup_parent: "/p".into(),
                pool: 3
            }))
        );
        assert_eq!(
            parse(&words("init --keep --restart -- sh -c x")),
            Ok(Job::Init(init_command::Options {
                keep: true,
                restart: true,
                command: words("sh -c x")
            }))
        );
        for bad in [
            "",
            "serve",
            "serve --root",
            "serve --nope x",
            "init",
            "init --",
            "init --x -- y",
            "nope",
            "serve --root /r --socket /s --pool 1000",
            "serve --root /r --socket /s --pool x",
            "serve --root /r --socket /s --cgroup-parent ../x",
        ] {
            assert!(parse(&words(bad)).is_err(), "{bad}");
        }
    }
}
