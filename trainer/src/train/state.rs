//! `RUN/last/`: what `--resume` needs.
//!
//! Owns its two files: `state-STEP.safetensors` holds tensors, and `state.json` names it and holds
//! the rest. The tensors are complete before `state.json` names them, so that an interruption at
//! any moment leaves the earlier state or the new one.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use candle_core::{Device, Tensor};
use pagebert_model::bundle::sha256_hex;
use serde::{Deserialize, Serialize};

use crate::checkpoint::{read, write_atomically};
use crate::tensor_file;

/// The folder's name in a run.
pub const FOLDER: &str = "last";
const STATE: &str = "state.json";

/// How far a training is, beside its tensors.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Optimizer steps taken.
    pub step: usize,
    /// The epoch of the next step, from 0.
    pub epoch: usize,
    /// Batches of that epoch that are done.
    pub batch: usize,
    /// The best evaluation so far.
    pub best: Option<Best>,
    /// Tokens trained on.
    pub tokens: u64,
    /// Time spent training.
    pub seconds: f64,
    /// Steps and sum of losses since the last line of the log.
    pub logged: Logged,
}

/// What went into the next line of the log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct Logged {
    /// Steps.
    pub steps: usize,
    /// The sum of their losses.
    pub loss: f64,
}

/// The evaluation that `model.safetensors` is from.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Best {
    /// Steps taken by then.
    pub step: usize,
    /// On the valid side.
    pub loss: f64,
    /// On the valid side.
    pub accuracy: f64,
}

#[derive(Serialize, Deserialize)]
struct File {
    tensors: String,
    sha256: String,
    progress: Progress,
}

/// Saves a state, then removes the one before it.
///
/// # Errors
/// When the folder can't be written; the state before is then still there.
pub fn save(run: &Path, progress: &Progress, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let folder = run.join(FOLDER);
    fs::create_dir_all(&folder).with_context(|| format!("{} can't be made", folder.display()))?;
    let name = format!("state-{}.safetensors", progress.step);
    let path = folder.join(&name);
    tensor_file::write(&path, tensors)?;
    let sha256 = tensor_file::sha256(&path)?;
    let file = File { tensors: name.clone(), sha256, progress: progress.clone() };
    write_atomically(&folder.join(STATE), serde_json::to_string_pretty(&file)?.as_bytes())?;
    for entry in fs::read_dir(&folder)?.flatten() {
        let other = entry.file_name();
        if other != STATE && other != name.as_str() {
            // What can't be removed takes room and does no other harm.
            let _ = fs::remove_file(entry.path());
        }
    }
    Ok(())
}

/// Loads the saved state; `None` where there is none.
///
/// # Errors
/// When it is damaged.
pub fn load(run: &Path) -> Result<Option<(Progress, BTreeMap<String, Tensor>)>> {
    let folder = run.join(FOLDER);
    let path = folder.join(STATE);
    if !path.is_file() {
        return Ok(None);
    }
    let damaged =
        || format!("{} is damaged: this training can't go on; --force starts anew", path.display());
    let file: File = serde_json::from_slice(&read(&path)?).with_context(damaged)?;
    let bytes = read(&folder.join(&file.tensors)).with_context(damaged)?;
    ensure!(sha256_hex(&bytes) == file.sha256, damaged());
    let tensors =
        candle_core::safetensors::load_buffer(&bytes, &Device::Cpu).with_context(damaged)?;
    Ok(Some((file.progress, tensors.into_iter().collect())))
}

/// Removes the state of a training that is complete.
pub fn remove(run: &Path) {
    // What can't be removed takes room and does no other harm.
    let _ = fs::remove_dir_all(run.join(FOLDER));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_state_is_found_and_damage_is_named() {
        let run = tempfile::tempdir().unwrap();
        assert!(load(run.path()).unwrap().is_none());
        for step in [3usize, 10] {
            let tensor = Tensor::new(&[step as f32, 0.5], &Device::Cpu).unwrap();
            let tensors = [("weight.a".to_string(), tensor)].into();
            let progress = Progress { step, ..Progress::default() };
            save(run.path(), &progress, &tensors).unwrap();
        }
        let (progress, tensors) = load(run.path()).unwrap().unwrap();
        assert_eq!(progress.step, 10);
        assert_eq!(tensors["weight.a"].to_vec1::<f32>().unwrap(), [10.0, 0.5]);
        let files = fs::read_dir(run.path().join(FOLDER)).unwrap().count();
        assert_eq!(files, 2);
        fs::write(run.path().join(FOLDER).join("state-10.safetensors"), b"cut").unwrap();
        let error = load(run.path()).unwrap_err();
        assert!(error.to_string().contains("damaged"), "{error}");
    }
}
