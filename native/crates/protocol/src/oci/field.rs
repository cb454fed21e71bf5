//! How a field of a configuration is read: absent and null are the default, and numbers may be as JavaScript writes them.

use serde::de::{Deserialize, Deserializer, Error, Visitor};
use std::collections::BTreeMap;
use std::fmt;

/// Largest whole number that a double holds exactly with all its neighbours.
const SAFE_INTEGER_MAX: f64 = 9_007_199_254_740_991.0;

/// A value that a configuration may hold.
pub trait Field: Sized {
    /// Reads the value itself, which is not null.
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error>;
}

/// Reads a field; null is the default.
pub fn read_or_default<'de, D: Deserializer<'de>, T: Field + Default>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::<Read<T>>::deserialize(from)?.map_or_else(T::default, |read| read.0))
}

/// Whether a field says nothing, so that it is left out when written.
pub fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

struct Read<T>(T);

impl<'de, T: Field> Deserialize<'de> for Read<T> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        T::read(from).map(Self)
    }
}

macro_rules! plain {
    ($($kind:ty),*) => {$(
        impl Field for $kind {
            fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                Self::deserialize(from)
            }
        }
    )*};
}
plain!(bool, u16, u32, i32, String);

impl<T: Field> Field for Option<T> {
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        T::read(from).map(Some)
    }
}

impl<T: Field> Field for Vec<T> {
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(Vec::<Read<T>>::deserialize(from)?
            .into_iter()
            .map(|read| read.0)
            .collect())
    }
}

impl<T: Field> Field for BTreeMap<String, T> {
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        Ok(BTreeMap::<String, Read<T>>::deserialize(from)?
            .into_iter()
            .map(|(key, read)| (key, read.0))
            .collect())
    }
}

/// 2^63 and 2^64 come out of a double rounded up by one: what is over the range by that is the range's end.
fn whole<E: Error>(value: f64) -> Result<i128, E> {
    const TWO_TO_64: f64 = 18_446_744_073_709_551_616.0;
    if value.fract() != 0.0 || !value.is_finite() {
        return Err(E::custom(format!("{value} is not a whole number")));
    }
    if value.abs() > SAFE_INTEGER_MAX && value.abs() < TWO_TO_64 {
        return Err(E::custom(format!("{value} is not an exact number")));
    }
    if value > TWO_TO_64 * 1.001 {
        return Err(E::custom(format!("{value} is too large a number")));
    }
    #[expect(clippy::cast_possible_truncation, reason = "at most 1.001 * 2^64")]
    Ok(value as i128)
}

struct Unsigned;

impl Visitor<'_> for Unsigned {
    type Value = u64;
    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a whole number that is not negative")
    }
    fn visit_u64<E>(self, value: u64) -> Result<u64, E> {
        Ok(value)
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<u64, E> {
        u64::try_from(value)
            .map_err(|_| E::invalid_value(serde::de::Unexpected::Signed(value), &self))
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<u64, E> {
        let value = whole(value)?;
        if value < 0 {
            return Err(E::custom(format!("{value} is negative")));
        }
        Ok(u64::try_from(value).unwrap_or(u64::MAX))
    }
}

struct Signed;

impl Visitor<'_> for Signed {
    type Value = i64;
    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a whole number")
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<i64, E> {
        // i64::MAX as JavaScript writes it is 9223372036854776000.
        const ROUNDED_MAX: u64 = 9_223_372_036_854_776_000;
        match i64::try_from(value) {
            Ok(value) => Ok(value),
            Err(_) if value <= ROUNDED_MAX => Ok(i64::MAX),
            Err(_) => Err(E::invalid_value(
                serde::de::Unexpected::Unsigned(value),
                &self,
            )),
        }
    }
    fn visit_i64<E>(self, value: i64) -> Result<i64, E> {
        Ok(value)
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<i64, E> {
        let value = whole(value)?;
        i64::try_from(value).map_err(|_| E::custom(format!("{value} is out of range")))
    }
}

impl Field for u64 {
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Unsigned)
    }
}

impl Field for i64 {
    fn read<'de, D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Signed)
    }
}

/// A resource limit: negative, or too large for a u64 (as JavaScript writes 2^64), means no limit.
pub fn limit<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    struct Limit;
    impl Visitor<'_> for Limit {
        type Value = u64;
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a whole number")
        }
        fn visit_u64<E>(self, value: u64) -> Result<u64, E> {
            Ok(value)
        }
        fn visit_i64<E>(self, value: i64) -> Result<u64, E> {
            Ok(u64::try_from(value).unwrap_or(u64::MAX))
        }
        fn visit_f64<E: Error>(self, value: f64) -> Result<u64, E> {
            if value < 0.0 && value.fract() == 0.0 {
                return Ok(u64::MAX);
            }
            Ok(u64::try_from(whole(value)?).unwrap_or(u64::MAX))
        }
    }
    from.deserialize_any(Limit)
}

/// 64 bits: a negative number is its two's complement, null is 0.
pub fn wrapping<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    struct Wrapping;
    impl Visitor<'_> for Wrapping {
        type Value = u64;
        fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
            formatter.write_str("a whole number")
        }
        fn visit_unit<E>(self) -> Result<u64, E> {
            Ok(0)
        }
        fn visit_u64<E>(self, value: u64) -> Result<u64, E> {
            Ok(value)
        }
        fn visit_i64<E>(self, value: i64) -> Result<u64, E> {
            Ok(value.cast_unsigned())
        }
        fn visit_f64<E: Error>(self, value: f64) -> Result<u64, E> {
            if value < 0.0 {
                return Signed.visit_f64(value).map(i64::cast_unsigned);
            }
            Unsigned.visit_f64(value)
        }
    }
    from.deserialize_any(Wrapping)
}

/// Declares a part of the configuration: every field may be absent or null, and unknown ones are ignored. It can be packed.
macro_rules! part {
    ($(#[$meta:meta])* pub struct $name:ident { $($(#[$field_meta:meta])* pub $field:ident: $kind:ty,)* }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            $(
                $(#[$field_meta])*
                #[serde(
                    deserialize_with = "crate::oci::field::read_or_default",
                    skip_serializing_if = "crate::oci::field::is_default"
                )]
                pub $field: $kind,
            )*
        }

        impl crate::oci::field::Field for $name {
            fn read<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
                serde::Deserialize::deserialize(from)
            }
        }

        crate::packed::packed!($name { $($field),* });
    };
}
pub(crate) use part;

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Default, PartialEq, serde::Deserialize)]
    #[serde(default)]
    struct Numbers {
        #[serde(deserialize_with = "read_or_default")]
        signed: i64,
        #[serde(deserialize_with = "read_or_default")]
        unsigned: u64,
    }

    fn read(text: &str) -> Result<Numbers, serde_json::Error> {
        serde_json::from_str(text)
    }

    #[test]
    fn numbers_may_be_as_javascript_writes_them() {
        for (text, want) in [
            ("9223372036854775807", i64::MAX),
            ("9223372036854776000", i64::MAX),
            ("-9223372036854775808", i64::MIN),
            ("-1", -1),
            ("1e3", 1000),
        ] {
            let read = read(&format!(r#"{{"signed":{text}}}"#)).expect(text);
            assert_eq!(read.signed, want, "{text}");
        }
        for (text, want) in [
            ("18446744073709551615", u64::MAX),
            ("18446744073709552000", u64::MAX),
            ("1024.0", 1024),
            ("null", 0),
        ] {
            let read = read(&format!(r#"{{"unsigned":{text}}}"#)).expect(text);
            assert_eq!(read.unsigned, want, "{text}");
        }
    }

    #[test]
    fn seccomp_values_wrap() {
        for (text, want) in [
            ("-1", u64::MAX),
            ("null", 0),
            ("18446744073709552000", u64::MAX),
            ("7", 7),
        ] {
            let json = format!(r#"{{"index":1,"value":{text},"op":"x"}}"#);
            let read: crate::oci::SyscallArg = serde_json::from_str(&json).expect(text);
            assert_eq!(read.value, want, "{text}");
        }
    }

    #[test]
    fn numbers_that_are_none_or_out_of_range_are_refused() {
        for text in [
            r#"{"signed":1.5}"#,
            r#"{"signed":"1"}"#,
            r#"{"signed":9223372036854777000}"#,
            r#"{"signed":1e300}"#,
            r#"{"unsigned":-1}"#,
            r#"{"unsigned":-1.0}"#,
            r#"{"unsigned":1e300}"#,
            r#"{"unsigned":true}"#,
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
