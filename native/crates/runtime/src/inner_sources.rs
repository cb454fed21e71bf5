//! Sources of binds with mapped owners that only the container's mount namespace has, as earlier mounts of it brought them: a process with
//! the maker's rights goes there for them, since nobody in the container may map owners of the host's files.

use crate::channel::SOURCE;
use crate::filesystem::Plan;
use crate::launch::CREATE_TIMEOUT_MS;
use crate::mounts;
use crate::sys::{Kernel, file, process, socket};
use shoal_protocol::{Failure, FailureCode};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Longest failure that the process can tell, in bytes.
const FAILURE_BYTES_MAX: usize = 16 * 1024;
const DOING: &str = "opening a bind's source in the container's mount namespace";

/// The detached tree of the mount `index`, as the mount namespace of `init` has its source. The caller has one thread.
pub(crate) fn tree(plan: &Plan, index: usize, init: i32) -> Result<OwnedFd, Failure> {
    let io = |error: io::Error| Failure::io(DOING, &error);
    let planned = plan
        .mounts
        .get(index)
        .ok_or_else(|| Failure::new(FailureCode::System, DOING, "there is no such mount"))?;
    let owners = planned
        .owners
        .as_ref()
        .ok_or_else(|| Failure::new(FailureCode::System, DOING, "its owners are not mapped"))?
        .namespace()?;
    let place = file::open(&format!("/proc/{init}/ns/mnt"), libc::O_RDONLY).map_err(io)?;
    let (ours, theirs) = socket::pair().map_err(io)?;
    let pid = match process::clone(&process::Clone::default()).map_err(io)? {
        process::Side::Parent(pid) => pid,
        process::Side::Child => {
            drop(ours);
            let made = process::join_namespace(place.as_fd(), libc::CLONE_NEWNS)
                .map_err(io)
                .and_then(|()| mounts::source_tree(&Kernel, planned, Some(owners.as_fd())))
                .and_then(|tree| tree.ok_or_else(|| io(io::ErrorKind::PermissionDenied.into())));
            let told = match made {
                Ok(tree) => socket::send_with_fds(theirs.as_fd(), SOURCE, &[tree.as_fd()]),
                Err(failure) => {
                    let text = serde_json::to_vec(&failure).unwrap_or_default();
                    socket::send(theirs.as_fd(), &text)
                }
            };
            process::exit_now(i32::from(told.is_err()))
        }
    };
    drop(theirs);
    let told = hear(ours.as_fd());
    // It has ended, or is waiting for a file system that does not answer.
    drop(process::signal(pid, libc::SIGKILL));
    drop(process::wait(pid, 0));
    told
}

fn hear(socket: BorrowedFd<'_>) -> Result<OwnedFd, Failure> {
    let io = |error: io::Error| Failure::io(DOING, &error);
    let mut fds = [libc::pollfd {
        fd: socket.as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    }];
    if process::poll(&mut fds, CREATE_TIMEOUT_MS).map_err(io)? == 0 {
        return Err(io(io::ErrorKind::TimedOut.into()));
    }
    let mut buffer = vec![0u8; FAILURE_BYTES_MAX];
    let (length, mut trees) = socket::receive_with_fds(socket, &mut buffer).map_err(io)?;
    match trees.pop() {
        Some(tree) => Ok(tree),
        None => Err(
            serde_json::from_slice(&buffer[..length]).unwrap_or_else(|_| {
                Failure::new(
                    FailureCode::System,
                    DOING,
                    "the process ended without a word",
                )
            }),
        ),
    }
}
