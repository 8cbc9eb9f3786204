//! Token ids in a file: written once, read by text, so that memory holds a place a text and no ids.
//!
//! Owns the file's format. All numbers are little-endian:
//!
//! ```text
//! header   magic (16 bytes), key (32), texts (u64), tokens (u64), bytes of an id (u32), 0 (u32),
//!          SHA-256 of the body and then of the header so far (32)
//! body     the ids of all texts, one behind the other (u16 where the vocabulary fits, else u32);
//!          then the number of ids of each text (u32)
//! ```
//!
//! The header is written last, so that a file that was not finished has none. Must not know what
//! the key is made of, nor where the file lies.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt;

use sha2::{Digest, Sha256};

const MAGIC: &[u8; 16] = b"pagebert-tokens1";
const HEADER: usize = 104;
/// The header's part that the digest is over.
const FIELDS: usize = 72;

/// What a file was made from, hashed.
pub type Key = [u8; 32];

/// Bytes of an id, for a vocabulary of so many.
fn width(vocabulary: usize) -> usize {
    if vocabulary <= 1 << 16 { 2 } else { 4 }
}

/// Token ids of texts, by number, read when asked for.
#[derive(Debug)]
pub struct TokenFile {
    file: File,
    /// Where each text ends, in ids from the first of all.
    ends: Vec<u64>,
    width: usize,
}

impl TokenFile {
    /// Takes up a file that [`Writer`] filled, after looking at every byte of it.
    ///
    /// # Errors
    /// What is wrong with it, when it is not the whole file of that key.
    pub fn open(file: File, key: &Key, vocabulary: usize) -> io::Result<TokenFile> {
        let flaw = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what);
        let length = file.metadata()?.len();
        let mut input = BufReader::with_capacity(1 << 18, &file);
        input.seek(SeekFrom::Start(0))?;
        let mut header = [0; HEADER];
        input.read_exact(&mut header)?;
        if header[..16] != MAGIC[..] || header[16..48] != key[..] {
            return Err(flaw("it is another file"));
        }
        let mut number = [0; 8];
        number.copy_from_slice(&header[48..56]);
        let texts = u64::from_le_bytes(number);
        number.copy_from_slice(&header[56..64]);
        let tokens = u64::from_le_bytes(number);
        number.copy_from_slice(&header[64..72]);
        let width = width(vocabulary);
        let body = tokens.checked_mul(width as u64).zip(texts.checked_mul(4));
        let expected = body.and_then(|(ids, lengths)| ids.checked_add(lengths));
        let expected = expected.and_then(|body| body.checked_add(HEADER as u64));
        if u64::from_le_bytes(number) != width as u64 || expected != Some(length) {
            return Err(flaw("it is not as long as it says"));
        }
        let mut digest = Sha256::new();
        let mut part = vec![0; 1 << 16];
        let mut left = tokens * width as u64;
        while left > 0 {
            let size = left.min(part.len() as u64) as usize;
            input.read_exact(&mut part[..size])?;
            digest.update(&part[..size]);
            left -= size as u64;
            if ids(&part[..size], width).any(|id| id as usize >= vocabulary) {
                return Err(flaw("it has ids that the vocabulary has not"));
            }
        }
        let mut ends = Vec::with_capacity(texts as usize);
        let mut end = 0u64;
        for _text in 0..texts {
            let mut length = [0; 4];
            input.read_exact(&mut length)?;
            digest.update(length);
            end = end.saturating_add(u64::from(u32::from_le_bytes(length)));
            ends.push(end);
        }
        digest.update(&header[..FIELDS]);
        if digest.finalize()[..] != header[FIELDS..] || end != tokens {
            return Err(flaw("its checksum is another"));
        }
        Ok(TokenFile { file, ends, width })
    }

    /// The number of texts.
    pub fn texts(&self) -> usize {
        self.ends.len()
    }

    /// How many ids a text has.
    pub fn tokens(&self, text: usize) -> usize {
        (self.ends[text] - self.start(text)) as usize
    }

    /// A text's ids.
    ///
    /// # Errors
    /// When the file can't be read.
    pub fn read(&self, text: usize) -> io::Result<Vec<u32>> {
        let mut bytes = vec![0; self.tokens(text) * self.width];
        let place = HEADER as u64 + self.start(text) * self.width as u64;
        self.file.read_exact_at(&mut bytes, place)?;
        Ok(ids(&bytes, self.width).collect())
    }

    fn start(&self, text: usize) -> u64 {
        if text == 0 { 0 } else { self.ends[text - 1] }
    }
}

fn ids(bytes: &[u8], width: usize) -> impl Iterator<Item = u32> {
    bytes.chunks_exact(width).map(|id| match id {
        [a, b] => u32::from(u16::from_le_bytes([*a, *b])),
        [a, b, c, d] => u32::from_le_bytes([*a, *b, *c, *d]),
        _ => 0,
    })
}

/// Fills a file, text by text.
pub struct Writer {
    out: BufWriter<File>,
    key: Key,
    digest: Sha256,
    ends: Vec<u64>,
    width: usize,
}

impl Writer {
    /// Begins at the file's start.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn new(mut file: File, key: Key, vocabulary: usize) -> io::Result<Writer> {
        file.seek(SeekFrom::Start(0))?;
        let mut out = BufWriter::with_capacity(1 << 18, file);
        out.write_all(&[0; HEADER])?;
        let (digest, ends) = (Sha256::new(), Vec::new());
        Ok(Writer { out, key, digest, ends, width: width(vocabulary) })
    }

    /// Adds a text's ids, each below the vocabulary's size.
    ///
    /// # Errors
    /// When the file can't be written.
    pub fn add(&mut self, ids: &[u32]) -> io::Result<()> {
        let mut bytes = Vec::with_capacity(ids.len() * self.width);
        ids.iter().for_each(|id| bytes.extend_from_slice(&id.to_le_bytes()[..self.width]));
        self.digest.update(&bytes);
        self.out.write_all(&bytes)?;
        let end = self.ends.last().copied().unwrap_or(0) + ids.len() as u64;
        self.ends.push(end);
        Ok(())
    }

    /// Completes the file.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn finish(mut self) -> io::Result<TokenFile> {
        let mut start = 0;
        for end in &self.ends {
            let length = u32::try_from(end - start).map_err(io::Error::other)?.to_le_bytes();
            self.digest.update(length);
            self.out.write_all(&length)?;
            start = *end;
        }
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(MAGIC);
        header.extend_from_slice(&self.key);
        header.extend_from_slice(&(self.ends.len() as u64).to_le_bytes());
        header.extend_from_slice(&start.to_le_bytes());
        header.extend_from_slice(&(self.width as u64).to_le_bytes());
        self.digest.update(&header);
        header.extend_from_slice(&self.digest.finalize());
        let file = self.out.into_inner().map_err(|error| error.into_error())?;
        file.write_all_at(&header, 0)?;
        Ok(TokenFile { file, ends: self.ends, width: self.width })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = [7; 32];

    fn write(texts: &[Vec<u32>], vocabulary: usize) -> (tempfile::NamedTempFile, TokenFile) {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = Writer::new(file.reopen().unwrap(), KEY, vocabulary).unwrap();
        texts.iter().for_each(|ids| writer.add(ids).unwrap());
        let tokens = writer.finish().unwrap();
        (file, tokens)
    }

    fn texts(vocabulary: u32) -> Vec<Vec<u32>> {
        let lengths = [3, 0, 1, 400, 0, 70_000, 2];
        let text = |n: u32| (0..n).map(|i| i.wrapping_mul(2_654_435_761) % vocabulary).collect();
        lengths.into_iter().map(text).collect()
    }

    #[test]
    fn texts_come_back_in_any_order() {
        for (vocabulary, bytes) in [(300, 2), (1 << 16, 2), ((1 << 16) + 1, 4), (1 << 30, 4)] {
            let texts = texts(vocabulary);
            let (file, written) = write(&texts, vocabulary as usize);
            let opened =
                TokenFile::open(file.reopen().unwrap(), &KEY, vocabulary as usize).unwrap();
            for tokens in [written, opened] {
                assert_eq!((tokens.texts(), tokens.width), (texts.len(), bytes));
                for text in (0..texts.len()).rev() {
                    assert_eq!(tokens.read(text).unwrap(), texts[text]);
                    assert_eq!(tokens.tokens(text), texts[text].len());
                }
            }
        }
    }

    #[test]
    fn no_damaged_file_is_taken_up() {
        let (file, _) = write(&texts(300), 300);
        let whole = std::fs::read(file.path()).unwrap();
        let open = |bytes: &[u8], key: &Key, vocabulary| {
            std::fs::write(file.path(), bytes).unwrap();
            TokenFile::open(file.reopen().unwrap(), key, vocabulary)
        };
        assert!(open(&whole, &KEY, 300).is_ok());
        assert!(open(&whole, &[8; 32], 300).is_err(), "another key");
        assert!(open(&whole, &KEY, 299).is_err(), "another vocabulary");
        assert!(open(&whole, &KEY, 1 << 20).is_err(), "other ids");
        for cut in [0, 1, HEADER - 1, HEADER, 5000, whole.len() - 1] {
            assert!(open(&whole[..cut], &KEY, 300).is_err(), "{cut} bytes of it");
        }
        assert!(open(&[&whole[..], b"x"].concat(), &KEY, 300).is_err(), "a byte more");
        for at in (0..HEADER).chain([HEADER, 3000, whole.len() - 30, whole.len() - 1]) {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(open(&changed, &KEY, 300).is_err(), "byte {at}");
        }
        // A header that promises more than memory holds.
        let mut changed = whole.clone();
        changed[48..64].fill(0xff);
        assert!(open(&changed, &KEY, 300).is_err());
        assert!(open(&vec![0; 4096], &KEY, 300).is_err(), "one that was not finished");
    }
}
