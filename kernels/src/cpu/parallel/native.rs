//! By rayon's threads.

use rayon::prelude::*;

/// Gives each item, with its number, to a task.
pub fn for_each<T: Send>(items: Vec<T>, task: impl Fn(usize, T) + Sync + Send) {
    if items.len() > 1 {
        let items = items.into_par_iter().enumerate().with_max_len(1);
        return items.for_each(|(i, item)| task(i, item));
    }
    items.into_iter().enumerate().for_each(|(i, item)| task(i, item));
}

/// How many threads there are.
pub fn threads() -> usize {
    rayon::current_num_threads()
}

/// Does work on so many rows; here threads wake fast.
pub fn share<T>(_rows: usize, work: impl FnOnce() -> T) -> T {
    work()
}
