//! The checked rows of a file without their texts: 28 bytes a row, however long they are.
//!
//! Owns what is remembered of a row: its number, what its text hashes to, its class. Texts are read
//! again where they are needed. Knows nothing of sides.

use std::path::Path;

use rayon::prelude::*;

use super::error::DataError;
use super::file::{DataFile, TextReader};
use super::scan::{BadRow, DataOptions, Scanned, scan};
use super::text_hash::TextHash;

/// Texts hashed at once: enough for every thread.
const CHUNK: usize = 4096;
/// Bytes of texts that are hashed at once, whatever their number.
const CHUNK_BYTES: usize = 8 << 20;

/// The rows of one file, in its order. The three lists are as long as each other.
#[derive(Debug, Clone)]
pub struct Index {
    /// The file.
    pub file: DataFile,
    /// The numbers of the good rows, from 1.
    pub rows: Vec<u64>,
    /// What their texts hash to.
    pub texts: Vec<TextHash>,
    /// Their classes: indices into [`Index::labels`].
    pub classes: Vec<u32>,
    /// The labels by class id. In numeric order if all are integers, else in that of their bytes;
    /// or as [`DataOptions::labels`] has them.
    pub labels: Vec<String>,
    /// The rows left out, by row number; empty unless `skip_bad_rows`.
    pub bad_rows: Vec<BadRow>,
    /// SHA-256 of the file's bytes, in hex.
    pub sha256: String,
}

impl Index {
    /// Reads and checks a file; what is wrong with it is said as by [`super::Dataset::load`].
    pub fn load(path: &Path, options: &DataOptions) -> Result<Index, DataError> {
        let file = DataFile::new(path, &options.read)?;
        let (mut rows, mut texts, mut classes) = (Vec::new(), Vec::new(), Vec::new());
        let (mut chunk, mut bytes) = (Vec::with_capacity(CHUNK), 0);
        let mut hash = |chunk: &mut Vec<String>| {
            texts.par_extend(chunk.par_iter().map(|text| TextHash::of(text)));
            chunk.clear();
        };
        let scanned = scan(path, file.rows()?, options, |row, class| {
            rows.push(row.row);
            classes.push(class);
            bytes += row.text.len();
            chunk.push(row.text);
            if chunk.len() == CHUNK || bytes >= CHUNK_BYTES {
                hash(&mut chunk);
                bytes = 0;
            }
        })?;
        hash(&mut chunk);
        let Scanned { labels, ids, bad_rows, sha256 } = scanned;
        let mut good = 0;
        for at in 0..rows.len() {
            if let Some(id) = ids[classes[at] as usize] {
                (rows[good], texts[good], classes[good]) = (rows[at], texts[at], id);
                good += 1;
            }
        }
        rows.truncate(good);
        texts.truncate(good);
        classes.truncate(good);
        Ok(Index { file, rows, texts, classes, labels, bad_rows, sha256 })
    }

    /// The number of good rows.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The texts of all rows, from the file.
    pub fn read_texts(&self) -> Result<TextReader<impl Iterator<Item = u64>>, DataError> {
        self.file.texts(self.rows.iter().copied())
    }
}
