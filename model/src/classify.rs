//! From a text to its label: windows, logits, probabilities. The one way that predictions are made,
//! in the page and on the command line.
//!
//! Owns what a [`Prediction`] holds and how windows become one. Knows no files, and nothing of
//! training.

use std::collections::HashMap;
use std::ops::Range;

use candle_core::DType;
use serde::Serialize;

use crate::batch::windows;
use crate::bundle::{BundleError, MODEL, Manifest, TOKENIZER};
use crate::weights::WeightsStream;
use crate::{Batch, BertForSequenceClassification, ModelError, Result, TextTokenizer, Weights};

/// A model with all that turns a text into a label.
#[derive(Clone)]
pub struct Classifier {
    model: BertForSequenceClassification,
    tokenizer: TextTokenizer,
    labels: Vec<String>,
    options: Options,
}

/// What is free to choose beside a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Tokens of a window, its two special tokens included.
    pub max_tokens: usize,
    /// Tokens that neighbouring windows of a long text share.
    pub stride: usize,
    /// Logits are divided by it before they become probabilities.
    pub temperature: f64,
    /// A label whose probability is below it is reported as unsure.
    pub threshold: f64,
}

/// One class and its probability.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LabelScore {
    /// The class.
    pub label: String,
    /// Its probability.
    pub score: f32,
}

/// What the model says of one text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Prediction {
    /// The most probable class.
    pub label: String,
    /// Its probability.
    pub score: f32,
    /// Whether that is below the bundle's threshold.
    pub unsure: bool,
    /// Every class, the most probable first.
    pub scores: Vec<LabelScore>,
    /// The model's own output, in the order of the labels: the mean over windows.
    pub logits: Vec<f32>,
    /// Tokens that ran through the model, over all windows, special tokens included.
    pub tokens: usize,
    /// Windows that the text was cut into.
    pub windows: usize,
}

/// A text as the model takes it: windows of token ids, special tokens included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The windows; a text that fits has one.
    pub windows: Vec<Vec<u32>>,
}

impl Encoded {
    /// Tokens over all windows.
    pub fn tokens(&self) -> usize {
        self.windows.iter().map(Vec::len).sum()
    }
}

/// One text on its way to token ids, piece by piece, and through the model, window by window.
#[derive(Debug, Clone)]
pub struct Job {
    text: String,
    /// Bytes of the text that have become ids.
    read: usize,
    ids: Vec<u32>,
    windows: Vec<Range<usize>>,
    done: usize,
    mean: Mean,
    tokens: usize,
}

impl Job {
    /// How many windows the text has, once it has been read.
    pub fn windows(&self) -> usize {
        self.windows.len()
    }

    /// How many of them have been through the model.
    pub fn done_windows(&self) -> usize {
        self.done
    }
}

/// A mean of logits, in the order in which windows come.
#[derive(Debug, Clone, Default)]
pub struct Mean {
    sum: Vec<f64>,
    count: usize,
}

impl Mean {
    /// Takes one window's logits.
    pub fn add(&mut self, logits: &[f32]) {
        self.sum.resize(logits.len(), 0.0);
        self.sum.iter_mut().zip(logits).for_each(|(sum, x)| *sum += f64::from(*x));
        self.count += 1;
    }

    /// The mean of what was added.
    pub fn get(&self) -> Vec<f32> {
        self.sum.iter().map(|sum| (sum / self.count as f64) as f32).collect()
    }
}

impl Classifier {
    /// Builds the classifier of a bundle from the manifest and the files, named as the manifest's
    /// entries are (`model`, `tokenizer`).
    ///
    /// # Errors
    /// What is wrong with the bundle, see [`BundleError`].
    pub fn from_bundle(
        manifest: &[u8],
        mut files: HashMap<String, Vec<u8>>,
    ) -> std::result::Result<Self, BundleError> {
        let manifest = Manifest::parse(manifest)?;
        let tokenizer = manifest.take(TOKENIZER, &mut files)?;
        let model = manifest.take(MODEL, &mut files)?;
        let mut weights = WeightsStream::new(&manifest.config)?;
        weights.receive(&model)?;
        drop(model);
        Self::from_parts(&manifest, tokenizer, &weights.finish()?.0)
    }

    /// Builds the classifier of a bundle from what its files hold.
    ///
    /// # Errors
    /// What is wrong with the tokenizer, or does not belong together.
    pub(crate) fn from_parts(
        manifest: &Manifest,
        tokenizer: Vec<u8>,
        weights: &Weights,
    ) -> std::result::Result<Self, BundleError> {
        // Each file goes as soon as it has been read: in a page, memory is not given back.
        let text_tokenizer = TextTokenizer::from_compact(&tokenizer)?;
        drop(tokenizer);
        let model = BertForSequenceClassification::load(weights, &manifest.config)?;
        let options = Options {
            max_tokens: manifest.max_tokens,
            stride: manifest.stride,
            temperature: manifest.temperature,
            threshold: manifest.threshold,
        };
        Ok(Self::new(model, text_tokenizer, options)?)
    }

    /// Puts a model and its tokenizer together.
    ///
    /// # Errors
    /// When they do not belong together, or a window is longer than the model takes.
    pub fn new(
        model: BertForSequenceClassification,
        tokenizer: TextTokenizer,
        options: Options,
    ) -> Result<Self> {
        let config = model.config();
        let (ids, rows) = (tokenizer.vocab_size(), config.vocab_size);
        if ids > rows {
            return Err(ModelError::Tokenizer(format!(
                "it has {ids} tokens, but the model's vocabulary has {rows}"
            )));
        }
        let longest = config.max_position_embeddings;
        if !(3..=longest).contains(&options.max_tokens) {
            return Err(ModelError::Config(format!(
                "max_tokens is {}, but the model takes 3 to {longest}",
                options.max_tokens
            )));
        }
        let labels = config.labels()?;
        Ok(Self { model, tokenizer, labels, options })
    }

    /// The classes, in the order of the logits.
    pub fn labels(&self) -> &[String] {
        &self.labels
    }

    /// The model within.
    pub fn model(&self) -> &BertForSequenceClassification {
        &self.model
    }

    /// Window, temperature and threshold.
    pub fn options(&self) -> Options {
        self.options
    }

    /// Tokenizes a text and cuts it into windows.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn encode(&self, text: &str) -> Result<Encoded> {
        let ids = self.tokenizer.encode(text)?;
        let ranges = windows(ids.len(), self.options.max_tokens - 2, self.options.stride);
        let windows = ranges.into_iter().map(|range| self.tokenizer.frame(&ids[range])).collect();
        Ok(Encoded { windows })
    }

    /// The logits of some windows, one row each, in the order of the labels.
    ///
    /// # Errors
    /// When a tensor operation fails.
    pub fn window_logits(&self, windows: &[&[u32]]) -> Result<Vec<Vec<f32>>> {
        let batch = Batch::pack(windows.iter().map(|window| [*window]))?;
        let logits = self.model.window_logits(&batch, None)?;
        Ok(logits.to_dtype(DType::F32)?.to_vec2()?)
    }

    /// What logits of a text mean. NaN among them is an error: it would compare as anything.
    ///
    /// # Errors
    /// When a logit is not finite.
    pub fn prediction(
        &self,
        logits: Vec<f32>,
        tokens: usize,
        windows: usize,
    ) -> Result<Prediction> {
        if let Some(bad) = logits.iter().find(|x| !x.is_finite()) {
            return Err(ModelError::Weights(format!("the model's output is {bad}")));
        }
        let scaled = logits.iter().map(|x| f64::from(*x) / self.options.temperature);
        let probabilities = softmax(scaled.collect());
        let mut scores: Vec<LabelScore> = self
            .labels
            .iter()
            .zip(probabilities)
            .map(|(label, p)| LabelScore { label: label.clone(), score: p as f32 })
            .collect();
        // Stable, so that of equal classes the first in label order leads, everywhere.
        scores.sort_by(|a, b| b.score.total_cmp(&a.score));
        let LabelScore { label, score } = scores
            .first()
            .cloned()
            .ok_or_else(|| ModelError::Config("the model has no labels".into()))?;
        let unsure = f64::from(score) < self.options.threshold;
        Ok(Prediction { label, score, unsure, scores, logits, tokens, windows })
    }

    /// Classifies one text.
    ///
    /// # Errors
    /// When the tokenizer or the model fails.
    pub fn classify(&self, text: &str) -> Result<Prediction> {
        let mut job = self.begin(text.to_string());
        while !self.read(&mut job)? {}
        while !self.step(&mut job)? {}
        self.finish(job)
    }

    /// Starts a text that is to be classified step by step: [`Self::read`] until it says `true`,
    /// then [`Self::step`] until that does, then [`Self::finish`].
    pub fn begin(&self, text: String) -> Job {
        let (ids, windows, mean) = (Vec::new(), Vec::new(), Mean::default());
        Job { text, read: 0, ids, windows, done: 0, mean, tokens: 0 }
    }

    /// Tokenizes the next piece of the text; `true` when none is left, and the windows are known.
    ///
    /// # Errors
    /// When the tokenizer fails.
    pub fn read(&self, job: &mut Job) -> Result<bool> {
        let rest = &job.text[job.read..];
        let (piece, rest) = rest.split_at(self.tokenizer.piece(rest));
        job.ids.append(&mut self.tokenizer.encode(piece)?);
        job.read += piece.len();
        if !rest.is_empty() {
            return Ok(false);
        }
        job.windows = windows(job.ids.len(), self.options.max_tokens - 2, self.options.stride);
        Ok(true)
    }

    /// Runs the next window through the model; `true` when none is left.
    ///
    /// # Errors
    /// When the model fails.
    pub fn step(&self, job: &mut Job) -> Result<bool> {
        if let Some(range) = job.windows.get(job.done) {
            let window = self.tokenizer.frame(&job.ids[range.clone()]);
            for logits in self.window_logits(&[&window])? {
                job.mean.add(&logits);
            }
            job.tokens += window.len();
            job.done += 1;
        }
        Ok(job.done == job.windows.len())
    }

    /// The prediction of a text whose windows are done.
    ///
    /// # Errors
    /// When windows are left.
    pub fn finish(&self, job: Job) -> Result<Prediction> {
        if job.done < job.windows.len() {
            return Err(ModelError::Tensor(candle_core::Error::Msg(format!(
                "finished after {} of {} windows",
                job.done,
                job.windows.len()
            ))));
        }
        self.prediction(job.mean.get(), job.tokens, job.windows.len())
    }
}

/// Probabilities of logits.
pub fn softmax(logits: Vec<f64>) -> Vec<f64> {
    let largest = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let exponentials: Vec<f64> = logits.iter().map(|x| (x - largest).exp()).collect();
    let sum: f64 = exponentials.iter().sum();
    exponentials.into_iter().map(|x| x / sum).collect()
}
