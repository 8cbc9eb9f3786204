//! The model for the browser: bytes and text in, plain JavaScript objects out.
//!
//! Owns the translation between JavaScript and [`pagebert_model`], and nothing else: no maths, no fetching, no console,
//! no knowledge of pages or workers. `www/worker.js` is its one caller.
//!
//! A long text is read window by window, so that the caller can yield, report and cancel in between:
//! `begin` → `step` until it says `true` → `finish`.

mod error;

use std::collections::HashMap;

use pagebert_model::bundle::Manifest;
use pagebert_model::classify;
use serde::Serialize;
use wasm_bindgen::prelude::*;

use error::{bundle_error, engine_error, misuse};

/// A bundle on its way: the manifest, checked, and the files that have arrived so far.
#[wasm_bindgen]
pub struct Bundle {
    manifest: Vec<u8>,
    files: HashMap<String, Vec<u8>>,
}

#[wasm_bindgen]
impl Bundle {
    /// Reads the manifest first, so that a bundle of another version is refused before it has been downloaded.
    ///
    /// # Errors
    /// What is wrong with the manifest, as a JavaScript error with a `code`.
    #[wasm_bindgen(constructor)]
    pub fn new(manifest: Vec<u8>) -> Result<Bundle, JsValue> {
        error::keep_panic_messages();
        Manifest::parse(&manifest).map_err(bundle_error)?;
        Ok(Bundle { manifest, files: HashMap::new() })
    }

    /// Adds one file under its name in the manifest.
    pub fn add(&mut self, name: String, bytes: Vec<u8>) {
        self.files.insert(name, bytes);
    }
}

/// A loaded model.
#[wasm_bindgen]
pub struct Classifier {
    inner: classify::Classifier,
}

#[wasm_bindgen]
impl Classifier {
    /// Checks sizes, hashes and shapes, and builds the model.
    ///
    /// # Errors
    /// What is wrong with the bundle, as a JavaScript error with a `code`.
    #[wasm_bindgen(constructor)]
    pub fn new(bundle: Bundle) -> Result<Classifier, JsValue> {
        let Bundle { manifest, files } = bundle;
        let inner = classify::Classifier::from_bundle(&manifest, files).map_err(bundle_error)?;
        Ok(Classifier { inner })
    }

    /// The classes, in the order of the logits.
    pub fn labels(&self) -> Vec<String> {
        self.inner.labels().to_vec()
    }

    /// Tokenizes a text and cuts it into windows.
    ///
    /// # Errors
    /// When the text cannot be tokenized.
    pub fn begin(&self, text: &str) -> Result<Job, JsValue> {
        let inner = self.inner.begin(text).map_err(engine_error)?;
        Ok(Job { windows: inner.windows(), inner: Some(inner) })
    }

    /// Runs one window through the model; `true` when it was the last one.
    ///
    /// # Errors
    /// When the model fails, or the job has been finished.
    pub fn step(&self, job: &mut Job) -> Result<bool, JsValue> {
        let job = job.inner.as_mut().ok_or_else(|| misuse("step after finish"))?;
        self.inner.step(job).map_err(engine_error)
    }

    /// The prediction, as a plain object; the job is spent.
    ///
    /// # Errors
    /// When windows are left, or the job has been finished already.
    pub fn finish(&self, job: &mut Job) -> Result<JsValue, JsValue> {
        let job = job.inner.take().ok_or_else(|| misuse("finish after finish"))?;
        let prediction = self.inner.finish(job).map_err(engine_error)?;
        let plain = serde_wasm_bindgen::Serializer::json_compatible();
        prediction.serialize(&plain).map_err(engine_error)
    }
}

/// One text being classified.
#[wasm_bindgen]
pub struct Job {
    windows: usize,
    inner: Option<classify::Job>,
}

#[wasm_bindgen]
impl Job {
    /// How many windows the text has.
    #[wasm_bindgen(getter)]
    pub fn windows(&self) -> usize {
        self.windows
    }
}

/// The message of the panic that stopped the engine, if there was one: a trap alone only says `unreachable`.
#[wasm_bindgen(js_name = lastPanic)]
pub fn last_panic() -> Option<String> {
    error::last_panic()
}
