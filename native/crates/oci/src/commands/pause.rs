//! `pause` and `resume`: every process of a container stopped, or going on.

use crate::args::Parsed;
use crate::container::{Container, status_word};
use crate::context::Context;
use crate::stop::Stop;
use shoal_protocol::oci::Status;

/// `pause`: of a container that runs, or waits for its start.
pub fn pause(context: &Context<'_>, parsed: &Parsed) -> Result<u8, Stop> {
    let container = Container::find_locked(context, &parsed.operands[0])?;
    match container.status() {
        Status::Running | Status::Created => {}
        status => {
            return Err(Stop::new(format!(
                "container not running or created: {}",
                status_word(status)
            )));
        }
    }
    let (driver, path) = group(&container)?;
    driver.freeze(path)?;
    Ok(0)
}

/// `resume`: of a paused container.
pub fn resume(context: &Context<'_>, parsed: &Parsed) -> Result<u8, Stop> {
    let container = Container::find_locked(context, &parsed.operands[0])?;
    if container.living_init().is_err() || !container.is_frozen() {
        return Err(Stop::new("container not paused"));
    }
    let (driver, path) = group(&container)?;
    driver.thaw(path)?;
    Ok(0)
}

fn group(container: &Container) -> Result<(&dyn shoal_runtime::cgroup::Driver, &str), Stop> {
    container.group().ok_or_else(|| {
        Stop::new(format!(
            "container {:?} has no control group to freeze",
            container.record.id
        ))
    })
}
