//! A bundle's file on its way. Owns its room, which is taken once, and its hash, which grows with it, so that a file
//! is neither copied nor read again when it is there.

use sha2::{Digest, Sha256};

use super::{BundleError, FileEntry, hex};

/// A file of which the manifest knows the size, and of which a part is there.
#[derive(Debug, Clone)]
pub struct Arrival {
    entry: FileEntry,
    contents: Vec<u8>,
    hash: Sha256,
}

impl Arrival {
    /// Takes the room for a file.
    ///
    /// # Errors
    /// `memory` when there is not so much.
    pub fn of(entry: &FileEntry) -> Result<Self, BundleError> {
        let mut contents = Vec::new();
        let memory = || BundleError::Memory { path: entry.path.clone(), bytes: entry.bytes };
        let bytes = usize::try_from(entry.bytes).map_err(|_| memory())?;
        contents.try_reserve_exact(bytes).map_err(|_| memory())?;
        Ok(Self { entry: entry.clone(), contents, hash: Sha256::new() })
    }

    /// Takes the next `count` bytes, which `copy` writes to where they are going to stay.
    ///
    /// # Errors
    /// `size` when the file is longer than the manifest says.
    pub fn receive(
        &mut self,
        count: usize,
        copy: impl FnOnce(&mut [u8]),
    ) -> Result<(), BundleError> {
        let start = self.contents.len();
        let end = start.saturating_add(count);
        if end as u64 > self.entry.bytes {
            return Err(self.wrong_size(end as u64));
        }
        self.contents.resize(end, 0);
        let chunk = &mut self.contents[start..];
        copy(chunk);
        self.hash.update(chunk);
        Ok(())
    }

    /// The contents, which are the ones that the manifest describes.
    ///
    /// # Errors
    /// `size` or `hash`.
    pub fn finish(self) -> Result<Vec<u8>, BundleError> {
        let found = self.contents.len() as u64;
        if found != self.entry.bytes {
            return Err(self.wrong_size(found));
        }
        if !hex(&self.hash.finalize()).eq_ignore_ascii_case(&self.entry.sha256) {
            return Err(BundleError::Hash { path: self.entry.path });
        }
        Ok(self.contents)
    }

    fn wrong_size(&self, found: u64) -> BundleError {
        BundleError::Size { path: self.entry.path.clone(), expected: self.entry.bytes, found }
    }
}
