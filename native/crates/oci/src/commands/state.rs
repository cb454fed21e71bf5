//! `state`: what the runtime specification calls the state of a container.

use super::print;
use crate::args::Parsed;
use crate::container::Container;
use crate::context::Context;
use crate::stop::Stop;

pub fn run(context: &Context<'_>, parsed: &Parsed) -> Result<u8, Stop> {
    let container = Container::find(context, &parsed.operands[0])?;
    let mut text = serde_json::to_string_pretty(&container.report())
        .map_err(|error| Stop::new(format!("writing the state: {error}")))?;
    text.push('\n');
    print(&text)
}
