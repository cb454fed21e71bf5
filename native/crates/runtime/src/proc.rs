//! Telling one process from another over time: start time and boot id.

use crate::sys::file;
use std::io;
use std::os::fd::AsFd;
use std::sync::OnceLock;

/// Room for what most files of /proc hold, so that they are read in steps of a page and not from 32 bytes on.
const PROC_BYTES: usize = 16 * 1024;

/// A whole file of /proc, whose length nobody can know before. Processes and mounts can be named by bytes that are no UTF-8: those are
/// replaced.
pub fn read(path: &str) -> io::Result<String> {
    let fd = file::open(path, libc::O_RDONLY)?;
    let (mut bytes, mut length) = (vec![0; PROC_BYTES], 0);
    loop {
        if length == bytes.len() {
            bytes.resize(length * 2, 0);
        }
        match file::read(fd.as_fd(), &mut bytes[length..]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Ok(0) => return Ok(String::from_utf8_lossy(&bytes[..length]).into_owned()),
            got => length += got?,
        }
    }
}

fn stat_of(pid: i32) -> io::Result<String> {
    read(&format!("/proc/{pid}/stat"))
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
    let told = read("/proc/sys/kernel/random/boot_id")?;
    Ok(KNOWN.get_or_init(|| told.trim().to_owned()))
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
    fn is_alive_also_of_a_process_whose_name_is_no_text() {
        let (told, hear) = std::sync::mpsc::channel();
        let (done, wait) = std::sync::mpsc::channel::<()>();
        let named = std::thread::spawn(move || {
            crate::sys::process::set_name(c"\xff) Z \xfe").expect("named");
            // SAFETY: no pointers.
            told.send(unsafe { libc::gettid() }).expect("told");
            // The test has ended when there is nobody to say so any more.
            let _ended = wait.recv();
        });
        let thread = hear.recv().expect("a thread");
        let started = start_time(thread).expect("its stat");
        assert!(is_alive(thread, started));
        drop(done);
        named.join().expect("joined");
    }

    #[test]
    fn read_gives_long_files_whole() {
        let whole = std::fs::read("/proc/self/smaps").expect("smaps").len();
        let read = read("/proc/self/smaps").expect("read").len();
        assert!(read > PROC_BYTES && whole > PROC_BYTES, "{read} {whole}");
    }

    #[test]
    fn is_alive_knows_itself_and_not_another_incarnation() {
        let pid = i32::try_from(std::process::id()).expect("pid");
        let started = start_time(pid).expect("own stat");
        assert!(is_alive(pid, started));
        assert!(!is_alive(pid, started + 1));
    }
}
