//! The option that makes attaching to v1 groups fast on an idle machine.

use crate::sys::{Draft, Kernel};
use shoal_protocol::Failure;
use std::os::fd::OwnedFd;

/// The hierarchy's name, without controllers and never in any mount table.
const NAME: &str = "shoal-fast";

/// Makes moves between groups cheap for the whole machine, at the price of slightly dearer forks and exits: without it the
/// first move after a pause waits for an RCU grace period (about 10 ms), with it about 0.3 ms.
///
/// It is a switch of the kernel (6.0) and not of one hierarchy, which `favordynmods` of any hierarchy flips; so an empty
/// hierarchy of our own is made that nobody sees, and the system's mounts stay untouched. It must be held open: on some
/// kernels the switch goes back with it, on others (6.18) only a reboot brings it back. For both reasons it is never done
/// unasked on a machine that is not ours.
pub fn fast_cgroups() -> Result<OwnedFd, Failure> {
    let doing = |step: &str| {
        format!("making attaches fast ({step} of a control group hierarchy with favordynmods)")
    };
    let made = |step: &str, error: std::io::Error| Failure::io(doing(step), &error);
    let hierarchy = Draft::new(&Kernel, "cgroup").map_err(|error| made("opening", error))?;
    for flag in ["none", "favordynmods"] {
        hierarchy.flag(flag).map_err(|error| made(flag, error))?;
    }
    hierarchy
        .set("name", NAME)
        .map_err(|error| made("name", error))?;
    hierarchy.mount(0).map_err(|error| made("mounting", error))
}
