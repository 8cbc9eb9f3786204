//! What is coming, before the first step: rows, tokens, steps, time and memory.
//!
//! Owns the estimate, which is measured: one batch is computed, and nothing is updated by it.

use std::time::{Duration, Instant};

use anyhow::Result;
use sysinfo::{Pid, ProcessRefreshKind, ProcessesToUpdate, System};

use super::engine::{Engine, MicroBatch};
use super::plan::Batching;
use super::prepare::Prepared;
use crate::progress::{Console, human_bytes, human_duration};

/// The length of a training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Extent {
    /// Steps of all epochs together, or `max_steps` if that is less.
    pub steps: usize,
    /// The steps left, with a resumed run.
    pub steps_left: usize,
    /// Tokens of an epoch.
    pub epoch_tokens: u64,
    /// Steps of an epoch.
    pub epoch_steps: usize,
}

/// Says what is coming.
///
/// # Errors
/// When the batch that is measured can't be computed.
pub fn announce(
    prepared: &Prepared,
    engine: &Engine,
    batching: Batching,
    costs: &[u32],
    extent: Extent,
    console: &Console,
) -> Result<()> {
    let Prepared { config, record, train, valid, test, .. } = prepared;
    let settings = &record.settings;
    console.note(format!("{}", prepared.counts));
    let bad = prepared.bad_rows.len();
    if bad > 0 {
        console.warn(format!("{bad} bad rows are left out; RUN/bad_rows.csv lists them"));
    }
    console.note(format!(
        "model   {} layers × {}, {:.1}M parameters, from {}; {} in {}, {} threads",
        config.num_hidden_layers,
        config.hidden_size,
        engine.parameters() as f64 / 1e6,
        record.base,
        record.device,
        record.computed_in,
        rayon::current_num_threads(),
    ));
    let longest = costs.iter().max().copied().unwrap_or(0);
    console.note(format!(
        "rows    {} train, {} valid, {} test",
        count(train.len()),
        count(valid.len()),
        count(test.len()),
    ));
    console.note(format!(
        "tokens  {} an epoch, {:.1} a text, {} the longest; none is padding",
        count(extent.epoch_tokens as usize),
        extent.epoch_tokens as f64 / train.len().max(1) as f64,
        count(longest as usize),
    ));
    console.note(format!(
        "steps   {} an epoch, {} in all{}",
        count(extent.epoch_steps),
        count(extent.steps),
        match extent.steps - extent.steps_left {
            0 => String::new(),
            done => format!(", {} of them done", count(done)),
        },
    ));
    let batches = batching.epoch(0, costs);
    let tokens_of =
        |batch: &Vec<u32>| batch.iter().map(|index| costs[*index as usize] as usize).sum::<usize>();
    let mean = extent.epoch_tokens as usize / batches.len().max(1);
    let Some(chosen) = batches.iter().take(500).min_by_key(|batch| tokens_of(batch).abs_diff(mean))
    else {
        return Ok(());
    };
    let largest = batches.iter().map(tokens_of).max().unwrap_or(0);
    let (batch, labels) = train.pack(chosen, prepared.windowing, &prepared.tokenizer)?;
    let tokens = batch.tokens();
    let part =
        [MicroBatch { batch, labels, dropout: Some(super::session::dropout(settings, 0, 0)) }];
    let before = resident_bytes();
    let mut elapsed = Duration::ZERO;
    for _warm_up_then_measure in 0..2 {
        let start = Instant::now();
        engine.gradients(&part)?;
        elapsed = start.elapsed();
        if elapsed > Duration::from_secs(3) {
            break;
        }
    }
    let after = resident_bytes();
    let seconds_per_token = elapsed.as_secs_f64() / tokens.max(1) as f64;
    let share_left = extent.steps_left as f64 / extent.epoch_steps.max(1) as f64;
    let trained = extent.epoch_tokens as f64 * share_left;
    // Evaluation is the forward pass alone, a third of the work.
    let evaluations = share_left.ceil();
    let valid_tokens: usize =
        (0..valid.len()).map(|index| valid.cost(index, prepared.windowing)).sum();
    let evaluated = evaluations * valid_tokens as f64 / 3.0;
    let time = Duration::from_secs_f64((trained + evaluated) * seconds_per_token);
    // Weights and gradients are there by now; the optimizer's two running means are not yet.
    let moments = 2 * 4 * engine.parameters() as u64;
    let per_token = after.saturating_sub(before) as f64 / tokens.max(1) as f64;
    let memory = after + moments + (per_token * largest.saturating_sub(tokens) as f64) as u64;
    console.note(format!(
        "time    about {}, at {:.0} tokens/s; memory about {}",
        human_duration(time),
        1.0 / seconds_per_token.max(1e-9),
        human_bytes(memory),
    ));
    Ok(())
}

/// A number with its thousands apart.
fn count(n: usize) -> String {
    indicatif::HumanCount(n as u64).to_string()
}

/// Memory that this process holds.
fn resident_bytes() -> u64 {
    let pid = Pid::from_u32(std::process::id());
    let mut system = System::new();
    system.refresh_processes_specifics(
        ProcessesToUpdate::Some(&[pid]),
        true,
        ProcessRefreshKind::nothing().with_memory(),
    );
    system.process(pid).map_or(0, |process| process.memory())
}
