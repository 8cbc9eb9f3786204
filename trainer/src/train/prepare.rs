//! What a training needs, checked.
//!
//! Owns the way from arguments to tokenized sides and a loaded base. Writes nothing but the cache of
//! tokens.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, Result};
use pagebert_kernels::Precision as Products;
use pagebert_model::weights::Missing;
use pagebert_model::{BertConfig, TextTokenizer, Weights};

use super::test_rows::TestRows;
use super::texts::{Texts, Windowing};
use super::token_cache::TokenCache;
use crate::UsageError;
use crate::base;
use crate::checkpoint::{Checkpoint, read_config};
use crate::cli::TrainArgs;
use crate::data::{
    BadRow, DataOptions, HeldOut, Index, Side, SideCounts, Split, SplitOptions, TextHash,
};
use crate::devices::DeviceSpec;
use crate::progress::Console;
use crate::run_record::{DataRecord, HeldOutRecord, RunRecord, now};
use crate::settings::{Precision, Settings};

/// All that is known before the first step.
pub struct Prepared {
    /// What the operands of products are kept in.
    pub precision: Products,
    /// `run.toml`.
    pub record: RunRecord,
    /// The model's configuration, with the data's labels.
    pub config: BertConfig,
    /// The base's weights.
    pub weights: Weights,
    /// The base's files.
    pub base: base::BaseFiles,
    /// The tokenizer.
    pub tokenizer: Arc<TextTokenizer>,
    /// How texts are cut.
    pub windowing: Windowing,
    /// The side that trains.
    pub train: Arc<Texts>,
    /// The side that picks the best checkpoint.
    pub valid: Texts,
    /// The side that is looked at once.
    pub test: Texts,
    /// Where the test side's texts are.
    pub test_rows: TestRows,
    /// `split.csv`, until it is written.
    pub split: Split,
    /// Rows per class and side.
    pub counts: SideCounts,
    /// Rows that were left out.
    pub bad_rows: Vec<BadRow>,
}

impl Prepared {
    /// Reads, checks and tokenizes. With the record of a run that is resumed, data and base must be
    /// those of the record.
    ///
    /// # Errors
    /// For anything wrong with arguments, data or base.
    pub fn new(
        args: &TrainArgs,
        settings: Settings,
        device_spec: DeviceSpec,
        resumed: Option<&RunRecord>,
        console: &Console,
    ) -> Result<Prepared> {
        let precision = match resumed {
            // On another machine `auto` could mean something else, and the end would differ.
            Some(record) => record.products()?,
            None => products(settings.precision, device_spec)?,
        };
        if precision == Products::Int8 && !Products::int8_is_fast() {
            console.warn(
                "precision=int8 is slow here: this processor has no instructions for products of \
                 bytes (AVX-512-VNNI or AMX). A run begun with precision=auto is what it computes fast",
            );
        }
        let device = crate::inference::device(device_spec)?;
        let options = args.read.options()?;
        let base = base::resolve(&args.base, console)?;
        let mut config = read_config(&base.config)?;
        let windowing = windowing(&settings, &config, console);

        let data = Index::load(&args.data, &options)?;
        let beside = DataOptions { labels: Some(data.labels.clone()), ..options.clone() };
        let held_out = |path: &Option<std::path::PathBuf>| {
            path.as_ref().map(|path| Index::load(path, &beside)).transpose()
        };
        let (valid_file, test_file) = (held_out(&args.valid)?, held_out(&args.test)?);
        let held = HeldOut { valid: valid_file.as_ref(), test: test_file.as_ref() };
        let split_options = SplitOptions {
            split_seed: settings.split_seed,
            valid_fraction: settings.valid_fraction,
            test_fraction: settings.test_fraction,
        };
        let split = Split::new(&data, held, &split_options)?;
        warn_of_shared(held, console);
        let counts = split.counts(&data, held);

        let same_labels = config.labels().is_ok_and(|labels| labels == data.labels);
        config.set_labels(&data.labels);
        if let Some(p) = settings.dropout {
            config.hidden_dropout_prob = p;
            config.attention_probs_dropout_prob = p;
            config.classifier_dropout = Some(p);
        }
        config
            .other
            .insert("architectures".into(), serde_json::json!(["BertForSequenceClassification"]));
        config.check().map_err(|error| UsageError(format!("{}: {error}", base.name)))?;
        let seed = settings.seed;
        let mut checkpoint =
            Checkpoint::with_config(base, config, Missing::Initialise { seed }, &device)?;
        let mut initialised = checkpoint.report.initialised.clone();
        if !same_labels && !initialised.iter().any(|name| name.starts_with("classifier.")) {
            // A head that was trained to tell other classes apart.
            checkpoint.weights.reset_classifier(&checkpoint.config, seed, &device)?;
            initialised.push("classifier.weight".into());
        }
        // A classifier is what training is for; anything else that is missing is worth a word.
        initialised.retain(|name| !name.starts_with("classifier."));
        if !initialised.is_empty() {
            console.warn(format!(
                "{} lacks {}: freshly initialised",
                checkpoint.files.name,
                initialised.join(", ")
            ));
        }

        let record = RunRecord {
            pagebert: env!("CARGO_PKG_VERSION").into(),
            started: now(),
            base: checkpoint.files.name.clone(),
            base_sha256: checkpoint.weights_sha256.clone(),
            device: device_spec.to_string(),
            computed_in: RunRecord::name_products(precision).into(),
            data: DataRecord {
                path: absolute(&args.data)?,
                sha256: data.sha256.clone(),
                text_columns: options.read.text_columns.clone(),
                label_column: options.read.label_column.clone(),
                delimiter: options.read.delimiter,
                skip_bad_rows: options.skip_bad_rows,
            },
            valid: held_out_record(valid_file.as_ref())?,
            test: held_out_record(test_file.as_ref())?,
            settings,
        };
        if let Some(before) = resumed {
            same_run(before, &record)?;
        }
        let bad_rows = [Some(&data), valid_file.as_ref(), test_file.as_ref()]
            .into_iter()
            .flatten()
            .flat_map(|data| data.bad_rows.clone())
            .collect();

        let tokenizer = checkpoint.tokenizer;
        let vocabulary = checkpoint.config.vocab_size;
        let cache = TokenCache::new(&checkpoint.files, &tokenizer, vocabulary, console)?;
        let tokens = Arc::new(cache.tokens(&data, &options)?);
        // A side is the file given in its place, or a part of the data.
        let side = |file: Option<&Index>, side: Side| match file {
            None => {
                let chosen = split.indices(side);
                let rows = chosen.iter().map(|index| (*index, data.classes[*index]));
                Texts::new(Arc::clone(&tokens), rows)
            }
            Some(file) => {
                let tokens = Arc::new(cache.tokens(file, &beside)?);
                Texts::new(tokens, file.classes.iter().copied().enumerate())
            }
        };
        let train = side(None, Side::Train)?;
        let valid = side(valid_file.as_ref(), Side::Valid)?;
        let test = side(test_file.as_ref(), Side::Test)?;
        let test_rows = match &test_file {
            None => TestRows::new(&data, split.indices(Side::Test).into_iter()),
            Some(file) => TestRows::new(file, 0..file.len()),
        };
        Ok(Prepared {
            precision,
            record,
            config: checkpoint.config,
            weights: checkpoint.weights,
            base: checkpoint.files,
            tokenizer: Arc::new(tokenizer),
            windowing,
            train: Arc::new(train),
            valid,
            test,
            test_rows,
            split,
            counts,
            bad_rows,
        })
    }
}

/// Says when the checkpoint is chosen by texts that it is then tested on.
fn warn_of_shared(held: HeldOut<'_>, console: &Console) {
    let (Some(valid), Some(test)) = (held.valid, held.test) else { return };
    let tested: HashSet<TextHash> = test.texts.iter().copied().collect();
    let validated: HashSet<TextHash> = valid.texts.iter().copied().collect();
    let shared = tested.intersection(&validated).count();
    if shared > 0 {
        let rows = test.texts.iter().filter(|text| validated.contains(*text)).count();
        console.warn(format!(
            "{shared} text{} of the --test file ({rows} of its {} rows) {} in the --valid file too: \
             the checkpoint is chosen by what it is tested on, and the test figures flatter",
            if shared == 1 { "" } else { "s" },
            test.len(),
            if shared == 1 { "is" } else { "are" },
        ));
    }
}

/// What `precision` means on a device.
fn products(precision: Precision, device: DeviceSpec) -> Result<Products, UsageError> {
    Ok(match (precision, device) {
        (Precision::F32, _) => Products::F32,
        (Precision::Bf16, _) => Products::Bf16,
        (Precision::Int8, DeviceSpec::Cpu) => Products::Int8,
        (Precision::Int8, DeviceSpec::Cuda(_)) => {
            return Err(UsageError(
                "precision=int8 is computed by processors alone: with --device cuda, train with \
                 precision=auto"
                    .to_string(),
            ));
        }
        (Precision::Auto, DeviceSpec::Cpu) if Products::bf16_is_fast() => Products::Bf16,
        (Precision::Auto, DeviceSpec::Cpu) => Products::F32,
        (Precision::Auto, DeviceSpec::Cuda(index)) if crate::devices::has_bf16(index) => {
            Products::Bf16
        }
        (Precision::Auto, DeviceSpec::Cuda(_)) => Products::F32,
    })
}

fn windowing(settings: &Settings, config: &BertConfig, console: &Console) -> Windowing {
    let longest = config.max_position_embeddings;
    let max_tokens = settings.max_tokens.min(longest);
    if max_tokens < settings.max_tokens {
        console.note(format!("max_tokens is {max_tokens}: this base takes no more"));
    }
    // With a base of few positions the stride shrinks alike.
    let stride = settings.stride.min((max_tokens - 2) / 2);
    Windowing { max_tokens, stride, max_windows: settings.max_windows }
}

fn absolute(path: &Path) -> Result<std::path::PathBuf> {
    std::path::absolute(path).with_context(|| path.display().to_string())
}

fn held_out_record(data: Option<&Index>) -> Result<Option<HeldOutRecord>> {
    data.map(|data| {
        Ok(HeldOutRecord { path: absolute(&data.file.path)?, sha256: data.sha256.clone() })
    })
    .transpose()
}

/// Refuses to resume with other data, another base or another device: the end would not be that of
/// the run that was begun.
fn same_run(before: &RunRecord, now: &RunRecord) -> Result<(), UsageError> {
    let differs = [
        ("the base has", before.base_sha256 != now.base_sha256),
        ("the data has", before.data.sha256 != now.data.sha256),
        (
            "how the data is read has",
            DataRecord { path: now.data.path.clone(), ..before.data.clone() } != now.data,
        ),
        ("the --valid file has", hash(&before.valid) != hash(&now.valid)),
        ("the --test file has", hash(&before.test) != hash(&now.test)),
        ("the device has", before.device != now.device),
    ];
    match differs.iter().find(|(_, differs)| *differs) {
        None => Ok(()),
        Some((what, _)) => Err(UsageError(format!(
            "--resume: {what} changed since the run began. Give what it began with, or start anew \
             with --force"
        ))),
    }
}

fn hash(record: &Option<HeldOutRecord>) -> Option<&str> {
    record.as_ref().map(|record| record.sha256.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn products_of_integers_are_not_for_cards() {
        assert_eq!(products(Precision::Int8, DeviceSpec::Cpu).ok(), Some(Products::Int8));
        let error = products(Precision::Int8, DeviceSpec::Cuda(0)).unwrap_err().to_string();
        assert!(error.contains("precision=int8") && error.contains("precision=auto"), "{error}");
        assert_eq!(products(Precision::Bf16, DeviceSpec::Cuda(0)).ok(), Some(Products::Bf16));
    }
}
