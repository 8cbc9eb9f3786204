//! What a training needs, checked and in memory.
//!
//! Owns the way from arguments to tokenized sides and a loaded base. Writes nothing.

use std::path::Path;

use anyhow::{Context, Result};
use pagebert_kernels::Precision as Products;
use pagebert_model::weights::Missing;
use pagebert_model::{BertConfig, TextTokenizer, Weights};

use super::texts::{Texts, Windowing};
use crate::UsageError;
use crate::base;
use crate::checkpoint::{Checkpoint, read_config};
use crate::cli::TrainArgs;
use crate::data::{BadRow, DataOptions, Dataset, HeldOut, Side, SideCounts, Split, SplitOptions};
use crate::devices::DeviceSpec;
use crate::progress::{Console, Unit};
use crate::run_record::{DataRecord, HeldOutRecord, RunRecord, now};
use crate::settings::{Precision, Settings};

/// Texts of the test side, kept as they are for the report.
pub struct TestRow {
    /// The row number in its file.
    pub row: u64,
    /// The text.
    pub text: String,
}

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
    pub tokenizer: TextTokenizer,
    /// How texts are cut.
    pub windowing: Windowing,
    /// The side that trains.
    pub train: Texts,
    /// The side that picks the best checkpoint.
    pub valid: Texts,
    /// The side that is looked at once.
    pub test: Texts,
    /// The test side's texts.
    pub test_rows: Vec<TestRow>,
    /// `split.csv`.
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
            None => products(settings.precision, device_spec),
        };
        let device = crate::inference::device(device_spec)?;
        let options = args.read.options()?;
        let base = base::resolve(&args.base, console)?;
        let mut config = read_config(&base.config)?;
        let windowing = windowing(&settings, &config, console);

        let data = Dataset::load(&args.data, &options)?;
        let beside = DataOptions { labels: Some(data.labels.clone()), ..options.clone() };
        let held_out = |path: &Option<std::path::PathBuf>| {
            path.as_ref().map(|path| Dataset::load(path, &beside)).transpose()
        };
        let (valid_file, test_file) = (held_out(&args.valid)?, held_out(&args.test)?);
        let held = HeldOut { valid: valid_file.as_ref(), test: test_file.as_ref() };
        let split_options = SplitOptions {
            split_seed: settings.split_seed,
            valid_fraction: settings.valid_fraction,
            test_fraction: settings.test_fraction,
        };
        let split = Split::new(&data, held, &split_options)?;
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
        let sides = Sides { split: &split, console, tokenizer: &tokenizer };
        let train = sides.encode(&data, None, Side::Train)?;
        let valid = sides.encode(&data, valid_file.as_ref(), Side::Valid)?;
        let test = sides.encode(&data, test_file.as_ref(), Side::Test)?;
        let test_rows = sides.rows(&data, test_file.as_ref(), Side::Test);
        Ok(Prepared {
            precision,
            record,
            config: checkpoint.config,
            weights: checkpoint.weights,
            base: checkpoint.files,
            tokenizer,
            windowing,
            train,
            valid,
            test,
            test_rows,
            split,
            counts,
            bad_rows,
        })
    }
}

/// Tokenizing the sides of the data.
struct Sides<'a> {
    split: &'a Split,
    console: &'a Console,
    tokenizer: &'a TextTokenizer,
}

impl Sides<'_> {
    /// A side's texts: those of the file given in its place, or of the data.
    fn encode(&self, data: &Dataset, file: Option<&Dataset>, side: Side) -> Result<Texts> {
        let own = if file.is_none() { self.split.indices(side) } else { Vec::new() };
        let given = file.map(|file| file.rows.as_slice()).unwrap_or_default();
        let count = own.len() + given.len();
        let bar = self.console.bar(
            &format!("tokenizing the {side} side"),
            count as u64,
            Unit::Items("texts"),
        );
        let rows = own.iter().map(|index| &data.rows[*index]).chain(given);
        Texts::encode(rows.map(|row| (row.text.as_str(), row.label)), self.tokenizer, &bar)
    }

    fn rows(&self, data: &Dataset, file: Option<&Dataset>, side: Side) -> Vec<TestRow> {
        let own = if file.is_none() { self.split.indices(side) } else { Vec::new() };
        let given = file.map(|file| file.rows.as_slice()).unwrap_or_default();
        let rows = own.iter().map(|index| &data.rows[*index]).chain(given);
        rows.map(|row| TestRow { row: row.row, text: row.text.clone() }).collect()
    }
}

/// What `precision` means on a device.
fn products(precision: Precision, device: DeviceSpec) -> Products {
    match (precision, device) {
        (Precision::F32, _) => Products::F32,
        (Precision::Bf16, _) => Products::Bf16,
        (Precision::Auto, DeviceSpec::Cpu) if Products::bf16_is_fast() => Products::Bf16,
        (Precision::Auto, DeviceSpec::Cpu) => Products::F32,
        (Precision::Auto, DeviceSpec::Cuda(index)) if crate::devices::has_bf16(index) => {
            Products::Bf16
        }
        (Precision::Auto, DeviceSpec::Cuda(_)) => Products::F32,
    }
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

fn held_out_record(data: Option<&Dataset>) -> Result<Option<HeldOutRecord>> {
    data.map(|data| Ok(HeldOutRecord { path: absolute(&data.path)?, sha256: data.sha256.clone() }))
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
