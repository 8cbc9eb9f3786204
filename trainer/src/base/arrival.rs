//! A file on its way from the Hub: showing its bytes as they come, checking it when it is there.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use anyhow::{Context, Result, anyhow};
use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};
use sha2::{Digest, Sha256};

use super::HubModel;
use crate::progress::{Bar, Console, Unit, human_bytes};

/// A file in the cache.
pub(super) struct Arrived {
    pub path: PathBuf,
    /// If it has just come over the network: how long it must be; 0 if nobody said.
    pub expected_bytes: Option<u64>,
}

impl Arrived {
    /// hf-hub looks at no status after the first, so that an error page could pass for the file and
    /// stay in the cache for good. Hence the check of what has just arrived.
    pub fn into_path(self) -> Result<PathBuf> {
        let Some(expected) = self.expected_bytes else {
            return Ok(self.path);
        };
        let shown = self.path.display();
        // The cache's name for the content: SHA-256 for large files, a Git hash for others.
        let blob = fs::canonicalize(&self.path).with_context(|| format!("{shown}"))?;
        let actual = fs::metadata(&blob).with_context(|| format!("{shown}"))?.len();
        let name =
            blob.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let is_sha256 = name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit());
        let sound = (expected == 0 || expected == actual)
            && (!is_sha256
                || sha256_of(&blob)
                    .with_context(|| format!("{shown}"))?
                    .eq_ignore_ascii_case(&name));
        if sound {
            return Ok(self.path);
        }
        for broken in [&self.path, &blob] {
            fs::remove_file(broken)
                .with_context(|| format!("{}: broken, and can't be removed", broken.display()))?;
        }
        Err(anyhow!(
            "{} arrived broken ({actual} bytes; {expected} announced) and was removed. Run the \
             command again; if it stays, the Hub or a proxy in between is at fault",
            self.path.file_name().map(|name| name.to_string_lossy()).unwrap_or_default()
        ))
    }
}

/// SHA-256 of a file, in hex.
fn sha256_of(path: &Path) -> io::Result<String> {
    let mut hasher = Sha256::new();
    let mut reader = BufReader::with_capacity(1 << 18, File::open(path)?);
    loop {
        let block = reader.fill_buf()?;
        if block.is_empty() {
            break;
        }
        hasher.update(block);
        let count = block.len();
        reader.consume(count);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Shows one file's bytes as they come, and remembers whether any came.
pub(super) struct Watch {
    what: String,
    source: String,
    console: Console,
    state: Mutex<WatchState>,
}

#[derive(Default)]
struct WatchState {
    total: u64,
    bar: Option<Bar>,
}

impl Watch {
    pub fn new(file: &str, model: &HubModel, console: &Console) -> Watch {
        let state = Mutex::new(WatchState::default());
        Watch { what: file.to_string(), source: model.to_string(), console: console.clone(), state }
    }

    /// The announced length, if anything was transferred. Takes the bar away.
    pub fn finish(&self) -> Option<u64> {
        let mut state = self.lock();
        state.bar.take().map(|_| state.total)
    }

    fn show(&self, position: u64) {
        let mut state = self.lock();
        let total = state.total;
        let bar = state.bar.get_or_insert_with(|| {
            let size = if total > 0 { format!(" ({})", human_bytes(total)) } else { String::new() };
            self.console.note(format!("fetching {}{size} of {}", self.what, self.source));
            self.console.bar(&self.what, total, Unit::Bytes)
        });
        bar.set(position);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, WatchState> {
        // The state is two plain values: a panic elsewhere can't have left it half done.
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

impl ProgressHandler for Watch {
    fn on_progress(&self, event: &ProgressEvent) {
        use hf_hub::progress::FileStatus::{InProgress, Started};
        let ProgressEvent::Download(event) = event else {
            return;
        };
        match event {
            DownloadEvent::Start { total_bytes, .. } => self.lock().total = *total_bytes,
            DownloadEvent::Progress { files } => {
                for file in files.iter().filter(|f| matches!(f.status, Started | InProgress)) {
                    self.show(file.bytes_completed);
                }
            }
            DownloadEvent::AggregateProgress { bytes_completed, .. } => self.show(*bytes_completed),
            DownloadEvent::Complete => {}
        }
    }
}
