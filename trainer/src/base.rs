//! Where a base comes from: a folder, or a model of the Hugging Face Hub.
//!
//! Owns `--base`: what names are valid, downloading into the cache that is shared with other tools,
//! and what to say when that fails. Returns paths; must not know what is in the files.
//!
//! hf-hub reads HF_ENDPOINT, HF_TOKEN (or the token file), HF_HOME and HF_HUB_CACHE itself; offline
//! mode, checking what arrived and the words are ours.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use anyhow::{Context, Result, anyhow};
use hf_hub::progress::{DownloadEvent, ProgressEvent, ProgressHandler};
use hf_hub::{HFClient, HFClientSync, HFError, HFRepositorySync, repository::RepoTypeModel};
use sha2::{Digest, Sha256};

use crate::UsageError;
use crate::progress::{Bar, Console, Unit, human_bytes};

/// A base's files, on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BaseFiles {
    /// What they are, for records: the folder as given, or `hf:org/name@commit`.
    pub name: String,
    /// `config.json`.
    pub config: PathBuf,
    /// `model.safetensors`.
    pub weights: PathBuf,
    /// The tokenizer.
    pub tokenizer: TokenizerFile,
    /// `tokenizer_config.json`, which some bases lack.
    pub tokenizer_config: Option<PathBuf>,
}

/// A tokenizer in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TokenizerFile {
    /// `tokenizer.json`: complete.
    Json(PathBuf),
    /// `vocab.txt` of an old checkpoint: WordPieces alone; whether to lowercase is in
    /// `tokenizer_config.json`.
    Vocab(PathBuf),
}

/// Finds a base: `hf:org/name[@revision]` or a folder.
pub fn resolve(base: &str, console: &Console) -> Result<BaseFiles> {
    Hub::from_env().resolve(base, console)
}

/// The files of a checkpoint folder.
pub fn resolve_folder(folder: &Path) -> Result<BaseFiles, UsageError> {
    let shown = folder.display();
    if !folder.is_dir() {
        let text = folder.to_string_lossy();
        let hint = match HubModel::parse(&text) {
            Ok(model) if !text.starts_with(['.', '/']) => {
                format!("For a model of the Hugging Face Hub write {model}")
            }
            _ => "Give a folder with config.json, model.safetensors and tokenizer.json, or \
                  hf:org/name"
                .to_string(),
        };
        return Err(UsageError(format!(
            "{shown}: there is no such folder. {hint}"
        )));
    }
    let file = |name: &str| Some(folder.join(name)).filter(|path| path.is_file());
    let Some(config) = file("config.json") else {
        let hint = if file("manifest.json").is_some() {
            "It is a bundle, which can't be trained on: give the RUN it was exported from"
        } else {
            "Give the folder of a Hugging Face BERT checkpoint"
        };
        return Err(UsageError(format!("{shown} has no config.json. {hint}")));
    };
    let tokenizer = file("tokenizer.json")
        .map(TokenizerFile::Json)
        .or_else(|| file("vocab.txt").map(TokenizerFile::Vocab))
        .ok_or_else(|| no_tokenizer(&shown.to_string()))?;
    let weights = file("model.safetensors").ok_or_else(|| {
        no_weights(
            &shown.to_string(),
            OTHER_WEIGHTS
                .iter()
                .copied()
                .find(|name| file(name).is_some()),
        )
    })?;
    Ok(BaseFiles {
        name: shown.to_string(),
        config,
        weights,
        tokenizer,
        tokenizer_config: file("tokenizer_config.json"),
    })
}

/// Weights in forms that are not read, most likely first.
const OTHER_WEIGHTS: [&str; 4] = [
    "pytorch_model.bin",
    "model.safetensors.index.json",
    "tf_model.h5",
    "flax_model.msgpack",
];

fn no_weights(base: &str, other: Option<&str>) -> UsageError {
    let source = base.strip_prefix("hf:").unwrap_or(base);
    UsageError(match other {
        Some(other) => format!(
            "{base} has its weights as {other}, and pagebert reads model.safetensors alone. Convert \
             once (needs Python with transformers and torch), then give ./converted as the base:\n  \
             python -c \"from transformers import AutoModel as M, AutoTokenizer as T; \
             n, d = '{source}', 'converted'; \
             M.from_pretrained(n).save_pretrained(d, max_shard_size='100GB'); \
             T.from_pretrained(n).save_pretrained(d)\""
        ),
        None => format!("{base} has no model.safetensors. Is it a complete BERT checkpoint?"),
    })
}

fn no_tokenizer(base: &str) -> UsageError {
    UsageError(format!(
        "{base} has neither tokenizer.json nor vocab.txt. Copy the tokenizer of the model that it \
         was made from beside the weights"
    ))
}

const NO_CLIENT: &str = "the client for the Hugging Face Hub can't be made";

/// A model's name on the Hub.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HubModel {
    /// The organisation or user; empty for the oldest models.
    owner: String,
    name: String,
    revision: Option<String>,
}

impl HubModel {
    /// Reads `org/name[@revision]`, what stands behind `hf:`.
    pub fn parse(text: &str) -> Result<HubModel, UsageError> {
        let (id, revision) = match text.split_once('@') {
            Some((id, revision)) => (id, Some(revision)),
            None => (text, None),
        };
        let (owner, name) = id.split_once('/').unwrap_or(("", id));
        let word = |word: &str| {
            word.chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
                && !word.starts_with('.')
        };
        // A revision becomes a file name in the cache.
        let revision_fine = revision.is_none_or(|revision| {
            !revision.is_empty()
                && !revision.contains(['\\', ':'])
                && revision
                    .split('/')
                    .all(|part| !part.is_empty() && !part.starts_with('.'))
        });
        if name.is_empty() || !word(owner) || !word(name) || !revision_fine {
            return Err(UsageError(format!(
                "hf:{text}: expected hf:org/name or hf:org/name@revision, like \
                 hf:google-bert/bert-base-uncased"
            )));
        }
        Ok(HubModel {
            owner: owner.to_string(),
            name: name.to_string(),
            revision: revision.map(str::to_string),
        })
    }

    fn id(&self) -> String {
        if self.owner.is_empty() {
            self.name.clone()
        } else {
            format!("{}/{}", self.owner, self.name)
        }
    }
}

impl fmt::Display for HubModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "hf:{}", self.id())?;
        match &self.revision {
            Some(revision) => write!(f, "@{revision}"),
            None => Ok(()),
        }
    }
}

/// How the Hub is reached. What is `None` is taken from the environment by hf-hub.
#[derive(Debug, Clone, Default)]
pub struct Hub {
    /// In place of HF_ENDPOINT.
    pub endpoint: Option<String>,
    /// In place of HF_HUB_CACHE.
    pub cache: Option<PathBuf>,
    /// In place of HF_TOKEN.
    pub token: Option<String>,
    /// Uses what is in the cache and makes no request.
    pub offline: bool,
}

impl Hub {
    /// As the environment has it.
    pub fn from_env() -> Hub {
        // Spelled as the Python library spells them.
        let on = |name| {
            std::env::var(name).is_ok_and(|value| {
                matches!(
                    value.to_ascii_lowercase().as_str(),
                    "1" | "on" | "yes" | "true"
                )
            })
        };
        Hub {
            offline: on("HF_HUB_OFFLINE") || on("TRANSFORMERS_OFFLINE"),
            ..Hub::default()
        }
    }

    /// Finds a base: `hf:org/name[@revision]` or a folder.
    pub fn resolve(&self, base: &str, console: &Console) -> Result<BaseFiles> {
        match base.strip_prefix("hf:") {
            Some(text) => self.fetch(&HubModel::parse(text)?, console),
            None => Ok(resolve_folder(Path::new(base))?),
        }
    }

    fn fetch(&self, model: &HubModel, console: &Console) -> Result<BaseFiles> {
        let client = self.client()?;
        let endpoint = client.endpoint().to_string();
        let cache = client.cache_dir().to_path_buf();
        let client = HFClientSync::from_inner(client).context(NO_CLIENT)?;
        let repository = client.model(model.owner.clone(), model.name.clone());
        let mut fetch = Fetch {
            hub: self,
            model,
            endpoint,
            cache,
            repository,
            pinned: None,
            console,
        };

        let config = fetch.required("config.json")?;
        // From here on one commit: a push in between must not mix two models.
        fetch.pinned = config
            .parent()
            .and_then(Path::file_name)
            .map(|name| name.to_string_lossy().into_owned());
        let tokenizer = match fetch.optional("tokenizer.json")? {
            Some(path) => TokenizerFile::Json(path),
            None => TokenizerFile::Vocab(
                fetch
                    .optional("vocab.txt")?
                    .ok_or_else(|| no_tokenizer(&model.to_string()))?,
            ),
        };
        let tokenizer_config = fetch.optional("tokenizer_config.json")?;
        let weights = match fetch.optional("model.safetensors")? {
            Some(path) => path,
            None => return Err(fetch.weights_missing()),
        };
        let commit = fetch.pinned.unwrap_or_default();
        console.detail(format!(
            "{model} is commit {commit}, in {}",
            fetch.cache.display()
        ));
        let name = format!("hf:{}@{commit}", model.id());
        Ok(BaseFiles {
            name,
            config,
            weights,
            tokenizer,
            tokenizer_config,
        })
    }

    fn client(&self) -> Result<HFClient> {
        // Two more tries: enough for a hiccup, and a machine without network hears of it at once.
        let mut builder = HFClient::builder()
            .user_agent(concat!("pagebert/", env!("CARGO_PKG_VERSION")))
            .retry_max_attempts(2);
        if let Some(endpoint) = &self.endpoint {
            builder = builder.endpoint(endpoint);
        }
        if let Some(cache) = &self.cache {
            builder = builder.cache_dir(cache);
        }
        if let Some(token) = &self.token {
            builder = builder.token(token);
        }
        builder.build().map_err(|error| match error {
            HFError::Url(_) => anyhow!(UsageError(format!(
                "HF_ENDPOINT is no address: {error}. Expected something like https://huggingface.co"
            ))),
            other => anyhow!(other).context(NO_CLIENT),
        })
    }
}

/// One model being fetched.
struct Fetch<'a> {
    hub: &'a Hub,
    model: &'a HubModel,
    endpoint: String,
    cache: PathBuf,
    repository: HFRepositorySync<RepoTypeModel>,
    /// The commit, once the first file has told it.
    pinned: Option<String>,
    console: &'a Console,
}

impl Fetch<'_> {
    fn required(&self, file: &str) -> Result<PathBuf> {
        self.file(file)
            .map_err(|error| self.explain(error, file))?
            .into_path()
    }

    /// `None` if the model has no such file.
    fn optional(&self, file: &str) -> Result<Option<PathBuf>> {
        match self.file(file) {
            Ok(arrived) => arrived.into_path().map(Some),
            Err(HFError::EntryNotFound { .. }) => Ok(None),
            // Offline nobody can say whether the model has it.
            Err(HFError::LocalEntryNotFound { .. }) if self.hub.offline => Ok(None),
            Err(error) => Err(self.explain(error, file)),
        }
    }

    fn file(&self, file: &str) -> Result<Arrived, HFError> {
        let watch = Arc::new(Watch::new(file, self.model, self.console));
        let path = self
            .repository
            .download_file()
            .filename(file)
            .maybe_revision(self.pinned.clone().or_else(|| self.model.revision.clone()))
            .local_files_only(self.hub.offline)
            .progress(watch.clone())
            .send()?;
        let expected_bytes = watch.finish();
        Ok(Arrived {
            path,
            expected_bytes,
        })
    }

    fn weights_missing(&self) -> anyhow::Error {
        if self.hub.offline {
            let error = HFError::LocalEntryNotFound {
                path: "model.safetensors".to_string(),
            };
            return self.explain(error, "model.safetensors");
        }
        let there = |name: &&str| {
            let query = self.repository.file_exists().filename(name);
            query
                .maybe_revision(self.pinned.as_deref())
                .send()
                .unwrap_or(false)
        };
        anyhow!(no_weights(
            &self.model.to_string(),
            OTHER_WEIGHTS.iter().copied().find(|name| there(name))
        ))
    }

    /// What went wrong, and the next step.
    fn explain(&self, error: HFError, file: &str) -> anyhow::Error {
        let (model, endpoint) = (self.model, &self.endpoint);
        let page = format!("{endpoint}/{}", model.id());
        match &error {
            HFError::AuthRequired { .. } => anyhow!(error).context(UsageError(format!(
                "{model}: {endpoint} wants a valid login (401). Check the name: a model that does \
                 not exist looks the same. If it is private or gated, set HF_TOKEN to a token that \
                 may read it"
            ))),
            HFError::Forbidden { .. } => anyhow!(error).context(UsageError(format!(
                "{model}: this login may not read it (403). Accept its terms at {page}, and set \
                 HF_TOKEN to a token with read access"
            ))),
            HFError::EntryNotFound { .. } => anyhow!(self.not_found(file)),
            HFError::LocalEntryNotFound { .. } => anyhow!(UsageError(format!(
                "{model}: {file} is not in the cache at {}, and offline mode (HF_HUB_OFFLINE) is on. \
                 Run once without it, or give a folder as the base",
                self.cache.display()
            ))),
            HFError::RateLimited { .. } => anyhow!(error).context(format!(
                "{endpoint} asks for a pause (429). Try again later"
            )),
            HFError::Request { source, .. } if source.is_connect() || source.is_timeout() => {
                anyhow!(error).context(format!(
                    "{model}: {endpoint} can't be reached. Check the network, HTTPS_PROXY and \
                     HF_ENDPOINT, or give a folder as the base"
                ))
            }
            HFError::Request { .. } => anyhow!(error).context(format!(
                "{model}: the download of {file} broke off. Run the command again"
            )),
            HFError::Io(_) | HFError::CacheLockTimeout { .. } => anyhow!(error).context(format!(
                "{model}: {file} can't be written to the cache at {} (HF_HOME moves it)",
                self.cache.display()
            )),
            _ => {
                anyhow!(error).context(format!("{model}: {file} can't be fetched from {endpoint}"))
            }
        }
    }

    /// The Hub says 404 to a wrong name, a wrong revision and a missing file alike; ask which.
    fn not_found(&self, file: &str) -> UsageError {
        let (model, endpoint) = (self.model, &self.endpoint);
        UsageError(match (&model.revision, self.repository.exists().send()) {
            (_, Ok(false)) => {
                format!("{model}: there is no such model at {endpoint}. Check the name")
            }
            (Some(revision), Ok(true))
                if matches!(
                    self.repository.revision_exists().revision(revision).send(),
                    Ok(false)
                ) =>
            {
                format!(
                    "{model}: the model has no branch, tag or commit `{revision}`. Leave @{revision} \
                     out for the newest"
                )
            }
            _ => format!("{model} has no {file}. Is it a complete BERT checkpoint?"),
        })
    }
}

/// A file in the cache.
struct Arrived {
    path: PathBuf,
    /// If it has just come over the network: how long it must be; 0 if nobody said.
    expected_bytes: Option<u64>,
}

impl Arrived {
    /// hf-hub looks at no status after the first, so that an error page could pass for the file and
    /// stay in the cache for good. Hence the check of what has just arrived.
    fn into_path(self) -> Result<PathBuf> {
        let Some(expected) = self.expected_bytes else {
            return Ok(self.path);
        };
        let shown = self.path.display();
        // The cache's name for the content: SHA-256 for large files, a Git hash for others.
        let blob = fs::canonicalize(&self.path).with_context(|| format!("{shown}"))?;
        let actual = fs::metadata(&blob)
            .with_context(|| format!("{shown}"))?
            .len();
        let name = blob
            .file_name()
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
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
            self.path
                .file_name()
                .map(|name| name.to_string_lossy())
                .unwrap_or_default()
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
    Ok(hasher
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}

/// Shows one file's bytes as they come, and remembers whether any came.
struct Watch {
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
    fn new(file: &str, model: &HubModel, console: &Console) -> Watch {
        let state = Mutex::new(WatchState::default());
        Watch {
            what: file.to_string(),
            source: model.to_string(),
            console: console.clone(),
            state,
        }
    }

    /// The announced length, if anything was transferred. Takes the bar away.
    fn finish(&self) -> Option<u64> {
        let mut state = self.lock();
        state.bar.take().map(|_| state.total)
    }

    fn show(&self, position: u64) {
        let mut state = self.lock();
        let total = state.total;
        let bar = state.bar.get_or_insert_with(|| {
            let size = if total > 0 {
                format!(" ({})", human_bytes(total))
            } else {
                String::new()
            };
            self.console
                .note(format!("fetching {}{size} of {}", self.what, self.source));
            self.console.bar(&self.what, total, Unit::Bytes)
        });
        bar.set(position);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, WatchState> {
        // The state is two plain values: a panic elsewhere can't have left it half done.
        self.state
            .lock()
            .unwrap_or_else(|poisoned| poisoned.into_inner())
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
                for file in files
                    .iter()
                    .filter(|f| matches!(f.status, Started | InProgress))
                {
                    self.show(file.bytes_completed);
                }
            }
            DownloadEvent::AggregateProgress {
                bytes_completed, ..
            } => self.show(*bytes_completed),
            DownloadEvent::Complete => {}
        }
    }
}

#[cfg(test)]
#[path = "base_tests.rs"]
mod tests;
