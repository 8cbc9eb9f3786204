//! Owns how rayon's threads meet the browser's: the page starts a worker (`www/thread.js`) for each thread, every worker
//! waits here for a thread to become, and [`start_threads`] hands them out.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, PoisonError};

use rayon::{ThreadBuilder, ThreadPoolBuilder};
use wasm_bindgen::prelude::*;

use crate::error;

/// Threads that no worker has taken yet.
static WAITING: Mutex<VecDeque<ThreadBuilder>> = Mutex::new(VecDeque::new());
static ARRIVED: Condvar = Condvar::new();

/// Makes the caller one of `threads` that share the work; the others must have called, or be about to call,
/// [`run_thread`]. Returns where in memory the page finds the bell that wakes them ([`pagebert_kernels::bell`]).
///
/// # Errors
/// When it is called twice.
#[wasm_bindgen(js_name = startThreads)]
pub fn start_threads(threads: usize) -> Result<*const u32, JsValue> {
    error::keep_panic_messages();
    ThreadPoolBuilder::new()
        .num_threads(threads)
        .use_current_thread()
        .spawn_handler(|thread| {
            WAITING.lock().unwrap_or_else(PoisonError::into_inner).push_back(thread);
            ARRIVED.notify_one();
            Ok(())
        })
        .build_global()
        .map_err(error::engine_error)?;
    Ok(pagebert_kernels::bell())
}

/// Works for [`start_threads`]' caller, and never returns.
#[wasm_bindgen(js_name = runThread)]
pub fn run_thread() {
    let mut waiting = WAITING.lock().unwrap_or_else(PoisonError::into_inner);
    let thread = loop {
        match waiting.pop_front() {
            Some(thread) => break thread,
            None => waiting = ARRIVED.wait(waiting).unwrap_or_else(PoisonError::into_inner),
        }
    };
    drop(waiting);
    thread.run();
}
