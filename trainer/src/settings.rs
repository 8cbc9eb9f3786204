//! The training settings: their names, types, ranges and layers.
//!
//! Three layers, later ones winning: `conf/default.toml` (built in), `--config` files in the order
//! given, `key=value` arguments. Every value is checked where it is given, so that an error can name
//! the file or the argument. Must not know how settings are used.
//!
//! A new setting is a field of [`Settings`], a row of `KEYS` and a line of `conf/default.toml`; a
//! test holds the three together.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml::{Table, Value};

use crate::UsageError;

/// The file that names every setting, its default and the reason.
pub const DEFAULT_TOML: &str = include_str!("../../conf/default.toml");

/// How products are computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// bf16 where the processor has it, else f32.
    Auto,
    /// 32-bit floats throughout.
    F32,
    /// bf16 products; sums and master weights in f32.
    Bf16,
    /// 8-bit integers in linear layers' products, with scales by row and column; f32 weights.
    Int8,
}

/// Everything that decides a training besides its data and base. conf/default.toml has the reasons.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    /// Passes over the training side.
    pub epochs: usize,
    /// Ends training early; 0: never.
    pub max_steps: usize,
    /// Texts per batch.
    pub batch_size: usize,
    /// Caps the tokens of a batch; 0: no cap.
    pub batch_tokens: usize,
    /// Batches per optimizer step.
    pub accumulate: usize,
    /// Tokens of a window, special tokens included.
    pub max_tokens: usize,
    /// Tokens that neighbouring windows share.
    pub stride: usize,
    /// Windows of one text in training.
    pub max_windows: usize,
    /// The peak learning rate.
    pub lr: f64,
    /// The part of the steps in which the learning rate rises.
    pub warmup: f64,
    /// AdamW's decoupled weight decay.
    pub weight_decay: f64,
    /// The gradient's largest norm; 0: no clipping.
    pub clip: f64,
    /// Overrides the dropout of the checkpoint's config.
    #[serde(with = "dropout_or_checkpoint")]
    pub dropout: Option<f64>,
    /// Order of the texts, dropout masks, fresh weights.
    pub seed: u64,
    /// Which texts are on which side.
    pub split_seed: u64,
    /// The part of the texts that validates.
    pub valid_fraction: f64,
    /// The part of the texts that tests.
    pub test_fraction: f64,
    /// How products are computed.
    pub precision: Precision,
    /// Whether layers are computed again in the backward pass, which keeps less of them.
    pub checkpoint_layers: bool,
    /// Threads to compute with; 0: as many as there are cores.
    pub threads: usize,
    /// Steps between lines of `metrics.jsonl`.
    pub log_every: usize,
    /// Steps between evaluations; 0: each epoch.
    pub eval_every: usize,
}

impl Settings {
    /// The defaults, then `files` in order, then `arguments` of the form `key=value` in order.
    pub fn load(files: &[PathBuf], arguments: &[String]) -> Result<Settings, UsageError> {
        let mut merged = Table::new();
        merge(&mut merged, DEFAULT_TOML, Path::new("conf/default.toml"))?;
        for file in files {
            let text = std::fs::read_to_string(file).map_err(|error| {
                UsageError(format!("{}: the settings can't be read: {error}", file.display()))
            })?;
            merge(&mut merged, &text, file)?;
        }
        for argument in arguments {
            let Some((key, value)) = argument.split_once('=') else {
                return Err(UsageError(format!(
                    "`{argument}` is no setting: settings look like epochs=2, and files are given \
                     with --data, --base and --out"
                )));
            };
            let key = key.trim();
            let kind =
                kind_of(key).map_err(|problem| UsageError(format!("{argument}: {problem}")))?;
            let value = kind
                .check(&literal(value.trim()))
                .map_err(|expected| UsageError(format!("{argument}: expected {expected}")))?;
            merged.insert(key.to_string(), value);
        }
        let settings: Settings = merged.try_into().map_err(|error: toml::de::Error| {
            UsageError(format!("settings: {}", error.message()))
        })?;
        settings.check_together()?;
        Ok(settings)
    }

    /// The settings as a file that `--config` reads.
    pub fn to_toml(&self) -> String {
        // Nothing in a flat table of numbers and words can fail to serialise.
        toml::to_string(self).unwrap_or_default()
    }

    /// What only shows when two settings are seen together.
    fn check_together(&self) -> Result<(), UsageError> {
        // A window's two special tokens are no text; a window must move on by at least one token.
        if self.stride + 2 >= self.max_tokens {
            return Err(UsageError(format!(
                "stride={} leaves windows of max_tokens={} nothing new to read: give a stride \
                 below {}",
                self.stride,
                self.max_tokens,
                self.max_tokens - 2
            )));
        }
        if self.valid_fraction + self.test_fraction > 0.9 {
            return Err(UsageError(format!(
                "valid_fraction={} and test_fraction={} leave less than a tenth to train on",
                self.valid_fraction, self.test_fraction
            )));
        }
        Ok(())
    }
}

impl Default for Settings {
    fn default() -> Settings {
        // The default file is part of the program and `the_default_file_is_valid` loads it.
        Settings::load(&[], &[]).unwrap_or_else(|error| unreachable!("conf/default.toml: {error}"))
    }
}

/// What values a setting takes.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A whole number in a range.
    Whole { min: i64, max: i64, example: &'static str },
    /// A number in a range, the ends included.
    Number { min: f64, max: f64, example: &'static str },
    /// A number in a range, or one word.
    NumberOr { min: f64, max: f64, example: &'static str, word: &'static str },
    /// One of some words.
    Word(&'static [&'static str]),
    /// true or false.
    Switch,
}

const fn whole(min: i64, max: i64, example: &'static str) -> Kind {
    Kind::Whole { min, max, example }
}

const fn number(min: f64, max: f64, example: &'static str) -> Kind {
    Kind::Number { min, max, example }
}

/// Wide enough for anything sensible, and an f64 still counts it exactly.
const MANY: i64 = 1_000_000_000;

/// Every setting. The ranges shut out what can only be a slip.
const KEYS: &[(&str, Kind)] = &[
    ("epochs", whole(1, 10_000, "3")),
    ("max_steps", whole(0, MANY, "200")),
    ("batch_size", whole(1, 65_536, "32")),
    ("batch_tokens", whole(0, MANY, "8192")),
    ("accumulate", whole(1, 65_536, "4")),
    ("max_tokens", whole(8, 65_536, "512")),
    ("stride", whole(0, 65_536, "64")),
    ("max_windows", whole(1, 65_536, "8")),
    ("lr", number(1e-12, 1.0, "5e-5")),
    ("warmup", number(0.0, 1.0, "0.1")),
    ("weight_decay", number(0.0, 10.0, "0.01")),
    ("clip", number(0.0, 1e9, "1.0")),
    ("dropout", Kind::NumberOr { min: 0.0, max: 0.95, example: "0.1", word: "checkpoint" }),
    ("seed", whole(0, i64::MAX, "42")),
    ("split_seed", whole(0, i64::MAX, "1")),
    ("valid_fraction", number(0.0, 0.9, "0.1")),
    ("test_fraction", number(0.0, 0.9, "0.1")),
    ("precision", Kind::Word(&["auto", "f32", "bf16", "int8"])),
    ("checkpoint_layers", Kind::Switch),
    ("threads", whole(0, 4096, "4")),
    ("log_every", whole(1, MANY, "10")),
    ("eval_every", whole(0, MANY, "100")),
];

impl Kind {
    /// The value in its own type, or what was expected instead.
    fn check(self, value: &Value) -> Result<Value, String> {
        match self {
            Kind::Whole { min, max, example } => whole_of(value)
                .filter(|number| (min..=max).contains(number))
                .map(Value::Integer)
                .ok_or_else(|| {
                    let range = match max {
                        i64::MAX => format!("of {min} or more"),
                        max => format!("from {min} to {max}"),
                    };
                    format!("a whole number {range}, like {example}")
                }),
            Kind::Number { min, max, example } => {
                number_of(value, min, max).map(Value::Float).ok_or_else(|| match value {
                    Value::Integer(_) | Value::Float(_) => {
                        format!("a number from {min} to {max}, like {example}")
                    }
                    _ => format!("a number, like {example}"),
                })
            }
            Kind::NumberOr { min, max, example, word } => match value {
                Value::String(given) if given == word => Ok(value.clone()),
                _ => number_of(value, min, max).map(Value::Float).ok_or_else(|| {
                    format!("a number from {min} to {max}, like {example}, or \"{word}\"")
                }),
            },
            Kind::Word(words) => match value {
                Value::String(given) if words.contains(&given.as_str()) => Ok(value.clone()),
                _ => Err(format!("one of {}", words.join(", "))),
            },
            Kind::Switch => match value {
                Value::Boolean(_) => Ok(value.clone()),
                Value::String(given) if given == "true" => Ok(Value::Boolean(true)),
                Value::String(given) if given == "false" => Ok(Value::Boolean(false)),
                _ => Err("true or false".to_string()),
            },
        }
    }
}

/// A whole number, also when written like `1e3`.
fn whole_of(value: &Value) -> Option<i64> {
    match value {
        Value::Integer(number) => Some(*number),
        Value::Float(number) if number.fract() == 0.0 && number.abs() < 9e15 => {
            Some(*number as i64)
        }
        _ => None,
    }
}

fn number_of(value: &Value, min: f64, max: f64) -> Option<f64> {
    let number = match value {
        Value::Integer(number) => *number as f64,
        Value::Float(number) => *number,
        _ => return None,
    };
    // NaN is in no range.
    (min..=max).contains(&number).then_some(number)
}

/// The value of a `key=value` argument: a number if it reads as one, else a word. The shell has taken
/// TOML's quotes away, so the text can't be parsed as TOML.
fn literal(text: &str) -> Value {
    if let Ok(number) = text.parse::<i64>() {
        return Value::Integer(number);
    }
    match text.parse::<f64>() {
        Ok(number) => Value::Float(number),
        Err(_) => Value::String(text.to_string()),
    }
}

fn kind_of(key: &str) -> Result<Kind, String> {
    if let Some((_, kind)) = KEYS.iter().find(|(name, _)| *name == key) {
        return Ok(*kind);
    }
    let way_out = match similar(key) {
        Some(name) => format!("did you mean {name}?"),
        None => {
            let names: Vec<&str> = KEYS.iter().map(|(name, _)| *name).collect();
            format!("there are {}", names.join(", "))
        }
    };
    Err(format!("there is no setting `{key}`; {way_out}"))
}

/// What the user may have meant: a slip of the fingers, another tool's name for the same thing.
fn similar(key: &str) -> Option<&'static str> {
    let key = key.to_lowercase().replace('-', "_");
    let elsewhere = match key.as_str() {
        "learning_rate" => Some("lr"),
        "num_train_epochs" | "num_epochs" => Some("epochs"),
        "per_device_train_batch_size" | "train_batch_size" => Some("batch_size"),
        "max_length" | "max_seq_length" | "max_seq_len" => Some("max_tokens"),
        "warmup_ratio" | "warmup_steps" => Some("warmup"),
        "gradient_accumulation_steps" => Some("accumulate"),
        "max_grad_norm" => Some("clip"),
        _ => None,
    };
    elsewhere.or_else(|| {
        let score = |name: &str| strsim::jaro_winkler(&key, name);
        let (name, best) =
            KEYS.iter().map(|(name, _)| (*name, score(name))).max_by(|a, b| a.1.total_cmp(&b.1))?;
        (best > 0.8).then_some(name)
    })
}

/// Lays the settings of a file over `merged`.
fn merge(merged: &mut Table, text: &str, file: &Path) -> Result<(), UsageError> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| {
        UsageError(format!(
            "{}: this is not TOML: {}",
            file.display(),
            error.to_string().trim_end()
        ))
    })?;
    for (key, value) in &table {
        if value.is_table() {
            return Err(UsageError(format!(
                "{}: settings stand in no section: remove [{key}]",
                file.display()
            )));
        }
        let kind =
            kind_of(key).map_err(|problem| UsageError(format!("{}: {problem}", file.display())))?;
        let value = kind.check(value).map_err(|expected| {
            UsageError(format!("{}: {key} = {value}: expected {expected}", file.display()))
        })?;
        merged.insert(key.clone(), value);
    }
    Ok(())
}

/// `dropout = "checkpoint"` is `None`: TOML has no null, and an absent key would fall back to a layer
/// below.
mod dropout_or_checkpoint {
    use serde::{Deserialize, Deserializer, Serializer};

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Dropout {
        Number(f64),
        Word(#[allow(dead_code, reason = "checked before, and there is but one")] String),
    }

    pub fn serialize<S: Serializer>(value: &Option<f64>, serializer: S) -> Result<S::Ok, S::Error> {
        match value {
            Some(number) => serializer.serialize_f64(*number),
            None => serializer.serialize_str("checkpoint"),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Option<f64>, D::Error> {
        Ok(match Dropout::deserialize(deserializer)? {
            Dropout::Number(number) => Some(number),
            Dropout::Word(_) => None,
        })
    }
}

#[cfg(test)]
mod tests;
