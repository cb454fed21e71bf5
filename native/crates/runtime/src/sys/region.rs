//! The program's allocator: the C library's, and beside it a region for what one task of a process needs and nobody after it, which goes back
//! to the kernel as a whole.
//!
//! A monitor reads a configuration and makes a container with a few hundred small allocations, and then idles for days. From the common heap
//! they would leave holes between the few that stay, and every page of that heap would be the monitor's own.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicUsize, Ordering::Relaxed};

/// Room of the region, in bytes. What does not fit comes from the heap. Pages that are not used are none.
const REGION_BYTES: usize = 1024 * 1024;
/// Bytes of it that are made ready at once, as every task needs them: one call instead of a page fault each.
const READY_BYTES: usize = 64 * 1024;

/// Greatest alignment given in it: the smallest page of any machine, as its start is a page's.
const ALIGN_MAX: usize = 4096;

/// To be the `#[global_allocator]` of a program that opens a region.
pub struct Allocator;

/// The one region of this process. Only its first thread changes it (`open`), so that plain loads and stores do.
struct Region {
    /// Null when there is none.
    start: AtomicPtr<u8>,
    /// The first free byte, counted from `start`.
    next: AtomicUsize,
    /// Allocations in it.
    live: AtomicUsize,
    /// Allocations are made in it.
    open: AtomicBool,
}

static REGION: Region = Region {
    start: AtomicPtr::new(ptr::null_mut()),
    next: AtomicUsize::new(0),
    live: AtomicUsize::new(0),
    open: AtomicBool::new(false),
};

impl Region {
    /// How far into the region an address is; None outside, and without a region.
    fn place(&self, of: *const u8) -> Option<usize> {
        let start = self.start.load(Relaxed);
        // Nothing lies in the first MiB of an address space (and null is not allocated), so that this is false without a region.
        Some(of.addr().wrapping_sub(start.addr()))
            .filter(|at| *at < REGION_BYTES && !start.is_null())
    }

    fn allocate(&self, layout: Layout) -> Option<*mut u8> {
        let at = self.next.load(Relaxed).next_multiple_of(layout.align());
        let end = at.checked_add(layout.size())?;
        if end > REGION_BYTES || layout.align() > ALIGN_MAX {
            return None;
        }
        self.next.store(end, Relaxed);
        self.live.store(self.live.load(Relaxed) + 1, Relaxed);
        Some(self.start.load(Relaxed).wrapping_add(at))
    }

    /// Room of the last allocation is used again; any other stays until the end.
    fn free(&self, at: usize, bytes: usize) {
        self.live.store(self.live.load(Relaxed) - 1, Relaxed);
        if at + bytes == self.next.load(Relaxed) {
            self.next.store(at, Relaxed);
        }
    }

    /// Changes the size of an allocation where it is: always to a smaller one, to a larger one only the last.
    fn resize(&self, at: usize, from: usize, to: usize) -> bool {
        let last = at + from == self.next.load(Relaxed);
        if last && at.checked_add(to).is_some_and(|end| end <= REGION_BYTES) {
            self.next.store(at + to, Relaxed);
            return true;
        }
        to <= from
    }
}

// SAFETY: what is given out lies in the region, aligned and apart from everything else that is live, or is the system allocator's, and goes back
// to where it came from, which its address tells. A region is unmapped only when nothing lives in it.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if REGION.open.load(Relaxed)
            && let Some(given) = REGION.allocate(layout)
        {
            return given;
        }
        // SAFETY: the caller's promises about `layout` are the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if REGION.open.load(Relaxed)
            && let Some(given) = REGION.allocate(layout)
        {
            // SAFETY: just given, with this size; its room may have been used before.
            unsafe { given.write_bytes(0, layout.size()) };
            return given;
        }
        // SAFETY: the caller's promises about `layout` are the same.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, given: *mut u8, layout: Layout) {
        match REGION.place(given) {
            Some(at) => REGION.free(at, layout.size()),
            // SAFETY: not of the region, hence the system allocator's, with this layout.
            None => unsafe { System.dealloc(given, layout) },
        }
    }

    unsafe fn realloc(&self, given: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        let Some(at) = REGION.place(given) else {
            // SAFETY: not of the region, hence the system allocator's, with this layout; the new size is the caller's promise.
            return unsafe { System.realloc(given, layout, bytes) };
        };
        if REGION.resize(at, layout.size(), bytes) {
            return given;
        }
        // SAFETY: the caller promises that the new size with this alignment is a layout.
        let wanted = unsafe { Layout::from_size_align_unchecked(bytes, layout.align()) };
        // SAFETY: the new size is not 0, by the same promise.
        let new = unsafe { self.alloc(wanted) };
        if !new.is_null() {
            // SAFETY: both are live and apart, and `resize` has refused only a larger size.
            unsafe { new.copy_from_nonoverlapping(given, layout.size()) };
            REGION.free(at, layout.size());
        }
        new
    }
}

/// From now on allocations are made in a region, until `close`. Nothing happens where there is one already.
///
/// # Safety
/// The process has one thread, and starts none until `release` has said that nothing lives in the region any more.
///
/// # Errors
/// The kernel's, when there is no memory; allocations go on in the heap.
pub unsafe fn open() -> io::Result<()> {
    if REGION.start.load(Relaxed).is_null() {
        // SAFETY: a new mapping, which is nobody's yet.
        let start = unsafe {
            libc::mmap(
                ptr::null_mut(),
                REGION_BYTES,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the mapping just made. Before Linux 5.14 it fails, and pages come one by one.
        unsafe { libc::madvise(start, READY_BYTES, libc::MADV_POPULATE_WRITE) };
        REGION.next.store(0, Relaxed);
        REGION.start.store(start.cast(), Relaxed);
    }
    REGION.open.store(true, Relaxed);
    Ok(())
}

/// Allocations are the heap's again. What lives in the region stays there.
pub fn close() {
    REGION.open.store(false, Relaxed);
}

/// What is allocated meanwhile is the heap's: it will live longer than the region.
pub fn outside<T>(make: impl FnOnce() -> T) -> T {
    struct Reopen(bool);
    impl Drop for Reopen {
        fn drop(&mut self) {
            REGION.open.store(self.0, Relaxed);
        }
    }
    let _reopen = Reopen(REGION.open.swap(false, Relaxed));
    make()
}

/// Closes the region and gives it back to the kernel, unless something still lives in it: how many allocations do.
pub fn release() -> usize {
    close();
    let (start, live) = (REGION.start.load(Relaxed), REGION.live.load(Relaxed));
    if live == 0 && !start.is_null() {
        REGION.start.store(ptr::null_mut(), Relaxed);
        // SAFETY: our mapping, in which nothing lives and which nobody finds any more.
        unsafe { libc::munmap(start.cast(), REGION_BYTES) };
    }
    live
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(bytes: usize, align: usize) -> Layout {
        Layout::from_size_align(bytes, align).expect("a layout")
    }

    fn inside(given: *mut u8) -> bool {
        REGION.place(given).is_some()
    }

    /// One test, as there is one region; the other tests' allocator is another.
    #[test]
    fn what_lives_in_a_region_stays_until_it_is_freed_and_then_all_of_it_goes() {
        let all = Allocator;
        // SAFETY: only this thread uses this allocator; every pointer below is used with the layout that it was given for.
        unsafe {
            assert!(!inside(all.alloc(layout(8, 8))), "no region yet");
            open().expect("a region");
            let word = all.alloc(layout(8, 8));
            let odd = all.alloc(layout(3, 1));
            let page = all.alloc(layout(10, 64));
            assert!(inside(word) && inside(odd) && inside(page));
            assert_eq!((word.addr() % 8, page.addr() % 64), (0, 0));
            word.write_bytes(7, 8);
            odd.write_bytes(9, 3);

            let kept = outside(|| all.alloc(layout(16, 8)));
            assert!(!inside(kept) && inside(all.alloc(layout(1, 1))));
            // Only what is too large, or stricter than a page, is the heap's.
            let large = all.alloc(layout(REGION_BYTES, 8));
            let strict = all.alloc(layout(8, 2 * ALIGN_MAX));
            assert!(
                !inside(large) && !inside(strict) && strict.addr().is_multiple_of(2 * ALIGN_MAX)
            );

            // The last grows where it is, any other moves; both keep their bytes.
            let last = all.alloc(layout(4, 1));
            last.write_bytes(5, 4);
            assert_eq!(all.realloc(last, layout(4, 1), 4000), last);
            let moved = all.realloc(odd, layout(3, 1), 50);
            assert!(moved != odd && *moved.add(2) == 9 && *last.add(3) == 5);
            assert_eq!(all.realloc(moved, layout(50, 1), 1), moved);
            // Room that is used again is not zero by itself.
            all.dealloc(moved, layout(1, 1));
            let before = all.alloc(layout(64, 1));
            before.write_bytes(1, 64);
            all.dealloc(before, layout(64, 1));
            let zeroed = all.alloc_zeroed(layout(64, 1));
            assert!((0..64).all(|at| *zeroed.add(at) == 0));

            assert_eq!(release(), 5, "word, page, the byte, last and zeroed");
            assert!(!inside(all.alloc(layout(8, 8))), "it is closed");
            let out = all.realloc(word, layout(8, 8), 80);
            assert!(!inside(out) && *out.add(7) == 7);
            let start = REGION.start.load(Relaxed);
            for _ in 0..4 {
                REGION.free(REGION_BYTES, 0);
            }
            assert_eq!(release(), 0);
            assert!(!inside(start) && !inside(page), "it is gone");
            open().expect("another region");
            assert!(inside(all.alloc(layout(8, 8))));
        }
    }
}
