//! By rayon's threads in a browser, which are kept awake while there is work.
//!
//! rayon's threads give the processor to others some times before they sleep. In a browser that
//! does nothing, so they sleep after a microsecond, and waking one takes a tenth of a millisecond:
//! more than many a task. Here the thread that shares work out, and those that have helped it, look
//! for more until all of it is done.
//!
//! A system may wake a thread on the core of the one that wakes it, though another is idle. It looks
//! after that every few milliseconds, but only for threads that are awake: those that sleep between
//! tasks can stay on one core for good.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use rayon::Yield;

/// Work on so many rows is worth waking threads.
const WORTH_WAKING: usize = 32;

/// How often a thread looks for work in vain before it sleeps, while there is more to come: for some
/// ten milliseconds.
const ROUNDS: usize = 50_000;

/// The same when nobody knows of any: for less than half a millisecond.
const FEW_ROUNDS: usize = 1_500;

/// Whether there is more to come.
static WORKING: AtomicBool = AtomicBool::new(false);

/// Whether threads were woken of which none has gone to sleep again.
static AWAKE: AtomicBool = AtomicBool::new(false);

thread_local! {
    static STAYS: Cell<bool> = const { Cell::new(false) };
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Does work on so many rows, with all threads if they are many, which stay awake until it is done.
pub fn share<T>(rows: usize, work: impl FnOnce() -> T) -> T {
    if rows < WORTH_WAKING {
        let before = ALONE.replace(true);
        let done = work();
        ALONE.set(before);
        return done;
    }
    WORKING.store(true, Ordering::Relaxed);
    wake();
    let done = work();
    WORKING.store(false, Ordering::Relaxed);
    done
}

/// Gives each item, with its number, to a task.
pub fn for_each<T: Send>(items: Vec<T>, task: impl Fn(usize, T) + Sync + Send) {
    if items.len() < 2 || threads() < 2 {
        return items.into_iter().enumerate().for_each(|(i, item)| task(i, item));
    }
    wake();
    let left = AtomicUsize::new(items.len());
    let (left, task) = (&left, &task);
    rayon::in_place_scope(|scope| {
        for (i, item) in items.into_iter().enumerate() {
            scope.spawn(move |_| {
                task(i, item);
                left.fetch_sub(1, Ordering::Release);
            });
        }
        // At its end the scope would wait asleep.
        while left.load(Ordering::Acquire) > 0 {
            look_for_work();
        }
    });
}

/// How many threads there are for what the caller has to do.
pub fn threads() -> usize {
    if ALONE.get() { 1 } else { rayon::current_num_threads() }
}

/// Wakes all threads.
fn wake() {
    if threads() > 1 && !AWAKE.swap(true, Ordering::Relaxed) {
        rayon::spawn_broadcast(|context| {
            // The first thread is the one that shares work out.
            if context.index() > 0 && !STAYS.replace(true) {
                stay();
                STAYS.set(false);
            }
        });
    }
}

/// Works until there has been nothing to do for a while.
fn stay() {
    let mut idle = 0;
    while idle < if WORKING.load(Ordering::Relaxed) { ROUNDS } else { FEW_ROUNDS } {
        idle = if look_for_work() { 0 } else { idle + 1 };
    }
    AWAKE.store(false, Ordering::Relaxed);
}

/// Does one task, if there is one.
fn look_for_work() -> bool {
    let found = rayon::yield_now() == Some(Yield::Executed);
    if !found {
        // There is no instruction for waiting; this one leaves a processor's other half alone.
        fence(Ordering::SeqCst);
    }
    found
}
