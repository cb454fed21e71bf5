//! Where the file system is asked to put layers.

mod common;

use common::{Builder, World};
use std::fs;
use std::os::fd::AsRawFd;
use std::path::Path;

/// The attributes of a directory as FS_IOC_GETFLAGS tells them, or with `set` as they were taken; None where the file system has none.
fn flags(directory: &Path, set: Option<i32>) -> Option<i32> {
    let file = fs::File::open(directory).unwrap();
    let request = |name, flags: *mut i32| {
        // SAFETY: both requests are of one int, which lives over the call.
        unsafe { libc::ioctl(file.as_raw_fd(), name, flags) == 0 }
    };
    let mut flags = set.unwrap_or(0);
    if set.is_some() && !request(libc::_IOW::<libc::c_long>(b'f' as u32, 2), &raw mut flags) {
        return None;
    }
    request(libc::_IOR::<libc::c_long>(b'f' as u32, 1), &raw mut flags).then_some(flags)
}

#[test]
fn the_directory_of_layers_spreads_them_and_keeps_its_other_attributes() {
    const TOP_DIRECTORY: i32 = 0x2_0000;
    const NO_DUMP: i32 = 0x40;
    let world = World::new();
    let layers = world.directory.join("layers");
    let before = flags(&layers, Some(NO_DUMP));
    let other = world.directory.join("other");
    fs::create_dir(&other).unwrap();
    let taken = flags(&other, Some(TOP_DIRECTORY));
    world.unpack(&Builder::default().file("a", b"a").end());
    let after = flags(&layers, None);
    match (before, taken) {
        // What ext4 adds by itself, as that it has extents, is in both.
        (Some(before), Some(_)) => assert_eq!(after, Some(before | TOP_DIRECTORY)),
        _ => assert_eq!(after, before, "a file system without the attribute"),
    }
}
