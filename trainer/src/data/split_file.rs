//! `split.csv`: writing a split down, reading it back, and holding data against it.
//!
//! Columns `row,text_hash,side`, one line for each good row of the data, in its order.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::error::DataError;
use super::index::Index;
use super::split::{Side, Split, SplitRow};
use super::text_hash::TextHash;

#[derive(Serialize, Deserialize)]
struct Line {
    row: u64,
    text_hash: String,
    side: Side,
}

impl Split {
    /// Writes the split as CSV: to a file beside the path, which then takes its name, so that no
    /// half-written one is ever found there.
    pub fn write(&self, path: &Path) -> Result<(), DataError> {
        let mut beside = OsString::from(path);
        beside.push(".tmp");
        let beside = Path::new(&beside);
        let written = self.write_rows(beside).and_then(|()| fs::rename(beside, path));
        written.map_err(|source| {
            // What it was for has failed; that it can't be removed either adds nothing.
            let _ = fs::remove_file(beside);
            DataError::Io { file: path.display().to_string(), source }
        })
    }

    /// Reads what [`Split::write`] wrote.
    pub fn read(path: &Path) -> Result<Split, DataError> {
        let file = path.display().to_string();
        let opened = File::open(path).map_err(|source| match source.kind() {
            io::ErrorKind::NotFound => {
                DataError::SplitFile { file: file.clone(), detail: "no such file".to_string() }
            }
            _ => DataError::Io { file: file.clone(), source },
        })?;
        let mut rows: Vec<SplitRow> = Vec::new();
        for line in csv::Reader::from_reader(opened).deserialize() {
            let line: Line = match line {
                Ok(line) => line,
                Err(error) => {
                    let detail = error.to_string();
                    return Err(match error.into_kind() {
                        csv::ErrorKind::Io(source) => DataError::Io { file, source },
                        _ => DataError::SplitFile { file, detail },
                    });
                }
            };
            let text_hash: TextHash = line.text_hash.parse().map_err(|detail| {
                let detail = format!("row {}: {detail}", line.row);
                DataError::SplitFile { file: file.clone(), detail }
            })?;
            if rows.last().is_some_and(|last| last.row >= line.row) {
                let detail = format!("row {} is out of order", line.row);
                return Err(DataError::SplitFile { file, detail });
            }
            rows.push(SplitRow { row: line.row, text_hash, side: line.side });
        }
        if rows.is_empty() {
            return Err(DataError::SplitFile { file, detail: "it records no rows".to_string() });
        }
        Ok(Split { rows })
    }

    /// Makes sure that this is the split of this data: the same rows with the same texts.
    /// Afterwards `rows` here and in the data belong together one by one.
    pub fn verify(&self, data: &Index) -> Result<(), DataError> {
        let changed = |detail| DataError::SplitMismatch {
            data: data.file.path.display().to_string(),
            detail,
        };
        for (recorded, (row, text)) in self.rows.iter().zip(data.rows.iter().zip(&data.texts)) {
            if recorded.row < *row {
                return Err(changed(format!("row {} is missing or bad now", recorded.row)));
            }
            if recorded.row > *row {
                return Err(changed(format!("row {row} was not in it")));
            }
            if recorded.text_hash != *text {
                return Err(changed(format!("row {row} has another text")));
            }
        }
        let (recorded, now) = (self.rows.len(), data.rows.len());
        if recorded != now {
            return Err(changed(format!("it had {recorded} good rows and has {now} now")));
        }
        Ok(())
    }

    fn write_rows(&self, path: &Path) -> io::Result<()> {
        let mut out = csv::Writer::from_writer(BufWriter::new(File::create(path)?));
        for row in &self.rows {
            let text_hash = row.text_hash.to_string();
            out.serialize(Line { row: row.row, text_hash, side: row.side })?;
        }
        let mut file = out.into_inner().map_err(|error| error.into_error())?;
        file.flush()?;
        file.get_ref().sync_all()
    }
}
