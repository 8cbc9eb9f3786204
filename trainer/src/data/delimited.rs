//! Records of delimited text, byte by byte, with the line each starts on.
//!
//! csv-core parses; this adds what the csv crate doesn't tell: a quote left open at the end of the
//! file, and a bound on what one can swallow. Knows no column names and no UTF-8.

use std::io::{self, BufRead, ErrorKind};

use csv_core::ReadRecordResult;

/// No text comes near this; a quote left open in a big file does.
pub(super) const MAX_ROW_BYTES: usize = 64 << 20;

/// One step of the reader. The fields of a `Record` lie in the reader until the next step.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    Record { line: u64, lines: u64 },
    UnclosedQuote { line: u64, lines: u64 },
    TooLong { line: u64 },
    End,
}

pub(super) struct Delimited<R> {
    pub input: R,
    parser: csv_core::Reader,
    fields: Vec<u8>,
    ends: Vec<usize>,
    count: usize,
    /// The line of the next unread byte.
    line: u64,
}

impl<R: BufRead> Delimited<R> {
    pub fn new(input: R, delimiter: u8) -> Delimited<R> {
        let parser = csv_core::ReaderBuilder::new().delimiter(delimiter).build();
        Delimited { input, parser, fields: vec![0; 4096], ends: vec![0; 64], count: 0, line: 1 }
    }

    /// The fields of the last record, unquoted.
    pub fn fields(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.count).map(|index| self.field(index))
    }

    /// A field of the last record. Panics outside it, like a slice.
    pub fn field(&self, index: usize) -> &[u8] {
        let start = if index == 0 { 0 } else { self.ends[index - 1] };
        &self.fields[start..self.ends[index]]
    }

    pub fn next(&mut self) -> io::Result<Step> {
        self.count = 0;
        self.skip_blank_lines()?;
        let line = self.line;
        let (mut out, mut count) = (0, 0);
        loop {
            let input = fill(&mut self.input)?;
            let at_end = input.is_empty();
            // A line break in place of the end: outside quotes it ends the record, within quotes it
            // is swallowed, which is how an open quote shows.
            let input = if at_end { b"\n" } else { input };
            let (result, read, written, ended) =
                self.parser.read_record(input, &mut self.fields[out..], &mut self.ends[count..]);
            if !at_end {
                self.line += line_breaks(&input[..read]);
                self.input.consume(read);
            }
            out += written;
            count += ended;
            match result {
                ReadRecordResult::InputEmpty if at_end && out + count > 0 => {
                    return Ok(Step::UnclosedQuote { line, lines: self.line - line + 1 });
                }
                ReadRecordResult::InputEmpty if at_end => return Ok(Step::End),
                ReadRecordResult::InputEmpty => {}
                ReadRecordResult::OutputFull if out >= MAX_ROW_BYTES => {
                    return Ok(Step::TooLong { line });
                }
                ReadRecordResult::OutputFull => self.fields.resize(self.fields.len() * 2, 0),
                ReadRecordResult::OutputEndsFull if count >= MAX_ROW_BYTES => {
                    return Ok(Step::TooLong { line });
                }
                ReadRecordResult::OutputEndsFull => self.ends.resize(self.ends.len() * 2, 0),
                ReadRecordResult::Record => {
                    self.count = count;
                    // The line break that ended the record has been read, but not the `\n` of a
                    // `\r\n`, nor one at the end of the file.
                    let inner = self.fields[..out].iter().filter(|byte| **byte == b'\n').count();
                    return Ok(Step::Record { line, lines: inner as u64 + 1 });
                }
                ReadRecordResult::End => return Ok(Step::End),
            }
        }
    }

    /// So that the line of a record is that of its first byte.
    fn skip_blank_lines(&mut self) -> io::Result<()> {
        loop {
            let input = fill(&mut self.input)?;
            let blank = input.iter().take_while(|byte| b"\r\n".contains(byte)).count();
            let all = blank == input.len();
            self.line += line_breaks(&input[..blank]);
            self.input.consume(blank);
            if blank == 0 || !all {
                return Ok(());
            }
        }
    }
}

/// `fill_buf`, again after a signal.
pub(super) fn fill(input: &mut impl BufRead) -> io::Result<&[u8]> {
    loop {
        match input.fill_buf() {
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    // The buffer is full now: this returns it without reading. (The borrow can't leave the loop.)
    input.fill_buf()
}

fn line_breaks(bytes: &[u8]) -> u64 {
    bytes.iter().filter(|byte| **byte == b'\n').count() as u64
}
