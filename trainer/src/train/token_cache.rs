//! Tokenizing once: token files kept from run to run.
//!
//! Owns where they are kept, what makes one the right one, and how many there may be. A cache that
//! can't be written costs time and nothing else; one that was damaged is made again.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::Result;
use pagebert_model::TextTokenizer;
use pagebert_model::bundle::sha256_hex;
use rayon::prelude::*;
use serde_json::json;
use sha2::{Digest, Sha256};

use super::tokens::{Key, TokenFile, Writer};
use crate::UsageError;
use crate::base::{BaseFiles, TokenizerFile};
use crate::checkpoint::{lowercases, read};
use crate::data::{DataError, DataOptions, Format, Index};
use crate::progress::{Bar, Console, Unit};

/// The variable that names another folder for what is kept.
const VARIABLE: &str = "PAGEBERT_CACHE";
/// Bytes of all files together: the least recently used go first.
const LIMIT: u64 = 4 << 30;
/// Texts tokenized at once: enough for every thread.
const CHUNK: usize = 4096;
/// Bytes of texts tokenized at once, whatever their number.
const CHUNK_BYTES: usize = 4 << 20;
/// To be raised when the same texts and tokenizer give other ids.
const FORMAT: u32 = 1;

/// Makes token files of data, or finds them.
pub struct TokenCache<'a> {
    /// `None` where there is no place for a cache.
    folder: Option<PathBuf>,
    tokenizer: &'a TextTokenizer,
    tokenizer_sha256: String,
    vocabulary: usize,
    console: &'a Console,
}

/// Why a token file could not be made.
enum Failure {
    /// It could not be written there.
    Write(io::Error),
    /// Anything else: it would fail in another place too.
    Other(anyhow::Error),
}

impl<'a> TokenCache<'a> {
    /// The cache of this user, for the tokenizer of a base whose model has so many ids.
    ///
    /// # Errors
    /// When the tokenizer's file can't be read.
    pub fn new(
        base: &BaseFiles,
        tokenizer: &'a TextTokenizer,
        vocabulary: usize,
        console: &'a Console,
    ) -> Result<TokenCache<'a>> {
        let tokenizer_sha256 = match &base.tokenizer {
            TokenizerFile::Json(path) => sha256_hex(&read(path)?),
            TokenizerFile::Vocab(path) => {
                format!("{} {}", sha256_hex(&read(path)?), lowercases(base)?)
            }
        };
        let folder = folder(|name| std::env::var_os(name));
        Ok(TokenCache { folder, tokenizer, tokenizer_sha256, vocabulary, console })
    }

    /// The token ids of all rows of a file, which was read with these options.
    ///
    /// # Errors
    /// When the file changed since, or can't be read, or there is no room for the ids anywhere.
    pub fn tokens(&self, data: &Index, options: &DataOptions) -> Result<TokenFile> {
        let key = self.key(data, options)?;
        let shown = data.file.path.display();
        if let Some(path) = self.folder.as_ref().map(|folder| place(folder, &key)) {
            match self.find(&path, &key, data.len()) {
                Ok(Some(tokens)) => {
                    self.console.note(format!(
                        "{shown} was tokenized before: its tokens are in {}",
                        path.display()
                    ));
                    return Ok(tokens);
                }
                Ok(None) => {}
                Err(error) => self.console.warn(format!(
                    "{} can't be used ({error}): {shown} is tokenized again",
                    path.display()
                )),
            }
            match self.keep(data, &path, key) {
                Ok(tokens) => return Ok(tokens),
                Err(Failure::Other(error)) => return Err(error),
                Err(Failure::Write(error)) => self.console.note(format!(
                    "{} can't be written ({error}): the next run will tokenize again",
                    path.display()
                )),
            }
        }
        let made = tempfile::tempfile().map_err(Failure::Write);
        let made = made.and_then(|file| self.fill(data, file, key));
        made.map_err(|failure| match failure {
            Failure::Other(error) => error,
            Failure::Write(error) => anyhow::Error::new(error).context(format!(
                "there is no room for the token ids of {shown}; {VARIABLE} or TMPDIR may name a \
                 folder that has some"
            )),
        })
    }

    /// What the ids depend on. Windows are cut later: their settings are not in it, nor is the
    /// split, for all rows of a file are in one.
    fn key(&self, data: &Index, options: &DataOptions) -> Result<Key> {
        let read = &options.read;
        let parts = json!({
            "format": FORMAT,
            "pagebert": env!("CARGO_PKG_VERSION"),
            "data": data.sha256,
            "kind": format!("{:?}", Format::of(&data.file.path, read.delimiter)?),
            "text_columns": read.text_columns,
            "label_column": read.label_column,
            "skip_bad_rows": options.skip_bad_rows,
            "labels": options.labels,
            "tokenizer": self.tokenizer_sha256,
            "vocabulary": self.vocabulary,
        });
        Ok(Sha256::digest(serde_json::to_vec(&parts)?).into())
    }

    /// A file that was made before; `None` where there is none.
    fn find(&self, path: &Path, key: &Key, texts: usize) -> io::Result<Option<TokenFile>> {
        let file = match File::open(path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // So that what is used stays. Where that is not allowed, it goes a little early.
        let _ = file.set_modified(SystemTime::now());
        let tokens = TokenFile::open(file, key, self.vocabulary)?;
        if tokens.texts() != texts {
            return Err(io::Error::other("it has other rows"));
        }
        Ok(Some(tokens))
    }

    /// Makes a file that stays: under a temporary name, which it changes once it is whole.
    fn keep(&self, data: &Index, path: &Path, key: Key) -> Result<TokenFile, Failure> {
        let folder = path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(Failure::Write)?;
        let temporary = tempfile::Builder::new().prefix(TEMPORARY).tempfile_in(folder);
        let temporary = temporary.map_err(Failure::Write)?;
        let tokens = self.fill(data, temporary.reopen().map_err(Failure::Write)?, key)?;
        // Not synced: what a crash leaves of it is noticed by its checksum.
        temporary.persist(path).map_err(|error| Failure::Write(error.error))?;
        prune(folder, path, LIMIT);
        Ok(tokens)
    }

    /// Tokenizes the texts of a file, in parallel and in order: the next ones are read meanwhile.
    fn fill(&self, data: &Index, file: File, key: Key) -> Result<TokenFile, Failure> {
        let other = |error: DataError| Failure::Other(error.into());
        let bar = self.console.bar(
            &format!("tokenizing {}", data.file.path.display()),
            data.len() as u64,
            Unit::Items("texts"),
        );
        let mut writer = Writer::new(file, key, self.vocabulary).map_err(Failure::Write)?;
        let mut texts = data.read_texts().map_err(other)?;
        let mut chunk = next_chunk(&mut texts).map_err(other)?;
        while !chunk.is_empty() {
            let (ids, next) = rayon::join(|| self.encode(&chunk), || next_chunk(&mut texts));
            self.add(&mut writer, &ids.map_err(Failure::Other)?, &bar)?;
            chunk = next.map_err(other)?;
        }
        if texts.finish().map_err(other)? != data.sha256 {
            let file = data.file.path.display().to_string();
            return Err(other(DataError::Changed { file }));
        }
        writer.finish().map_err(Failure::Write)
    }

    fn encode(&self, texts: &[String]) -> Result<Vec<Vec<u32>>> {
        let ids: pagebert_model::Result<Vec<_>> =
            texts.par_iter().map(|text| self.tokenizer.encode(text)).collect();
        Ok(ids?)
    }

    fn add(&self, writer: &mut Writer, ids: &[Vec<u32>], bar: &Bar) -> Result<(), Failure> {
        for ids in ids {
            if let Some(id) = ids.iter().find(|id| **id as usize >= self.vocabulary) {
                return Err(Failure::Other(
                    UsageError(format!(
                        "the base's tokenizer gives the id {id}, but its model's vocabulary has {}. \
                         Take the tokenizer that the model was trained with",
                        self.vocabulary
                    ))
                    .into(),
                ));
            }
            writer.add(ids).map_err(Failure::Write)?;
        }
        bar.add(ids.len() as u64);
        Ok(())
    }
}

fn next_chunk(
    texts: &mut impl Iterator<Item = Result<String, DataError>>,
) -> Result<Vec<String>, DataError> {
    let mut chunk = Vec::with_capacity(CHUNK);
    let mut bytes = 0;
    while chunk.len() < CHUNK && bytes < CHUNK_BYTES {
        let Some(text) = texts.next().transpose()? else { break };
        bytes += text.len();
        chunk.push(text);
    }
    Ok(chunk)
}

/// `$PAGEBERT_CACHE/tokens`, or what the XDG specification has for caches.
fn folder(variable: impl Fn(&str) -> Option<OsString>) -> Option<PathBuf> {
    let variable = |name| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let xdg = || variable("XDG_CACHE_HOME").filter(|path| path.is_absolute());
    let home = || variable("HOME").map(|home| home.join(".cache"));
    let cache = variable(VARIABLE).or_else(|| Some(xdg().or_else(home)?.join("pagebert")));
    cache.map(|cache| cache.join("tokens"))
}

/// What a file is called that is not whole yet.
const TEMPORARY: &str = ".pagebert-";
const ENDING: &str = "tokens";

fn place(folder: &Path, key: &Key) -> PathBuf {
    // Half of the key is in the name, and all of it in the file.
    let name: String = key[..16].iter().map(|byte| format!("{byte:02x}")).collect();
    folder.join(name).with_extension(ENDING)
}

/// Removes the files that were used least recently, but never `kept`, while all together are over
/// a limit; and those that were not finished and that nobody can be working on any more.
fn prune(folder: &Path, kept: &Path, limit: u64) {
    const ABANDONED: Duration = Duration::from_secs(24 * 3600);
    let Ok(entries) = fs::read_dir(folder) else { return };
    let mut files = Vec::new();
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(metadata) = entry.metadata() else { continue };
        let age = metadata.modified().ok().and_then(|time| time.elapsed().ok()).unwrap_or_default();
        if path.extension().is_some_and(|ending| ending == ENDING) {
            files.push((path != kept, age, metadata.len(), path));
        } else if entry.file_name().to_string_lossy().starts_with(TEMPORARY) && age > ABANDONED {
            // What can't be removed takes room and does no other harm.
            let _ = fs::remove_file(path);
        }
    }
    files.sort();
    let mut total = 0u64;
    for (other, _, bytes, path) in files {
        total = total.saturating_add(bytes);
        if other && total > limit {
            let _ = fs::remove_file(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_is_the_users_or_the_one_that_is_named() {
        let with = |set: &[(&str, &str)]| {
            let set: Vec<(String, OsString)> =
                set.iter().map(|(name, value)| (name.to_string(), value.into())).collect();
            folder(move |name| set.iter().find(|(n, _)| n == name).map(|(_, value)| value.clone()))
        };
        let home = ("HOME", "/home/a");
        assert_eq!(with(&[]), None);
        assert_eq!(with(&[home]), Some("/home/a/.cache/pagebert/tokens".into()));
        assert_eq!(with(&[home, ("XDG_CACHE_HOME", "/c")]), Some("/c/pagebert/tokens".into()));
        assert_eq!(with(&[home, ("XDG_CACHE_HOME", "relative")]), with(&[home]));
        assert_eq!(with(&[home, (VARIABLE, "here")]), Some("here/tokens".into()));
        assert_eq!(with(&[home, (VARIABLE, "")]), with(&[home]));
    }

    #[test]
    fn the_least_recently_used_go_and_the_newest_stays() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, bytes: usize, age: u64| {
            let path = folder.path().join(name);
            fs::write(&path, vec![0; bytes]).unwrap();
            let time = SystemTime::now() - Duration::from_secs(age);
            File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
            path
        };
        let kept = write("kept.tokens", 500, 900);
        let recent = write("recent.tokens", 300, 10);
        let old = write("old.tokens", 300, 5000);
        let small = write("older.tokens", 10, 6000);
        let foreign = write("notes.txt", 10_000, 9_000_000);
        let busy = write(".pagebert-busy", 10_000, 60);
        let abandoned = write(".pagebert-abandoned", 10, 9_000_000);
        prune(folder.path(), &kept, 1000);
        let there = |path: &PathBuf| path.exists();
        assert!([&kept, &recent, &foreign, &busy].into_iter().all(there));
        assert!(![&old, &small, &abandoned].into_iter().any(there));
        prune(folder.path(), &kept, 1);
        assert!(kept.exists() && !recent.exists());
    }
}
