//! The words of network operations: MAC addresses, addresses with a prefix, interface names.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Longest name of an interface (IFNAMSIZ without its NUL).
const INTERFACE_NAME_BYTES_MAX: usize = 15;

/// An Ethernet address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mac(pub [u8; 6]);

impl FromStr for Mac {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let mut mac = [0; 6];
        let mut parts = text.split(':');
        for byte in &mut mac {
            let part = parts.next().filter(|part| {
                part.len() == 2 && part.bytes().all(|digit| digit.is_ascii_hexdigit())
            });
            *byte = part
                .and_then(|part| u8::from_str_radix(part, 16).ok())
                .ok_or_else(|| {
                    format!("{text:?} is not a MAC address (write it as 02:42:0a:00:01:03)")
                })?;
        }
        if parts.next().is_some() {
            return Err(format!(
                "{text:?} is not a MAC address (it has more than six bytes)"
            ));
        }
        if mac[0] & 1 != 0 || mac == [0; 6] {
            return Err(format!("{text:?} is not the address of one interface"));
        }
        Ok(Self(mac))
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, f] = self.0;
        write!(formatter, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// An address and the length of its network's prefix: `10.0.1.3/24`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cidr {
    pub address: Ipv4Addr,
    pub prefix_length: u8,
}

impl FromStr for Cidr {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('/').and_then(|(address, length)| {
            let prefix_length = length.parse().ok().filter(|length| *length <= 32)?;
            Some(Self {
                address: address.parse().ok()?,
                prefix_length,
            })
        });
        parsed.ok_or_else(|| {
            format!(
                "{text:?} is not an IPv4 address with a prefix length (write it as 10.0.1.3/24)"
            )
        })
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix_length)
    }
}

/// Reads an IPv4 address.
pub fn ipv4(text: &str) -> Result<Ipv4Addr, String> {
    text.parse()
        .map_err(|_| format!("{text:?} is not an IPv4 address"))
}

/// Checks the name of an interface as the kernel does, and refuses `%`, which it would fill in by itself.
pub fn interface_name(text: &str) -> Result<&str, String> {
    let good = !text.is_empty()
        && text.len() <= INTERFACE_NAME_BYTES_MAX
        && text != "."
        && text != ".."
        && text
            .bytes()
            .all(|byte| byte.is_ascii_graphic() && byte != b'/' && byte != b':' && byte != b'%');
    if good {
        Ok(text)
    } else {
        Err(format!(
            "{text:?} cannot name an interface (1 to {INTERFACE_NAME_BYTES_MAX} letters, digits or marks but / : %)"
        ))
    }
}

/// The MAC that stands for an IPv4 address: `02:42` and its four bytes.
pub fn mac_of(address: Ipv4Addr) -> Mac {
    let [a, b, c, d] = address.octets();
    Mac([0x02, 0x42, a, b, c, d])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mac_addresses_are_read_strictly() {
        assert_eq!(
            "02:42:0A:00:01:ff".parse(),
            Ok(Mac([2, 0x42, 10, 0, 1, 255]))
        );
        assert_eq!(
            Mac([2, 0x42, 10, 0, 1, 255]).to_string(),
            "02:42:0a:00:01:ff"
        );
        for text in [
            "",
            "02:42",
            "02:42:0a:00:01:03:04",
            "2:42:0a:00:01:03",
            "02:42:0a:00:01:+3",
            "01:00:5e:00:00:01",
            "00:00:00:00:00:00",
        ] {
            assert!(text.parse::<Mac>().is_err(), "{text}");
        }
    }

    #[test]
    fn cidrs_are_read_strictly() {
        assert_eq!(
            "10.0.1.3/24".parse::<Cidr>().map(|cidr| cidr.to_string()),
            Ok("10.0.1.3/24".into())
        );
        for text in [
            "10.0.1.3",
            "10.0.1/24",
            "10.0.1.3/33",
            "10.0.1.3/",
            "::1/64",
            "10.0.1.3/-1",
        ] {
            assert!(text.parse::<Cidr>().is_err(), "{text}");
        }
    }

    #[test]
    fn interface_names_are_those_of_the_kernel() {
        for (name, good) in [
            ("eth0", true),
            ("v0123456789abcd", true),
            ("v0123456789abcde", false),
            ("", false),
            ("a/b", false),
            ("eth%d", false),
            ("..", false),
            ("a b", false),
        ] {
            assert_eq!(interface_name(name).is_ok(), good, "{name}");
        }
    }
}
