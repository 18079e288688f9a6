//! The lane's half of an access log: records are collected and leave in batches. Owns the bound on what is under way; nothing
//! here formats, waits or locks.

use super::{
    ChainLog,
    record::{Batch, Draft, Record},
};
use crate::{
    lane::Lane,
    limits::{ACCESS_LOG_BATCH, ACCESS_LOG_QUEUE},
    telemetry::{Cells, FileStat},
};
use corelane_io::Io;
use std::{
    cell::{Cell, RefCell},
    rc::{Rc, Weak},
    sync::Arc,
};

/// The access logs of one chain on one lane.
pub(crate) struct LaneLog {
    chain: Arc<ChainLog>,
    io: Io,
    stats: Cells<FileStat>,
    batch: RefCell<Batch>,
    /// A timer runs that will send the batch.
    armed: Cell<bool>,
    #[expect(clippy::vec_box, reason = "the boxes are what is recycled: an exchange holds one pointer")]
    drafts: RefCell<Vec<Box<Draft>>>,
    me: Weak<LaneLog>,
}

impl LaneLog {
    pub(crate) fn new(chain: &Arc<ChainLog>, lane: &Lane) -> Rc<LaneLog> {
        Rc::new_cyclic(|me| LaneLog {
            chain: chain.clone(),
            io: lane.io().clone(),
            stats: chain.stats.cells(lane.index()),
            batch: RefCell::default(),
            armed: Cell::new(false),
            drafts: RefCell::default(),
            me: me.clone(),
        })
    }

    pub(crate) fn chain(&self) -> &ChainLog {
        &self.chain
    }

    /// Memory for the texts of an exchange.
    pub(crate) fn draft(&self) -> Box<Draft> {
        self.drafts.borrow_mut().pop().unwrap_or_default()
    }

    /// Takes what is known of an exchange that goes on.
    pub(crate) fn tell(&self, record: Record, draft: &Draft) {
        let logs = self.chain.wanted_by(&record, || self.io.random());
        if logs != 0 {
            self.add(record, draft, logs);
        }
    }

    /// Takes an exchange that is over. Where the writer is too far behind it is dropped, and counted.
    pub(crate) fn push(&self, record: Record, mut draft: Box<Draft>) {
        self.tell(record, &draft);
        draft.clear();
        let mut drafts = self.drafts.borrow_mut();
        if drafts.len() < ACCESS_LOG_BATCH {
            drafts.push(draft);
        }
    }

    fn add(&self, record: Record, draft: &Draft, logs: u64) {
        let mut batch = self.batch.borrow_mut();
        if self.chain.under_way() + batch.len() >= ACCESS_LOG_QUEUE {
            self.stats.inc(FileStat::WriteDropped);
            return;
        }
        batch.push(record, draft, logs);
        let full = batch.len() >= ACCESS_LOG_BATCH;
        drop(batch);
        if full {
            self.send();
        } else if !self.armed.replace(true) {
            let (me, io, delay) = (self.me.clone(), self.io.clone(), self.chain.delay);
            self.io.spawn(async move {
                io.sleep(delay).await;
                if let Some(log) = me.upgrade() {
                    log.armed.set(false);
                    log.send();
                }
            });
        }
    }

    fn send(&self) {
        let batch = self.batch.take();
        if batch.len() > 0 {
            ChainLog::write_later(&self.chain, batch);
        }
    }
}

impl Drop for LaneLog {
    fn drop(&mut self) {
        self.send();
    }
}
