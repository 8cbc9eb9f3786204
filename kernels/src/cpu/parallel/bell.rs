//! What a page's threads sleep by: a number in memory, on which the page can wake them as well.

#![cfg_attr(
    target_family = "wasm",
    allow(unsafe_code, reason = "waiting is an instruction on an address")
)]

use std::sync::atomic::{AtomicU32, Ordering};

/// Rings for sleepers whenever its number grows. A page, which has the memory without this code, adds
/// one to the number and notifies those who wait at its address, by `Atomics.add` and
/// `Atomics.notify`.
#[derive(Debug)]
pub struct Bell {
    rung: AtomicU32,
    /// The number that the work begun last was rung for.
    answered: AtomicU32,
    /// Those who sleep, or have been woken and are on their way.
    sleepers: AtomicU32,
}

impl Bell {
    pub const fn new() -> Self {
        Self { rung: AtomicU32::new(0), answered: AtomicU32::new(0), sleepers: AtomicU32::new(0) }
    }

    /// How often it has rung, for the page.
    pub fn number(&self) -> &AtomicU32 {
        &self.rung
    }

    /// How often it has rung.
    pub fn rung(&self) -> u32 {
        self.rung.load(Ordering::SeqCst)
    }

    /// Wakes all who sleep, if any do. The caller has work and is at it.
    pub fn ring(&self) {
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let before = self.rung.fetch_add(1, Ordering::SeqCst);
            self.answered.store(before.wrapping_add(1), Ordering::Release);
            system::notify_all(&self.rung);
        }
    }

    /// Says that what the page rang for, if it did, has begun.
    pub fn answer(&self) {
        self.answered.store(self.rung(), Ordering::Release);
    }

    /// Whether the page rang for what has not begun yet.
    pub fn announces(&self) -> bool {
        self.rung() != self.answered.load(Ordering::Acquire)
    }

    /// Sleeps until it rings, unless it did after it had rung so often.
    pub fn sleep(&self, since: u32) {
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        system::wait(&self.rung, since);
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(target_family = "wasm")]
mod system {
    use std::arch::wasm32::{memory_atomic_notify, memory_atomic_wait32};
    use std::sync::atomic::AtomicU32;

    /// Waits while there is this value, until somebody notifies.
    pub fn wait(number: &AtomicU32, value: u32) {
        // SAFETY: the address is that of four aligned bytes, which stay where they are as long as
        // this borrows them. The engine's threads are workers, which may wait.
        unsafe { memory_atomic_wait32(number.as_ptr().cast(), value.cast_signed(), -1) };
    }

    pub fn notify_all(number: &AtomicU32) {
        // SAFETY: as above; nothing is read or written.
        unsafe { memory_atomic_notify(number.as_ptr().cast(), u32::MAX) };
    }
}

/// For tests of who sleeps when.
#[cfg(not(target_family = "wasm"))]
mod system {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::thread;
    use std::time::Duration;

    pub fn wait(number: &AtomicU32, value: u32) {
        while number.load(Ordering::SeqCst) == value {
            thread::sleep(Duration::from_millis(1));
        }
    }

    pub fn notify_all(_: &AtomicU32) {}
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    #[test]
    fn a_bell_wakes_who_sleeps_and_says_whether_work_began() {
        let bell = Bell::new();
        // Nobody sleeps.
        bell.ring();
        assert_eq!(bell.rung(), 0);
        thread::scope(|scope| {
            for times in 1..4 {
                let sleeper = scope.spawn(|| bell.sleep(bell.rung()));
                while bell.rung() < times {
                    bell.ring();
                }
                sleeper.join().unwrap();
                assert!(!bell.announces());
            }
        });
        // It has rung since.
        bell.sleep(2);
        // As a page does.
        bell.number().fetch_add(1, Ordering::SeqCst);
        assert!(bell.announces());
        bell.answer();
        assert!(!bell.announces());
    }
}
