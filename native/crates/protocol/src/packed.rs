//! A private form of configurations, for processes of one binary: what has its default is left out, nothing has a name, and nothing is
//! checked twice. It is written and read in a fraction of the time of JSON, and kept nowhere.

use std::collections::BTreeMap;

/// A value that can be packed. What `write` gives, `read` takes; of anything else it gives None, or another value of the type.
pub trait Packed: Sized {
    /// Appends the value.
    fn write(&self, to: &mut Vec<u8>);
    /// Takes a value from the beginning of `from`.
    fn read(from: &mut &[u8]) -> Option<Self>;
}

/// A list takes memory for this many values ahead, whatever its count says.
const ROOM_MAX: usize = 64;

/// The packed form of a value.
pub fn pack(value: &impl Packed) -> Vec<u8> {
    // A container's own part has 300 to 600 bytes.
    let mut bytes = Vec::with_capacity(1024);
    value.write(&mut bytes);
    bytes
}

/// The value that is packed in all of `bytes`; None if there is none, or something after it.
pub fn unpack<T: Packed>(mut bytes: &[u8]) -> Option<T> {
    let value = T::read(&mut bytes)?;
    bytes.is_empty().then_some(value)
}

macro_rules! number {
    ($($kind:ty),*) => {$(
        impl Packed for $kind {
            fn write(&self, to: &mut Vec<u8>) {
                to.extend_from_slice(&self.to_le_bytes());
            }
            fn read(from: &mut &[u8]) -> Option<Self> {
                let (bytes, rest) = from.split_first_chunk()?;
                *from = rest;
                Some(Self::from_le_bytes(*bytes))
            }
        }
    )*};
}
number!(u8, u16, u32, u64, i32, i64);

impl Packed for bool {
    fn write(&self, to: &mut Vec<u8>) {
        to.push(u8::from(*self));
    }
    fn read(from: &mut &[u8]) -> Option<Self> {
        match u8::read(from)? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

fn write_count(count: usize, to: &mut Vec<u8>) {
    u32::try_from(count)
        .expect("nothing is longer than a frame")
        .write(to);
}

fn read_count(from: &mut &[u8]) -> Option<usize> {
    usize::try_from(u32::read(from)?).ok()
}

impl Packed for String {
    fn write(&self, to: &mut Vec<u8>) {
        write_count(self.len(), to);
        to.extend_from_slice(self.as_bytes());
    }
    fn read(from: &mut &[u8]) -> Option<Self> {
        let count = read_count(from)?;
        let (text, rest) = from.split_at_checked(count)?;
        *from = rest;
        str::from_utf8(text).ok().map(str::to_owned)
    }
}

impl<T: Packed> Packed for Option<T> {
    fn write(&self, to: &mut Vec<u8>) {
        self.is_some().write(to);
        if let Some(value) = self {
            value.write(to);
        }
    }
    fn read(from: &mut &[u8]) -> Option<Self> {
        Some(if bool::read(from)? {
            Some(T::read(from)?)
        } else {
            None
        })
    }
}

impl<T: Packed> Packed for Vec<T> {
    fn write(&self, to: &mut Vec<u8>) {
        write_count(self.len(), to);
        self.iter().for_each(|value| value.write(to));
    }
    fn read(from: &mut &[u8]) -> Option<Self> {
        let count = read_count(from)?;
        let mut values = Self::with_capacity(count.min(ROOM_MAX));
        for _ in 0..count {
            values.push(T::read(from)?);
        }
        Some(values)
    }
}

impl<T: Packed> Packed for BTreeMap<String, T> {
    fn write(&self, to: &mut Vec<u8>) {
        write_count(self.len(), to);
        for (key, value) in self {
            key.write(to);
            value.write(to);
        }
    }
    fn read(from: &mut &[u8]) -> Option<Self> {
        (0..read_count(from)?)
            .map(|_| Some((String::read(from)?, T::read(from)?)))
            .collect()
    }
}

/// Packs a type of named fields: which of them are not their default, one bit each, and these. The type has a default.
macro_rules! packed {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::packed::Packed for $name {
            fn write(&self, to: &mut Vec<u8>) {
                let start = to.len();
                to.extend_from_slice(&[0; 4]);
                let (mut told, mut bit) = (0_u32, 1_u32);
                $(
                    if !$crate::oci::is_default(&self.$field) {
                        told |= bit;
                        $crate::packed::Packed::write(&self.$field, to);
                    }
                    bit <<= 1;
                )*
                let _ = bit;
                to[start..start + 4].copy_from_slice(&told.to_le_bytes());
            }
            fn read(from: &mut &[u8]) -> Option<Self> {
                const { assert!([$(stringify!($field)),*].len() < 32, "a bit for each field") };
                let mut told = <u32 as $crate::packed::Packed>::read(from)?;
                let mut read = Self::default();
                $(
                    if told & 1 != 0 {
                        read.$field = $crate::packed::Packed::read(from)?;
                    }
                    told >>= 1;
                )*
                // A bit that no field has.
                (told == 0).then_some(read)
            }
        }
    };
}
pub(crate) use packed;

/// Packs a type of named fields, all of them in their order.
macro_rules! packed_whole {
    ($name:ident { $($field:ident),* $(,)? }) => {
        impl $crate::packed::Packed for $name {
            fn write(&self, to: &mut Vec<u8>) {
                $($crate::packed::Packed::write(&self.$field, to);)*
            }
            fn read(from: &mut &[u8]) -> Option<Self> {
                Some(Self {
                    $($field: $crate::packed::Packed::read(from)?,)*
                })
            }
        }
    };
}
pub(crate) use packed_whole;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calls::{Healthcheck, Log, LogMode, Rootfs, Seccomp, Stdin};
    use crate::oci::Spec;
    use std::fmt::Debug;

    fn comes_back(value: &(impl Packed + Debug + PartialEq)) -> Vec<u8> {
        let bytes = pack(value);
        assert_eq!(unpack(&bytes).as_ref(), Some(value));
        for end in 0..bytes.len() {
            let cut: Option<Spec> = unpack(&bytes[..end]);
            assert!(cut.as_ref().is_none_or(|cut| pack(cut) == bytes[..end]));
        }
        bytes
    }

    /// A configuration that has every field of the specification that a sandbox may be told.
    #[test]
    fn a_configuration_comes_back_and_what_is_default_takes_no_room() {
        assert_eq!(comes_back(&Spec::default()), [0; 4]);
        let text = r#"{"ociVersion":"1.2.0","hostname":"größe","annotations":{"a":"b","c":""},
            "process":{"terminal":true,"args":["a",""],"user":{"uid":7,"umask":0,"additionalGids":[1,2]},"oomScoreAdj":-5,
                "rlimits":[{"type":"RLIMIT_CORE","hard":-1,"soft":0}],"scheduler":{"policy":"SCHED_OTHER","nice":-3},
                "execCPUAffinity":{"final":"0-3"}},
            "mounts":[{"destination":"/x","type":"bind","source":"/y","options":["ro"],"uidMappings":[{"containerID":0,"hostID":1,"size":9}]},{}],
            "hooks":{"poststop":[{"path":"/h","timeout":5}]},
            "linux":{"namespaces":[{"type":"pid","path":""}],"sysctl":{"net.x":"1"},"personality":{"domain":"LINUX"},
                "resources":{"memory":{"limit":0,"disableOOMKiller":false},"pids":{"limit":-1},"unified":{"a.b":"c"},
                    "devices":[{"allow":true,"major":-1}],"blockIO":{"weight":10}},
                "seccomp":{"defaultAction":"x","flags":[],"syscalls":[{"names":["read"],"args":[{"index":1,"value":-1,"op":"o"}]}]}}}"#;
        let spec: Spec = serde_json::from_str(text).expect("a configuration");
        let bytes = comes_back(&spec);
        assert!(bytes.len() < text.len());
    }

    #[test]
    fn parts_of_a_call_come_back() {
        for seccomp in [
            Seccomp::Default,
            Seccomp::Unconfined,
            Seccomp::Profile("{}".into()),
        ] {
            comes_back(&seccomp);
        }
        for stdin in [Stdin::Closed, Stdin::Open, Stdin::Once] {
            comes_back(&stdin);
        }
        for mode in [LogMode::Blocking, LogMode::NonBlocking] {
            comes_back(&Some(Log {
                path: "/l".into(),
                max_size_bytes: Some(0),
                max_files: 3,
                mode,
                max_buffer_bytes: 9,
                compress: true,
            }));
        }
        comes_back(&Rootfs {
            layers: vec!["/a".into(), String::new()],
            directory: "/d".into(),
        });
        comes_back(&Some(Healthcheck {
            test: vec!["CMD".into()],
            interval_ms: 1,
            timeout_ms: 2,
            start_period_ms: 3,
            start_interval_ms: 4,
            retries: 5,
        }));
    }

    #[test]
    fn what_was_not_packed_is_none() {
        for bytes in [
            &[][..],
            &[0, 0, 0, 0, 0],
            &[0, 0, 0, 0x80],
            &[1, 0, 0, 0, 1, 0, 0, 0, 0xff],
            &[1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff],
        ] {
            assert_eq!(unpack::<Spec>(bytes), None, "{bytes:?}");
        }
    }
}
