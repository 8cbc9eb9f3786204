//! The model for the browser: bytes and text in, plain JavaScript objects out.
//!
//! Owns the translation between JavaScript and [`pagebert_model`], how threads meet workers, and nothing else: no maths,
//! no fetching, no console, no knowledge of pages. `www/worker.js` is its one caller.
//!
//! A long text is taken step by step, so that the caller can yield, report and cancel in between: `begin` → `read` until
//! it says `true` → `step` until that does → `finish`.

// Not stable yet; the build asks for that anyway, as it compiles the standard library.
#![cfg_attr(target_feature = "simd128", feature(asm_experimental_arch))]

#[cfg(target_feature = "simd128")]
#[allow(unsafe_code, reason = "functions that kernels declares and calls")]
mod by_hand;
mod error;
#[cfg(target_feature = "atomics")]
mod threads;

use js_sys::Uint8Array;
use pagebert_model::bundle::{Arrival, Manifest};
use pagebert_model::classify;
use serde::Serialize;
use wasm_bindgen::prelude::*;

use error::{bundle_error, engine_error, misuse};

/// A bundle on its way.
#[wasm_bindgen]
pub struct Bundle {
    arrival: Arrival,
    /// A piece of a chunk on this side of the boundary.
    piece: Vec<u8>,
}

/// What is taken over at once: memory that a large chunk asks for would never be given back.
const PIECE_BYTES: u32 = 1 << 16;

#[wasm_bindgen]
impl Bundle {
    /// Reads the manifest first, so that a bundle of another version is refused before it has been downloaded.
    ///
    /// # Errors
    /// What is wrong with the manifest, as a JavaScript error with a `code`; `memory` for files that no device has room for.
    #[wasm_bindgen(constructor)]
    pub fn new(manifest: &[u8]) -> Result<Bundle, JsValue> {
        error::keep_panic_messages();
        let manifest = Manifest::parse(manifest).map_err(bundle_error)?;
        let arrival = Arrival::new(manifest).map_err(bundle_error)?;
        Ok(Bundle { arrival, piece: vec![0; PIECE_BYTES as usize] })
    }

    /// Takes the next bytes of a file, by its name in the manifest.
    ///
    /// # Errors
    /// When the file is longer than the manifest says.
    pub fn receive(&mut self, name: &str, chunk: &Uint8Array) -> Result<(), JsValue> {
        for start in (0..chunk.length()).step_by(PIECE_BYTES as usize) {
            let from = chunk.subarray(start, chunk.length().min(start.saturating_add(PIECE_BYTES)));
            let piece = &mut self.piece[..from.length() as usize];
            from.copy_to(piece);
            self.arrival.receive(name, piece).map_err(bundle_error)?;
        }
        Ok(())
    }
}

/// A loaded model.
#[wasm_bindgen]
pub struct Classifier {
    inner: classify::Classifier,
}

#[wasm_bindgen]
impl Classifier {
    /// Checks sizes and hashes, and puts the model together.
    ///
    /// # Errors
    /// What is wrong with the bundle, as a JavaScript error with a `code`.
    #[wasm_bindgen(constructor)]
    pub fn new(bundle: Bundle) -> Result<Classifier, JsValue> {
        let inner = bundle.arrival.finish().map_err(bundle_error)?;
        Ok(Classifier { inner })
    }

    /// The classes, in the order of the logits.
    pub fn labels(&self) -> Vec<String> {
        self.inner.labels().to_vec()
    }

    /// Takes a text up.
    pub fn begin(&self, text: String) -> Job {
        Job { inner: Some(self.inner.begin(text)) }
    }

    /// Tokenizes the next piece of it; `true` when it was the last one.
    ///
    /// # Errors
    /// When the text cannot be tokenized, or the job has been finished.
    pub fn read(&self, job: &mut Job) -> Result<bool, JsValue> {
        let job = job.inner.as_mut().ok_or_else(|| misuse("read after finish"))?;
        self.inner.read(job).map_err(engine_error)
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
    inner: Option<classify::Job>,
}

#[wasm_bindgen]
impl Job {
    /// How many windows the text has, once it has been read.
    #[wasm_bindgen(getter)]
    pub fn windows(&self) -> usize {
        self.inner.as_ref().map_or(0, classify::Job::windows)
    }
}

/// The message of the panic that stopped the engine, if there was one: a trap alone only says `unreachable`.
#[wasm_bindgen(js_name = lastPanic)]
pub fn last_panic() -> Option<String> {
    error::last_panic()
}

/// Checks the kernels' tiles here, and what they do to numbers by hand.
#[cfg(feature = "checks")]
#[wasm_bindgen(js_name = checkTiles)]
pub fn check_tiles() {
    error::keep_panic_messages();
    pagebert_kernels::every_tile_gives_the_same_integers();
    pagebert_kernels::vectors_give_the_bits_of_single_numbers();
}
