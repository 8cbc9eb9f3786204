//! `pagebert export`: a trained model as a bundle.
//!
//! Owns the writing of a bundle, and the proof that it can be read and is as good as the model.
//! What a bundle is, is `pagebert_model::bundle`'s.

mod calibrate;

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use candle_core::{DType, Device};
use pagebert_model::BertConfig;
use pagebert_model::bundle::{
    self, FORMAT, FileEntry, MODEL, Manifest, Metrics, TOKENIZER, VERSION,
};
use pagebert_model::classify::Classifier;
use pagebert_model::tokenize::CompactTokenizer;
use serde_json::{Map, Value, json};

use crate::UsageError;
use crate::base::{BaseFiles, TokenizerFile, resolve_folder};
use crate::checkpoint::{Checkpoint, ModelFolder, lowercases, read, write_atomically};
use crate::cli::{BundlePrecision, ExportArgs};
use crate::data::Side;
use crate::evaluate::{measure, recorded_side};
use crate::inference::{LoadedModel, classifier, fit_window, set_threads};
use crate::metrics::{Report, most_probable};
use crate::progress::{Console, human_bytes};
use crate::run_record::{RunRecord, now};

/// Points of accuracy that a bundle may lose without a warning.
const MOST_LOST: f64 = 0.3;
/// Rows of which such a warning says what became of them.
const ROWS_SHOWN: usize = 10;
const WEIGHTS_FILE: &str = "model.safetensors";
const TOKENIZER_FILE: &str = "tokenizer.txt";

/// Runs the command.
///
/// # Errors
/// [`UsageError`] for what the user can set right; anything else is a failure.
pub fn run(args: &ExportArgs, console: &Console) -> Result<()> {
    let precision = args.precision;
    set_threads(args.threads)?;
    check_target(&args.out)?;
    if let ModelFolder::Bundle(folder) = ModelFolder::find(&args.run)? {
        let shown = folder.display();
        return Err(UsageError(format!(
            "{shown} is a bundle already. Export the run that it was made from"
        ))
        .into());
    }
    let files = resolve_folder(&args.run)?;
    let tokenizer = compact_tokenizer(&files)?;
    let record = RunRecord::read(&args.run)?;
    let checkpoint = Checkpoint::load(files, &Device::Cpu)?;
    let (values, config) = (checkpoint.weights.clone(), checkpoint.config.clone());
    let weights_sha256 = checkpoint.weights_sha256.clone();
    let original = LoadedModel {
        classifier: classifier(checkpoint, record.as_ref())?,
        record,
        manifest: None,
    };
    let weights = match precision {
        BundlePrecision::F32 => values.to_safetensors(DType::F32),
        BundlePrecision::F16 => values.to_safetensors(DType::F16),
        BundlePrecision::Int8 => {
            let texts = args.calibrate;
            calibrate::round(&args.run, &original, &values, texts, console)?.to_safetensors()
        }
    };
    let weights = weights.map_err(|error| {
        UsageError(format!("--precision {}: {error} (--precision f32)", precision.name()))
    })?;
    let record = original.record.as_ref();
    let mut manifest = manifest(config, weights_sha256, record, precision, &weights, &tokenizer)?;
    let mut contents = HashMap::from([
        (MODEL.to_string(), weights),
        (TOKENIZER.to_string(), tokenizer.into_bytes()),
    ]);
    // Read back before anything is written: what a page can't load is never left behind.
    let text = manifest.to_json()?;
    let bundled = LoadedModel {
        classifier: Classifier::from_bundle(text.as_bytes(), contents.clone())?,
        record: None,
        manifest: None,
    };
    manifest.metrics = compare(&original, &bundled, &args.run, console)?;

    let written = write(&args.out, &manifest, &mut contents)?;
    console.note(format!(
        "{} is a bundle of {} in {}. Next:\n  pagebert site {} --out site",
        args.out.display(),
        human_bytes(written),
        precision.name(),
        args.out.display()
    ));
    Ok(())
}

/// Refuses to replace anything but an earlier bundle.
fn check_target(out: &Path) -> Result<(), UsageError> {
    let shown = out.display();
    if !out.exists() {
        return Ok(());
    }
    let Ok(entries) = fs::read_dir(out) else {
        return Err(UsageError(format!("{shown} is no folder. Give --out another name")));
    };
    let names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into()).collect();
    let ours = |name: &String| ["manifest.json", WEIGHTS_FILE, TOKENIZER_FILE].contains(&&**name);
    let bundle = names.iter().any(|name| name == "manifest.json");
    match names.iter().find(|name| !ours(name)) {
        Some(foreign) => Err(UsageError(format!(
            "{shown} holds {foreign}, which is no part of a bundle. Give --out another name"
        ))),
        None if bundle || names.is_empty() => Ok(()),
        None => {
            Err(UsageError(format!("{shown} holds files, but no bundle. Give --out another name")))
        }
    }
}

fn compact_tokenizer(files: &BaseFiles) -> Result<String> {
    let (path, compact) = match &files.tokenizer {
        TokenizerFile::Json(path) => (path, CompactTokenizer::from_tokenizer_json(&read(path)?)),
        TokenizerFile::Vocab(path) => {
            (path, CompactTokenizer::from_vocab_txt(&read(path)?, lowercases(files)?))
        }
    };
    let compact = compact.map_err(|error| UsageError(format!("{}: {error}", path.display())))?;
    Ok(compact.to_text()?)
}

fn manifest(
    config: BertConfig,
    weights_sha256: String,
    record: Option<&RunRecord>,
    precision: BundlePrecision,
    weights: &[u8],
    tokenizer: &str,
) -> Result<Manifest> {
    let settings = record.map(|record| &record.settings);
    let (max_tokens, stride) = fit_window(
        settings.map_or(512, |settings| settings.max_tokens),
        settings.map_or(64, |settings| settings.stride),
        config.max_position_embeddings,
    );
    let mut provenance = Map::new();
    provenance.insert("pagebert".into(), env!("CARGO_PKG_VERSION").into());
    provenance.insert("date".into(), now().into());
    provenance.insert("weights_sha256".into(), weights_sha256.into());
    if let Some(record) = record {
        provenance.insert("base".into(), file_name(&record.base));
        provenance.insert("base_sha256".into(), record.base_sha256.clone().into());
        provenance.insert("data_sha256".into(), record.data.sha256.clone().into());
        provenance.insert("trained".into(), record.started.clone().into());
        provenance.insert("seed".into(), json!(record.settings.seed));
    }
    let mut config = config;
    let labels = config.labels()?;
    // A checkpoint may leave its labels to be understood; a bundle names them.
    config.set_labels(&labels);
    // Where somebody's base once lay is nobody else's business.
    config.other.remove("_name_or_path");
    Ok(Manifest {
        format: FORMAT.into(),
        version: VERSION,
        labels,
        config,
        max_tokens,
        stride,
        temperature: 1.0,
        threshold: 0.0,
        precision: precision.name().into(),
        files: BTreeMap::from([
            (MODEL.to_string(), FileEntry::of(WEIGHTS_FILE, weights)),
            (TOKENIZER.to_string(), FileEntry::of(TOKENIZER_FILE, tokenizer.as_bytes())),
        ]),
        metrics: None,
        provenance,
    })
}

/// A base's name without the folders above it: a bundle is public, and paths are not.
fn file_name(base: &str) -> Value {
    if base.starts_with("hf:") {
        return base.into();
    }
    let name = Path::new(base).file_name().map(|name| name.to_string_lossy().into_owned());
    name.unwrap_or_default().into()
}

/// Measures checkpoint and bundle on the recorded test side, and says how they compare.
fn compare(
    original: &LoadedModel,
    bundled: &LoadedModel,
    run: &Path,
    console: &Console,
) -> Result<Option<Metrics>> {
    let Some(record) = &original.record else {
        console.note("the checkpoint records no test side: the bundle carries no figures");
        return Ok(None);
    };
    let rows =
        match recorded_side(run, record, Side::Test, original.classifier.labels(), usize::MAX) {
            Ok(rows) => rows,
            Err(error) => {
                console.warn(format!("the bundle carries no figures: {error}"));
                return Ok(None);
            }
        };
    let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
    let truths: Vec<u32> = rows.iter().map(|row| row.label).collect();
    let (before, logits) = measure(original, &texts, &truths, console)?;
    let (after, bundled_logits) = measure(bundled, &texts, &truths, console)?;
    let pairs = logits.iter().zip(&bundled_logits).enumerate();
    let flipped: Vec<usize> = pairs
        .filter(|(_, (a, b))| most_probable(a) != most_probable(b))
        .map(|(row, _)| row)
        .collect();
    console.note(format!(
        "test accuracy {:.2} % as trained, {:.2} % as bundled; {} of {} labels differ",
        100.0 * before.accuracy,
        100.0 * after.accuracy,
        flipped.len(),
        rows.len()
    ));
    let lost = 100.0 * (before.accuracy - after.accuracy);
    if lost > MOST_LOST {
        let labels = original.classifier.labels();
        let shown = flipped.iter().take(ROWS_SHOWN).map(|row| {
            let (before, after) =
                (most_probable(&logits[*row]), most_probable(&bundled_logits[*row]));
            let text: String = texts[*row].chars().take(60).collect();
            format!("\n  {text:?}: {} became {}", labels[before], labels[after])
        });
        console.warn(format!(
            "the bundle is {lost:.2} points worse than the model. --precision f16 keeps its answers. \
             The first labels that differ:{}",
            shown.collect::<String>()
        ));
    }
    let Report { rows, accuracy, macro_f1, loss, .. } = after;
    Ok(Some(Metrics { split: "test".into(), rows, accuracy, macro_f1, loss }))
}

/// Writes the bundle beside its place, then moves it there; its size.
fn write(out: &Path, manifest: &Manifest, contents: &mut HashMap<String, Vec<u8>>) -> Result<u64> {
    let describe = || format!("{} can't be written", out.display());
    let parent = out.parent().filter(|folder| !folder.as_os_str().is_empty());
    let parent = parent.unwrap_or(Path::new("."));
    fs::create_dir_all(parent).with_context(describe)?;
    let folder = tempfile::Builder::new()
        .prefix(".pagebert-")
        .permissions(public_folder())
        .tempdir_in(parent)
        .with_context(describe)?;
    let mut written = 0;
    for (name, entry) in &manifest.files {
        let bytes = contents.remove(name).unwrap_or_default();
        written += bytes.len() as u64;
        write_atomically(&folder.path().join(&entry.path), &bytes)?;
    }
    let text = manifest.to_json().map_err(|error: bundle::BundleError| anyhow::anyhow!(error))?;
    written += text.len() as u64;
    write_atomically(&folder.path().join("manifest.json"), text.as_bytes())?;
    // The old bundle goes once the new one is in its place, and comes back if that fails.
    let aside = tempfile::Builder::new().prefix(".pagebert-").tempdir_in(parent);
    let aside = aside.with_context(describe)?;
    let old = aside.path().join("old");
    let replaced = out.exists();
    if replaced {
        fs::rename(out, &old).with_context(describe)?;
    }
    if let Err(error) = fs::rename(folder.path(), out) {
        if replaced && fs::rename(&old, out).is_err() {
            let kept = aside.keep();
            bail!(
                "{} can't be written ({error}); the old one is in {}",
                out.display(),
                kept.display()
            );
        }
        return Err(error).with_context(describe);
    }
    // It lies elsewhere now: nothing is left to remove.
    let _moved = folder.keep();
    Ok(written)
}

fn public_folder() -> fs::Permissions {
    use std::os::unix::fs::PermissionsExt;
    fs::Permissions::from_mode(0o755)
}
