//! Owns how Rust's failures become JavaScript errors with a `code` (the codes are listed in `www/errors.js`).

use std::fmt::Display;
use std::sync::{Mutex, Once, PoisonError};

use pagebert_model::bundle::BundleError;
use wasm_bindgen::JsValue;

static LAST_PANIC: Mutex<Option<String>> = Mutex::new(None);

/// What is wrong with a bundle.
pub fn bundle_error(error: BundleError) -> JsValue {
    js_error(error.code(), &error)
}

/// The model failed on a text.
pub fn engine_error(error: impl Display) -> JsValue {
    js_error("engine", &error)
}

/// The caller broke the order of calls.
pub fn misuse(what: &str) -> JsValue {
    js_error("engine", &what)
}

/// Keeps panic messages for [`last_panic`]. There is no console to print to: pages that embed the engine keep theirs
/// clean.
pub fn keep_panic_messages() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        std::panic::set_hook(Box::new(|info| {
            *LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner) = Some(info.to_string());
        }));
    });
}

/// See [`keep_panic_messages`].
pub fn last_panic() -> Option<String> {
    LAST_PANIC.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

fn js_error(code: &str, message: &dyn Display) -> JsValue {
    let error = js_sys::Error::new(&message.to_string());
    // Setting a property on a fresh object cannot fail; without it the caller would still have the message.
    let _ = js_sys::Reflect::set(&error, &JsValue::from_str("code"), &JsValue::from_str(code));
    error.into()
}
