//! The training loop: steps, evaluations, the best checkpoint, interruption.
//!
//! Owns what happens when. A run that is interrupted and resumed ends in the same bytes as one that
//! was not: order, dropout and learning rate depend on the step alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use pagebert_kernels::DropoutKey;
use pagebert_model::Batch;
use serde_json::json;

use super::announce::{Extent, announce};
use super::engine::{Engine, MicroBatch, StepReport};
use super::folder::{Log, RunFolder};
use super::interrupt;
use super::plan::{Batching, Schedule};
use super::prefetch::Prefetch;
use super::prepare::Prepared;
use super::state::{self, Best, Logged, Progress};
use crate::metrics::Report;
use crate::progress::{Bar, Console, Unit};
use crate::settings::Settings;

/// A long epoch's work is saved this often.
const SAVE_EVERY: Duration = Duration::from_secs(600);

/// A training on its way.
pub struct Session<'a> {
    pub(super) prepared: Prepared,
    pub(super) folder: RunFolder,
    pub(super) engine: Engine,
    pub(super) console: &'a Console,
    batching: Batching,
    schedule: Schedule,
    costs: Vec<u32>,
    pub(super) progress: Progress,
    pub(super) log: Log,
    /// When this process began to train, and what the run had spent by then.
    started: (Instant, f64),
    saved: Instant,
    speed: Speed,
}

/// The packed batches of a step, each with its texts' classes.
type Parts = Vec<(Batch, Vec<u32>)>;

/// Tokens since the last line of the log, and when that was.
struct Speed {
    since: Instant,
    tokens: usize,
}

/// The dropout of a part of a step.
pub fn dropout(settings: &Settings, step: usize, part: usize) -> DropoutKey {
    // More parts than a step of this many would not end.
    DropoutKey::new(settings.seed, (step as u64) << 24 | part as u64)
}

impl<'a> Session<'a> {
    /// Starts a run: says what is coming, then writes the first files.
    ///
    /// # Errors
    /// When the model can't be computed or the folder can't be written.
    pub fn start(prepared: Prepared, folder: RunFolder, console: &'a Console) -> Result<Self> {
        let session = Self::new(prepared, folder, Progress::default(), console)?;
        Ok(session)
    }

    /// Goes on with a run from its saved state.
    ///
    /// # Errors
    /// When the state does not fit the model.
    pub fn resume(
        prepared: Prepared,
        folder: RunFolder,
        saved: (Progress, std::collections::BTreeMap<String, candle_core::Tensor>),
        console: &'a Console,
    ) -> Result<Self> {
        let (progress, tensors) = saved;
        let mut session = Self::new(prepared, folder, progress, console)?;
        session.engine.restore(session.progress.step, &tensors)?;
        Ok(session)
    }

    fn new(
        mut prepared: Prepared,
        folder: RunFolder,
        progress: Progress,
        console: &'a Console,
    ) -> Result<Self> {
        let weights = std::mem::take(&mut prepared.weights);
        let settings = &prepared.record.settings;
        // What is not wanted after this would lie in memory beside its copy.
        let split = std::mem::take(&mut prepared.split);
        let engine = Engine::new(weights, &prepared.config, settings, prepared.precision)?;
        let batching = Batching::new(settings);
        let costs = prepared.train.costs(prepared.windowing);
        let (epoch_steps, all) = count_steps(settings, batching, &costs);
        let steps = if settings.max_steps > 0 { all.min(settings.max_steps) } else { all };
        let schedule = Schedule::new(settings, steps);
        let extent = Extent {
            steps,
            steps_left: steps - progress.step.min(steps),
            epoch_tokens: costs.iter().map(|cost| u64::from(*cost)).sum(),
            epoch_steps,
        };
        announce(&prepared, &engine, batching, &costs, extent, console)?;
        if progress == Progress::default() {
            folder.create(&prepared.record, &prepared.config, &prepared.base)?;
            split.write(&folder.path.join("split.csv"))?;
            write_bad_rows(&prepared, &folder)?;
        }
        let log = folder.log(progress.step)?;
        let now = Instant::now();
        Ok(Self {
            started: (now, progress.seconds),
            saved: now,
            speed: Speed { since: now, tokens: 0 },
            prepared,
            folder,
            engine,
            console,
            batching,
            schedule,
            costs,
            progress,
            log,
        })
    }

    /// Trains to the end, then looks at the test side.
    ///
    /// # Errors
    /// When the loss is no longer a number, on Ctrl-C, and when something can't be computed or
    /// written. What was saved by then stays.
    pub fn train(mut self) -> Result<()> {
        interrupt::listen();
        let total = self.schedule.total_steps;
        let done = self.progress.step as u64;
        let bar = self.console.bar_from("training", done, total as u64, Unit::Items("steps"));
        self.speed.since = Instant::now();
        while self.progress.step < total {
            self.epoch(&bar)?;
        }
        drop(bar);
        self.finish()
    }

    fn settings(&self) -> &Settings {
        &self.prepared.record.settings
    }

    /// The rest of the current epoch.
    fn epoch(&mut self, bar: &Bar) -> Result<()> {
        let total = self.schedule.total_steps;
        let accumulate = self.settings().accumulate;
        let (eval_every, log_every) = (self.settings().eval_every, self.settings().log_every);
        let batches = self.batching.epoch(self.progress.epoch, &self.costs);
        let steps = batches.len().div_ceil(accumulate);
        for parts in self.prefetch(batches)? {
            let step = self.progress.step;
            let report = self.step(parts?)?;
            if !report.is_finite() {
                return self.not_a_number(step, report);
            }
            self.progress.step += 1;
            self.progress.batch += 1;
            self.progress.tokens += report.tokens as u64;
            self.progress.logged.steps += 1;
            self.progress.logged.loss += report.loss;
            self.speed.tokens += report.tokens;
            let last = self.progress.step == total;
            if self.progress.step.is_multiple_of(log_every) || last {
                self.log_step(&report, bar)?;
            }
            bar.set(self.progress.step as u64);
            let of_epoch = self.progress.batch == steps;
            let due = match eval_every {
                0 => of_epoch,
                every => self.progress.step.is_multiple_of(every),
            };
            if of_epoch {
                self.progress.epoch += 1;
                self.progress.batch = 0;
            }
            if due || last {
                self.evaluate()?;
            }
            if interrupt::asked() && !last {
                self.save()?;
                bail!(
                    "interrupted after step {} of {total}. To go on, run the same command with \
                     --resume",
                    self.progress.step
                );
            }
            if (due && !last) || self.saved.elapsed() > SAVE_EVERY {
                self.save()?;
            }
            if of_epoch || last {
                break;
            }
        }
        Ok(())
    }

    /// The steps left of an epoch's batches, each packed while the ones before it are computed.
    fn prefetch(&self, batches: Vec<Vec<u32>>) -> Result<Prefetch<Parts>> {
        let Prepared { train, windowing, tokenizer, record, .. } = &self.prepared;
        let (train, tokenizer) = (Arc::clone(train), Arc::clone(tokenizer));
        let (windowing, accumulate) = (*windowing, record.settings.accumulate);
        let first = self.progress.batch;
        let left = self.schedule.total_steps - self.progress.step;
        let last = batches.len().div_ceil(accumulate).min(first + left);
        Prefetch::start((first..last).map(move |step| {
            let parts = batches.iter().skip(step * accumulate).take(accumulate);
            parts.map(|chosen| train.pack(chosen, windowing, &tokenizer)).collect()
        }))
    }

    fn step(&mut self, parts: Parts) -> Result<StepReport> {
        let step = self.progress.step;
        let settings = &self.prepared.record.settings;
        let parts: Vec<MicroBatch> = parts
            .into_iter()
            .enumerate()
            .map(|(part, (batch, labels))| MicroBatch {
                batch,
                labels,
                dropout: Some(dropout(settings, step, part)),
            })
            .collect();
        self.engine.step(&parts, self.schedule.at(step))
    }

    fn log_step(&mut self, report: &StepReport, bar: &Bar) -> Result<()> {
        let Logged { steps, loss } = std::mem::take(&mut self.progress.logged);
        let loss = loss / steps.max(1) as f64;
        let seconds = self.speed.since.elapsed().as_secs_f64();
        let tokens_per_s = self.speed.tokens as f64 / seconds.max(1e-9);
        self.speed = Speed { since: Instant::now(), tokens: 0 };
        bar.message(format!("loss {loss:.3}, {tokens_per_s:.0} tokens/s"));
        let step = self.progress.step;
        self.log.add(json!({
            "step": step,
            "epoch": self.progress.epoch,
            "loss": loss,
            "lr": self.schedule.at(step - 1),
            "grad_norm": report.grad_norm,
            "tokens_per_s": tokens_per_s.round(),
        }))
    }

    /// Looks at the valid side, and keeps the weights if they are the best so far.
    fn evaluate(&mut self) -> Result<()> {
        let paused = Instant::now();
        let step = self.progress.step;
        if self.prepared.valid.is_empty() {
            // Nothing to choose by: the latest is kept.
            self.progress.best = None;
            self.folder.write_weights(&self.engine.weights())?;
        } else {
            let (prepared, model) = (&self.prepared, self.engine.model());
            let seen = |_: usize, _: &[f32]| {};
            let report =
                prepared.measure(model, &prepared.valid, "validating", self.console, seen)?;
            self.log_side("valid", &report)?;
            let best = self.progress.best.is_none_or(|best| report.loss < best.loss);
            self.console.note(format!(
                "step {step}: valid loss {:.4}, accuracy {:.2} %, macro F1 {:.2} %{}",
                report.loss,
                100.0 * report.accuracy,
                100.0 * report.macro_f1,
                if best { " (the best so far, saved)" } else { "" },
            ));
            if best {
                self.folder.write_weights(&self.engine.weights())?;
                let Report { loss, accuracy, .. } = report;
                self.progress.best = Some(Best { step, loss, accuracy });
            }
        }
        // Speed is that of training alone.
        self.speed.since += paused.elapsed();
        Ok(())
    }

    pub(super) fn log_side(&mut self, split: &str, report: &Report) -> Result<()> {
        self.log.add(json!({
            "step": self.progress.step,
            "epoch": self.progress.epoch,
            "split": split,
            "accuracy": report.accuracy,
            "macro_f1": report.macro_f1,
            "loss": report.loss,
        }))
    }

    fn save(&mut self) -> Result<()> {
        let paused = Instant::now();
        self.progress.seconds = self.seconds();
        state::save(&self.folder.path, &self.progress, &self.engine.state()?)?;
        self.saved = Instant::now();
        self.speed.since += paused.elapsed();
        Ok(())
    }

    pub(super) fn seconds(&self) -> f64 {
        self.started.1 + self.started.0.elapsed().as_secs_f64()
    }

    fn not_a_number(&self, step: usize, report: StepReport) -> Result<()> {
        let (what, value) = match report.loss.is_finite() {
            false => ("loss", report.loss),
            true => ("gradient's norm", report.grad_norm),
        };
        let kept = match self.progress.best {
            Some(best) => format!("the best checkpoint, of step {}, is kept", best.step),
            None => "there was no checkpoint yet".to_string(),
        };
        bail!(
            "step {}: the {what} is {value}, so training stopped; {kept}. Try a lower lr (it was \
             {}), more warmup, or precision=f32",
            step + 1,
            self.settings().lr
        )
    }
}

/// Steps of the first epoch, and of all together.
fn count_steps(settings: &Settings, batching: Batching, costs: &[u32]) -> (usize, usize) {
    let steps = |batches: usize| batches.div_ceil(settings.accumulate);
    if batching.batch_tokens == 0 {
        // Buckets hold a whole number of batches, so only the last batch can be smaller.
        let epoch = steps(costs.len().div_ceil(batching.batch_size));
        return (epoch, epoch * settings.epochs);
    }
    let mut all = (0..settings.epochs).map(|epoch| steps(batching.epoch(epoch, costs).len()));
    let first = all.next().unwrap_or(0);
    (first, first + all.sum::<usize>())
}

/// The rows that were left out, listed beside the run.
fn write_bad_rows(prepared: &Prepared, folder: &RunFolder) -> Result<()> {
    if prepared.bad_rows.is_empty() {
        return Ok(());
    }
    let mut out = csv::Writer::from_writer(Vec::new());
    for row in &prepared.bad_rows {
        out.serialize(row)?;
    }
    let bytes = out.into_inner().map_err(|error| error.into_error())?;
    folder.write("bad_rows.csv", &bytes)
}
