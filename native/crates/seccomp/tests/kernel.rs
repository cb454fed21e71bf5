//! Filters on the kernel itself: loaded in processes of their own, judged by what their calls answer.

use shoal_protocol::oci::{Seccomp, State, Status, Syscall, SyscallArg};
use shoal_seccomp::default::default_profile;
use shoal_seccomp::{Arch, Program, compile, load, notify};
use std::io::Read;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Instant;

/// What a child says when the filter could not be loaded.
const NOT_LOADED: i32 = 99;

/// Runs `what` under the program in a process of its own; its exit code, or minus the signal. Nothing is allocated after the fork.
fn under(program: &Program, what: impl FnOnce() -> i32) -> i32 {
    // SAFETY: the child makes system calls only, and ends by _exit.
    let pid = unsafe { libc::fork() };
    assert!(pid >= 0);
    if pid == 0 {
        // SAFETY: no pointers.
        unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
        let code = if load(program).is_ok() {
            what()
        } else {
            NOT_LOADED
        };
        // SAFETY: _exit does not return.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: status is ours.
    assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
    if libc::WIFSIGNALED(status) {
        -libc::WTERMSIG(status)
    } else {
        libc::WEXITSTATUS(status)
    }
}

/// errno of a raw call, 0 when it worked.
fn errno(number: i64, arguments: [u64; 3]) -> i32 {
    // SAFETY: the tests' calls take no pointers, or bad ones that the kernel refuses.
    let result = unsafe { libc::syscall(number, arguments[0], arguments[1], arguments[2]) };
    if result >= 0 {
        return 0;
    }
    // SAFETY: errno's place is this thread's.
    unsafe { *libc::__errno_location() }
}

fn rule(names: &[&str], action: &str, errno_ret: Option<u32>, args: Vec<SyscallArg>) -> Syscall {
    Syscall {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
        action: action.to_owned(),
        errno_ret,
        args,
    }
}

fn allowing(syscalls: Vec<Syscall>) -> Program {
    let profile = Seccomp {
        default_action: "SCMP_ACT_ALLOW".to_owned(),
        syscalls,
        ..Seccomp::default()
    };
    compile(&profile).expect("a valid profile")
}

fn docker() -> Program {
    compile(&default_profile(0xa804_25fb, Arch::NATIVE, (6, 18))).expect("the default profile")
}

#[test]
fn the_kernel_takes_the_default_profile_and_answers_as_docker_does() {
    let program = docker();
    let ask = |number: i64, arguments: [u64; 3]| under(&program, || errno(number, arguments));
    assert_eq!(ask(libc::SYS_getpid, [0; 3]), 0);
    assert_eq!(ask(libc::SYS_keyctl, [0; 3]), libc::EPERM);
    assert_eq!(ask(libc::SYS_unshare, [0x1000_0000, 0, 0]), libc::EPERM);
    assert_eq!(ask(libc::SYS_clone3, [0; 3]), libc::ENOSYS);
    assert_eq!(ask(libc::SYS_clone, [0x1000_0000, 0, 0]), libc::EPERM);
    assert_eq!(ask(libc::SYS_socket, [38, 5, 0]), libc::EPERM, "AF_ALG");
    assert_eq!(ask(libc::SYS_socket, [40, 1, 0]), libc::EPERM, "AF_VSOCK");
    assert_eq!(ask(libc::SYS_socket, [1, 1, 0]), 0, "AF_UNIX");
    assert_eq!(ask(libc::SYS_personality, [0xffff_ffff, 0, 0]), 0);
    assert_eq!(ask(libc::SYS_personality, [0x0040_0000, 0, 0]), libc::EPERM);
    // Newer than all that the profile names, and than this kernel.
    assert_eq!(ask(4000, [0; 3]), libc::ENOSYS);
}

#[cfg(target_arch = "x86_64")]
#[test]
fn another_architecture_kills() {
    let program = allowing(vec![rule(&["read"], "SCMP_ACT_ERRNO", None, Vec::new())]);
    // x32's getpid: not listed.
    assert_eq!(
        under(&program, || errno(0x4000_0000 + 39, [0; 3])),
        -libc::SIGSYS
    );
    let old_getpid = || {
        let result: i64;
        // SAFETY: getpid by 32-bit x86's number and gate takes no arguments and touches nothing.
        unsafe { std::arch::asm!("int 0x80", inlateout("rax") 20i64 => result) };
        i32::from(result < 0)
    };
    assert_eq!(under(&program, old_getpid), -libc::SIGSYS);
    // Where the default profile lists it, it works (or the kernel has no 32-bit gate at all: ENOSYS or SIGSEGV).
    assert_ne!(under(&docker(), old_getpid), -libc::SIGSYS);
}

#[test]
fn every_action_is_the_kernels() {
    let ask = |action: &str, errno_ret| {
        let program = allowing(vec![rule(&["getppid"], action, errno_ret, Vec::new())]);
        under(&program, || errno(libc::SYS_getppid, [0; 3]))
    };
    assert_eq!(ask("SCMP_ACT_ALLOW", None), 0);
    assert_eq!(ask("SCMP_ACT_LOG", None), 0);
    assert_eq!(ask("SCMP_ACT_ERRNO", None), libc::EPERM);
    assert_eq!(ask("SCMP_ACT_ERRNO", Some(77)), 77);
    assert_eq!(ask("SCMP_ACT_TRACE", None), libc::ENOSYS, "nobody traces");
    for action in [
        "SCMP_ACT_KILL",
        "SCMP_ACT_KILL_THREAD",
        "SCMP_ACT_KILL_PROCESS",
        "SCMP_ACT_TRAP",
    ] {
        assert_eq!(ask(action, None), -libc::SIGSYS, "{action}");
    }
}

#[test]
fn arguments_are_compared_as_64_bits() {
    let equal = SyscallArg {
        index: 0,
        value: 1 << 32,
        value_two: 0,
        op: "SCMP_CMP_EQ".to_owned(),
    };
    let program = allowing(vec![rule(
        &["getppid"],
        "SCMP_ACT_ERRNO",
        Some(5),
        vec![equal],
    )]);
    let ask = |value: u64| under(&program, || errno(libc::SYS_getppid, [value, 0, 0]));
    assert_eq!([ask(0), ask(1 << 32), ask((1 << 32) + 1)], [0, 5, 0]);
}

#[test]
fn flags_are_taken_by_the_kernel() {
    for flags in [
        None,
        Some(vec![]),
        Some(vec![
            "SECCOMP_FILTER_FLAG_TSYNC",
            "SECCOMP_FILTER_FLAG_LOG",
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
            "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        ]),
    ] {
        let profile = Seccomp {
            default_action: "SCMP_ACT_ALLOW".to_owned(),
            flags: flags.map(|flags| flags.into_iter().map(str::to_owned).collect()),
            ..Seccomp::default()
        };
        let program = compile(&profile).expect("valid");
        assert_eq!(under(&program, || 0), 0, "{:#x}", program.flags);
    }
}

/// A child loads a filter that notifies of getppid and tells its listener's number by its exit from a pipe; the parent forwards it to an
/// agent's socket, whose side sees the descriptor and the container's state.
#[test]
fn a_listener_reaches_its_agent_with_the_containers_state() {
    let directory = std::env::temp_dir().join(format!("shoal-notify-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a directory");
    let path = directory.join("agent.sock");
    let agent = UnixListener::bind(&path).expect("an agent");
    let profile = Seccomp {
        default_action: "SCMP_ACT_ALLOW".to_owned(),
        listener_path: path.to_str().expect("text").to_owned(),
        syscalls: vec![rule(&["getppid"], "SCMP_ACT_NOTIFY", None, Vec::new())],
        ..Seccomp::default()
    };
    let program = compile(&profile).expect("valid");
    let (mut from, to) = std::io::pipe().expect("a pipe");
    // SAFETY: the child makes system calls only, and ends by _exit or by our signal.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        // SAFETY: no pointers but to our own four bytes.
        unsafe {
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
            let number = load(&program).map_or(-1, |fd| fd.map_or(-1, IntoRawFd::into_raw_fd));
            libc::write(to.as_raw_fd(), (&raw const number).cast(), 4);
            libc::_exit(i32::from(libc::getppid() != 1234));
        }
    }
    drop(to);
    let mut number = [0; 4];
    from.read_exact(&mut number).expect("the number");
    // SAFETY: no pointers; the descriptor is new.
    let pidfd = unsafe {
        OwnedFd::from_raw_fd(
            i32::try_from(libc::syscall(libc::SYS_pidfd_open, pid, 0)).expect("fd"),
        )
    };
    let state = State {
        oci_version: "1.2.0".into(),
        id: "a".into(),
        status: Status::Creating,
        pid,
        bundle: "/b".into(),
        annotations: std::collections::BTreeMap::new(),
    };
    let sent = notify::forward(
        pidfd.as_fd(),
        i32::from_ne_bytes(number),
        pid,
        &profile.listener_path,
        "meta",
        &state,
    );
    let seen = sent.map(|()| receive(&agent));
    if let Ok((_, listener)) = &seen {
        answer(listener);
    } else {
        // SAFETY: our own child, not yet waited for.
        unsafe { libc::kill(pid, libc::SIGKILL) };
    }
    let mut status = 0;
    // SAFETY: status is ours.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    std::fs::remove_dir_all(&directory).expect("cleaning up");
    let (text, _) = seen.expect("forwarded");
    let told: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    assert_eq!(told["ociVersion"], "1.2.0");
    assert_eq!(told["fds"], serde_json::json!(["seccompFd"]));
    assert_eq!(
        (told["pid"].as_i64(), &told["metadata"]),
        (Some(pid.into()), &"meta".into())
    );
    assert_eq!(told["state"]["id"], "a");
    assert_eq!(
        (libc::WIFEXITED(status), libc::WEXITSTATUS(status)),
        (true, 0),
        "the agent's answer was 1234"
    );
}

fn receive(agent: &UnixListener) -> (String, OwnedFd) {
    let (mut connection, _) = agent.accept().expect("the runtime");
    let mut text = vec![0u8; 4096];
    let mut control = [0u64; 4];
    let mut part = libc::iovec {
        iov_base: text.as_mut_ptr().cast(),
        iov_len: text.len(),
    };
    // SAFETY: msghdr is plain data; the buffers live over the call, and the control message is read as the kernel wrote it.
    let (length, fd) = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = 32;
        let length = libc::recvmsg(
            connection.as_raw_fd(),
            &raw mut message,
            libc::MSG_CMSG_CLOEXEC,
        );
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        assert!(!header.is_null(), "a descriptor came along");
        (
            length,
            libc::CMSG_DATA(header).cast::<i32>().read_unaligned(),
        )
    };
    text.truncate(usize::try_from(length).expect("a message"));
    connection.read_to_end(&mut text).expect("the rest");
    // SAFETY: the kernel gave it to us.
    (String::from_utf8(text).expect("text"), unsafe {
        OwnedFd::from_raw_fd(fd)
    })
}

/// Answers one notification with the value 1234.
fn answer(listener: &OwnedFd) {
    const RECEIVE: libc::c_ulong = 0xc050_2100; // SECCOMP_IOCTL_NOTIF_RECV
    const SEND: libc::c_ulong = 0xc018_2101; // SECCOMP_IOCTL_NOTIF_SEND
    let mut notification = [0u64; 10];
    // SAFETY: struct seccomp_notif has 80 bytes.
    let received = unsafe { libc::ioctl(listener.as_raw_fd(), RECEIVE, notification.as_mut_ptr()) };
    assert_eq!(received, 0);
    // id, value, error and flags
    let response = [notification[0], 1234, 0];
    // SAFETY: struct seccomp_notif_resp has 24 bytes.
    let sent = unsafe { libc::ioctl(listener.as_raw_fd(), SEND, response.as_ptr()) };
    assert_eq!(sent, 0);
}

/// Not a bar but a figure: printed with --nocapture.
#[test]
fn compiling_is_fast_enough_to_do_for_each_container() {
    let profile = default_profile(0xa804_25fb, Arch::NATIVE, (6, 18));
    let directory = std::env::temp_dir().join(format!("shoal-filters-{}", std::process::id()));
    let memory = shoal_seccomp::cache::Memory::default();
    let median = |mut what: Box<dyn FnMut() + '_>| {
        let mut times: Vec<_> = (0..200)
            .map(|_| {
                let begun = Instant::now();
                what();
                begun.elapsed()
            })
            .collect();
        times.sort_unstable();
        times[100]
    };
    let compiled = median(Box::new(|| drop(compile(&profile).expect("compiles"))));
    let kept = median(Box::new(|| {
        drop(memory.compile(&profile).expect("compiles"))
    }));
    let disk = median(Box::new(|| {
        drop(shoal_seccomp::cache::compile_on_disk(&directory, &profile).expect("compiles"))
    }));
    let program = docker();
    let loaded = median(Box::new(|| assert_eq!(under(&program, || 0), 0)));
    let bare = allowing(Vec::new());
    let forked = median(Box::new(|| assert_eq!(under(&bare, || 0), 0)));
    std::fs::remove_dir_all(&directory).expect("cleaning up");
    println!(
        "default profile, {} instructions: compiled {compiled:?}, from memory {kept:?}, from disk {disk:?}, loaded {:?}",
        program.instructions.len(),
        loaded.saturating_sub(forked)
    );
    assert!(
        compiled.as_millis() < 20,
        "{compiled:?} is not what this compiler takes"
    );
}
