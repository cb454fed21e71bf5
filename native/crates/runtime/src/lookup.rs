//! Finding the program that `args[0]` names, with Docker's words and exit codes when it cannot be run.

use shoal_protocol::{Failure, FailureCode};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;

/// Where a name without a slash is looked for when the environment has no PATH.
const PATH_DEFAULT: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Exit codes of a program that was not found, or found and not runnable, as shells and docker have them.
pub const EXIT_NOT_FOUND: i32 = 127;
pub const EXIT_NOT_RUNNABLE: i32 = 126;

/// A program that could not be started: the failure of `start` and the code with which the container ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unstartable {
    pub failure: Failure,
    pub exit_code: i32,
}

/// The path to execute, looked up in the current root by the PATH of `env`.
pub fn find(name: &str, env: &[String]) -> Result<String, Unstartable> {
    if name.contains('/') {
        return match runnable(name) {
            Ok(()) => Ok(name.to_owned()),
            Err(error) => Err(unstartable(name, &error)),
        };
    }
    let path = env
        .iter()
        .rev()
        .find_map(|entry| entry.strip_prefix("PATH="))
        .unwrap_or(PATH_DEFAULT);
    let mut denied = false;
    for dir in path.split(':') {
        let candidate = format!("{}/{name}", if dir.is_empty() { "." } else { dir });
        match runnable(&candidate) {
            Ok(()) => return Ok(candidate),
            Err(error) => denied |= error.kind() == io::ErrorKind::PermissionDenied,
        }
    }
    if denied && !name.is_empty() {
        return Err(unstartable(
            name,
            &io::Error::from_raw_os_error(libc::EACCES),
        ));
    }
    Err(Unstartable {
        failure: failure(name, "executable file not found in $PATH", libc::ENOENT),
        exit_code: EXIT_NOT_FOUND,
    })
}

/// What a failed execve or a missing file means for the caller.
pub fn unstartable(name: &str, error: &io::Error) -> Unstartable {
    let errno = error.raw_os_error().unwrap_or(libc::EIO);
    let (text, exit_code) = match errno {
        libc::ENOENT | libc::ENOTDIR => ("no such file or directory", EXIT_NOT_FOUND),
        libc::EACCES | libc::EPERM => ("permission denied", EXIT_NOT_RUNNABLE),
        libc::ENOEXEC => ("exec format error", EXIT_NOT_RUNNABLE),
        libc::EISDIR => ("is a directory", EXIT_NOT_RUNNABLE),
        _ => {
            return Unstartable {
                failure: failure(name, &error.to_string(), errno),
                exit_code: EXIT_NOT_RUNNABLE,
            };
        }
    };
    Unstartable {
        failure: failure(name, text, errno),
        exit_code,
    }
}

/// How the failure of a program begins that is there and that the kernel refuses.
pub const REFUSED: &str = "exec ";

/// What a failed execve(2) of a file that is there means (its interpreter may be missing), in runc's words.
pub(crate) fn refused(name: &str, error: &io::Error) -> Unstartable {
    let mut failed = unstartable(name, error);
    let quoted = format!("exec: {name:?}: ");
    failed.failure.message = failed.failure.message.replacen(&quoted, "", 1);
    failed.failure.doing = format!("{REFUSED}{}", name.escape_debug());
    failed
}

fn failure(name: &str, text: &str, errno: i32) -> Failure {
    Failure {
        code: FailureCode::Invalid,
        errno: Some(errno),
        message: format!("exec: {name:?}: {text}"),
        doing: format!("starting process {name:?}"),
    }
}

fn runnable(path: &str) -> io::Result<()> {
    let meta = fs::metadata(path)?;
    if meta.is_dir() {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if meta.permissions().mode() & 0o111 == 0 {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_has_runcs_words() {
        let failed = refused("/run.sh", &io::Error::from_raw_os_error(libc::ENOENT));
        assert_eq!(failed.exit_code, EXIT_NOT_FOUND);
        assert_eq!(
            failed.failure.to_string(),
            "exec /run.sh: no such file or directory"
        );
    }

    #[test]
    fn find_uses_path_and_dockers_words() {
        let dir = std::env::temp_dir().join(format!("shoal-lookup-{}", std::process::id()));
        fs::create_dir_all(dir.join("sub")).expect("dir");
        let make = |name: &str, mode: u32| {
            fs::write(dir.join(name), "x").expect("file");
            fs::set_permissions(dir.join(name), fs::Permissions::from_mode(mode)).expect("mode");
        };
        make("good", 0o755);
        make("plain", 0o644);
        let env = [format!("PATH=/nonexistent:{}", dir.display())];
        assert_eq!(
            find("good", &env).expect("found"),
            format!("{}/good", dir.display())
        );
        for (name, code, words) in [
            (
                "missing",
                127,
                "exec: \"missing\": executable file not found in $PATH",
            ),
            ("", 127, "exec: \"\": executable file not found in $PATH"),
            ("plain", 126, "exec: \"plain\": permission denied"),
            (
                "/nonexistent/x",
                127,
                "exec: \"/nonexistent/x\": no such file or directory",
            ),
        ] {
            let got = find(name, &env).expect_err(name);
            assert_eq!((got.exit_code, got.failure.message.as_str()), (code, words));
        }
        assert_eq!(
            find(&dir.join("sub").display().to_string(), &env)
                .expect_err("a directory")
                .exit_code,
            126
        );
        fs::remove_dir_all(&dir).expect("clean");
    }
}
