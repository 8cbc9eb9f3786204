//! Work that is done ahead, on a thread of its own, in the order in which it is wanted.
//!
//! Must not know what the work is.

use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::{Builder, JoinHandle};

use anyhow::{Context, Error, Result, anyhow};

/// Items that wait for whoever wants them: one that is taken next, and one for the moment after.
const WAITING: usize = 2;

/// The items of an iterator, made while earlier ones are in use. The first error is the last item.
/// Dropping it ends the thread.
pub struct Prefetch<T> {
    /// `None` once nothing more comes.
    items: Option<Receiver<Result<T>>>,
    worker: Option<JoinHandle<()>>,
}

impl<T: Send + 'static> Prefetch<T> {
    /// Starts making items.
    ///
    /// # Errors
    /// When there can be no thread.
    pub fn start(items: impl Iterator<Item = Result<T>> + Send + 'static) -> Result<Prefetch<T>> {
        let (sender, receiver) = sync_channel(WAITING);
        let work = move || {
            for item in items {
                let failed = item.is_err();
                // Nobody wants what can't be sent.
                if sender.send(item).is_err() || failed {
                    return;
                }
            }
        };
        let worker = Builder::new().name("prefetch".into()).spawn(work);
        let worker = worker.context("a thread can't be started")?;
        Ok(Prefetch { items: Some(receiver), worker: Some(worker) })
    }
}

impl<T> Prefetch<T> {
    /// Waits for the thread, which has nobody to send to; an error is its panic.
    fn join(&mut self) -> Result<()> {
        self.items = None;
        match self.worker.take().map(JoinHandle::join) {
            Some(Err(_)) => Err(anyhow!("the thread that prepares batches failed")),
            _ => Ok(()),
        }
    }
}

impl<T> Iterator for Prefetch<T> {
    type Item = Result<T>;

    fn next(&mut self) -> Option<Result<T>> {
        match self.items.as_ref()?.recv() {
            Ok(item) => Some(item),
            Err(_) => self.join().err().map(|error: Error| Err(error)),
        }
    }
}

impl<T> Drop for Prefetch<T> {
    fn drop(&mut self) {
        // Whoever drops it wants no more of it, and so no word of how it ended.
        let _ = self.join();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::time::{Duration, Instant};

    use super::*;

    #[test]
    fn items_come_in_order_whoever_is_slower() {
        for (make, take) in [(0, 0), (1, 0), (0, 1)] {
            let wait = |ms| std::thread::sleep(Duration::from_millis(ms));
            let items = (0..50).map(move |i| {
                wait(make);
                Ok(i)
            });
            let taken: Vec<i32> = Prefetch::start(items)
                .unwrap()
                .map(|item| {
                    wait(take);
                    item.unwrap()
                })
                .collect();
            assert_eq!(taken, (0..50).collect::<Vec<_>>());
        }
    }

    #[test]
    fn no_more_is_made_than_waits() {
        let made = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&made);
        let items = (0..1000).map(move |i| Ok(counter.fetch_add(1, Ordering::SeqCst) + i));
        let mut prefetch = Prefetch::start(items).unwrap();
        prefetch.next().unwrap().unwrap();
        let start = Instant::now();
        // One was taken, so many wait, and one is held by who can't put it down.
        while made.load(Ordering::SeqCst) < WAITING + 2 && start.elapsed().as_secs() < 60 {
            std::thread::sleep(Duration::from_millis(1));
        }
        std::thread::sleep(Duration::from_millis(20));
        assert_eq!(made.load(Ordering::SeqCst), WAITING + 2);
        // An early end: this hangs where the thread is not told.
        drop(prefetch);
        assert_eq!(Arc::strong_count(&made), 1, "the thread is gone");
    }

    #[test]
    fn the_first_error_is_the_last_item() {
        let items =
            (0..10).map(|i| if i == 3 { Err(anyhow!("item {i} is missing")) } else { Ok(i) });
        let taken: Vec<Result<i32>> = Prefetch::start(items).unwrap().collect();
        assert_eq!(taken.len(), 4);
        assert_eq!(taken[3].as_ref().unwrap_err().to_string(), "item 3 is missing");
    }

    #[test]
    fn a_thread_that_fails_is_an_error_and_no_end() {
        let items = (0..10).map(|i| if i == 2 { panic!("out of items") } else { Ok(i) });
        let taken: Vec<Result<i32>> = Prefetch::start(items).unwrap().collect();
        assert_eq!(taken.len(), 3);
        assert!(taken[2].as_ref().unwrap_err().to_string().contains("failed"));
    }
}
