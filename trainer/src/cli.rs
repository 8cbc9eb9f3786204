//! The command line: names, help and types of every argument.
//!
//! Owns what can be typed and how it reads in `--help`. Arguments are parsed once, here; what they
//! mean is decided where they are used. Nothing here does any work.

mod examples;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::data::{DataError, DataOptions, ReadOptions, parse_delimiter};
use crate::devices::{DeviceSpec, parse_device};
use crate::progress::Verbosity;
use crate::settings::Precision;

/// Fine-tune BERT on your CSV, ship it as a web page.
#[derive(Debug, Parser)]
#[command(name = "pagebert", version, after_help = examples::MAIN, max_term_width = 100)]
pub struct Cli {
    /// Say nothing but warnings and errors
    #[arg(short, long, global = true, conflicts_with = "verbose", display_order = 900)]
    pub quiet: bool,

    /// Say more than usual
    #[arg(short, long, global = true, display_order = 900)]
    pub verbose: bool,

    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

impl Cli {
    /// How much is said.
    pub fn verbosity(&self) -> Verbosity {
        match (self.quiet, self.verbose) {
            (true, _) => Verbosity::Quiet,
            (_, true) => Verbosity::Verbose,
            _ => Verbosity::Normal,
        }
    }
}

/// The subcommands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Look at data: rows, labels, lengths, duplicates, leaks, empty and conflicting rows
    Inspect(InspectArgs),
    /// Fine-tune a BERT on labelled texts
    Train(TrainArgs),
    /// Measure a model: accuracy, macro F1, per-class figures, confusion matrix
    Evaluate(EvaluateArgs),
    /// Classify texts
    Predict(PredictArgs),
    /// Turn a trained model into a bundle, the form that a page loads
    Export(ExportArgs),
    /// Put a bundle and the page together into a folder that any web host can serve
    Site(SiteArgs),
    /// Show a site in the browser of this machine
    Serve(ServeArgs),
    /// List what pagebert can compute with
    Devices(DevicesArgs),
}

/// How data files are read.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Data")]
pub struct DataArgs {
    /// Columns that make the text; several are joined with a line break
    #[arg(long, value_name = "NAME,…", value_delimiter = ',', default_value = "text")]
    pub text_column: Vec<String>,

    /// The column of the label
    #[arg(long, value_name = "NAME", default_value = "label")]
    pub label_column: String,

    /// What separates columns: one character, or the word tab [default: by the file's ending]
    #[arg(long, value_name = "CHAR")]
    pub delimiter: Option<String>,

    /// Leave bad rows out and list them, instead of stopping at the first
    #[arg(long)]
    pub skip_bad_rows: bool,
}

impl DataArgs {
    /// The options of the data reader; labels are taken from the file.
    pub fn options(&self) -> Result<DataOptions, DataError> {
        let delimiter = self.delimiter.as_deref().map(parse_delimiter).transpose()?;
        Ok(DataOptions {
            read: ReadOptions {
                text_columns: self.text_column.clone(),
                label_column: self.label_column.clone(),
                delimiter,
            },
            skip_bad_rows: self.skip_bad_rows,
            labels: None,
        })
    }
}

/// `pagebert inspect`.
#[derive(Debug, Args)]
#[command(after_help = examples::INSPECT)]
pub struct InspectArgs {
    /// CSV, TSV or JSON Lines, plain or .gz
    #[arg(value_name = "DATA")]
    pub data: PathBuf,

    /// Count tokens as this base would: a folder, hf:org/name or hf:org/name@revision
    #[arg(long, value_name = "BASE")]
    pub base: Option<String>,

    /// Write the findings as JSON to a file, or to stdout with -
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// Another number gives another split into sides
    #[arg(long, value_name = "N", default_value_t = 0, help_heading = "Split")]
    pub split_seed: u64,

    /// The part of the texts on the valid side
    #[arg(long, value_name = "PART", default_value_t = 0.1, help_heading = "Split")]
    pub valid_fraction: f64,

    /// The part of the texts on the test side
    #[arg(long, value_name = "PART", default_value_t = 0.1, help_heading = "Split")]
    pub test_fraction: f64,

    /// A file that is the valid side
    #[arg(long, value_name = "FILE", help_heading = "Split")]
    pub valid: Option<PathBuf>,

    /// A file that is the test side
    #[arg(long, value_name = "FILE", help_heading = "Split")]
    pub test: Option<PathBuf>,

    /// How data files are read.
    #[command(flatten)]
    pub read: DataArgs,
}

/// `pagebert train`.
#[derive(Debug, Args)]
#[command(after_help = examples::TRAIN)]
pub struct TrainArgs {
    /// Labelled texts: CSV, TSV or JSON Lines, plain or .gz
    #[arg(long, value_name = "DATA")]
    pub data: PathBuf,

    /// What to start from: a folder, hf:org/name or hf:org/name@revision
    #[arg(long, value_name = "BASE")]
    pub base: String,

    /// Where the trained model goes; an existing one is never overwritten
    #[arg(long, value_name = "RUN")]
    pub out: PathBuf,

    /// A file of settings; may be given several times, later ones win
    #[arg(long, value_name = "FILE")]
    pub config: Vec<PathBuf>,

    /// Settings that win over every file
    #[arg(value_name = "KEY=VALUE")]
    pub settings: Vec<String>,

    /// A file that is the valid side, instead of a part of DATA
    #[arg(long, value_name = "FILE")]
    pub valid: Option<PathBuf>,

    /// A file that is the test side, instead of a part of DATA
    #[arg(long, value_name = "FILE")]
    pub test: Option<PathBuf>,

    /// Go on with the interrupted training in RUN
    #[arg(long, conflicts_with = "force")]
    pub resume: bool,

    /// Start anew even if RUN exists; what is there is replaced
    #[arg(long)]
    pub force: bool,

    /// What to compute on: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = parse_device)]
    pub device: DeviceSpec,

    /// How data files are read.
    #[command(flatten)]
    pub read: DataArgs,
}

/// A side of a run's recorded split that can be evaluated.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum EvaluatedSide {
    /// Never looked at in training
    Test,
    /// Picked the best checkpoint, so its figures flatter a little
    Valid,
}

/// `pagebert evaluate`.
#[derive(Debug, Args)]
#[command(after_help = examples::EVALUATE)]
pub struct EvaluateArgs {
    /// A trained model, a Hugging Face checkpoint or a bundle
    #[arg(value_name = "RUN|BUNDLE")]
    pub model: PathBuf,

    /// The side of the recorded split
    #[arg(long, value_name = "SIDE", value_enum, default_value = "test", conflicts_with = "data")]
    pub split: EvaluatedSide,

    /// Labelled texts to measure on, instead of the recorded data
    #[arg(long, value_name = "DATA")]
    pub data: Option<PathBuf>,

    /// Write the figures as JSON to a file, or to stdout with -
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,

    /// What and how to compute with.
    #[command(flatten)]
    pub compute: ComputeArgs,

    /// How data files are read.
    #[command(flatten)]
    pub read: DataArgs,
}

/// How a finished model is computed.
#[derive(Debug, Clone, Args)]
pub struct ComputeArgs {
    /// What to compute on: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", default_value = "cpu", value_parser = parse_device)]
    pub device: DeviceSpec,

    /// How a RUN is computed; a bundle has its own precision. int8 is slow without AVX-512-VNNI or AMX
    #[arg(long, value_enum, default_value = "f32")]
    pub precision: Precision,

    /// Threads to compute with; 0 means every core
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
}

/// `pagebert predict`.
#[derive(Debug, Args)]
#[command(after_help = examples::PREDICT)]
pub struct PredictArgs {
    /// A trained model, a Hugging Face checkpoint or a bundle
    #[arg(value_name = "RUN|BUNDLE")]
    pub model: PathBuf,

    /// Texts to classify [default: the lines of stdin]
    #[arg(value_name = "TEXT", conflicts_with = "data")]
    pub texts: Vec<String>,

    /// A file of texts to classify; labels are not needed
    #[arg(long, value_name = "IN")]
    pub data: Option<PathBuf>,

    /// Where the answers go: .jsonl or .csv [default: stdout]
    #[arg(long, value_name = "OUT")]
    pub out: Option<PathBuf>,

    /// What and how to compute with.
    #[command(flatten)]
    pub compute: ComputeArgs,

    /// How data files are read.
    #[command(flatten)]
    pub read: DataArgs,
}

/// How a bundle stores its weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum BundlePrecision {
    /// As trained
    F32,
    /// Half the size, the same answers for all but hairline cases
    F16,
    /// Whole numbers: a fifth of the size, several times as fast, and the same answers but for a few
    Int8,
}

impl BundlePrecision {
    /// The name in a manifest.
    pub fn name(self) -> &'static str {
        match self {
            BundlePrecision::F32 => "f32",
            BundlePrecision::F16 => "f16",
            BundlePrecision::Int8 => "int8",
        }
    }
}

/// `pagebert export`.
#[derive(Debug, Args)]
#[command(after_help = examples::EXPORT)]
pub struct ExportArgs {
    /// A trained model or any Hugging Face BERT classifier
    #[arg(value_name = "RUN")]
    pub run: PathBuf,

    /// The folder to write
    #[arg(long, value_name = "BUNDLE")]
    pub out: PathBuf,

    /// How weights are stored
    #[arg(long, value_enum, default_value = "int8")]
    pub precision: BundlePrecision,

    /// Training texts to look at, so that int8 keeps the model's answers; 0 rounds each weight by itself
    #[arg(long, value_name = "N", default_value_t = 400)]
    pub calibrate: usize,

    /// Threads to compute with; 0 means every core
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub threads: usize,
}

/// `pagebert site`.
#[derive(Debug, Args)]
#[command(after_help = examples::SITE)]
pub struct SiteArgs {
    /// What `pagebert export` wrote
    #[arg(value_name = "BUNDLE")]
    pub bundle: PathBuf,

    /// The folder to write; an earlier site there is replaced
    #[arg(long, value_name = "SITE")]
    pub out: PathBuf,

    /// The built page, as scripts/build-web leaves it [default: the one that came with pagebert]
    #[arg(long, value_name = "DIR", env = "PAGEBERT_WWW")]
    pub www: Option<PathBuf>,

    /// Put a smaller twin (.br) beside each file where it saves something, for hosts that send them
    #[arg(long)]
    pub precompress: bool,

    /// Replace SITE even if it holds files that pagebert did not write
    #[arg(long)]
    pub force: bool,
}

/// `pagebert serve`.
#[derive(Debug, Args)]
#[command(after_help = examples::SERVE)]
pub struct ServeArgs {
    /// What `pagebert site` wrote
    #[arg(value_name = "SITE")]
    pub site: PathBuf,

    /// The port; 0 picks a free one
    #[arg(long, value_name = "PORT", default_value_t = 8080)]
    pub port: u16,

    /// The address to listen on; anything but loopback lets others in
    #[arg(long, value_name = "HOST", default_value = "127.0.0.1")]
    pub host: String,

    /// Send what a bucket sends: no headers of our own, no compressed twins
    #[arg(long)]
    pub as_bucket: bool,
}

/// `pagebert devices`.
#[derive(Debug, Args)]
#[command(after_help = examples::DEVICES)]
pub struct DevicesArgs {
    /// Train ten steps of a tiny BERT on the device and on the CPU, and compare losses and gradients
    #[arg(long, conflicts_with = "json")]
    pub selftest: bool,

    /// The device to test: cpu, cuda or cuda:N
    #[arg(long, value_name = "DEVICE", value_parser = parse_device, requires = "selftest")]
    pub device: Option<DeviceSpec>,

    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

#[cfg(test)]
mod tests;
