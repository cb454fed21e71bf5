//! Reading the attributes of a message; what is cut short is read as absent.

use super::constants::NLA_TYPE_MASK;
use super::message::aligned;
use std::net::Ipv4Addr;

/// The attributes in a run of bytes.
#[derive(Debug, Clone, Copy)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
}

impl<'a> Attributes<'a> {
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes }
    }

    /// The payload of the first attribute of a type.
    pub fn get(self, kind: u16) -> Option<&'a [u8]> {
        self.into_iter()
            .find(|(found, _)| *found == kind)
            .map(|(_, payload)| payload)
    }

    pub fn nest(self, kind: u16) -> Option<Attributes<'a>> {
        self.get(kind).map(Attributes::new)
    }

    /// A string up to its NUL.
    pub fn string(self, kind: u16) -> Option<&'a str> {
        let bytes = self.get(kind)?;
        let end = bytes
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..end]).ok()
    }

    pub fn u8(self, kind: u16) -> Option<u8> {
        self.get(kind)?.first().copied()
    }

    pub fn u32(self, kind: u16) -> Option<u32> {
        Some(u32::from_ne_bytes(
            self.get(kind)?.get(..4)?.try_into().ok()?,
        ))
    }

    /// Two bytes in network order.
    pub fn be16(self, kind: u16) -> Option<u16> {
        Some(u16::from_be_bytes(
            self.get(kind)?.get(..2)?.try_into().ok()?,
        ))
    }

    pub fn ipv4(self, kind: u16) -> Option<Ipv4Addr> {
        let bytes: [u8; 4] = self.get(kind)?.try_into().ok()?;
        Some(Ipv4Addr::from(bytes))
    }
}

impl<'a> IntoIterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);
    type IntoIter = AttributeIterator<'a>;
    fn into_iter(self) -> AttributeIterator<'a> {
        AttributeIterator { rest: self.bytes }
    }
}

/// Walks attributes until the bytes end or do not hold a whole one.
pub struct AttributeIterator<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for AttributeIterator<'a> {
    type Item = (u16, &'a [u8]);
    fn next(&mut self) -> Option<Self::Item> {
        let header = self.rest.get(..4)?;
        let length = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & NLA_TYPE_MASK;
        let payload = self.rest.get(4..length)?;
        self.rest = self.rest.get(aligned(length)..).unwrap_or(&[]);
        Some((kind, payload))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_attributes_are_absent() {
        for bytes in [
            &[][..],
            &[1, 0, 0],
            &[3, 0, 1, 0],
            &[12, 0, 1, 0, 9, 9, 9, 9],
            &[0, 0, 0, 0, 0, 0, 0, 0],
        ] {
            assert_eq!(Attributes::new(bytes).get(1), None, "{bytes:?}");
        }
        assert_eq!(
            Attributes::new(&[6, 0, 1, 0x80, 7, 8]).get(1),
            Some(&[7, 8][..])
        );
    }
}
