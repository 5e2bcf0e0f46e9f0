//! Counts the heap: bytes in use and their peak.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

struct Counting;

static USED: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

#[global_allocator]
static ALLOCATOR: Counting = Counting;

// SAFETY: every call goes on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(used, Relaxed);
        unsafe { System.alloc(layout) }
    }
    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        let used = USED.fetch_add(layout.size(), Relaxed) + layout.size();
        PEAK.fetch_max(used, Relaxed);
        unsafe { System.alloc_zeroed(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        USED.fetch_sub(layout.size(), Relaxed);
        unsafe { System.dealloc(pointer, layout) }
    }
    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        let used = USED.fetch_add(size, Relaxed) + size - layout.size();
        USED.fetch_sub(layout.size(), Relaxed);
        PEAK.fetch_max(used, Relaxed);
        unsafe { System.realloc(pointer, layout, size) }
    }
}

/// What `build` makes, the bytes it keeps and the most it had at a time.
pub(crate) fn measure<T>(build: impl FnOnce() -> T) -> (T, usize, usize) {
    let before = USED.load(Relaxed);
    PEAK.store(before, Relaxed);
    let made = build();
    (
        made,
        USED.load(Relaxed) - before,
        PEAK.load(Relaxed) - before,
    )
}
