//! Ctrl-C: asks the loop to stop after the step; a second one ends the process.

use std::sync::atomic::{AtomicBool, Ordering};

static ASKED: AtomicBool = AtomicBool::new(false);

/// Starts listening.
pub fn listen() {
    let listening = ctrlc::set_handler(|| {
        if ASKED.swap(true, Ordering::SeqCst) {
            // What a shell reports of a process that Ctrl-C ended.
            std::process::exit(130);
        }
        eprintln!("stopping after this step; Ctrl-C again stops at once, and loses it");
    });
    // Without a handler Ctrl-C ends the process, and what was saved last is still there.
    let _ = listening;
}

/// Whether to stop.
pub fn asked() -> bool {
    ASKED.load(Ordering::SeqCst)
}
