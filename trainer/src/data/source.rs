//! Bytes of a data file: format by ending, gzip, hashing on the way, byte order marks.
//!
//! Knows nothing of rows and columns.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Chain, Cursor, Read};
use std::path::Path;

use flate2::read::MultiGzDecoder;
use sha2::{Digest, Sha256};

use super::error::DataError;

/// How the bytes of a file become rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Delimited text with a header line and CSV's quoting, whatever the delimiter.
    Delimited {
        /// The byte between fields.
        delimiter: u8,
    },
    /// One JSON object a line.
    JsonLines,
}

impl Format {
    /// The format that the ending names, and whether it is compressed. A `delimiter` overrides that
    /// of delimited text and stands in for an unknown ending; JSON Lines has no use for one.
    pub fn of(path: &Path, delimiter: Option<u8>) -> Result<(Format, bool), DataError> {
        let name = path.file_name().unwrap_or_default().to_string_lossy().to_lowercase();
        let (name, gzip) = match name.strip_suffix(".gz") {
            Some(inner) => (inner, true),
            None => (name.as_str(), false),
        };
        let format = match (name.rsplit_once('.').map(|(_, ending)| ending), delimiter) {
            (Some("jsonl" | "ndjson" | "json"), _) => Format::JsonLines,
            (_, Some(delimiter)) => Format::Delimited { delimiter },
            (Some("csv"), None) => Format::Delimited { delimiter: b',' },
            (Some("tsv" | "tab"), None) => Format::Delimited { delimiter: b'\t' },
            _ => return Err(DataError::UnknownFormat { file: path.display().to_string() }),
        };
        Ok((format, gzip))
    }
}

/// Reads `--delimiter`: one ASCII character, or `tab` or `\t` for what shells make hard to type.
pub fn parse_delimiter(given: &str) -> Result<u8, DataError> {
    match given.as_bytes() {
        b"tab" | b"\\t" => Ok(b'\t'),
        [byte] if byte.is_ascii() && !b"\"\r\n\0".contains(byte) => Ok(*byte),
        _ => Err(DataError::Delimiter { given: super::excerpt(given, 20) }),
    }
}

/// Buffered bytes of a file, decompressed, without the byte order mark.
pub(super) struct Source {
    inner: BufReader<Chain<Cursor<Vec<u8>>, Bytes>>,
    gzip: bool,
}

enum Bytes {
    Plain(Hashing),
    Gzip(Box<MultiGzDecoder<Hashing>>),
}

impl Source {
    /// Opens a file. Its first bytes are looked at, so wrong kinds of files are told here.
    /// `file` is its name in messages.
    pub fn open(file: &str, path: &Path, gzip: bool) -> Result<Source, DataError> {
        let io = |source: io::Error| match source.kind() {
            io::ErrorKind::NotFound => DataError::NotFound { file: file.to_string() },
            _ => DataError::Io { file: file.to_string(), source },
        };
        let metadata = fs::metadata(path).map_err(io)?;
        if metadata.is_dir() {
            return Err(DataError::NotAFile { file: file.to_string() });
        }
        if metadata.is_file() && metadata.len() == 0 {
            return Err(DataError::EmptyFile { file: file.to_string() });
        }
        Source::new(file, Box::new(File::open(path).map_err(io)?), gzip)
    }

    /// The same from any reader; `file` is its name in messages.
    pub fn new(file: &str, mut raw: Box<dyn Read + Send>, gzip: bool) -> Result<Source, DataError> {
        if gzip {
            let mut magic = Vec::new();
            (&mut raw)
                .take(2)
                .read_to_end(&mut magic)
                .map_err(|error| read_error(file, false, 0, error))?;
            if magic != b"\x1F\x8B" {
                return Err(DataError::NotGzip { file: file.to_string() });
            }
            raw = Box::new(Cursor::new(magic).chain(raw));
        }
        let raw = Hashing { inner: raw, hasher: Sha256::new(), bytes: 0 };
        let mut bytes =
            if gzip { Bytes::Gzip(Box::new(MultiGzDecoder::new(raw))) } else { Bytes::Plain(raw) };
        let mut first = Vec::new();
        (&mut bytes)
            .take(4)
            .read_to_end(&mut first)
            .map_err(|error| read_error(file, gzip, 0, error))?;
        if let Some((kind, way_out)) = foreign(&first) {
            return Err(DataError::NotText { file: file.to_string(), kind, way_out });
        }
        if first.starts_with(b"\xEF\xBB\xBF") {
            first.drain(..3);
        }
        let inner = BufReader::with_capacity(1 << 16, Cursor::new(first).chain(bytes));
        Ok(Source { inner, gzip })
    }

    /// Bytes of the file read so far, as they lie on disk: for progress.
    pub fn bytes_read(&self) -> u64 {
        self.hashing().bytes
    }

    /// Reads what is left, and gives the SHA-256 of the file as it lies on disk, in hex.
    /// `file` and `rows` are for an error.
    pub fn finish(mut self, file: &str, rows: u64) -> Result<String, DataError> {
        io::copy(&mut self.inner, &mut io::sink())
            .map_err(|error| self.error(file, rows, error))?;
        let digest = self.hashing().hasher.clone().finalize();
        Ok(digest.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// A failed read after `rows` rows, as an error.
    pub fn error(&self, file: &str, rows: u64, error: io::Error) -> DataError {
        read_error(file, self.gzip, rows, error)
    }

    fn hashing(&self) -> &Hashing {
        match self.inner.get_ref().get_ref().1 {
            Bytes::Plain(hashing) => hashing,
            Bytes::Gzip(decoder) => decoder.get_ref(),
        }
    }
}

impl Read for Source {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.inner.read(buf)
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.inner.consume(amount);
    }
}

impl Read for Bytes {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Bytes::Plain(hashing) => hashing.read(buf),
            Bytes::Gzip(decoder) => decoder.read(buf),
        }
    }
}

/// Hashes what passes, so that a file is read once for both its rows and its hash.
struct Hashing {
    inner: Box<dyn Read + Send>,
    hasher: Sha256,
    bytes: u64,
}

impl Read for Hashing {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buf)?;
        self.hasher.update(&buf[..count]);
        self.bytes += count as u64;
        Ok(count)
    }
}

fn read_error(file: &str, gzip: bool, rows: u64, error: io::Error) -> DataError {
    use io::ErrorKind::{InvalidData, InvalidInput, UnexpectedEof};
    let file = file.to_string();
    match error.kind() {
        InvalidData | InvalidInput | UnexpectedEof if gzip => {
            DataError::CorruptGzip { file, rows, detail: error.to_string() }
        }
        _ => DataError::Io { file, source: error },
    }
}

/// Kinds of files that are often given by mistake, by their first bytes.
fn foreign(first: &[u8]) -> Option<(&'static str, &'static str)> {
    let starts = |magic: &[u8]| first.starts_with(magic);
    // Without a mark, UTF-16 shows in every other byte of a header being zero.
    let utf16 = matches!(first, [0, a, 0, b] | [a, 0, b, 0] if *a != 0 && *b != 0);
    if utf16 || starts(b"\xFF\xFE") || starts(b"\xFE\xFF") {
        Some(("UTF-16", "Save it as UTF-8 (`iconv -f utf-16 -t utf-8`)"))
    } else if starts(b"\x1F\x8B") {
        Some(("gzip data", "Give its name the ending .gz"))
    } else if starts(b"PK\x03\x04") {
        Some(("a zip archive or a spreadsheet", "Unpack it, or save the sheet as CSV (UTF-8)"))
    } else if starts(b"PAR1") {
        Some(("a Parquet file", "Save it as CSV or JSON Lines"))
    } else {
        None
    }
}
