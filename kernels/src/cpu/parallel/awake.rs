//! By rayon's threads in a browser, which are kept awake while there is work.
//!
//! rayon's threads give the processor to others some times before they sleep. In a browser that
//! does nothing, so they sleep after a microsecond, and waking one takes a tenth of a millisecond:
//! more than many a task. Here the thread that shares work out, and those that have helped it, look
//! for more for a while.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering, fence};

use rayon::Yield;

/// How often a thread looks for work in vain before it sleeps: for about a millisecond, in which
/// the one that shares work out does by itself what is not shared.
const ROUNDS: usize = 5_000;

/// Whether threads were woken of which none has gone to sleep again.
static AWAKE: AtomicBool = AtomicBool::new(false);

thread_local! {
    static STAYS: Cell<bool> = const { Cell::new(false) };
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

/// How many threads there are.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Wakes all threads, for work that is soon to come.
pub fn wake() {
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
    while idle < ROUNDS {
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
