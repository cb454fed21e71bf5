//! Container ids: what may be a name on disk, in a cgroup and in a message.

use shoal_protocol::Failure;

/// Longest id, in bytes.
pub const ID_BYTES_MAX: usize = 128;

/// Refuses an id that is not `[A-Za-z0-9_+-][A-Za-z0-9_+.-]*` of at most 128 bytes. Names that begin with `.` are the core's own.
pub fn check(id: &str) -> Result<(), Failure> {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'+' | b'-');
    let bytes = id.as_bytes();
    let good = match bytes.split_first() {
        Some((first, rest)) => {
            bytes.len() <= ID_BYTES_MAX
                && allowed(*first)
                && rest.iter().all(|byte| allowed(*byte) || *byte == b'.')
        }
        None => false,
    };
    if good {
        return Ok(());
    }
    let shown: String = id.chars().take(ID_BYTES_MAX).collect();
    Err(Failure::invalid(
        format!("checking containerId {shown:?}"),
        format!(
            "a container id is [A-Za-z0-9_+-][A-Za-z0-9_+.-]*, at most {ID_BYTES_MAX} bytes; choose another"
        ),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_takes_names_and_refuses_paths() {
        for good in ["a", "web.1.x9", "_", "+", "-a", &"x".repeat(128)] {
            assert!(check(good).is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            ".a",
            "a/b",
            "a b",
            "a\0",
            "ä",
            "a\n",
            &"x".repeat(129),
        ] {
            assert!(check(bad).is_err(), "{bad:?}");
        }
    }
}
