//! Tasks of one lane and their wakers.
//!
//! A waker is one packed word (slot, generation, lane): clone and drop are free, a stale wake misses its generation, and a
//! wake on another thread becomes a letter to the lane.

use crate::{
    mailbox::{self, Letter},
    reactor::Core,
    slots::{Key, Slots},
};
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    future::Future,
    pin::Pin,
    ptr,
    rc::Rc,
    task::{Context, RawWaker, RawWakerVTable, Waker},
};

#[cfg(not(target_pointer_width = "64"))]
compile_error!("a waker packs slot, generation and lane into one 64-bit word");

/// How many task polls a turn may take before the lane looks at its kernel again. A turn of cheap polls stays well under
/// a millisecond, and a task that wakes itself for ever cannot starve the sockets.
const POLLS_PER_TURN: usize = 4096;

struct Task {
    /// Taken out while it is polled.
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    queued: bool,
}

/// The tasks of one lane and which of them want to run.
#[derive(Default)]
pub(crate) struct Tasks {
    slots: RefCell<Slots<Task>>,
    ready: RefCell<VecDeque<Key>>,
    main_woken: Cell<bool>,
}

/// Names the future given to [`Reactor::run`](crate::Reactor::run), which lives on the stack and not in a slot.
pub(crate) const MAIN: Key = Key { index: u32::MAX, generation: 0 };

impl Tasks {
    pub(crate) fn spawn(&self, future: Pin<Box<dyn Future<Output = ()>>>) {
        let key = self.slots.borrow_mut().insert_with(|_| Task { future: Some(future), queued: true });
        self.ready.borrow_mut().push_back(key);
    }

    pub(crate) fn wake(&self, key: Key) {
        if key == MAIN {
            self.main_woken.set(true);
            return;
        }
        if let Some(task) = self.slots.borrow_mut().at_mut(key)
            && !task.queued
        {
            task.queued = true;
            self.ready.borrow_mut().push_back(key);
        }
    }

    /// Whether the main future was woken since the last call.
    pub(crate) fn take_main_woken(&self) -> bool {
        self.main_woken.replace(false)
    }

    pub(crate) fn idle(&self) -> bool {
        self.ready.borrow().is_empty() && !self.main_woken.get()
    }

    pub(crate) fn live(&self) -> usize {
        self.slots.borrow().live()
    }

    /// Polls what is ready, each at most as often as it was woken; `before` runs ahead of each poll. Says how many ran.
    pub(crate) fn run(&self, lane: u8, before: impl Fn()) -> usize {
        let mut polls = 0;
        while polls < POLLS_PER_TURN {
            let Some(key) = self.ready.borrow_mut().pop_front() else { break };
            let Some(mut future) = self.slots.borrow_mut().at_mut(key).and_then(|task| {
                task.queued = false;
                task.future.take()
            }) else {
                continue;
            };
            before();
            polls += 1;
            let done = future.as_mut().poll(&mut Context::from_waker(&waker(lane, key))).is_ready();
            if done {
                // The future goes first and outside of every borrow: its drop may spawn, wake and close.
                drop(future);
                self.slots.borrow_mut().remove(key);
            } else if let Some(task) = self.slots.borrow_mut().at_mut(key) {
                task.future = Some(future);
            }
        }
        polls
    }

    /// Drops every task. Tasks that are spawned by the drops are dropped too.
    pub(crate) fn clear(&self) {
        loop {
            let slots = std::mem::take(&mut *self.slots.borrow_mut());
            if slots.live() == 0 {
                break;
            }
            drop(slots);
        }
        self.ready.borrow_mut().clear();
    }
}

thread_local! {
    /// The lane that runs on this thread now; null outside of one.
    static CURRENT: Cell<*const Core> = const { Cell::new(ptr::null()) };
}

/// While it lives, this thread runs the lane.
pub(crate) struct Entered {
    before: *const Core,
    /// Keeps what `CURRENT` points at alive.
    _core: Rc<Core>,
}

pub(crate) fn enter(core: &Rc<Core>) -> Entered {
    Entered { before: CURRENT.replace(Rc::as_ptr(core)), _core: core.clone() }
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.set(self.before);
    }
}

/// The waker of a task of lane `lane`.
pub(crate) fn waker(lane: u8, key: Key) -> Waker {
    // SAFETY: the vtable's functions take the word by value, from any thread, and own nothing.
    unsafe { Waker::from_raw(raw(key.pack(lane))) }
}

fn raw(word: u64) -> RawWaker {
    RawWaker::new(ptr::without_provenance(word as usize), &VTABLE)
}

static VTABLE: RawWakerVTable =
    RawWakerVTable::new(|word| raw(word.addr() as u64), wake_word, wake_word, |_| {});

fn wake_word(word: *const ()) {
    let word = word.addr() as u64;
    let (lane, key) = Key::unpack(word);
    let current = CURRENT.get();
    if !current.is_null() {
        // SAFETY: `CURRENT` is only non-null while an `Entered` on this thread keeps the core alive.
        let core = unsafe { &*current };
        if core.lane == lane {
            core.tasks.wake(if key.index == MAIN.index { MAIN } else { key });
            return;
        }
    }
    if let Some(mailbox) = mailbox::lane(lane) {
        mailbox.send(Letter::Wake(word));
    }
}

/// Stores the task's waker if it is not the one there already.
#[inline]
pub(crate) fn remember(slot: &mut Option<Waker>, cx: &Context<'_>) {
    match slot {
        Some(waker) if waker.will_wake(cx.waker()) => {}
        _ => *slot = Some(cx.waker().clone()),
    }
}

/// Wakes and forgets.
#[inline]
pub(crate) fn notify(slot: &mut Option<Waker>) {
    if let Some(waker) = slot.take() {
        waker.wake();
    }
}
