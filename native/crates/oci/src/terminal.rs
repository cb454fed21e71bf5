//! A container's terminal on the caller's: bytes both ways, the size, and the caller's settings back at the end.

use shoal_protocol::Failure;
use shoal_runtime::sys::{file, socket};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Bytes that are carried at once, each way.
const CHUNK_BYTES: usize = 16 * 1024;
/// Room for the name that comes with a terminal.
const NAME_BYTES: usize = 4096;

/// The master end, and what is on its way.
pub struct Terminal {
    master: OwnedFd,
    /// The caller's terminal and its settings, while they are changed.
    changed: Option<(i32, libc::termios)>,
    /// Input that the master has not taken yet.
    pending: Vec<u8>,
    stdin_open: bool,
    output_open: bool,
}

impl Terminal {
    /// Takes the master end that init has sent, sets it to the caller's size and the caller's terminal to pass every key on.
    pub fn receive(from: BorrowedFd<'_>) -> Result<Self, Failure> {
        let doing = "receiving the container's terminal";
        let mut name = [0u8; NAME_BYTES];
        let (_, mut fds) = socket::receive_with_fds(from, &mut name)
            .map_err(|error| Failure::io(doing, &error))?;
        let master = fds
            .pop()
            .ok_or_else(|| Failure::io(doing, &io::Error::from_raw_os_error(libc::EPROTO)))?;
        file::set_nonblocking(master.as_fd()).map_err(|error| Failure::io(doing, &error))?;
        let mut terminal = Self {
            master,
            changed: None,
            pending: Vec::new(),
            stdin_open: true,
            output_open: true,
        };
        terminal.resize();
        // SAFETY: isatty takes a number and asks what it is.
        let shown = unsafe { libc::isatty(1) } == 1;
        if !shown {
            terminal.keep_line_ends();
        }
        terminal.make_raw(shown);
        Ok(terminal)
    }

    /// Gives the container's terminal the size of the caller's, if that is one.
    pub fn resize(&self) {
        // SAFETY: winsize is plain data.
        let mut size: libc::winsize = unsafe { std::mem::zeroed() };
        for fd in [0, 1, 2] {
            // SAFETY: TIOCGWINSZ writes one winsize, which is ours.
            if unsafe { libc::ioctl(fd, libc::TIOCGWINSZ, &raw mut size) } == 0 {
                // SAFETY: TIOCSWINSZ reads one winsize. That it may fail changes nothing but the looks.
                unsafe { libc::ioctl(self.master.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) };
                return;
            }
        }
    }

    /// Output that goes to a file or pipe ends its lines with LF, not with the CR LF that a terminal shows them by, as with runc.
    fn keep_line_ends(&self) {
        let fd = self.master.as_raw_fd();
        // SAFETY: termios is plain data, and both calls work on our own.
        unsafe {
            let mut settings: libc::termios = std::mem::zeroed();
            if libc::tcgetattr(fd, &raw mut settings) == 0 {
                settings.c_oflag &= !libc::ONLCR;
                libc::tcsetattr(fd, libc::TCSANOW, &raw const settings);
            }
        }
    }

    /// Passes every key on. Where the output is not shown on it (`shown`), others may still write lines to it.
    fn make_raw(&mut self, shown: bool) {
        for fd in [0, 1, 2] {
            // SAFETY: termios is plain data.
            let mut settings: libc::termios = unsafe { std::mem::zeroed() };
            // SAFETY: the pointer is to our own struct; a descriptor that is no terminal answers with an error.
            if unsafe { libc::tcgetattr(fd, &raw mut settings) } != 0 {
                continue;
            }
            let mut raw = settings;
            // SAFETY: both calls work on our own struct.
            if unsafe {
                libc::cfmakeraw(&raw mut raw);
                if !shown {
                    raw.c_oflag = settings.c_oflag;
                }
                libc::tcsetattr(fd, libc::TCSANOW, &raw const raw)
            } == 0
            {
                self.changed = Some((fd, settings));
            }
            return;
        }
    }

    /// What to poll for: the master, and the caller's input while the master takes it.
    pub fn polled(&self) -> [libc::pollfd; 2] {
        let entry = |fd: i32, events: i16| libc::pollfd {
            fd,
            events,
            revents: 0,
        };
        let writing = if self.pending.is_empty() {
            0
        } else {
            libc::POLLOUT
        };
        let reading = if self.output_open { libc::POLLIN } else { 0 };
        let master = if self.output_open || writing != 0 {
            self.master.as_raw_fd()
        } else {
            -1
        };
        let stdin = if self.stdin_open && self.pending.is_empty() {
            0
        } else {
            -1
        };
        [entry(master, reading | writing), entry(stdin, libc::POLLIN)]
    }

    /// Carries what `polled` said is there.
    pub fn carry(&mut self, polled: &[libc::pollfd]) {
        let [master, stdin] = polled else { return };
        if stdin.revents != 0 {
            let mut chunk = [0u8; CHUNK_BYTES];
            match read(0, &mut chunk) {
                Ok(0) => self.stdin_open = false,
                Ok(count) => self.pending.extend_from_slice(&chunk[..count]),
                Err(error) if is_transient(&error) => {}
                Err(_) => self.stdin_open = false,
            }
        }
        if !self.pending.is_empty() {
            match write(self.master.as_raw_fd(), &self.pending) {
                Ok(count) => drop(self.pending.drain(..count)),
                Err(error) if is_transient(&error) => {}
                Err(_) => {
                    self.pending.clear();
                    self.stdin_open = false;
                }
            }
        }
        if master.revents & (libc::POLLIN | libc::POLLHUP | libc::POLLERR) != 0 {
            self.output();
        }
    }

    /// One chunk from the container to the caller; false when there is none now.
    fn output(&mut self) -> bool {
        let mut chunk = [0u8; CHUNK_BYTES];
        match read(self.master.as_raw_fd(), &mut chunk) {
            Ok(0) => self.output_open = false,
            Ok(count) => {
                let mut rest = &chunk[..count];
                while !rest.is_empty() {
                    match write(1, rest) {
                        Ok(written) => rest = &rest[written..],
                        Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                        Err(error) if error.kind() == io::ErrorKind::WouldBlock => wait_writable(1),
                        // Nobody reads: what the container says is lost, as with a closed pipe.
                        Err(_) => break,
                    }
                }
                return true;
            }
            Err(error) if is_transient(&error) => {}
            // EIO: every slave end is closed.
            Err(_) => self.output_open = false,
        }
        false
    }

    /// Carries what is left once the program has ended.
    pub fn drain(&mut self) {
        while self.output() {}
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some((fd, settings)) = self.changed.take() {
            // SAFETY: the settings are those that tcgetattr gave.
            unsafe { libc::tcsetattr(fd, libc::TCSADRAIN, &raw const settings) };
        }
    }
}

fn is_transient(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
    )
}

fn wait_writable(fd: i32) {
    let mut fds = [libc::pollfd {
        fd,
        events: libc::POLLOUT,
        revents: 0,
    }];
    // The write that follows tells what is wrong, if anything.
    drop(shoal_runtime::sys::process::poll(&mut fds, -1));
}

fn read(fd: i32, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is writable for its length.
    let got = unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) };
    usize::try_from(got).map_err(|_| io::Error::last_os_error())
}

fn write(fd: i32, bytes: &[u8]) -> io::Result<usize> {
    // SAFETY: pointer and length are of the same slice.
    let put = unsafe { libc::write(fd, bytes.as_ptr().cast(), bytes.len()) };
    usize::try_from(put).map_err(|_| io::Error::last_os_error())
}
