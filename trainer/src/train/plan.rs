//! Which texts go into which batch, and how the learning rate goes.
//!
//! Owns the order of training. It depends on the seed, the epoch and the texts' lengths alone, so
//! that a resumed run goes on as if nothing had been. Knows no tensors.

use pagebert_kernels::DropoutKey;
use pagebert_kernels::dropout::hash;

use crate::settings::Settings;

/// Texts are sorted by length within buckets of so many batches: lengths within a batch are then
/// alike, and batches still differ from epoch to epoch.
const BUCKET_BATCHES: usize = 50;

/// How texts are put into batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Batching {
    /// Texts per batch.
    pub batch_size: usize,
    /// The most tokens of a batch; 0: no limit. A text above it makes a batch of its own.
    pub batch_tokens: usize,
    /// Decides the order.
    pub seed: u64,
}

impl Batching {
    /// From the settings.
    pub fn new(settings: &Settings) -> Batching {
        Batching {
            batch_size: settings.batch_size,
            batch_tokens: settings.batch_tokens,
            seed: settings.seed,
        }
    }

    /// The batches of an epoch, as indices of texts. `costs` are the texts' tokens.
    pub fn epoch(&self, epoch: usize, costs: &[u32]) -> Vec<Vec<u32>> {
        let mut order: Vec<u32> = (0..costs.len() as u32).collect();
        let mut random = Random::new(self.seed, epoch as u64);
        random.shuffle(&mut order);
        let mut batches = Vec::with_capacity(costs.len() / self.batch_size + 1);
        for bucket in order.chunks_mut(BUCKET_BATCHES * self.batch_size) {
            // Texts of one length stay in the order that they were shuffled into. Rows that lie side by
            // side in a file often have one label, and a batch of one label teaches little.
            bucket.sort_by_key(|index| costs[*index as usize]);
            self.fill(bucket, costs, &mut batches);
        }
        random.shuffle(&mut batches);
        batches
    }

    fn fill(&self, texts: &[u32], costs: &[u32], batches: &mut Vec<Vec<u32>>) {
        let mut batch = Vec::with_capacity(self.batch_size);
        let mut tokens = 0;
        for text in texts {
            let cost = costs[*text as usize] as usize;
            let over = self.batch_tokens > 0 && tokens + cost > self.batch_tokens;
            if batch.len() == self.batch_size || (over && !batch.is_empty()) {
                batches.push(std::mem::take(&mut batch));
                tokens = 0;
            }
            batch.push(*text);
            tokens += cost;
        }
        if !batch.is_empty() {
            batches.push(batch);
        }
    }
}

/// Random numbers by counting: no state but the position.
struct Random {
    key: u64,
    index: u64,
}

impl Random {
    fn new(seed: u64, epoch: u64) -> Random {
        // A site far from any dropout's.
        const SITE: u64 = u64::from_be_bytes(*b"shuffle\0");
        Random { key: DropoutKey::new(seed, epoch).site(SITE, 0.0).key, index: 0 }
    }

    /// A number below `bound`.
    fn below(&mut self, bound: usize) -> usize {
        let high = u64::from(hash(self.key, 2 * self.index));
        let low = u64::from(hash(self.key, 2 * self.index + 1));
        self.index += 1;
        // Lemire's multiplication; its bias is bound / 2^64.
        ((u128::from(high << 32 | low) * bound as u128) >> 64) as usize
    }

    /// Fisher and Yates.
    fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            items.swap(last, self.below(last + 1));
        }
    }
}

/// The learning rate: up in a straight line, then down in one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// The peak.
    pub lr: f64,
    /// Steps in which it rises.
    pub warmup_steps: usize,
    /// All steps.
    pub total_steps: usize,
}

impl Schedule {
    /// From the settings.
    pub fn new(settings: &Settings, total_steps: usize) -> Schedule {
        let warmup_steps = (settings.warmup * total_steps as f64).round() as usize;
        Schedule { lr: settings.lr, warmup_steps, total_steps }
    }

    /// The learning rate of a step, counted from 0. No step's is 0: it would be computed in vain.
    pub fn at(&self, step: usize) -> f64 {
        let part = if step < self.warmup_steps {
            (step + 1) as f64 / self.warmup_steps as f64
        } else {
            let falling = self.total_steps.saturating_sub(self.warmup_steps).max(1);
            self.total_steps.saturating_sub(step) as f64 / falling as f64
        };
        self.lr * part
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn costs(count: usize) -> Vec<u32> {
        (0..count as u64).map(|i| 3 + hash(9, i) % 500).collect()
    }

    #[test]
    fn every_text_is_in_one_batch() {
        for (count, batch_size, batch_tokens) in
            [(1, 8, 0), (7, 8, 0), (1000, 32, 0), (1000, 32, 900), (500, 1, 0), (300, 16, 10)]
        {
            let costs = costs(count);
            let batching = Batching { batch_size, batch_tokens, seed: 3 };
            let batches = batching.epoch(0, &costs);
            let mut all: Vec<u32> = batches.concat();
            all.sort_unstable();
            assert_eq!(all, (0..count as u32).collect::<Vec<_>>());
            for batch in &batches {
                let tokens: u32 = batch.iter().map(|i| costs[*i as usize]).sum();
                assert!(!batch.is_empty() && batch.len() <= batch_size);
                assert!(batch_tokens == 0 || batch.len() == 1 || tokens as usize <= batch_tokens);
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ_and_repeat() {
        let costs = costs(1000);
        let epoch =
            |seed, epoch| Batching { batch_size: 32, batch_tokens: 0, seed }.epoch(epoch, &costs);
        assert_eq!(epoch(1, 0), epoch(1, 0));
        assert_ne!(epoch(1, 0), epoch(1, 1));
        assert_ne!(epoch(1, 0), epoch(2, 0));
    }

    /// `scripts/bench train` has PyTorch train on these batches.
    #[test]
    fn benchmarks_make_the_same_batches() {
        let costs: Vec<u32> = costs(500).into_iter().map(|cost| cost % 20).collect();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/bench.d");
        let code = format!("import batches; print(batches.epoch_batches({costs:?}, 4, 3, 1))");
        let python = std::process::Command::new("python3")
            .args(["-B", "-c", &code])
            .current_dir(folder)
            .output()
            .expect("python3, as scripts/fetch-sample needs it");
        let theirs = String::from_utf8_lossy(&python.stdout);
        let ours = Batching { batch_size: 4, batch_tokens: 0, seed: 3 }.epoch(1, &costs);
        assert_eq!(theirs.trim(), format!("{ours:?}"), "{python:?}");
    }

    /// Where the rows of a file are sorted by label, a batch still has about as many of each.
    #[test]
    fn texts_of_one_length_are_mixed() {
        let batching = Batching { batch_size: 32, batch_tokens: 0, seed: 3 };
        for batch in batching.epoch(0, &[20; 3200]) {
            let of_the_first_half = batch.iter().filter(|index| **index < 1600).count();
            // 16 expected; five standard deviations of a binomial are 14.
            assert!(of_the_first_half.abs_diff(16) < 14, "{of_the_first_half} of {}", batch.len());
        }
    }

    #[test]
    fn a_shuffle_puts_every_item_everywhere() {
        let mut seen = [[0u32; 8]; 8];
        for epoch in 0..8000 {
            let mut items = [0, 1, 2, 3, 4, 5, 6, 7];
            Random::new(5, epoch).shuffle(&mut items);
            items.iter().enumerate().for_each(|(place, item)| seen[place][*item] += 1);
        }
        // 1000 expected; five standard deviations of a binomial are 148.
        assert!(seen.as_flattened().iter().all(|n| n.abs_diff(1000) < 148), "{seen:?}");
    }

    #[test]
    fn the_learning_rate_rises_to_its_peak_and_falls_to_nearly_nothing() {
        let schedule = Schedule { lr: 1.0, warmup_steps: 2, total_steps: 10 };
        let rates: Vec<f64> = (0..10).map(|step| schedule.at(step)).collect();
        assert_eq!(rates, [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]);
        let none = Schedule { warmup_steps: 0, ..schedule };
        assert_eq!(none.at(0), 1.0);
    }
}
