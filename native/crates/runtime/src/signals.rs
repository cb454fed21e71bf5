//! Signals by name and number, and what a wait status means.

/// Names of the signals that have one, in the numbers of x86 and arm.
const NAMES: [(&str, i32); 31] = [
    ("HUP", 1),
    ("INT", 2),
    ("QUIT", 3),
    ("ILL", 4),
    ("TRAP", 5),
    ("ABRT", 6),
    ("BUS", 7),
    ("FPE", 8),
    ("KILL", 9),
    ("USR1", 10),
    ("SEGV", 11),
    ("USR2", 12),
    ("PIPE", 13),
    ("ALRM", 14),
    ("TERM", 15),
    ("STKFLT", 16),
    ("CHLD", 17),
    ("CONT", 18),
    ("STOP", 19),
    ("TSTP", 20),
    ("TTIN", 21),
    ("TTOU", 22),
    ("URG", 23),
    ("XCPU", 24),
    ("XFSZ", 25),
    ("VTALRM", 26),
    ("PROF", 27),
    ("WINCH", 28),
    ("IO", 29),
    ("PWR", 30),
    ("SYS", 31),
];
const REAL_TIME_MIN: i32 = 34;
const REAL_TIME_MAX: i32 = 64;

/// The number of `SIGTERM`, `term`, `15`, `RTMIN+3` or `SIGRTMAX-1`; None when there is no such signal.
pub fn number(name: &str) -> Option<i32> {
    if let Ok(number) = name.parse::<i32>() {
        return (1..=REAL_TIME_MAX).contains(&number).then_some(number);
    }
    let upper = name.to_ascii_uppercase();
    let short = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some((_, number)) = NAMES.iter().find(|(name, _)| *name == short) {
        return Some(*number);
    }
    let offset = |rest: &str, sign: char| -> Option<i32> {
        if rest.is_empty() {
            Some(0)
        } else {
            rest.strip_prefix(sign)?.parse().ok()
        }
    };
    let number = if let Some(rest) = short.strip_prefix("RTMIN") {
        REAL_TIME_MIN.checked_add(offset(rest, '+')?)?
    } else {
        REAL_TIME_MAX.checked_sub(offset(short.strip_prefix("RTMAX")?, '-')?)?
    };
    (REAL_TIME_MIN..=REAL_TIME_MAX)
        .contains(&number)
        .then_some(number)
}

/// `SIGTERM` for 15; `SIG35` for one without a name.
pub fn name(number: i32) -> String {
    match NAMES.iter().find(|(_, value)| *value == number) {
        Some((name, _)) => format!("SIG{name}"),
        None => format!("SIG{number}"),
    }
}

/// Exit code (128+signal when killed by one) and the signal's name of a raw wait status.
pub fn exit_of(status: i32) -> (i32, Option<String>) {
    if libc::WIFSIGNALED(status) {
        let signal = libc::WTERMSIG(status);
        return (128 + signal, Some(name(signal)));
    }
    (libc::WEXITSTATUS(status), None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_reads_every_spelling() {
        for (text, want) in [
            ("SIGKILL", Some(9)),
            ("kill", Some(9)),
            ("15", Some(15)),
            ("RTMIN", Some(34)),
            ("SIGRTMIN+3", Some(37)),
            ("RTMAX-1", Some(63)),
            ("0", None),
            ("65", None),
            ("-9", None),
            ("SIGNOPE", None),
            ("RTMIN+31", None),
            ("RTMIN-1", None),
            ("RTMIN+2147483647", None),
            ("", None),
        ] {
            assert_eq!(number(text), want, "{text}");
        }
    }

    #[test]
    fn exit_of_maps_wait_statuses() {
        for (status, want) in [
            (0, (0, None)),
            (7 << 8, (7, None)),
            (255 << 8, (255, None)),
            (9, (137, Some("SIGKILL".to_owned()))),
            (11 | 0x80, (139, Some("SIGSEGV".to_owned()))),
        ] {
            assert_eq!(exit_of(status), want, "{status:#x}");
        }
    }
}
