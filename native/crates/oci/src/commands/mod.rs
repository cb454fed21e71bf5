//! One module a command, or a pair that belongs together.

mod delete;
mod events;
mod exec;
mod features;
mod kill;
mod list;
mod pause;
mod ps;
mod run;
mod spec;
mod start;
mod state;
mod update;

use crate::args::Parsed;
use crate::context::Context;
use crate::pattern::Pattern;
use crate::stop::Stop;

/// Runs the command of this name (one of the table's); gives the exit code.
pub fn run(context: &Context<'_>, name: &str, parsed: &Parsed) -> Result<u8, Stop> {
    match name {
        "create" => run::create(context, parsed),
        "run" => run::run(context, parsed),
        "exec" => exec::run(context, parsed),
        "start" => start::run(context, parsed),
        "pause" => pause::pause(context, parsed),
        "resume" => pause::resume(context, parsed),
        "update" => update::run(context, parsed),
        "events" => events::run(context, parsed),
        "state" => state::run(context, parsed),
        "list" => list::run(context, parsed),
        "kill" => kill::run(context, parsed),
        "delete" => delete::run(context, parsed),
        "ps" => ps::run(context, parsed),
        "spec" => spec::run(parsed),
        "features" => features::run(),
        "checkpoint" | "restore" => Err(Stop::new(format!(
            "{name} is not supported: this runtime does not save and restore running containers"
        ))),
        other => Err(Stop::new(format!("command {other:?} is not known"))),
    }
}

/// The ids that the operand means: itself, or every id that it matches as a pattern.
fn ids(context: &Context<'_>, parsed: &Parsed) -> Result<Vec<String>, Stop> {
    if !parsed.on("regex") {
        return Ok(parsed.operands.clone());
    }
    let mut found = Vec::new();
    for operand in &parsed.operands {
        let pattern = Pattern::new(operand)?;
        found.extend(
            context
                .root
                .ids(false)?
                .into_iter()
                .filter(|id| pattern.matches(id)),
        );
    }
    Ok(found)
}

/// Writes to standard output; a reader that is gone is an error of the command.
fn print(text: &str) -> Result<u8, Stop> {
    use std::io::Write;
    std::io::stdout()
        .write_all(text.as_bytes())
        .map(|()| 0)
        .map_err(|error| Stop::new(format!("writing to standard output: {error}")))
}
