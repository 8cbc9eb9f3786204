//! Files and paths: walking, checking, copying with a hash on the way.

use std::fs;
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};

use crate::progress::Bar;

/// Refuses paths that could leave their folder.
pub(super) fn plain_path(path: &str) -> Result<()> {
    let inside = Path::new(path).components().all(|part| matches!(part, Component::Normal(_)));
    if path.is_empty() || !inside || path.contains('\\') {
        bail!("`{path}` is no path within the folder");
    }
    Ok(())
}

/// The path without links, whether or not it is there, so that a link to a site is followed and not
/// replaced.
pub(super) fn resolved(path: &Path) -> Result<PathBuf> {
    let absolute =
        std::path::absolute(path).with_context(|| format!("--out {}", path.display()))?;
    Ok(fs::canonicalize(&absolute).unwrap_or(absolute))
}

/// Every file below a folder, links followed.
pub(super) fn files_below(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        let entries =
            fs::read_dir(&folder).with_context(|| format!("{} can't be read", folder.display()))?;
        for entry in entries {
            let path = entry.with_context(|| folder.display().to_string())?.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

/// A path as URLs and other systems spell it.
pub(super) fn slashed(path: &Path) -> String {
    let parts: Vec<_> = path.components().map(|part| part.as_os_str().to_string_lossy()).collect();
    parts.join("/")
}

pub(super) fn rename(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to)
        .with_context(|| format!("{} can't be moved to {}", from.display(), to.display()))
}

/// A file's length and SHA-256.
pub(super) fn measure(path: &Path) -> io::Result<(u64, String)> {
    pour(fs::File::open(path)?, io::sink(), None)
}

/// Copies, counting and hashing on the way.
pub(super) fn pour(
    mut from: impl Read,
    mut to: impl Write,
    bar: Option<&Bar>,
) -> io::Result<(u64, String)> {
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 18];
    let mut bytes = 0;
    loop {
        let count = match from.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        to.write_all(&buffer[..count])?;
        hasher.update(&buffer[..count]);
        bytes += count as u64;
        if let Some(bar) = bar {
            bar.set(bytes);
        }
    }
    to.flush()?;
    let sha256 = hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((bytes, sha256))
}
