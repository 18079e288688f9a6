//! The lane itself: mailbox, wakers, timers, tasks, and its end while others hold parts of it.

use crate::{
    lab::{Driver, Lab},
    tools::{Chance, channel, join, local_v4, millis, pair, poll_once, read_to_any_end, until},
};
use corelane_io::{Bind, Chunk, Io, Mailbox, Stream};
use std::{
    cell::{Cell, RefCell},
    future::{pending, poll_fn},
    io,
    io::ErrorKind,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::SeqCst},
    },
    task::{Poll, Waker},
    time::{Duration, Instant},
};

pub async fn a_letter_wakes_a_sleeping_lane(lab: Lab) {
    let other = lab.lane(lab.driver).await;
    let (tell, mut told) = channel();
    for round in 0..5 {
        let (mailbox, tell) = (lab.io.mailbox(), tell.clone());
        other.spawn(move |io| async move {
            io.sleep(millis(20)).await;
            mailbox.post(move |io| tell.send((round, io.now())));
        });
        let start = lab.io.now();
        // Nothing else is set for a minute.
        let got = lab.io.timeout(millis(60_000), async { Ok(told.next().await) }).await;
        let (which, at) = got.expect("the letter comes");
        assert_eq!(which, round);
        assert!((millis(19)..millis(10_000)).contains(&(at - start)), "{:?}", at - start);
    }
    other.end(&lab.io).await;
}

pub async fn letters_keep_their_order(lab: Lab) {
    struct Book(RefCell<Vec<u32>>);
    let book = Rc::new(Book(RefCell::default()));
    lab.io.set_local(book.clone());
    assert!(lab.io.local::<u8>().is_none(), "a value of another type");
    let letters = lab.scaled(20_000, 2000) as u32;
    let other = lab.lane(lab.driver).await;
    let mailbox = lab.io.mailbox();
    other.spawn(move |io| async move {
        for i in 0..letters {
            mailbox.post(move |io| io.local::<Book>().expect("set before").0.borrow_mut().push(i));
            if i % 500 == 0 {
                io.sleep(millis(1)).await;
            }
        }
    });
    until(&lab.io, "all letters are read", || book.0.borrow().len() == letters as usize).await;
    assert!(book.0.borrow().iter().copied().eq(0..letters));
    lab.io.set_local(Rc::new(()));
    other.end(&lab.io).await;
}

pub async fn no_wake_is_lost(lab: Lab) {
    // Two letters close together, so that the second sometimes comes while the lane looks into its mailbox; then a third,
    // which must wake the lane once more. Nothing else would for two minutes.
    let (rounds, read) = (lab.scaled(5_000, 300) as u64, Arc::new(AtomicU64::new(0)));
    let (mailbox, (finish, mut finished)) = (lab.io.mailbox(), channel());
    let post = move |mailbox: &Mailbox, read: &Arc<AtomicU64>| {
        let read = read.clone();
        mailbox.post(move |_| {
            read.fetch_add(1, SeqCst);
        });
    };
    if lab.driver == Driver::Sim {
        let other = lab.lane(lab.driver).await;
        other.spawn(move |io| async move {
            for round in 0..rounds {
                post(&mailbox, &read);
                io.sleep(Duration::from_nanos(io.random() % 1000)).await;
                post(&mailbox, &read);
                until(&io, "both are read", || read.load(SeqCst) == 3 * round + 2).await;
                post(&mailbox, &read);
                until(&io, "the third is read", || read.load(SeqCst) == 3 * round + 3).await;
            }
            finish.send(None);
        });
        assert_eq!(finished.next().await, None);
        other.end(&lab.io).await;
        return;
    }
    let thread = std::thread::spawn(move || {
        let mut chance = Chance(7);
        let is_read = |n: u64| {
            let start = Instant::now();
            while read.load(SeqCst) < n && start.elapsed() < millis(10_000) {
                std::thread::yield_now();
            }
            read.load(SeqCst) >= n
        };
        let lost = (0..rounds).find(|round| {
            post(&mailbox, &read);
            let (start, pause) = (Instant::now(), Duration::from_nanos(chance.next() % 100_000));
            while start.elapsed() < pause {
                std::hint::spin_loop();
            }
            post(&mailbox, &read);
            let both = is_read(3 * round + 2);
            post(&mailbox, &read);
            !(both && is_read(3 * round + 3))
        });
        finish.send(lost);
    });
    let verdict = lab.io.timeout(millis(100_000), async { Ok(finished.next().await) }).await;
    thread.join().expect("no panic");
    assert_eq!(verdict.expect("even the verdict woke nobody"), None, "the round whose letter woke nobody");
}

pub async fn a_closed_mailbox_drops_its_letters(lab: Lab) {
    let mortal = lab.mortal();
    let mailbox = mortal.io.mailbox();
    let token = Arc::new(());
    let (before, ran) = (token.clone(), Arc::new(AtomicBool::new(false)));
    let runs = ran.clone();
    // Posted and never read: the lane does not run again.
    mailbox.post(move |_| {
        let _ = &before;
        runs.store(true, SeqCst);
    });
    assert!(!mailbox.is_closed());
    assert_eq!(Arc::strong_count(&token), 2);
    drop(mortal.end());
    assert!(mailbox.is_closed());
    assert_eq!(Arc::strong_count(&token), 1, "a letter outlives its lane");
    let after = token.clone();
    mailbox.post(move |_| drop(after));
    assert_eq!(Arc::strong_count(&token), 1, "a letter to nobody is kept");
    assert!(!ran.load(SeqCst));
}

pub async fn a_waker_works_from_any_thread(lab: Lab) {
    let (wakers, flag) = (channel::<Waker>(), Arc::new(AtomicU32::new(0)));
    let (give, mut take) = wakers;
    let set = flag.clone();
    let other = if lab.driver == Driver::Sim {
        // A simulated world knows no threads; another lane of it will do.
        let other = lab.lane(lab.driver).await;
        other.spawn(move |io| async move {
            for _ in 0..10 {
                let waker = take.next().await;
                io.sleep(millis(1)).await;
                set.fetch_add(1, SeqCst);
                waker.wake();
            }
        });
        Err(other)
    } else {
        Ok(std::thread::spawn(move || {
            for _ in 0..10 {
                let waker = loop {
                    match take.try_next() {
                        Some(waker) => break waker,
                        None => std::thread::yield_now(),
                    }
                };
                set.fetch_add(1, SeqCst);
                // By reference and by value, a clone and the thing itself.
                waker.clone().wake_by_ref();
                waker.wake();
            }
        }))
    };
    for round in 1..=10 {
        let mut given = false;
        let woken = poll_fn(|cx| {
            if flag.load(SeqCst) == round {
                return Poll::Ready(Ok(()));
            }
            if !std::mem::replace(&mut given, true) {
                give.send(cx.waker().clone());
            }
            Poll::Pending
        });
        lab.io.timeout(millis(20_000), woken).await.expect("the wake comes");
    }
    match other {
        Ok(thread) => thread.join().expect("no panic"),
        Err(lane) => lane.end(&lab.io).await,
    }
}

pub async fn sleeps_are_never_early_and_soon_over(lab: Lab) {
    for d in [0, 1, 2, 5, 17, 70, 130] {
        let mut soonest = millis(10_000);
        // The machine may be busy; the lane is not, so its best try counts.
        for _ in 0..5 {
            let start = lab.io.now();
            lab.io.sleep(millis(d)).await;
            let took = lab.io.now() - start;
            assert!(took >= millis(d), "{took:?} is less than {d} ms");
            soonest = soonest.min(took - millis(d));
        }
        let limit = if lab.driver == Driver::Sim { millis(2) + millis(1) / 5 } else { millis(8) };
        assert!(soonest <= limit, "a sleep of {d} ms is {soonest:?} late at best");
    }
}

pub async fn sleeps_end_in_their_order(lab: Lab) {
    let order = Rc::new(RefCell::new(Vec::new()));
    for d in [90, 10, 70, 30, 50] {
        let (io, order) = (lab.io.clone(), order.clone());
        lab.io.spawn(async move {
            io.sleep(millis(d)).await;
            order.borrow_mut().push(d);
        });
    }
    until(&lab.io, "all have slept", || order.borrow().len() == 5).await;
    assert_eq!(*order.borrow(), [10, 30, 50, 70, 90]);
}

pub async fn a_dropped_sleep_costs_nothing(lab: Lab) {
    let timers = lab.io.usage().timers;
    {
        let n = lab.scaled(1000, 1000);
        let mut sleeps: Vec<_> = (0..n).map(|i| Box::pin(lab.io.sleep(millis(50 + i as u64)))).collect();
        for sleep in &mut sleeps {
            assert!(poll_once(sleep.as_mut()).await.is_pending());
        }
        assert_eq!(lab.io.usage().timers, timers + n);
    }
    assert_eq!(lab.io.usage().timers, timers);
    lab.io.sleep(millis(60)).await;
}

pub async fn a_timeout_drops_what_is_late(lab: Lab) {
    struct Told(Rc<Cell<bool>>);
    impl Drop for Told {
        fn drop(&mut self) {
            self.0.set(true);
        }
    }
    let dropped = Rc::new(Cell::new(false));
    let told = Told(dropped.clone());
    let late = lab.io.timeout(millis(10), async move {
        let _told = told;
        pending::<io::Result<()>>().await
    });
    assert_eq!(late.await.expect_err("late").kind(), ErrorKind::TimedOut);
    assert!(dropped.get());
    assert_eq!(lab.io.timeout(millis(0), async { Ok(7) }).await.expect("ready first"), 7);
    let failed = lab.io.timeout(millis(10), async { Err::<(), _>(ErrorKind::NotFound.into()) }).await;
    assert_eq!(failed.expect_err("its own error").kind(), ErrorKind::NotFound);
}

pub async fn tasks_may_be_spawned_by_a_drop(lab: Lab) {
    struct Spawns(Io, Rc<Cell<u32>>);
    impl Drop for Spawns {
        fn drop(&mut self) {
            let (io, count) = (self.0.clone(), self.1.clone());
            self.1.set(self.1.get() + 1);
            if self.1.get() < 5 {
                self.0.spawn(async move {
                    let _next = Spawns(io.clone(), count);
                    io.sleep(millis(1)).await;
                });
            }
        }
    }
    let count = Rc::new(Cell::new(0));
    let first = Spawns(lab.io.clone(), count.clone());
    lab.io.spawn(async move {
        let _first = first;
    });
    until(&lab.io, "each has spawned the next", || count.get() == 5).await;
    // At the lane's end as well.
    let mortal = lab.mortal();
    let count = Rc::new(Cell::new(0));
    let first = Spawns(mortal.io.clone(), count.clone());
    mortal.io.spawn(async move {
        let _first = first;
        pending::<()>().await;
    });
    let io = mortal.io.clone();
    mortal.run(async move { io.sleep(millis(1)).await });
    assert_eq!(count.get(), 0);
    let io = mortal.end();
    assert!(count.get() >= 1, "the task was dropped with its lane");
    assert_eq!(io.usage().tasks, 0);
}

pub async fn a_lane_ends_while_others_hold_its_streams(lab: Lab) {
    let mortal = lab.mortal();
    let io = mortal.io.clone();
    let before = io.usage();
    // A stream in every state: idle, with unread bytes, with a parked send, watched, finished.
    let streams: Vec<(Stream, Stream)> = mortal.run(async move {
        let mut streams = Vec::new();
        for i in 0..5 {
            let (mut a, mut b) = pair(&io).await;
            match i {
                1 => b.send.push(Chunk::Static(b"unread")),
                2 => (0..200).for_each(|_| a.send.push(Chunk::Static(crate::tools::pattern(0, 65_000)))),
                3 => assert!(poll_once(crate::tools::gone(&mut a.recv)).await.is_pending()),
                4 => a.send.finish().await.expect("finishes"),
                _ => {}
            }
            assert!(i == 1 || poll_once(a.recv.recv()).await.is_pending());
            streams.push((a, b));
        }
        io.sleep(millis(10)).await;
        streams
    });
    // A peer outside sees a reset, never FIN.
    let mut outside = None;
    let mut inside = None;
    if lab.driver != Driver::Sim {
        let mut listener = lab.io.listen(&Bind::tcp(local_v4())).expect("listens");
        let at = listener.local().expect("has an address");
        let io = mortal.io.clone();
        inside = Some(mortal.run(async move { io.connect(&at).await.expect("connects") }));
        outside = Some(listener.accept().await.expect("accepts").0);
    }
    let io = mortal.end();
    assert_eq!(io.usage().sockets, before.sockets, "sockets of a lane that has ended");
    if let Some(mut outside) = outside {
        let (got, end) = read_to_any_end(&mut outside.recv).await;
        assert!(got.is_empty() && end.is_some());
    }
    for mut stream in streams.into_iter().flat_map(<[Stream; 2]>::from).chain(inside) {
        stream.send.push(Chunk::Static(b"too late"));
        assert_eq!(stream.send.queued(), 0);
        assert!(stream.send.below(0).await.is_err());
        assert!(stream.recv.recv().await.is_err());
    }
    // What is asked of it now fails, and does not wait for ever.
    assert!(io.listen(&Bind::tcp(local_v4())).is_err());
    assert!(io.udp(&Bind::tcp(local_v4())).is_err());
    let nobody = corelane_io::Peer::Tcp(local_v4());
    assert!(matches!(poll_once(io.connect(&nobody)).await, Poll::Ready(Err(_))));
    let token = Rc::new(());
    let held = token.clone();
    io.spawn(async move { drop(held) });
    assert_eq!(Rc::strong_count(&token), 1, "a task that can never run is kept");
}

pub async fn buffers_outlive_their_lane(lab: Lab) {
    let mortal = lab.mortal();
    let io = mortal.io.clone();
    let (kept, shared, frozen) = mortal.run(async move {
        let (mut client, mut server) = pair(&io).await;
        server.send.push(Chunk::Static(b"abcdefghi"));
        let mut buf = client.recv.recv().await.expect("bytes").expect("no FIN");
        while buf.len() < 9 {
            // Cut anywhere: put together again.
            let more = client.recv.recv().await.expect("bytes").expect("no FIN");
            buf = corelane_io::Buf::copy_of(&[buf.bytes(), more.bytes()].concat());
        }
        let (head, middle) = (buf.split_to(3), buf.split_to(3));
        (head, middle.share(), buf.freeze())
    });
    drop(mortal.end());
    assert_eq!((kept.bytes(), shared.bytes(), &frozen[..]), (&b"abc"[..], &b"def"[..], &b"ghi"[..]));
    drop(shared.clone());
    assert_eq!(kept.freeze(), &b"abc"[..]);
}

pub async fn yielding_lets_others_run(lab: Lab) {
    let counts = Rc::new([Cell::new(0_u32), Cell::new(0)]);
    for i in 0..2 {
        let (io, counts) = (lab.io.clone(), counts.clone());
        lab.io.spawn(async move {
            for _ in 0..1000 {
                counts[i].set(counts[i].get() + 1);
                io.yield_now().await;
                let (mine, others) = (counts[i].get(), counts[1 - i].get());
                assert!(mine.abs_diff(others) <= 2 || mine.max(others) == 1000, "{mine} and {others}");
            }
        });
    }
    let (_, ()) = join(lab.io.yield_now(), async {}).await;
    until(&lab.io, "both are done", || counts.iter().all(|count| count.get() == 1000)).await;
}

pub async fn a_task_that_never_waits_leaves_the_kernel_its_turn(lab: Lab) {
    // A task that wakes itself for ever must not keep sockets from being served.
    let (mut client, mut server) = pair(&lab.io).await;
    let stop = Rc::new(Cell::new(false));
    let (io, stopped) = (lab.io.clone(), stop.clone());
    lab.io.spawn(async move {
        while !stopped.get() {
            io.yield_now().await;
        }
    });
    server.send.push(Chunk::Static(b"through"));
    let got = crate::tools::read_exactly(&mut client.recv, 7).await;
    stop.set(true);
    assert_eq!(got.expect("bytes"), b"through");
}
