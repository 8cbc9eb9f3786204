//! Smaller twins of a site's files, `NAME.br`, for hosts that send them as they are to browsers that read them.

use std::fs::{self, File};
use std::io::{BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use brotli::enc::BrotliEncoderParams;

use crate::progress::{Bar, Console, Unit};

/// Added to a name.
pub(super) const ENDING: &str = ".br";
/// A twin must save so much, or it isn't worth its place.
const MOST_PERCENT: u64 = 95;
/// Below it a file fits into the first packets in any case.
const LEAST_BYTES: u64 = 1024;
/// The best compression takes a second for each megabyte: weights, which it can do little about, go a faster way.
const SLOW_BYTES: u64 = 8 << 20;

/// Writes a file's twin; its size, if there is one.
pub(super) fn compress(path: &Path, console: &Console) -> Result<Option<u64>> {
    let bytes = fs::metadata(path).with_context(|| path.display().to_string())?.len();
    if bytes < LEAST_BYTES {
        return Ok(None);
    }
    let twin = twin_of(path);
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let bar = console.bar(&format!("{name}{ENDING}"), bytes, Unit::Bytes);
    let written = write(path, &twin, bytes, &bar)
        .with_context(|| format!("{} can't be compressed to {}", path.display(), twin.display()))?;
    if written * 100 > bytes * MOST_PERCENT {
        fs::remove_file(&twin).with_context(|| twin.display().to_string())?;
        return Ok(None);
    }
    Ok(Some(written))
}

fn write(from: &Path, to: &Path, bytes: u64, bar: &Bar) -> std::io::Result<u64> {
    let params = BrotliEncoderParams {
        quality: if bytes < SLOW_BYTES { 11 } else { 9 },
        // The largest window that every browser takes.
        lgwin: 24,
        size_hint: usize::try_from(bytes).unwrap_or_default(),
        ..Default::default()
    };
    let mut input = Counted { inner: File::open(from)?, count: 0, bar };
    let mut output = BufWriter::new(File::create(to)?);
    brotli::BrotliCompress(
        &mut BufReader::with_capacity(1 << 16, &mut input),
        &mut output,
        &params,
    )?;
    output.flush()?;
    Ok(fs::metadata(to)?.len())
}

fn twin_of(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ENDING);
    name.into()
}

/// Shows how much has been read.
struct Counted<'a> {
    inner: File,
    count: u64,
    bar: &'a Bar,
}

impl std::io::Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.count += count as u64;
        self.bar.set(self.count);
        Ok(count)
    }
}
