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
//! The way through: [`RowReader`] streams rows, [`Index`] remembers of each checked one what tells it
//! apart (its text is read again where it is needed), [`Split`] puts each on a side. [`Dataset`] holds
//! texts too, for what is measured at once.

mod dataset;
mod delimited;
mod error;
mod file;
mod header;
mod index;
mod json_lines;
mod labels;
mod problem;
mod reader;
mod scan;
mod side_counts;
mod side_rule;
mod source;
mod split;
mod split_file;
mod table;
mod text_hash;
mod words;

pub use dataset::{Dataset, Example};
pub use error::{DataError, Place};
pub use file::{DataFile, TextReader};
pub use index::Index;
pub(crate) use labels::Labels;
pub use problem::RowProblem;
pub use reader::{ReadOptions, Row, RowReader};
pub use scan::{BadRow, DataOptions};
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
