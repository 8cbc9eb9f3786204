//! A data file that is read more than once: for its rows first, for texts of some of them later.
//!
//! Owns where its bytes are. Must not know what rows are read for.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tempfile::{NamedTempFile, TempPath};

use super::error::DataError;
use super::reader::{ReadOptions, RowReader};
use super::source::Format;

/// A file and how its rows are read.
#[derive(Debug, Clone)]
pub struct DataFile {
    /// The path as given.
    pub path: PathBuf,
    /// Which columns, and the delimiter.
    pub options: ReadOptions,
    /// The bytes of what can be read but once, such as a pipe. Gone with the last clone.
    copy: Option<Arc<TempPath>>,
}

impl DataFile {
    /// Looks at a path. Whether it holds rows shows when they are read.
    pub fn new(path: &Path, options: &ReadOptions) -> Result<DataFile, DataError> {
        let copy = copy_of_stream(path, options)?.map(Arc::new);
        Ok(DataFile { path: path.to_path_buf(), options: options.clone(), copy })
    }

    /// Its rows, from the first.
    pub fn rows(&self) -> Result<RowReader, DataError> {
        let place = self.copy.as_ref().map_or(self.path.as_path(), |copy| copy);
        RowReader::labelled_at(&self.path, place, &self.options)
    }

    /// The texts of some rows, whose numbers ascend.
    pub fn texts<I: Iterator<Item = u64>>(&self, wanted: I) -> Result<TextReader<I>, DataError> {
        let file = self.path.display().to_string();
        Ok(TextReader { file, reader: self.rows()?, wanted })
    }
}

/// The texts of rows that were found good before. Ends after the first error: where a row is not
/// what it was, the file has changed.
pub struct TextReader<I> {
    file: String,
    reader: RowReader,
    wanted: I,
}

impl<I: Iterator<Item = u64>> TextReader<I> {
    /// Reads what is left, and gives the SHA-256 of the file's bytes in hex.
    pub fn finish(self) -> Result<String, DataError> {
        self.reader.finish()
    }
}

impl<I: Iterator<Item = u64>> Iterator for TextReader<I> {
    type Item = Result<String, DataError>;

    fn next(&mut self) -> Option<Self::Item> {
        let wanted = self.wanted.next()?;
        loop {
            match self.reader.next() {
                Some(Ok(row)) if row.row == wanted => return Some(Ok(row.text)),
                Some(Ok(row)) if row.row < wanted => {}
                Some(Err(DataError::Row { place, .. })) if place.row < wanted => {}
                Some(Err(error @ DataError::Io { .. })) => return Some(Err(error)),
                Some(_) | None => {
                    return Some(Err(DataError::Changed { file: self.file.clone() }));
                }
            }
        }
    }
}

/// A copy of what is no ordinary file; a folder or what is not there is the reader's to refuse.
fn copy_of_stream(path: &Path, options: &ReadOptions) -> Result<Option<TempPath>, DataError> {
    let once = fs::metadata(path).is_ok_and(|metadata| !metadata.is_file() && !metadata.is_dir());
    if !once {
        return Ok(None);
    }
    // Before a stream is waited for that could not be read.
    Format::of(path, options.delimiter)?;
    let copy = || -> io::Result<TempPath> {
        let mut copy = NamedTempFile::new()?;
        io::copy(&mut File::open(path)?, copy.as_file_mut())?;
        Ok(copy.into_temp_path())
    };
    let file = path.display().to_string();
    copy().map(Some).map_err(|source| DataError::Io { file, source })
}
