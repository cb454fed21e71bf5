//! Memory: finding a byte in it, whole pages of it, and giving it back.

use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::{self, NonNull};

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

/// Stack that stays below the frame of `give_back`, in bytes: for the calls it makes, and what the machine's ABI lets them use below that.
const STACK_KEPT_BYTES: usize = 2 * 1024;
/// Stack that is given back, in bytes. Less than the kernel's gap below every stack (1 MiB), so that nothing else can be meant.
const STACK_BYTES: usize = 256 * 1024;

/// Gives back to the kernel what a process has used once and does not need for now: freed heap, and the stack below the caller. For the
/// first thread only, as other threads have no such gap.
// Not a part of its caller, whose frame would then lie below `here`.
#[inline(never)]
pub fn give_back() {
    // SAFETY: malloc_trim(3) gives back free memory alone.
    unsafe { libc::malloc_trim(0) };
    let here = 0u8;
    // SAFETY: no pointers.
    let page = usize::try_from(unsafe { libc::sysconf(libc::_SC_PAGESIZE) }).unwrap_or(64 * 1024);
    let top = ((&raw const here).addr() - STACK_KEPT_BYTES) & !(page - 1);
    // SAFETY: no live frame lies there, and what a later one finds is zeroes, as in a stack that has just grown. Where the stack has not
    // grown to yet the call fails with ENOMEM after it has done the rest.
    unsafe {
        libc::madvise(
            ptr::without_provenance_mut(top - STACK_BYTES),
            STACK_BYTES,
            libc::MADV_DONTNEED,
        )
    };
}

/// Bytes in pages of their own, zero at first. Those that were never written to cost nothing.
pub struct Pages {
    start: NonNull<u8>,
    bytes: usize,
}

impl Pages {
    /// This many bytes, which are not 0.
    ///
    /// # Errors
    /// The kernel's: no memory, or no more mappings.
    pub fn new(bytes: usize) -> io::Result<Self> {
        // SAFETY: a new mapping, which is nobody's yet.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        match NonNull::new(start.cast::<u8>()) {
            Some(start) if start.as_ptr().cast() != libc::MAP_FAILED => Ok(Self { start, bytes }),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// Gives all of them back to the kernel; they are zero again.
    pub fn give_back(&mut self) {
        // SAFETY: our own mapping, to which nobody has a reference now. Anonymous pages that are gone are read as zeroes.
        unsafe { libc::madvise(self.start.as_ptr().cast(), self.bytes, libc::MADV_DONTNEED) };
    }
}

impl Deref for Pages {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: our own mapping of this size, whose bytes are always some value.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.bytes) }
    }
}

impl DerefMut for Pages {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and ours alone.
        unsafe { std::slice::from_raw_parts_mut(self.start.as_ptr(), self.bytes) }
    }
}

impl Drop for Pages {
    fn drop(&mut self) {
        // SAFETY: our own mapping, to which nobody has a reference any more.
        unsafe { libc::munmap(self.start.as_ptr().cast(), self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn give_back_leaves_what_is_in_use() {
        let (on_heap, on_stack) = (vec![7u8; 100_000], [9u8; 10_000]);
        give_back();
        assert!(on_heap.iter().all(|byte| *byte == 7) && on_stack.iter().all(|byte| *byte == 9));
    }

    #[test]
    fn find_and_find_last_tell_the_place_or_none() {
        assert_eq!(
            (find(b'a', b"xaxa"), find_last(b'a', b"xaxa")),
            (Some(1), Some(3))
        );
        assert_eq!((find(b'a', b""), find_last(b'a', b"x")), (None, None));
    }
}
