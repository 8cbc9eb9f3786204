//! Models of the Hugging Face Hub, through the cache that is shared with other tools.
//!
//! hf-hub reads HF_ENDPOINT, HF_TOKEN (or the token file), HF_HOME and HF_HUB_CACHE itself; offline
//! mode, checking what arrived and the words about failures are ours. Must not know what is in the
//! files.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, anyhow};
use hf_hub::{HFClient, HFClientSync, HFError, HFRepositorySync, repository::RepoTypeModel};

use super::arrival::{Arrived, Watch};
use super::{
    BaseFiles, HubModel, OTHER_WEIGHTS, TokenizerFile, no_tokenizer, no_weights, resolve_folder,
};
use crate::UsageError;
use crate::progress::Console;

const NO_CLIENT: &str = "the client for the Hugging Face Hub can't be made";

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
                matches!(value.to_ascii_lowercase().as_str(), "1" | "on" | "yes" | "true")
            })
        };
        Hub { offline: on("HF_HUB_OFFLINE") || on("TRANSFORMERS_OFFLINE"), ..Hub::default() }
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
        let mut fetch =
            Fetch { hub: self, model, endpoint, cache, repository, pinned: None, console };

        let config = fetch.required("config.json")?;
        // From here on one commit: a push in between must not mix two models.
        fetch.pinned = config
            .parent()
            .and_then(Path::file_name)
            .map(|name| name.to_string_lossy().into_owned());
        let tokenizer = match fetch.optional("tokenizer.json")? {
            Some(path) => TokenizerFile::Json(path),
            None => TokenizerFile::Vocab(
                fetch.optional("vocab.txt")?.ok_or_else(|| no_tokenizer(&model.to_string()))?,
            ),
        };
        let tokenizer_config = fetch.optional("tokenizer_config.json")?;
        let weights = match fetch.optional("model.safetensors")? {
            Some(path) => path,
            None => return Err(fetch.weights_missing()),
        };
        let commit = fetch.pinned.unwrap_or_default();
        console.detail(format!("{model} is commit {commit}, in {}", fetch.cache.display()));
        let name = format!("hf:{}@{commit}", model.id());
        Ok(BaseFiles { name, config, weights, tokenizer, tokenizer_config })
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
        let source = if self.hub.offline { Source::Cache } else { Source::Network };
        self.file(file, source).map_err(|error| self.explain(error, file))?.into_path()
    }

    /// `None` if the model has no such file.
    fn optional(&self, file: &str) -> Result<Option<PathBuf>> {
        // A commit does not change: what the cache knows of it, also that a file is missing, holds.
        // It spares a request each, and without a network hf-hub would fail where a file is missing.
        let cached = self.file(file, Source::Cache);
        let found = match cached {
            Err(HFError::LocalEntryNotFound { .. }) if !self.hub.offline => {
                self.file(file, Source::Network)
            }
            known => known,
        };
        match found {
            Ok(arrived) => arrived.into_path().map(Some),
            Err(HFError::EntryNotFound { .. }) => Ok(None),
            // Offline nobody can say whether the model has it.
            Err(HFError::LocalEntryNotFound { .. }) if self.hub.offline => Ok(None),
            Err(error) => Err(self.explain(error, file)),
        }
    }

    fn file(&self, file: &str, source: Source) -> Result<Arrived, HFError> {
        let watch = Arc::new(Watch::new(file, self.model, self.console));
        let path = self
            .repository
            .download_file()
            .filename(file)
            .maybe_revision(self.pinned.clone().or_else(|| self.model.revision.clone()))
            .local_files_only(source == Source::Cache)
            .progress(watch.clone())
            .send()?;
        let expected_bytes = watch.finish();
        Ok(Arrived { path, expected_bytes })
    }

    fn weights_missing(&self) -> anyhow::Error {
        if self.hub.offline {
            let error = HFError::LocalEntryNotFound { path: "model.safetensors".to_string() };
            return self.explain(error, "model.safetensors");
        }
        let there = |name: &&str| {
            let query = self.repository.file_exists().filename(name);
            query.maybe_revision(self.pinned.as_deref()).send().unwrap_or(false)
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
            HFError::RateLimited { .. } => anyhow!(error)
                .context(format!("{endpoint} asks for a pause (429). Try again later")),
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

/// Where a file may come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Cache,
    Network,
}
