//! Memory: finding a byte in it.

/// Where `byte` is first in `bytes`, by the C library's memchr(3), which uses vector instructions.
pub fn find(byte: u8, bytes: &[u8]) -> Option<usize> {
    // SAFETY: pointer and length are of the same slice.
    let found = unsafe { libc::memchr(bytes.as_ptr().cast(), byte.into(), bytes.len()) };
    if found.is_null() {
        None
    } else {
        Some(found.addr() - bytes.as_ptr().addr())
    }
}

/// Where `byte` is last in `bytes`, by memrchr(3).
pub fn find_last(byte: u8, bytes: &[u8]) -> Option<usize> {
    // SAFETY: pointer and length are of the same slice.
    let found = unsafe { libc::memrchr(bytes.as_ptr().cast(), byte.into(), bytes.len()) };
    if found.is_null() {
        None
    } else {
        Some(found.addr() - bytes.as_ptr().addr())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn find_and_find_last_tell_the_place_or_none() {
        assert_eq!(
            (find(b'a', b"xaxa"), find_last(b'a', b"xaxa")),
            (Some(1), Some(3))
        );
        assert_eq!((find(b'a', b""), find_last(b'a', b"x")), (None, None));
    }
}
