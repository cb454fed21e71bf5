//! Telling one process from another over time: start time and boot id.

use std::fs;
use std::io::{self, Read};
use std::sync::OnceLock;

/// Room for a whole /proc/PID/stat, so that it is read in one go.
const STAT_BYTES: usize = 1024;

fn stat_of(pid: i32) -> io::Result<String> {
    let mut text = String::with_capacity(STAT_BYTES);
    fs::File::open(format!("/proc/{pid}/stat"))?.read_to_string(&mut text)?;
    Ok(text)
}

/// Field 22 of /proc/PID/stat: when the process started, in clock ticks since boot. NotFound when there is no such process.
pub fn start_time(pid: i32) -> io::Result<u64> {
    let text = stat_of(pid)?;
    start_time_of(&text).ok_or_else(|| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("/proc/{pid}/stat is not as expected"),
        )
    })
}

/// The name may hold spaces and parentheses, so that fields count from the last `)`.
fn start_time_of(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_ascii_whitespace().nth(19)?.parse().ok()
}

/// Whether `pid` is still the process that started at `start_time` (a zombie counts as gone).
pub fn is_alive(pid: i32, start_time: u64) -> bool {
    let Ok(text) = stat_of(pid) else {
        return false;
    };
    let zombie = text
        .rsplit_once(')')
        .is_some_and(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']));
    !zombie && start_time_of(&text) == Some(start_time)
}

/// Tells this boot of the machine from every other. Read once a process, and by none that is forked afterwards.
pub fn boot_id() -> io::Result<&'static str> {
    static KNOWN: OnceLock<String> = OnceLock::new();
    if let Some(known) = KNOWN.get() {
        return Ok(known);
    }
    let read = fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    Ok(KNOWN.get_or_init(|| read.trim().to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_time_survives_strange_names() {
        let fields = "S 1 1 1 0 -1 4194560 1 1 1 1 1 1 1 1 20 0 1 0 4242 1 1";
        assert_eq!(start_time_of(&format!("7 (a) b (c)) {fields}")), Some(4242));
        assert_eq!(start_time_of("garbage"), None);
    }

    #[test]
    fn is_alive_knows_itself_and_not_another_incarnation() {
        let pid = i32::try_from(std::process::id()).expect("pid");
        let started = start_time(pid).expect("own stat");
        assert!(is_alive(pid, started));
        assert!(!is_alive(pid, started + 1));
    }
}
