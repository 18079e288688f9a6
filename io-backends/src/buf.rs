//! Received bytes and what can be sent: blocks with an intrusive count, and unique or shared ranges of them.
//!
//! Owns the memory that a driver fills. Never talks to a kernel: drivers ask [`Home`] for blocks, hand out [`Buf`]s and
//! collect the blocks that came back at the end of a turn.

use bytes::Bytes;
use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    cell::{Cell, RefCell},
    fmt,
    mem::ManuallyDrop,
    ptr::NonNull,
    rc::Rc,
};

/// Header of a block; its `capacity` data bytes follow in the same allocation.
///
/// A raw pointer with a count and not `Rc<[u8]>`, because the kernel writes the tail of an incremental block while the
/// lane reads its head: no reference may ever cover the whole data range.
pub(crate) struct Block {
    /// Everybody who keeps the block from being reused: each `Buf` and `Shared`, and the driver while the block is posted.
    refs: Cell<u32>,
    /// `0 <= filled <= capacity`: how far the driver has handed out ranges.
    filled: Cell<u32>,
    capacity: u32,
    /// Number in the provided-buffer ring; meaningless for heap blocks.
    id: u16,
    place: Place,
}

/// Where a block goes on its last drop.
enum Place {
    /// Back to the lane's free list, for the driver to post again.
    Ring(Rc<Home>),
    /// To the allocator; the lane counts what is alive.
    Heap(Rc<Home>),
    /// To the allocator, uncounted (made by [`Buf::copy_of`], or frozen).
    Loose,
}

/// The memory account of one lane: ring blocks that came back, and how much heap stands in for ring memory.
#[derive(Default)]
pub(crate) struct Home {
    free: RefCell<Vec<NonNull<Block>>>,
    /// Set when the lane ends: blocks that come back later go to the allocator.
    closed: Cell<bool>,
    /// Ring blocks that left for good by `freeze` and were replaced.
    retired: Cell<u32>,
    heap_bytes: Cell<usize>,
    heap_peak: Cell<usize>,
}

/// How many ring blocks of one lane may be replaced after `freeze` took them away. Past it `freeze` copies: 64 blocks of
/// 32 KiB bound what a lane can lose to slow readers on other threads at 2 MiB.
const RETIRED_MAX: u32 = 64;

impl Home {
    /// A new ring block with one reference, the caller's.
    pub(crate) fn ring_block(self: &Rc<Home>, capacity: u32, id: u16) -> NonNull<Block> {
        new_block(capacity, id, Place::Ring(self.clone()))
    }

    /// Takes one block that came back, if there is one. Its count is 0 and its range free.
    pub(crate) fn take_free(&self) -> Option<NonNull<Block>> {
        self.free.borrow_mut().pop()
    }

    /// Whether any block waits to be posted again.
    pub(crate) fn has_free(&self) -> bool {
        !self.free.borrow().is_empty()
    }

    /// Ring blocks on the free list now.
    pub(crate) fn free_count(&self) -> usize {
        self.free.borrow().len()
    }

    /// Heap bytes alive that stand in for ring memory, and the most there ever were.
    pub(crate) fn heap(&self) -> (usize, usize) {
        (self.heap_bytes.get(), self.heap_peak.get())
    }

    /// Copies `data` to a counted heap block.
    fn copy(self: &Rc<Home>, data: &[u8]) -> Buf {
        let bytes = self.heap_bytes.get() + data.len();
        self.heap_bytes.set(bytes);
        self.heap_peak.set(self.heap_peak.get().max(bytes));
        copy_into(data, Place::Heap(self.clone()))
    }

    /// The lane has ended: frees what came back and lets the rest go to the allocator on its last drop.
    pub(crate) fn close(&self) {
        self.closed.set(true);
        // Outside the borrow: freeing a block drops its `Rc<Home>`.
        let free = std::mem::take(&mut *self.free.borrow_mut());
        for block in free {
            free_block(block);
        }
    }
}

fn layout(capacity: u32) -> Layout {
    let (whole, _) = Layout::new::<Block>()
        .extend(Layout::array::<u8>(capacity as usize).expect("a u32 of bytes fits isize on 64 bits"))
        .expect("header and a u32 of bytes fit isize on 64 bits");
    whole
}

fn new_block(capacity: u32, id: u16, place: Place) -> NonNull<Block> {
    let layout = layout(capacity);
    // SAFETY: the layout is never of size zero, it holds at least the header.
    let Some(block) = NonNull::new(unsafe { alloc(layout) }.cast::<Block>()) else {
        handle_alloc_error(layout)
    };
    let header = Block { refs: Cell::new(1), filled: Cell::new(0), capacity, id, place };
    // SAFETY: freshly allocated with the alignment and at least the size of `Block`.
    unsafe { block.as_ptr().write(header) };
    block
}

fn copy_into(data: &[u8], place: Place) -> Buf {
    let len = u32::try_from(data.len()).expect("a buffer holds less than 4 GiB");
    let block = new_block(len, 0, place);
    // SAFETY: the block has `len` data bytes, fresh, so the ranges cannot overlap.
    unsafe { data_of(block).copy_from_nonoverlapping(data.as_ptr(), data.len()) };
    Buf { block, offset: 0, len }
}

/// First data byte of a block.
fn data_of(block: NonNull<Block>) -> *mut u8 {
    // SAFETY: the data follows the header in the same allocation, and `u8` needs no padding between them.
    unsafe { block.as_ptr().add(1).cast::<u8>() }
}

fn header(block: &NonNull<Block>) -> &Block {
    // SAFETY: a block lives as long as anybody counts on it, and headers are only ever shared, never `&mut`.
    unsafe { block.as_ref() }
}

fn free_block(block: NonNull<Block>) {
    let layout = layout(header(&block).capacity);
    // SAFETY: the caller is the last holder, so nothing points at the header or the data any more.
    unsafe {
        block.as_ptr().drop_in_place();
        dealloc(block.as_ptr().cast(), layout);
    }
}

fn retain(block: NonNull<Block>) {
    let refs = &header(&block).refs;
    refs.set(refs.get() + 1);
}

/// Gives up one reference; the last one sends the block to its place.
pub(crate) fn release(block: NonNull<Block>) {
    let head = header(&block);
    let refs = head.refs.get();
    debug_assert!(refs > 0, "a block was released more often than it was held");
    head.refs.set(refs - 1);
    if refs > 1 {
        return;
    }
    match &head.place {
        Place::Ring(home) if !home.closed.get() => home.free.borrow_mut().push(block),
        Place::Heap(home) => {
            home.heap_bytes.set(home.heap_bytes.get() - head.capacity as usize);
            free_block(block);
        }
        Place::Ring(_) | Place::Loose => free_block(block),
    }
}

/// What a driver may do with a block; kept apart from [`Buf`] so that only drivers can.
pub(crate) mod fill {
    use super::*;

    /// Makes a free block ready to be filled from its start, held by the driver.
    pub(crate) fn reset(block: NonNull<Block>) {
        let head = header(&block);
        debug_assert!(head.refs.get() <= 1, "a block is reset while somebody still reads it");
        head.refs.set(1);
        head.filled.set(0);
    }

    /// Hands out the next `len` bytes, which the driver has just filled.
    pub(crate) fn take(block: NonNull<Block>, len: u32) -> Buf {
        let head = header(&block);
        let offset = head.filled.get();
        assert!(len <= head.capacity - offset, "a driver filled past the end of a block");
        head.filled.set(offset + len);
        retain(block);
        Buf { block, offset, len }
    }

    /// Where the next byte goes, and how many fit.
    pub(crate) fn room(block: NonNull<Block>) -> (*mut u8, u32) {
        let head = header(&block);
        // SAFETY: `filled <= capacity`, so the pointer stays inside the allocation or one past its end.
        let at = unsafe { data_of(block).add(head.filled.get() as usize) };
        (at, head.capacity - head.filled.get())
    }

    /// The block's number in its ring.
    pub(crate) fn id(block: NonNull<Block>) -> u16 {
        header(&block).id
    }

    /// Whether only the driver holds the block.
    pub(crate) fn sole(block: NonNull<Block>) -> bool {
        header(&block).refs.get() == 1
    }
}

/// Received bytes: a unique range of a block that the driver filled.
///
/// Nobody else reads or writes the range, so it can be changed in place (TLS decrypts so). Lane-local (`!Send`). Sixteen
/// bytes. The last drop of a block only puts it on a free list; the driver gives it back to the ring at the turn's end.
/// A `Buf` that is kept for long should be [detached](Buf::detach), or it pins a whole block.
pub struct Buf {
    block: NonNull<Block>,
    offset: u32,
    len: u32,
}

impl Buf {
    /// A buffer on the heap with a copy of `data` (less than 4 GiB).
    pub fn copy_of(data: &[u8]) -> Buf {
        copy_into(data, Place::Loose)
    }

    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: `offset + len <= filled <= capacity`; the driver initialised the range before it handed it out and
        // writes only behind `filled`; nobody writes this range but through `&mut self`.
        unsafe {
            std::slice::from_raw_parts(data_of(self.block).add(self.offset as usize), self.len as usize)
        }
    }

    /// The bytes, to be changed in place.
    #[inline]
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        // SAFETY: as `bytes`; ranges of different `Buf`s never overlap, so `&mut self` makes it exclusive.
        unsafe {
            std::slice::from_raw_parts_mut(data_of(self.block).add(self.offset as usize), self.len as usize)
        }
    }

    /// How many bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Splits off the first `n` bytes; `self` keeps the rest. Panics when `n > len`.
    pub fn split_to(&mut self, n: usize) -> Buf {
        assert!(n <= self.len(), "split_to({n}) of {} bytes", self.len);
        retain(self.block);
        let head = Buf { block: self.block, offset: self.offset, len: n as u32 };
        self.advance(n);
        head
    }

    /// Forgets the first `n` bytes. Panics when `n > len`.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len(), "advance({n}) of {} bytes", self.len);
        self.offset += n as u32;
        self.len -= n as u32;
    }

    /// Whether the bytes lie in ring memory, which must not wait for a peer or a consumer.
    pub(crate) fn in_ring(&self) -> bool {
        matches!(header(&self.block).place, Place::Ring(_))
    }

    /// Moves bytes in ring memory to the heap, so that keeping them costs their own size and nothing of the ring.
    pub fn detach(self) -> Buf {
        match &header(&self.block).place {
            Place::Ring(home) => home.copy(self.bytes()),
            Place::Heap(_) | Place::Loose => self,
        }
    }

    /// Makes the bytes cloneable and read-only, still lane-local: for retry buffers, mirrors, caches.
    pub fn share(self) -> Shared {
        let this = ManuallyDrop::new(self.detach());
        Shared { block: this.block, offset: this.offset, len: this.len }
    }

    /// Makes the bytes `Send`. The sole holder of a block gives it away whole (a ring gets a fresh block in its place, up
    /// to a bound); otherwise the bytes are copied.
    pub fn freeze(self) -> Bytes {
        let head = header(&self.block);
        if head.refs.get() != 1 {
            return Bytes::copy_from_slice(self.bytes());
        }
        if let Place::Ring(home) = &head.place {
            if home.closed.get() || home.retired.get() >= RETIRED_MAX {
                return Bytes::copy_from_slice(self.bytes());
            }
            home.retired.set(home.retired.get() + 1);
            let fresh = home.ring_block(head.capacity, head.id);
            release(fresh);
        }
        let this = ManuallyDrop::new(self);
        // SAFETY: the count is 1, so this `Buf` is the only holder of the block and nothing borrows its header.
        let place = unsafe { std::mem::replace(&mut (*this.block.as_ptr()).place, Place::Loose) };
        if let Place::Heap(home) = &place {
            home.heap_bytes.set(home.heap_bytes.get() - head_capacity(this.block));
        }
        drop(place);
        Bytes::from_owner(Frozen(Buf { block: this.block, offset: this.offset, len: this.len }))
    }
}

fn head_capacity(block: NonNull<Block>) -> usize {
    header(&block).capacity as usize
}

impl Drop for Buf {
    #[inline]
    fn drop(&mut self) {
        release(self.block);
    }
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} bytes)", self.len)
    }
}

/// A `Buf` that owns its block alone, with no lane behind it.
struct Frozen(Buf);

// SAFETY: `freeze` made it the only holder of a `Place::Loose` block, so neither the count nor a `Home` is shared.
unsafe impl Send for Frozen {}
// SAFETY: as above; shared access only reads bytes that nobody writes.
unsafe impl Sync for Frozen {}

impl AsRef<[u8]> for Frozen {
    fn as_ref(&self) -> &[u8] {
        self.0.bytes()
    }
}

/// Received bytes that several holders of one lane read. Made by [`Buf::share`]; never pins ring memory.
pub struct Shared {
    block: NonNull<Block>,
    offset: u32,
    len: u32,
}

impl Shared {
    /// The bytes.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: as `Buf::bytes`; a shared range is never written.
        unsafe {
            std::slice::from_raw_parts(data_of(self.block).add(self.offset as usize), self.len as usize)
        }
    }

    /// How many bytes.
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Forgets the first `n` bytes of this view. Panics when `n > len`.
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len(), "advance({n}) of {} bytes", self.len);
        self.offset += n as u32;
        self.len -= n as u32;
    }
}

impl Clone for Shared {
    fn clone(&self) -> Shared {
        retain(self.block);
        Shared { block: self.block, offset: self.offset, len: self.len }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        release(self.block);
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Shared({} bytes)", self.len)
    }
}

/// What can be sent, or flow through a body, without a copy.
#[derive(Debug)]
pub enum Chunk {
    /// Received bytes.
    Buf(Buf),
    /// Received bytes that others read too.
    Shared(Shared),
    /// Bytes of any thread.
    Bytes(Bytes),
    /// Bytes made on the lane, for example a head; the allocation is recycled after the send.
    Vec(Vec<u8>),
    /// Constants.
    Static(&'static [u8]),
}

impl Chunk {
    /// The bytes.
    #[inline]
    pub fn bytes(&self) -> &[u8] {
        match self {
            Chunk::Buf(b) => b.bytes(),
            Chunk::Shared(s) => s.bytes(),
            Chunk::Bytes(b) => b,
            Chunk::Vec(v) => v,
            Chunk::Static(s) => s,
        }
    }

    /// How many bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Forgets the first `n` bytes. Panics when `n > len`. A `Vec` becomes a copy of its rest.
    pub fn advance(&mut self, n: usize) {
        match self {
            Chunk::Buf(b) => b.advance(n),
            Chunk::Shared(s) => s.advance(n),
            Chunk::Bytes(b) => bytes::Buf::advance(b, n),
            Chunk::Vec(v) => *self = Chunk::Buf(Buf::copy_of(&v[n..])),
            Chunk::Static(s) => *s = &s[n..],
        }
    }

    /// Moves ring memory to the heap; everything else stays.
    pub(crate) fn detach(&mut self) {
        if let Chunk::Buf(b) = self
            && b.in_ring()
        {
            *b = b.split_to(b.len()).detach();
        }
    }
}

impl From<Buf> for Chunk {
    fn from(buf: Buf) -> Chunk {
        Chunk::Buf(buf)
    }
}

impl From<Shared> for Chunk {
    fn from(shared: Shared) -> Chunk {
        Chunk::Shared(shared)
    }
}

impl From<Bytes> for Chunk {
    fn from(bytes: Bytes) -> Chunk {
        Chunk::Bytes(bytes)
    }
}

impl From<Vec<u8>> for Chunk {
    fn from(vec: Vec<u8>) -> Chunk {
        Chunk::Vec(vec)
    }
}

impl From<&'static [u8]> for Chunk {
    fn from(bytes: &'static [u8]) -> Chunk {
        Chunk::Static(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A ring block with `data` handed out as one buffer, the driver's reference given up.
    fn received(home: &Rc<Home>, data: &[u8]) -> Buf {
        let block = home.ring_block(64, 3);
        write(block, data);
        let buf = fill::take(block, data.len() as u32);
        release(block);
        buf
    }

    fn write(block: NonNull<Block>, data: &[u8]) {
        let (at, room) = fill::room(block);
        assert!(data.len() <= room as usize);
        // SAFETY: `room` bytes are free behind `at`.
        unsafe { at.copy_from_nonoverlapping(data.as_ptr(), data.len()) };
    }

    #[test]
    fn kernel_fills_tail_while_head_is_read() {
        let home = Rc::new(Home::default());
        let block = home.ring_block(16, 0);
        write(block, b"hello");
        let mut head = fill::take(block, 5);
        let seen = head.bytes_mut();
        write(block, b"world");
        seen[0] = b'H';
        assert_eq!(seen, b"Hello");
        assert_eq!(fill::take(block, 5).bytes(), b"world");
        drop(head);
        assert!(!home.has_free(), "the driver still holds it");
        release(block);
        assert_eq!(home.free_count(), 1);
        home.close();
    }

    #[test]
    fn split_ranges_are_disjoint_and_writable() {
        let home = Rc::new(Home::default());
        let mut tail = received(&home, b"abcdef");
        let mut head = tail.split_to(2);
        let (h, t) = (head.bytes_mut(), tail.bytes_mut());
        h[1] = b'B';
        t[0] = b'C';
        assert_eq!((&*h, &*t), (&b"aB"[..], &b"Cdef"[..]));
        drop(head);
        assert!(!home.has_free());
        drop(tail);
        assert!(home.has_free());
        home.close();
    }

    #[test]
    fn detach_frees_ring_memory_and_counts_heap() {
        let home = Rc::new(Home::default());
        let kept = received(&home, b"kept").detach();
        assert!(home.has_free());
        assert_eq!(home.heap(), (4, 4));
        let shared = kept.share();
        let twin = shared.clone();
        drop(shared);
        assert_eq!(twin.bytes(), b"kept");
        drop(twin);
        assert_eq!(home.heap(), (0, 4));
        home.close();
    }

    #[test]
    fn freeze_retires_a_sole_block_and_copies_a_shared_one() {
        let home = Rc::new(Home::default());
        let frozen = received(&home, b"moved").freeze();
        assert_eq!(home.free_count(), 1, "a fresh block took its place");
        let mut tail = received(&home, b"copied");
        let head = tail.split_to(3).freeze();
        let seen = std::thread::spawn(move || [frozen, head].concat()).join().expect("no panic");
        assert_eq!(seen, b"movedcop");
        drop(tail);
        home.close();
    }

    #[test]
    fn blocks_outlive_their_lane() {
        let home = Rc::new(Home::default());
        let buf = received(&home, b"late");
        home.close();
        drop(home);
        assert_eq!(buf.bytes(), b"late");
    }
}
