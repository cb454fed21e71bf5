//! The connections that hear events.

use shoal_protocol::calls::Event;
use shoal_protocol::{calls, write_frame};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

/// A client that takes nothing for this long is cut off.
const SEND_TIMEOUT: Duration = Duration::from_secs(10);

/// One connection's sending side; frames never mix.
pub struct Peer {
    stream: Mutex<UnixStream>,
}

impl Peer {
    /// Wraps the connection.
    pub fn new(stream: UnixStream) -> std::io::Result<Self> {
        stream.set_write_timeout(Some(SEND_TIMEOUT))?;
        Ok(Self {
            stream: Mutex::new(stream),
        })
    }

    fn lock(&self) -> MutexGuard<'_, UnixStream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends one frame. A client that cannot take it is disconnected, and will say hello again.
    pub fn send(&self, body: &[u8]) {
        send_locked(&mut self.lock(), body);
    }
}

fn send_locked(stream: &mut UnixStream, body: &[u8]) {
    if write_frame(stream, body).is_err() {
        // Half a frame may be out: this connection is of no more use. Its reader ends it.
        drop(stream.shutdown(std::net::Shutdown::Both));
    }
}

/// Everyone who said hello.
#[derive(Default)]
pub struct Hub {
    peers: Mutex<Vec<Weak<Peer>>>,
}

impl Hub {
    /// Answers a hello and lets events follow it, none before and none lost after.
    pub fn join(&self, peer: &Arc<Peer>, reply: &[u8]) {
        let mut stream = peer.lock();
        let mut peers = self.peers.lock().unwrap_or_else(PoisonError::into_inner);
        peers.retain(|known| {
            known
                .upgrade()
                .is_some_and(|known| !Arc::ptr_eq(&known, peer))
        });
        peers.push(Arc::downgrade(peer));
        drop(peers);
        send_locked(&mut stream, reply);
    }

    /// Tells everyone.
    pub fn tell(&self, event: &Event) {
        let body = encode(event);
        let peers: Vec<Arc<Peer>> = self
            .peers
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .filter_map(Weak::upgrade)
            .collect();
        for peer in peers {
            peer.send(&body);
        }
    }
}

/// The bytes of an event.
pub fn encode(event: &calls::Event) -> Vec<u8> {
    serde_json::to_vec(event).expect("events are plain data with string keys")
}
