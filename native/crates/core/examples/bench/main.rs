//! The measurements of the container core: `script/bench runtime` builds and runs this, and its output is what docs and bars quote.
//!
//! Two parts: the OCI command line beside crun and runc, interleaved in one run, and the resident core over its socket.
//! A program of its own as Node's jitter would be larger than what is measured.

mod bundles;
mod cli;
mod memory;
mod report;
mod resident;
mod timing;

use report::Report;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const USAGE: &str = "usage: bench --core PATH [--rounds 30] [--only cli,resident,rate,memory] [--dir DIR]
  --rounds  timed repetitions of each command (hot and 100 ms apart)
  --only    some of the parts, by commas
  --dir     where bundles, layers and the core's records lie; a directory of its own below it is removed at the end";

/// What the command line asked for.
pub struct Options {
    pub core: PathBuf,
    pub rounds: usize,
    pub only: Vec<String>,
    pub dir: PathBuf,
}

impl Options {
    fn wants(&self, part: &str) -> bool {
        self.only.is_empty() || self.only.iter().any(|name| name == part)
    }
}

fn main() -> ExitCode {
    let options = match parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(complaint) => {
            eprintln!("bench: {complaint}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(report) => {
            report.print_bars();
            ExitCode::SUCCESS
        }
        Err(complaint) => {
            eprintln!("bench: {complaint}");
            ExitCode::FAILURE
        }
    }
}

fn parse(mut words: impl Iterator<Item = String>) -> Result<Options, String> {
    let (mut core, mut rounds, mut only, mut dir) =
        (None, 30, Vec::new(), PathBuf::from("/var/tmp"));
    while let Some(word) = words.next() {
        let value = words
            .next()
            .ok_or_else(|| format!("option {word} needs a value"))?;
        match word.as_str() {
            "--core" => core = Some(PathBuf::from(value)),
            "--rounds" => {
                rounds = value
                    .parse()
                    .ok()
                    .filter(|rounds| *rounds > 0)
                    .ok_or_else(|| format!("--rounds {value:?} is not a number from 1 on"))?;
            }
            "--only" => only = value.split(',').map(str::to_owned).collect(),
            "--dir" => dir = PathBuf::from(value),
            _ => return Err(format!("unknown option {word:?}")),
        }
    }
    Ok(Options {
        core: core.ok_or("--core is missing")?,
        rounds,
        only,
        dir: dir.join(format!("shoal-bench-{}", std::process::id())),
    })
}

fn run(options: &Options) -> Result<Report, String> {
    std::fs::create_dir_all(&options.dir)
        .map_err(|error| format!("{}: {error}", options.dir.display()))?;
    let _remover = Remover(&options.dir);
    let mut report = Report::default();
    report::print_machine(&options.core);
    bundles::make_rootfs(&options.dir)?;
    if ["resident", "rate", "memory"]
        .iter()
        .any(|part| options.wants(part))
    {
        resident::run(options, &mut report)?;
    }
    if options.wants("cli") {
        // Last, as it changes this process's view of the mounts.
        cli::run(options, &mut report)?;
    }
    Ok(report)
}

/// Takes the bench's directory away, also when a part fails.
struct Remover<'a>(&'a Path);

impl Drop for Remover<'_> {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(self.0) {
            eprintln!("bench: {} stays: {error}", self.0.display());
        }
    }
}
