//! Labelled texts: reading them from CSV, TSV and JSON Lines, checking them, and splitting them.
//!
//! Owns file formats, row numbers, labels as class ids, the text hash, the split and `split.csv`.
//! It must not know of tensors, tokenizers, models or the command line; it names flags only in the
//! way out of an error. Nothing here prints.
//!
//! **Row numbers** are defined once, here: a row is one record of data, counted from 1. The header
//! and blank lines are not rows; a bad row is one, so that numbers stay the same whether or not bad
//! rows are left out. The line beside it is the line of the file (after decompression) on which the
//! row starts, counted from 1: the number an editor shows.
//!
//! The way through: [`RowReader`] streams rows, [`Dataset`] holds the checked ones with class ids,
//! [`Split`] puts each on a side.

mod dataset;
mod delimited;
mod error;
mod json_lines;
mod labels;
mod reader;
mod source;
mod split;
mod split_file;
mod table;
mod text_hash;

pub use dataset::{BadRow, DataOptions, Dataset, Example};
pub use error::{DataError, Place, RowProblem, excerpt};
pub(crate) use labels::Labels;
pub use reader::{ReadOptions, Row, RowReader};
pub use source::{Format, parse_delimiter};
pub(crate) use split::SideRule;
pub use split::{HeldOut, Side, SideCounts, Split, SplitOptions, SplitRow};
pub(crate) use table::{Align, table};
pub use text_hash::{TextHash, normalize};

#[cfg(test)]
mod tests;
