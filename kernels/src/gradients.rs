//! Where the gradients of weights go that candle's autograd does not see.
//!
//! candle fills every gradient with zeros and adds to it, and makes a new tensor each time; a fused
//! operation instead writes its weights' gradients here, into memory that is used again each step.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use candle_core::{Device, Result, Shape, Tensor, bail};

use crate::cpu::adamw::{Step, Values, sum_of_squares};
use crate::cpu::gemm::Into;

/// One parameter's gradient.
#[derive(Debug, Clone, Default)]
pub struct GradientSlot(Arc<Mutex<Gradient>>);

/// Another form of a weight, which an optimizer can keep in step with it.
pub(crate) trait Follower: std::fmt::Debug + Send + Sync {
    /// AdamW's step. What was of the weights' `version` before is of the next one behind it; what
    /// was not stays behind.
    fn step(&self, version: u64, step: &Step, values: Values<'_>);
}

/// What a slot holds.
#[derive(Debug, Default)]
pub struct Gradient {
    /// The gradient, or, with `rows`, some rows of it.
    values: Vec<f32>,
    /// The rows that are there, ascending; all others are 0.
    rows: Option<Vec<u32>>,
    /// Of each of the weight's rows the sum of its squares, where whoever wrote it has added them
    /// up; empty elsewhere.
    squares: Vec<f64>,
    filled: bool,
    /// What else the weight is kept in.
    follower: Option<Arc<dyn Follower>>,
}

impl Gradient {
    /// The sum of the squares, in an order that does not depend on the number of threads; `None`
    /// where no backward pass has come by.
    pub fn sum_of_squares(&self) -> Option<f64> {
        let values = self.values()?;
        Some(match self.squares.as_slice() {
            [] => sum_of_squares(values),
            squares => squares.iter().sum(),
        })
    }

    /// The gradient's elements, in rows where [`Self::rows`] says so; `None` where no backward
    /// pass has come by.
    pub fn values(&self) -> Option<&[f32]> {
        self.filled.then_some(&self.values)
    }

    /// The rows that are there, ascending; `None` for all.
    pub fn rows(&self) -> Option<&[u32]> {
        self.rows.as_deref()
    }
}

impl GradientSlot {
    /// Looks at it.
    pub fn lock(&self) -> MutexGuard<'_, Gradient> {
        // A panic elsewhere has left numbers, not a broken structure.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The gradient as a tensor of the parameter's shape, for comparison; `None` where no backward
    /// pass has come by.
    ///
    /// # Errors
    /// When the shape is another one.
    pub fn tensor(&self, shape: &Shape) -> Result<Option<Tensor>> {
        let gradient = self.lock();
        let Some(values) = gradient.values() else { return Ok(None) };
        let Some(rows) = gradient.rows() else {
            return Tensor::from_slice(values, shape, &Device::Cpu).map(Some);
        };
        let (count, width) = shape.dims2()?;
        let mut all = vec![0f32; count * width];
        for (row, from) in rows.iter().zip(values.chunks_exact(width)) {
            match all.chunks_exact_mut(width).nth(*row as usize) {
                Some(to) => to.copy_from_slice(from),
                None => bail!("a gradient of row {row} in a table of {count}"),
            }
        }
        Tensor::from_vec(all, shape, &Device::Cpu).map(Some)
    }

    /// Says what else the weight is kept in.
    pub(crate) fn follow(&self, follower: Arc<dyn Follower>) {
        self.lock().follower = Some(follower);
    }

    /// What else the weight is kept in.
    pub(crate) fn follower(&self) -> Option<Arc<dyn Follower>> {
        self.lock().follower.clone()
    }

    /// Lends the elements out, to be replaced or added to.
    pub(crate) fn dense(&self, len: usize, write: impl FnOnce(&mut [f32], Into)) {
        self.dense_with_squares(len, 0, |gradient, _, into| write(gradient, into));
    }

    /// Lends the elements out, to be replaced or added to, and of each row a place for the sum of
    /// its squares.
    pub(crate) fn dense_with_squares<R>(
        &self,
        len: usize,
        rows: usize,
        write: impl FnOnce(&mut [f32], &mut [f64], Into) -> R,
    ) -> R {
        let mut gradient = self.lock();
        let gradient = &mut *gradient;
        let into = if gradient.filled { Into::Add } else { Into::Replace };
        if gradient.values.len() != len {
            gradient.values = vec![0.0; len];
        }
        gradient.filled = true;
        gradient.squares.resize(rows, 0.0);
        write(&mut gradient.values, &mut gradient.squares, into)
    }

    /// Adds a small gradient, or replaces what was there before this step.
    pub(crate) fn put(&self, values: &[f32]) {
        self.dense(values.len(), |gradient, into| match into {
            Into::Replace => gradient.copy_from_slice(values),
            Into::Add => gradient.iter_mut().zip(values).for_each(|(sum, x)| *sum += x),
        });
    }

    /// Adds rows of a table's gradient: ids ascending, each with its row.
    pub(crate) fn put_rows(&self, ids: Vec<u32>, rows: Vec<f32>, width: usize) {
        let mut gradient = self.lock();
        let before = gradient.rows.take();
        (gradient.rows, gradient.values) = match before {
            Some(before) if gradient.filled => {
                let (ids, rows) = merge((&before, &gradient.values), (&ids, &rows), width);
                (Some(ids), rows)
            }
            _ => (Some(ids), rows),
        };
        gradient.filled = true;
    }
}

/// Two lists of rows, ascending, become one; rows of both are added.
fn merge(a: (&[u32], &[f32]), b: (&[u32], &[f32]), width: usize) -> (Vec<u32>, Vec<f32>) {
    let (mut ids, mut rows) = (Vec::new(), Vec::new());
    let (mut i, mut j) = (0, 0);
    while i < a.0.len() || j < b.0.len() {
        let of_a = b.0.get(j).is_none_or(|y| a.0.get(i).is_some_and(|x| x <= y));
        let of_b = a.0.get(i).is_none_or(|x| b.0.get(j).is_some_and(|y| y <= x));
        let at = rows.len();
        if of_a {
            ids.push(a.0[i]);
            rows.extend_from_slice(&a.1[i * width..][..width]);
            i += 1;
        }
        if of_b {
            let row = &b.1[j * width..][..width];
            if of_a {
                rows[at..].iter_mut().zip(row).for_each(|(sum, x)| *sum += x);
            } else {
                ids.push(b.0[j]);
                rows.extend_from_slice(row);
            }
            j += 1;
        }
    }
    (ids, rows)
}

/// The slots of a model's parameters, by name, and the count of the weights' changes.
#[derive(Debug, Clone, Default)]
pub struct Gradients {
    slots: Arc<Mutex<BTreeMap<String, GradientSlot>>>,
    version: Arc<AtomicU64>,
}

impl Gradients {
    /// The slot of a parameter.
    pub fn slot(&self, name: &str) -> GradientSlot {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.entry(name.to_string()).or_default().clone()
    }

    /// The slot of a parameter, if a model has asked for it.
    pub fn find(&self, name: &str) -> Option<GradientSlot> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned()
    }

    /// Forgets what the slots hold. Their memory is kept for the next step.
    pub fn clear(&self) {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.values().for_each(|slot| slot.lock().filled = false);
    }

    /// Forgets what the slots hold, and gives their memory back.
    pub fn release(&self) {
        let slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        slots.values().for_each(|slot| *slot.lock() = Gradient::default());
    }

    /// Says that weights have changed, so that packed copies of them are made anew. Gives the count
    /// before this change.
    pub fn weights_changed(&self) -> u64 {
        self.version.fetch_add(1, Ordering::Relaxed)
    }

    /// Counts the weights' changes.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_two_batches_become_one_list() {
        let slot = GradientSlot::default();
        slot.put_rows(vec![1, 4, 9], vec![1.0, 1.5, 4.0, 4.5, 9.0, 9.5], 2);
        slot.put_rows(vec![0, 4], vec![0.25, 0.5, 40.0, 45.0], 2);
        let gradient = slot.lock();
        assert_eq!(gradient.rows(), Some(&[0, 1, 4, 9][..]));
        let expected = [0.25, 0.5, 1.0, 1.5, 44.0, 49.5, 9.0, 9.5];
        assert_eq!(gradient.values(), Some(&expected[..]));
    }

    #[test]
    fn a_cleared_slot_is_replaced_and_a_filled_one_added_to() {
        let gradients = Gradients::default();
        let slot = gradients.slot("a");
        assert!(slot.lock().values().is_none());
        slot.put(&[1.0, 2.0]);
        slot.put(&[1.0, 2.0]);
        assert_eq!(slot.lock().values(), Some(&[2.0, 4.0][..]));
        gradients.clear();
        assert!(slot.lock().values().is_none());
        gradients.slot("a").put(&[5.0, 6.0]);
        assert_eq!(slot.lock().values(), Some(&[5.0, 6.0][..]));
        assert!(gradients.find("b").is_none());
    }
}
