//! By rayon's threads in a browser, which are kept awake while there is work.
//!
//! rayon's threads give the processor to others some times before they sleep. In a browser that
//! does nothing, so they sleep after a microsecond, and waking one takes a tenth of a millisecond:
//! more than many a task. Here the thread that shares work out, and those that help it, look for
//! more until all of it is done; then these sleep by a [`Bell`], never by rayon.
//!
//! A system may wake a thread on the core of the one that wakes it, though another is idle, and part
//! them only some milliseconds later, which is as long as a text takes. So the page rings the bell
//! as soon as it has sent the text: the engine's first thread is not there yet, and who wakes stays
//! awake for it, some ten milliseconds at most. They then begin on different cores more often.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use rayon::Yield;

use bell::Bell;

#[path = "bell.rs"]
mod bell;

/// Work on so many rows is worth waking threads.
const WORTH_WAKING: usize = 32;

/// How often a thread looks for work in vain before it sleeps, while there is more to come: for some
/// ten milliseconds.
const ROUNDS: usize = 50_000;

/// The same when nobody knows of any: for less than half a millisecond.
const FEW_ROUNDS: usize = 1_500;

/// Whether there is more to come.
static WORKING: AtomicBool = AtomicBool::new(false);

/// Whether all threads have been asked to stay.
static ASKED: AtomicBool = AtomicBool::new(false);

/// Wakes those who stay.
pub static BELL: Bell = Bell::new();

thread_local! {
    /// This thread is in [`stay`].
    static STAYS: Cell<bool> = const { Cell::new(false) };
    /// It waits, in [`for_each`], for what it has shared out.
    static WAITS: Cell<bool> = const { Cell::new(false) };
    /// It shares nothing out, as its work is too short.
    static ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Does work on so many rows, with all threads if they are many, which stay awake until it is done.
pub fn share<T>(rows: usize, work: impl FnOnce() -> T) -> T {
    if rows < WORTH_WAKING {
        // Whatever the page rang for next, if it waits already, is woken for when it comes.
        BELL.answer();
        let before = ALONE.replace(true);
        let done = work();
        ALONE.set(before);
        return done;
    }
    // In this order: who sees the page's ring answered must see that there is work.
    WORKING.store(true, Ordering::Relaxed);
    BELL.answer();
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
    let before = WAITS.replace(true);
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
    WAITS.set(before);
}

/// How many threads there are for what the caller has to do.
pub fn threads() -> usize {
    if ALONE.get() { 1 } else { rayon::current_num_threads() }
}

/// Wakes all threads.
fn wake() {
    if threads() > 1 {
        BELL.ring();
        ask_to_stay();
    }
}

/// Has all threads but the first, which is the one that shares work out, stay, unless they do.
pub fn ask_to_stay() {
    if ASKED.swap(true, Ordering::Relaxed) {
        return;
    }
    rayon::spawn_broadcast(|context| {
        if context.index() == 0 || STAYS.get() {
            return;
        }
        if WAITS.get() {
            // What it waits for would wait for good.
            return ASKED.store(false, Ordering::Relaxed);
        }
        STAYS.set(true);
        stay();
    });
}

/// Works whenever there is something to do, for good.
fn stay() {
    let mut idle = 0;
    loop {
        let rung = BELL.rung();
        if look_for_work() {
            idle = 0;
            continue;
        }
        idle += 1;
        let more = BELL.announces() || WORKING.load(Ordering::Relaxed);
        if idle > if more { ROUNDS } else { FEW_ROUNDS } {
            BELL.sleep(rung);
            idle = 0;
        }
    }
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
