//! Recycled heads of one lane: parsing into one that was used before allocates nothing.

use crate::limits::POOLED_HEADS;
use corelane_wire::{RequestHead, ResponseHead};
use std::cell::RefCell;

/// The heads that nobody uses.
#[derive(Default)]
pub(crate) struct Heads {
    requests: RefCell<Vec<RequestHead>>,
    responses: RefCell<Vec<ResponseHead>>,
}

impl Heads {
    #[inline]
    pub(crate) fn request(&self) -> RequestHead {
        self.requests.borrow_mut().pop().unwrap_or_default()
    }

    #[inline]
    pub(crate) fn response(&self) -> ResponseHead {
        self.responses.borrow_mut().pop().unwrap_or_default()
    }

    #[inline]
    pub(crate) fn recycle_request(&self, mut head: RequestHead) {
        let mut pool = self.requests.borrow_mut();
        if pool.len() < POOLED_HEADS {
            head.clear();
            pool.push(head);
        }
    }

    #[inline]
    pub(crate) fn recycle_response(&self, mut head: ResponseHead) {
        let mut pool = self.responses.borrow_mut();
        if pool.len() < POOLED_HEADS {
            head.clear();
            pool.push(head);
        }
    }
}
