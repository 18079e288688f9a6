//! Boxes from a lane's pool: what lives for one exchange and is built a million times a second.
//!
//! Freed boxes are kept by layout, a bounded number each, and handed out again. The unsafe of placing a value into used
//! memory stays here, so that core needs none.

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    cell::RefCell,
    ops::{Deref, DerefMut},
    pin::Pin,
    ptr::NonNull,
    rc::Rc,
};

/// Boxes kept per layout: a burst of 256 exchanges that end together is served again without the allocator; at 2 KiB an
/// exchange that is 512 KiB a lane.
const KEPT_MAX: usize = 256;

/// Freed boxes of one lane. A handful of layouts, so a list beats a map.
#[derive(Default)]
pub(crate) struct BoxPool {
    kept: RefCell<Vec<(Layout, Vec<NonNull<u8>>)>>,
}

impl BoxPool {
    fn take(&self, layout: Layout) -> Option<NonNull<u8>> {
        let mut kept = self.kept.borrow_mut();
        kept.iter_mut().find(|(of, _)| *of == layout)?.1.pop()
    }

    /// Keeps the memory, or says that there is no room for it.
    fn keep(&self, layout: Layout, memory: NonNull<u8>) -> bool {
        let mut kept = self.kept.borrow_mut();
        let list = match kept.iter().position(|(of, _)| *of == layout) {
            Some(i) => &mut kept[i].1,
            None => {
                kept.push((layout, Vec::new()));
                &mut kept.last_mut().expect("pushed just now").1
            }
        };
        if list.len() < KEPT_MAX {
            list.push(memory);
            return true;
        }
        false
    }
}

impl Drop for BoxPool {
    fn drop(&mut self) {
        for (layout, list) in self.kept.get_mut().drain(..) {
            for memory in list {
                // SAFETY: it was allocated with this layout by `PoolBox::new` and nobody holds it.
                unsafe { dealloc(memory.as_ptr(), layout) };
            }
        }
    }
}

/// A value on the heap, in memory that goes back to its lane's pool on drop. Made by [`Io::boxed`](crate::Io::boxed).
pub struct PoolBox<T> {
    value: NonNull<T>,
    pool: Rc<BoxPool>,
}

impl<T> PoolBox<T> {
    pub(crate) fn new(pool: &Rc<BoxPool>, value: T) -> PoolBox<T> {
        let layout = Layout::new::<T>();
        let memory = if layout.size() == 0 {
            NonNull::<T>::dangling()
        } else {
            pool.take(layout).unwrap_or_else(|| allocate(layout)).cast()
        };
        // SAFETY: memory for one `T`, owned by us alone (or dangling and aligned for a type of size zero).
        unsafe { memory.as_ptr().write(value) };
        PoolBox { value: memory, pool: pool.clone() }
    }

    /// Pins the value: it never moves in its box. A pinned box of a future is a future.
    pub fn pin(self) -> Pin<PoolBox<T>> {
        // SAFETY: the box owns its memory, never moves the value out and drops it in place.
        unsafe { Pin::new_unchecked(self) }
    }
}

fn allocate(layout: Layout) -> NonNull<u8> {
    // SAFETY: the caller has checked that the size is not zero.
    NonNull::new(unsafe { alloc(layout) }).unwrap_or_else(|| handle_alloc_error(layout))
}

impl<T> Deref for PoolBox<T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: the box owns an initialised `T`.
        unsafe { self.value.as_ref() }
    }
}

impl<T> DerefMut for PoolBox<T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: the box owns an initialised `T`, and `&mut self` is exclusive.
        unsafe { self.value.as_mut() }
    }
}

impl<T> Drop for PoolBox<T> {
    fn drop(&mut self) {
        // SAFETY: the value is initialised and dropped once, here.
        unsafe { self.value.as_ptr().drop_in_place() };
        let layout = Layout::new::<T>();
        if layout.size() > 0 && !self.pool.keep(layout, self.value.cast()) {
            // SAFETY: allocated with this layout in `new`, and not kept.
            unsafe { dealloc(self.value.as_ptr().cast(), layout) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_reused_and_values_dropped() {
        let pool = Rc::new(BoxPool::default());
        let counted = Rc::new(());
        let first = PoolBox::new(&pool, [counted.clone(), counted.clone()]);
        let at = &raw const *first;
        drop(first);
        assert_eq!(Rc::strong_count(&counted), 1);
        let second = PoolBox::new(&pool, [counted.clone(), counted]);
        assert_eq!(at, &raw const *second, "the same memory again");
        let mut future = PoolBox::new(&pool, async { 7 }).pin();
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        assert_eq!(future.as_mut().poll(&mut cx), std::task::Poll::Ready(7));
        assert_eq!(*PoolBox::new(&pool, ()), ());
    }
}
