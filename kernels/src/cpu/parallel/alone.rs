//! Without threads.

/// Gives each item, with its number, to a task.
pub fn for_each<T: Send>(items: Vec<T>, task: impl Fn(usize, T) + Sync + Send) {
    items.into_iter().enumerate().for_each(|(i, item)| task(i, item));
}

/// How many threads there are.
pub fn threads() -> usize {
    1
}

/// Does work on so many rows.
pub fn share<T>(_rows: usize, work: impl FnOnce() -> T) -> T {
    work()
}
