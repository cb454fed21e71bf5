//! The program's code in memory of its own, in large pages where the kernel has them.
//!
//! A child of fork(2) finds none of its parent's file mapping mapped: it faults code in again, sixteen pages at a time, and takes every page back
//! when it ends or becomes another program. Anonymous memory is taken along by the fork, a large page of it by one entry. For a start, which is
//! two forks of the zygote's code and one exec, that is half a millisecond (docs/decisions/0010).

use super::check;
use std::fs;
use std::io;
use std::ops::Range;
use std::ptr;

/// A large page of x86-64 and of arm64 with pages of 4 KiB. Where they have another size this is only an alignment.
const LARGE_BYTES: usize = 2 * 1024 * 1024;

/// Puts a copy of the program's code in the place of the code. Nothing is changed where that cannot be done.
///
/// # Safety
/// The process has one thread: no other runs in the code while it is exchanged.
///
/// # Errors
/// The kernel's: no memory, or memory that was written may not be executed (SELinux's execmem).
pub unsafe fn own() -> io::Result<()> {
    let table = fs::read_to_string("/proc/self/maps")?;
    let here = (own as unsafe fn() -> io::Result<()> as *const ()).addr();
    let (code, room) =
        places(&table, here).ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    let copy = Copy::new(room.len())?;
    // SAFETY: the mapping of the code is readable for its whole length, and `room` holds it; the copy is ours and as long as `room`.
    unsafe {
        ptr::copy_nonoverlapping(
            ptr::with_exposed_provenance::<u8>(code.start),
            copy.start
                .wrapping_add(code.start - room.start)
                .cast::<u8>(),
            code.len(),
        );
    }
    // SAFETY: our own mapping; nobody writes to it from here on.
    let executable =
        unsafe { libc::mprotect(copy.start, copy.bytes, libc::PROT_READ | libc::PROT_EXEC) };
    check(executable.into())?;
    // SAFETY: what is replaced is the code alone, by the same bytes, in one step of the kernel's; nothing else lies in `room`.
    let moved = unsafe {
        libc::mremap(
            copy.start,
            copy.bytes,
            copy.bytes,
            libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED,
            ptr::with_exposed_provenance_mut::<libc::c_void>(room.start),
        )
    };
    if moved == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // It is where the code is now, and stays.
    std::mem::forget(copy);
    Ok(())
}

/// The mapping of the code at `address`, and the room for it in whole large pages where its neighbours leave that, else just its own.
fn places(table: &str, address: usize) -> Option<(Range<usize>, Range<usize>)> {
    let range = |line: &str| -> Option<Range<usize>> {
        let (start, end) = line.split(' ').next()?.split_once('-')?;
        let number = |text| usize::from_str_radix(text, 16).ok();
        Some(number(start)?..number(end)?)
    };
    let mappings: Vec<Range<usize>> = table.lines().filter_map(range).collect();
    let index = mappings
        .iter()
        .position(|mapping| mapping.contains(&address))?;
    let code = mappings[index].clone();
    let large = code.start & !(LARGE_BYTES - 1)..code.end.next_multiple_of(LARGE_BYTES);
    let before = index
        .checked_sub(1)
        .map_or(0, |before| mappings[before].end);
    let after = mappings
        .get(index + 1)
        .map_or(usize::MAX, |after| after.start);
    let room = if before <= large.start && large.end <= after {
        large
    } else {
        code.clone()
    };
    Some((code, room))
}

/// New memory that begins at a large page.
struct Copy {
    start: *mut libc::c_void,
    bytes: usize,
}

impl Copy {
    fn new(bytes: usize) -> io::Result<Self> {
        let all = bytes + LARGE_BYTES;
        // SAFETY: a new mapping, which is nobody's yet.
        let first = unsafe {
            libc::mmap(
                ptr::null_mut(),
                all,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS,
                -1,
                0,
            )
        };
        if first == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let skipped = first.addr().next_multiple_of(LARGE_BYTES) - first.addr();
        let start = first.wrapping_byte_add(skipped);
        // SAFETY: parts of the mapping that was just made, before and behind what is used of it. Without large pages small ones do.
        unsafe {
            if skipped > 0 {
                libc::munmap(first, skipped);
            }
            libc::munmap(start.wrapping_byte_add(bytes), all - skipped - bytes);
            libc::madvise(start, bytes, libc::MADV_HUGEPAGE);
        }
        Ok(Self { start, bytes })
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // SAFETY: our own mapping, to which nobody has a reference.
        unsafe { libc::munmap(self.start, self.bytes) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_takes_whole_large_pages_only_where_nothing_else_is() {
        let apart = "00200000-002b7000 r--p 00000000 00:01 5 /x\n004b7000-007aa000 r-xp 000b6000 00:01 5 /x\n009aa000-009b0000 rw-p 003a9000 00:01 5 /x\n";
        assert_eq!(
            places(apart, 0x50_0000),
            Some((0x4b_7000..0x7a_a000, 0x40_0000..0x80_0000))
        );
        let close = "00200000-002b7000 r--p 00000000 00:01 5 /x\n002b7000-005ab000 r-xp 000b6000 00:01 5 /x\n005ab000-005b0000 rw-p 003a9000 00:01 5 /x\n";
        assert_eq!(
            places(close, 0x2b_8000),
            Some((0x2b_7000..0x5a_b000, 0x2b_7000..0x5a_b000))
        );
        assert_eq!(places(close, 0x70_0000), None);
    }
}
