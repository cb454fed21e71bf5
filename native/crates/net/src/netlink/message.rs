//! One rtnetlink request, built front to back.

use super::constants::{NLA_F_NESTED, NLM_F_REQUEST};

/// Bytes of nlmsghdr.
pub const HEADER_BYTES: usize = 16;
/// Attributes and messages start on multiples of this.
const ALIGNMENT: usize = 4;

/// `length` rounded up to where the next attribute or message starts.
pub fn aligned(length: usize) -> usize {
    length.next_multiple_of(ALIGNMENT)
}

/// A request: header, the family's fixed part, attributes. Its sequence number and ACK flag are set by the socket that sends it.
#[derive(Debug, Clone)]
pub struct Message {
    bytes: Vec<u8>,
}

impl Message {
    /// A request of a type (RTM_*) with flags (NLM_F_*, REQUEST is added) and the family's fixed part.
    pub fn new(kind: u16, flags: u16, fixed: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(96);
        bytes.extend_from_slice(&0u32.to_ne_bytes());
        bytes.extend_from_slice(&kind.to_ne_bytes());
        bytes.extend_from_slice(&(flags | NLM_F_REQUEST).to_ne_bytes());
        bytes.extend_from_slice(&[0; 8]);
        bytes.extend_from_slice(fixed);
        let mut message = Self { bytes };
        message.pad();
        message
    }

    /// Adds an attribute with these bytes.
    pub fn attribute(mut self, kind: u16, payload: &[u8]) -> Self {
        let length = u16::try_from(4 + payload.len()).expect("attributes are short");
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(payload);
        self.pad();
        self
    }

    /// Adds an attribute of one byte.
    pub fn u8(self, kind: u16, value: u8) -> Self {
        self.attribute(kind, &[value])
    }

    /// Adds an attribute of four bytes in the machine's order.
    pub fn u32(self, kind: u16, value: u32) -> Self {
        self.attribute(kind, &value.to_ne_bytes())
    }

    /// Adds a NUL-terminated string.
    pub fn string(self, kind: u16, value: &str) -> Self {
        let mut bytes = value.as_bytes().to_vec();
        bytes.push(0);
        self.attribute(kind, &bytes)
    }

    /// Adds an attribute whose payload is what `fill` appends.
    pub fn nest(mut self, kind: u16, fill: impl FnOnce(Self) -> Self) -> Self {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&[0; 2]);
        self.bytes
            .extend_from_slice(&(kind | NLA_F_NESTED).to_ne_bytes());
        let mut filled = fill(self);
        let length = u16::try_from(filled.bytes.len() - start).expect("attributes are short");
        filled.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        filled
    }

    /// Appends bytes that are no attribute (the fixed part inside VETH_INFO_PEER).
    pub fn raw(mut self, bytes: &[u8]) -> Self {
        self.bytes.extend_from_slice(bytes);
        self.pad();
        self
    }

    /// Appends the finished request to `out`, with its length, extra flags and sequence number filled in.
    pub fn write(&self, out: &mut Vec<u8>, flags: u16, sequence: u32) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        let length = u32::try_from(self.bytes.len()).expect("messages are short");
        let header = &mut out[start..start + HEADER_BYTES];
        let own = u16::from_ne_bytes([header[6], header[7]]);
        header[0..4].copy_from_slice(&length.to_ne_bytes());
        header[6..8].copy_from_slice(&(own | flags).to_ne_bytes());
        header[8..12].copy_from_slice(&sequence.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.bytes.resize(aligned(self.bytes.len()), 0);
    }
}

/// struct ifinfomsg: which link, and its flags where `change` has a bit.
pub fn link_fixed(family: u8, index: u32, flags: u32, change: u32) -> [u8; 16] {
    let mut fixed = [0; 16];
    fixed[0] = family;
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..12].copy_from_slice(&flags.to_ne_bytes());
    fixed[12..16].copy_from_slice(&change.to_ne_bytes());
    fixed
}

/// struct ifaddrmsg: an IPv4 address of a link, universe scope.
pub fn address_fixed(prefix_length: u8, index: u32) -> [u8; 8] {
    let mut fixed = [0; 8];
    fixed[0] = super::constants::AF_INET;
    fixed[1] = prefix_length;
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed
}

/// struct ndmsg: a neighbour or forwarding entry of a link.
pub fn neighbour_fixed(family: u8, index: u32, state: u16, flags: u8) -> [u8; 12] {
    let mut fixed = [0; 12];
    fixed[0] = family;
    fixed[4..8].copy_from_slice(&index.to_ne_bytes());
    fixed[8..10].copy_from_slice(&state.to_ne_bytes());
    fixed[10] = flags;
    fixed
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netlink::attributes::Attributes;

    #[test]
    fn a_nested_message_reads_back() {
        let message = Message::new(16, 0x400, &link_fixed(0, 7, 1, 1))
            .string(3, "br0")
            .nest(18, |nest| {
                nest.string(1, "bridge").nest(2, |data| data.u32(5, 0))
            });
        let mut bytes = Vec::new();
        message.write(&mut bytes, 4, 42);
        assert_eq!(
            u32::from_ne_bytes(bytes[0..4].try_into().unwrap()) as usize,
            bytes.len()
        );
        assert_eq!(u16::from_ne_bytes(bytes[6..8].try_into().unwrap()), 0x405);
        assert_eq!(u32::from_ne_bytes(bytes[8..12].try_into().unwrap()), 42);
        let attributes = Attributes::new(&bytes[32..]);
        assert_eq!(attributes.string(3), Some("br0"));
        let info = attributes.nest(18).unwrap();
        assert_eq!(info.string(1), Some("bridge"));
        assert_eq!(info.nest(2).unwrap().u32(5), Some(0));
    }
}
