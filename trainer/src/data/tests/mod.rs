//! Reading, checking and splitting, on files that are as people make them.

mod indexing;
mod reading;
mod showing;
mod splitting;

use std::path::PathBuf;

use super::*;

/// A file in a folder of its own.
struct File {
    _folder: tempfile::TempDir,
    path: PathBuf,
}

fn file(name: &str, content: impl AsRef<[u8]>) -> File {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    File { _folder: folder, path }
}

impl File {
    fn load(&self, options: &DataOptions) -> Result<Dataset, DataError> {
        Dataset::load(&self.path, options)
    }

    fn index(&self, options: &DataOptions) -> Result<Index, DataError> {
        Index::load(&self.path, options)
    }

    fn rows_or_error(&self) -> Result<Vec<Result<Row, DataError>>, DataError> {
        Ok(RowReader::labelled(&self.path, &ReadOptions::default())?.collect())
    }

    fn rows(&self, read: &ReadOptions) -> Vec<Result<(String, String), DataError>> {
        let row = |row: Row| (row.text, row.label.unwrap_or_default());
        RowReader::labelled(&self.path, read).unwrap().map(|r| r.map(row)).collect()
    }
}

fn skipping() -> DataOptions {
    DataOptions { skip_bad_rows: true, ..DataOptions::default() }
}

fn columns(text: &[&str], label: &str) -> ReadOptions {
    ReadOptions {
        text_columns: text.iter().map(|name| name.to_string()).collect(),
        label_column: label.into(),
        delimiter: None,
    }
}
