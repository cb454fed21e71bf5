//! The sockets of the resolver: listening ones inside a container's namespace, and asking ones in the host's.

use crate::link;
use crate::namespace;
use crate::netlink::socket::RouteSocket;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

/// Where containers ask.
pub const LISTEN: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(127, 0, 0, 11), 53);

/// Opens both sockets inside a namespace, whose loopback is brought up when it is not.
pub fn listen(namespace: &OwnedFd) -> io::Result<(UdpSocket, TcpListener)> {
    namespace::inside(namespace, || {
        let mut socket = RouteSocket::open()?;
        let kernel =
            |error: crate::netlink::socket::NetlinkError| io::Error::from_raw_os_error(error.errno);
        if let Some(lo) = link::find(&mut socket, "lo").map_err(kernel)?
            && !lo.up
        {
            socket.request(&link::change(lo.index)).map_err(kernel)?;
        }
        let udp = UdpSocket::bind(LISTEN)?;
        let tcp = TcpListener::bind(LISTEN)?;
        udp.set_nonblocking(true)?;
        tcp.set_nonblocking(true)?;
        Ok((udp, tcp))
    })
}

/// A UDP socket of its own port for one question, so that an answer cannot be guessed by its port.
pub fn udp_to(server: SocketAddrV4) -> io::Result<UdpSocket> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_nonblocking(true)?;
    socket.connect(server)?;
    Ok(socket)
}

/// Begins a TCP connection; it can be written to when it is there.
pub fn tcp_to(server: SocketAddrV4) -> io::Result<TcpStream> {
    // SAFETY: no pointers.
    let fd = unsafe {
        libc::socket(
            libc::AF_INET,
            libc::SOCK_STREAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC,
            0,
        )
    };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made for us.
    let stream = unsafe { TcpStream::from_raw_fd(fd) };
    let address = libc::sockaddr_in {
        sin_family: libc::AF_INET as libc::sa_family_t,
        sin_port: server.port().to_be(),
        sin_addr: libc::in_addr {
            s_addr: u32::from(*server.ip()).to_be(),
        },
        sin_zero: [0; 8],
    };
    // SAFETY: the address lives over the call and the size is its own.
    let result = unsafe {
        libc::connect(
            stream.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_in>() as libc::socklen_t,
        )
    };
    if result < 0 {
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINPROGRESS) {
            return Err(error);
        }
    }
    Ok(stream)
}

/// Bytes nobody can foretell.
pub fn random_bytes<const COUNT: usize>() -> io::Result<[u8; COUNT]> {
    let mut bytes = [0; COUNT];
    // SAFETY: the buffer is writable for its length. Requests up to 256 bytes are never cut short.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), COUNT, 0) };
    if got == COUNT.cast_signed() {
        Ok(bytes)
    } else {
        Err(io::Error::last_os_error())
    }
}
