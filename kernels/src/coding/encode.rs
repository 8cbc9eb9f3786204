//! Coding. Slow and thorough: it happens once, at export.

use super::model::{BITS, TOTAL};
use super::{CodedShape, START};

/// The most models that rows are sorted into.
const MODELS: usize = 16;
/// A model for so many integers: it takes some hundred bytes, which it has to save.
const INTEGERS_A_MODEL: usize = 1 << 15;
/// Rounds of sorting rows into the models that code them best.
const ROUNDS: usize = 6;

/// Integers by how often they come, from −128 on.
type Counts = [u32; 256];

/// Codes a matrix of integers, whose rows lie one behind the other.
///
/// # Panics
/// When there are more or fewer integers than the shape says, or blocks are longer than 65,535 words: a caller's mistake.
pub fn encode(integers: &[i8], shape: CodedShape) -> Vec<u8> {
    let CodedShape { rows, columns, block } = shape;
    assert_eq!(integers.len(), rows * columns, "integers of {shape:?}");
    let counts: Vec<Counts> =
        (0..rows).map(|row| count(&integers[row * columns..][..columns])).collect();
    let (of_rows, models) = sort(&counts, columns);
    let mut bytes = shape.write();
    bytes.push(models.len() as u8);
    for model in &models {
        model.write(&mut bytes);
    }
    bytes.extend(of_rows.iter().map(|model| *model as u8));
    let blocks: Vec<Vec<u16>> = (0..rows)
        .step_by(block)
        .map(|first| {
            let rows = first..(first + block).min(rows);
            let symbols = rows.flat_map(|row| {
                let model = &models[of_rows[row]];
                integers[row * columns..][..columns].iter().map(move |q| model.range(*q))
            });
            code(symbols.collect())
        })
        .collect();
    for words in &blocks {
        let length = u16::try_from(words.len()).expect("a block of at most 65,535 words");
        bytes.extend(length.to_le_bytes());
    }
    bytes.extend(blocks.iter().flatten().flat_map(|word| word.to_le_bytes()));
    bytes
}

/// Codes ranges (first, frequency) from the last to the first, so that reading goes forward.
fn code(ranges: Vec<(u32, u32)>) -> Vec<u16> {
    let mut state = START;
    let mut words = Vec::new();
    for (first, frequency) in ranges.into_iter().rev() {
        // As much as fits a state after this symbol: START >> BITS times the frequency, 16 bits up.
        if u64::from(state) >= u64::from(frequency) << (32 - BITS) {
            words.push(state as u16);
            state >>= 16;
        }
        state = ((state / frequency) << BITS) + state % frequency + first;
    }
    words.extend([state as u16, (state >> 16) as u16]);
    words.reverse();
    words
}

fn count(row: &[i8]) -> Counts {
    let mut counts = [0; 256];
    row.iter().for_each(|q| counts[(i32::from(*q) + 128) as usize] += 1);
    counts
}

/// Each row's model, and the models: rows that spread alike share one.
fn sort(counts: &[Counts], columns: usize) -> (Vec<usize>, Vec<Frequencies>) {
    let mut by_spread: Vec<usize> = (0..counts.len()).collect();
    by_spread.sort_by_key(|row| spread(&counts[*row]));
    let models = (counts.len() * columns / INTEGERS_A_MODEL).clamp(1, MODELS);
    let mut of_rows = vec![0; counts.len()];
    for (rank, row) in by_spread.into_iter().enumerate() {
        of_rows[row] = rank * models / counts.len();
    }
    let mut models = Vec::new();
    for _ in 0..ROUNDS {
        models = estimate(counts, &mut of_rows);
        let costs: Vec<[f32; 256]> = models.iter().map(Frequencies::costs).collect();
        for (row, model) in counts.iter().zip(&mut of_rows) {
            let cost = |model: &usize| -> f32 {
                let pairs = row.iter().zip(&costs[*model]);
                pairs
                    .filter(|(count, _)| **count > 0)
                    .map(|(count, cost)| *count as f32 * cost)
                    .sum()
            };
            let best = (0..models.len()).map(|model| (cost(&model), model));
            *model = best.fold((f32::INFINITY, *model), |a, b| if b.0 < a.0 { b } else { a }).1;
        }
    }
    if models.is_empty() {
        // For rows without columns.
        models.push(Frequencies::of(&std::array::from_fn(|integer| u64::from(integer == 128))));
    }
    // The last sorting left its rows codable: a row never goes to a model that lacks one of its integers.
    (of_rows, models)
}

/// The sum of squares.
fn spread(counts: &Counts) -> u64 {
    let square = |integer: usize| (integer as i64 - 128).pow(2) as u64;
    counts.iter().enumerate().map(|(integer, count)| u64::from(*count) * square(integer)).sum()
}

/// The models of the rows as they are sorted; those without rows go, and the others move up.
fn estimate(counts: &[Counts], of_rows: &mut [usize]) -> Vec<Frequencies> {
    let most = of_rows.iter().max().map_or(0, |most| most + 1);
    let mut sums = vec![[0u64; 256]; most];
    for (row, model) in counts.iter().zip(&*of_rows) {
        sums[*model].iter_mut().zip(row).for_each(|(sum, count)| *sum += u64::from(*count));
    }
    let mut moved = vec![0; most];
    let mut models = Vec::new();
    for (model, sums) in sums.iter().enumerate() {
        moved[model] = models.len();
        if sums.iter().any(|count| *count > 0) {
            models.push(Frequencies::of(sums));
        }
    }
    of_rows.iter_mut().for_each(|model| *model = moved[*model]);
    models
}

/// How often integers come, of [`TOTAL`]: at least once each that comes at all.
struct Frequencies {
    /// From −128 on.
    counts: Counts,
    /// Those of all smaller integers.
    firsts: Counts,
}

impl Frequencies {
    fn of(counts: &[u64; 256]) -> Self {
        let all: u64 = counts.iter().sum();
        let mut shares = counts.map(|count| {
            let share = (count as f64 * f64::from(TOTAL) / all as f64).round() as u32;
            if count > 0 { share.max(1) } else { 0 }
        });
        // Rounding leaves some too many or too few: they come from where one costs least, the most frequent.
        loop {
            let sum: u32 = shares.iter().sum();
            if sum == TOTAL {
                break;
            }
            let largest = (0..256).max_by_key(|integer| shares[*integer]).unwrap_or(0);
            if sum > TOTAL { shares[largest] -= 1 } else { shares[largest] += 1 }
        }
        let mut firsts = [0; 256];
        for integer in 1..256 {
            firsts[integer] = firsts[integer - 1] + shares[integer - 1];
        }
        Self { counts: shares, firsts }
    }

    /// The first number and the frequency of an integer.
    fn range(&self, integer: i8) -> (u32, u32) {
        let at = (i32::from(integer) + 128) as usize;
        (self.firsts[at], self.counts[at])
    }

    /// Bits of each integer; infinite where it never comes.
    fn costs(&self) -> [f32; 256] {
        self.counts.map(|count| BITS as f32 - (count as f32).log2())
    }

    fn write(&self, bytes: &mut Vec<u8>) {
        let used = |integer: &usize| self.counts[*integer] > 0;
        let first = (0..256).find(used).unwrap_or(128);
        let last = (0..256).rfind(used).unwrap_or(128);
        bytes.extend([(first as i32 - 128) as i8 as u8, (last - first) as u8]);
        bytes.extend(
            self.counts[first..=last].iter().flat_map(|count| (*count as u16).to_le_bytes()),
        );
    }
}
