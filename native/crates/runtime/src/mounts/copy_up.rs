//! `tmpcopyup`: what the image has at the destination of a tmpfs is copied into it, by descriptors and never through a link.

use crate::sys::{self, file};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

/// Deepest tree that is copied.
const DEPTH_MAX: u32 = 256;

/// Copies the directory `from` (its contents, mode and owner) to the empty directory `to`.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> io::Result<()> {
    let stat = file::look(from)?;
    contents(from, to, 0)?;
    file::change_owner_at(to, ".", stat.uid, stat.gid)?;
    file::change_mode_at(to, ".", stat.mode & 0o7777)
}

fn contents(from: BorrowedFd<'_>, to: BorrowedFd<'_>, depth: u32) -> io::Result<()> {
    if depth > DEPTH_MAX {
        return Err(io::Error::from_raw_os_error(libc::ELOOP));
    }
    for entry in std::fs::read_dir(file::proc_path(from))? {
        let name = entry?.file_name();
        let name = name
            .to_str()
            .ok_or_else(|| io::Error::from_raw_os_error(libc::EILSEQ))?;
        one(from, to, name, depth)?;
    }
    Ok(())
}

fn one(from: BorrowedFd<'_>, to: BorrowedFd<'_>, name: &str, depth: u32) -> io::Result<()> {
    let there = file::open_at(from, name, libc::O_PATH | libc::O_NOFOLLOW, 0)?;
    let stat = file::look(there.as_fd())?;
    match stat.mode & libc::S_IFMT {
        libc::S_IFDIR => {
            file::make_dir_at(to, name, 0o700)?;
            let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_NOFOLLOW;
            let made = file::open_at(to, name, flags, 0)?;
            contents(there.as_fd(), made.as_fd(), depth + 1)?;
        }
        libc::S_IFREG => {
            let mut reader = File::from(file::open_at(
                from,
                name,
                libc::O_RDONLY | libc::O_NOFOLLOW | libc::O_NONBLOCK,
                0,
            )?);
            if !file::look(reader.as_fd())?.is(libc::S_IFREG) {
                return Err(io::Error::from_raw_os_error(libc::EAGAIN));
            }
            let flags = libc::O_WRONLY | libc::O_CREAT | libc::O_EXCL | libc::O_NOFOLLOW;
            let mut writer = File::from(file::open_at(to, name, flags, 0o600)?);
            io::copy(&mut reader, &mut writer)?;
        }
        libc::S_IFLNK => file::symlink_at(&file::read_link_at(there.as_fd(), "")?, to, name)?,
        libc::S_IFIFO => file::make_node_at(to, name, libc::S_IFIFO | 0o600, (0, 0))?,
        // Sockets lead nowhere, and devices are given by the configuration only.
        _ => return Ok(()),
    }
    match file::change_owner_at(to, name, stat.uid, stat.gid) {
        // An owner that the user namespace does not have.
        Err(error) if sys::is(&error, libc::EINVAL) => {}
        other => other?,
    }
    if stat.is(libc::S_IFLNK) {
        return Ok(());
    }
    file::change_mode_at(to, name, stat.mode & 0o7777)
}
