//! A bundle on its way. Owns the hashes, which grow with the files; what has come of them is taken up at once, so that
//! a file is neither kept nor read again.

use sha2::{Digest, Sha256};

use super::{BundleError, FileEntry, MODEL, Manifest, TOKENIZER, hex};
use crate::classify::Classifier;
use crate::weights::WeightsStream;

/// A bundle of which a part is there.
pub struct Arrival {
    manifest: Manifest,
    model: Part,
    weights: WeightsStream,
    tokenizer: Part,
    vocabulary: Vec<u8>,
    /// What is wrong with the weights. Said only when their hash is right: if it is not, that is the reason.
    fault: Option<BundleError>,
}

/// How much of a file has come.
struct Part {
    entry: FileEntry,
    bytes: u64,
    hash: Sha256,
}

impl Arrival {
    /// Waits for the files of a bundle.
    ///
    /// # Errors
    /// What is wrong with the manifest; `memory` for files that no device has room for.
    pub fn new(manifest: Manifest) -> Result<Self, BundleError> {
        let weights = WeightsStream::new(&manifest.config)?;
        let (model, tokenizer) = (Part::of(&manifest, MODEL)?, Part::of(&manifest, TOKENIZER)?);
        Ok(Self { manifest, model, weights, tokenizer, vocabulary: Vec::new(), fault: None })
    }

    /// Takes the next bytes of a file, by its name in the manifest.
    ///
    /// # Errors
    /// `size` when the file is longer than the manifest says.
    pub fn receive(&mut self, name: &str, chunk: &[u8]) -> Result<(), BundleError> {
        match name {
            MODEL => {
                self.model.receive(chunk)?;
                if self.fault.is_none() {
                    self.fault = self.weights.receive(chunk).err().map(BundleError::from);
                }
            }
            TOKENIZER => {
                self.tokenizer.receive(chunk)?;
                self.vocabulary.extend_from_slice(chunk);
            }
            _ => {}
        }
        Ok(())
    }

    /// The classifier, once all of both files has come.
    ///
    /// # Errors
    /// `size` or `hash`, and what else is wrong with the files.
    pub fn finish(self) -> Result<Classifier, BundleError> {
        self.tokenizer.finish()?;
        self.model.finish()?;
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let (weights, _) = self.weights.finish()?;
        Classifier::from_parts(&self.manifest, self.vocabulary, &weights)
    }
}

impl Part {
    fn of(manifest: &Manifest, name: &str) -> Result<Self, BundleError> {
        let entry = manifest.entry(name)?.clone();
        if isize::try_from(entry.bytes).is_err() {
            return Err(BundleError::Memory { path: entry.path, bytes: entry.bytes });
        }
        Ok(Self { entry, bytes: 0, hash: Sha256::new() })
    }

    fn receive(&mut self, chunk: &[u8]) -> Result<(), BundleError> {
        self.bytes += chunk.len() as u64;
        if self.bytes > self.entry.bytes {
            return Err(self.wrong_size());
        }
        self.hash.update(chunk);
        Ok(())
    }

    fn finish(self) -> Result<(), BundleError> {
        if self.bytes != self.entry.bytes {
            return Err(self.wrong_size());
        }
        if !hex(&self.hash.finalize()).eq_ignore_ascii_case(&self.entry.sha256) {
            return Err(BundleError::Hash { path: self.entry.path });
        }
        Ok(())
    }

    fn wrong_size(&self) -> BundleError {
        let FileEntry { path, bytes, .. } = &self.entry;
        BundleError::Size { path: path.clone(), expected: *bytes, found: self.bytes }
    }
}
