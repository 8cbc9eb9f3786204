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
mod header;
mod json_lines;
mod labels;
mod problem;
mod reader;
mod side_counts;
mod side_rule;
mod source;
mod split;
mod split_file;
mod table;
mod text_hash;
mod words;

pub use dataset::{BadRow, DataOptions, Dataset, Example};
pub use error::{DataError, Place};
pub(crate) use labels::Labels;
pub use problem::RowProblem;
pub use reader::{ReadOptions, Row, RowReader};
pub use side_counts::SideCounts;
pub(crate) use side_rule::SideRule;
pub use source::{Format, parse_delimiter};
pub use split::{HeldOut, Side, Split, SplitOptions, SplitRow};
pub(crate) use table::{Align, table};
pub use text_hash::{TextHash, normalize};
pub use words::excerpt;
pub(crate) use words::names;

#[cfg(test)]
mod tests;
