//! The cache on disk: what it keeps, and what it does not trust.

use shoal_protocol::oci::{Seccomp, Syscall};
use shoal_seccomp::cache::{Memory, compile_on_disk};
use shoal_seccomp::compile;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A directory that goes with the test.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("shoal-cache-{name}-{}", std::process::id()));
        drop(fs::remove_dir_all(&path));
        Self(path)
    }

    fn cache(&self) -> PathBuf {
        self.0.join(".cache/seccomp")
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn profile(errno: u32) -> Seccomp {
    Seccomp {
        default_action: "SCMP_ACT_ALLOW".to_owned(),
        syscalls: vec![Syscall {
            names: vec!["mkdir".to_owned()],
            action: "SCMP_ACT_ERRNO".to_owned(),
            errno_ret: Some(errno),
            ..Syscall::default()
        }],
        ..Seccomp::default()
    }
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).expect("the cache");
    entries
        .map(|entry| entry.expect("an entry").path())
        .collect()
}

#[test]
fn a_program_is_kept_once_and_read_back_the_same() {
    let place = Place::new("kept");
    for _ in 0..2 {
        let program = compile_on_disk(&place.cache(), &profile(1)).expect("compiles");
        assert_eq!(program, compile(&profile(1)).expect("compiles"));
        let kept = files(&place.cache());
        assert_eq!(kept.len(), 1);
        let mode = fs::metadata(&kept[0]).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
    let mode = fs::metadata(place.cache())
        .expect("a directory")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    // That the file is what is read: under this profile's name another one's program does not pass.
    let other = compile_on_disk(&place.cache(), &profile(2)).expect("compiles");
    let kept = files(&place.cache());
    assert_eq!(kept.len(), 2);
    let (one, two) = (
        fs::read(&kept[0]).expect("read"),
        fs::read(&kept[1]).expect("read"),
    );
    fs::write(&kept[0], two).expect("write");
    fs::write(&kept[1], one).expect("write");
    assert_eq!(
        compile_on_disk(&place.cache(), &profile(2)).expect("compiles"),
        other
    );
}

#[test]
fn damage_is_noticed_and_repaired() {
    let place = Place::new("damage");
    let want = compile_on_disk(&place.cache(), &profile(1)).expect("compiles");
    let path = files(&place.cache()).remove(0);
    let whole = fs::read(&path).expect("read");
    let cases = (0..whole.len()).map(|at| {
        let mut damaged = whole.clone();
        damaged[at] ^= 1;
        damaged
    });
    let short = [0, 1, 8, 16, 47, 48, whole.len() - 1].map(|length| whole[..length].to_vec());
    let long = [[&whole[..], b"x"].concat(), vec![0; 1 << 20]];
    for damaged in cases.chain(short).chain(long) {
        fs::write(&path, &damaged).expect("write");
        assert_eq!(
            compile_on_disk(&place.cache(), &profile(1)).expect("compiles"),
            want
        );
        assert_eq!(fs::read(&path).expect("read"), whole, "repaired");
    }
}

#[test]
fn a_directory_that_others_may_write_to_or_that_is_a_link_is_not_used() {
    let place = Place::new("others");
    compile_on_disk(&place.cache(), &profile(1)).expect("compiles");
    fs::set_permissions(place.cache(), Permissions::from_mode(0o777)).expect("chmod");
    compile_on_disk(&place.cache(), &profile(2)).expect("compiles");
    assert_eq!(files(&place.cache()).len(), 1);
    fs::set_permissions(place.cache(), Permissions::from_mode(0o700)).expect("chmod");
    let link = place.0.join("link");
    symlink(place.cache(), &link).expect("a link");
    compile_on_disk(&link, &profile(2)).expect("compiles");
    assert_eq!(files(&place.cache()).len(), 1);
    // A file where the directory should be, and no way to make one.
    let file = place.0.join("file");
    fs::write(&file, "").expect("write");
    compile_on_disk(&file, &profile(2)).expect("compiles");
    compile_on_disk(Path::new("/proc/none/cache"), &profile(2)).expect("compiles");
}

#[test]
fn an_entry_that_is_a_link_or_no_file_is_replaced() {
    let place = Place::new("link");
    let want = compile_on_disk(&place.cache(), &profile(1)).expect("compiles");
    let path = files(&place.cache()).remove(0);
    let elsewhere = place.0.join("elsewhere");
    fs::rename(&path, &elsewhere).expect("rename");
    symlink(&elsewhere, &path).expect("a link");
    assert_eq!(
        compile_on_disk(&place.cache(), &profile(1)).expect("compiles"),
        want
    );
    assert!(fs::symlink_metadata(&path).expect("there").is_file());
    fs::remove_file(&path).expect("remove");
    let fifo = std::ffi::CString::new(path.to_str().expect("text")).expect("no NUL");
    // SAFETY: the path is NUL-terminated.
    assert_eq!(unsafe { libc::mkfifo(fifo.as_ptr(), 0o600) }, 0);
    assert_eq!(
        compile_on_disk(&place.cache(), &profile(1)).expect("compiles"),
        want
    );
}

#[test]
fn the_count_is_bounded_and_nothing_is_left_beside() {
    let place = Place::new("bounded");
    for errno in 0..100 {
        compile_on_disk(&place.cache(), &profile(errno)).expect("compiles");
    }
    let kept = files(&place.cache());
    assert_eq!(kept.len(), 64);
    assert!(
        kept.iter().all(|path| path.extension().is_none()),
        "{kept:?}"
    );
}

#[test]
fn memory_compiles_once_and_refuses_what_the_compiler_refuses() {
    let memory = Memory::default();
    let first = memory.compile(&profile(1)).expect("compiles");
    assert!(Arc::ptr_eq(
        &first,
        &memory.compile(&profile(1)).expect("compiles")
    ));
    assert!(!Arc::ptr_eq(
        &first,
        &memory.compile(&profile(2)).expect("compiles")
    ));
    for errno in 0..200 {
        memory.compile(&profile(errno)).expect("compiles");
    }
    memory.compile(&profile(5000)).expect_err("no errno");
}
