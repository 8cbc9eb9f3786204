//! A linear layer's weight in the order in which products read it, kept in step with the weight.
//!
//! An optimizer that has a weight's new values in the cache packs them there and then; who changes
//! a weight otherwise says so, and it is packed before its next use.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use crate::cpu::Element;
use crate::cpu::adamw::{self, Step, Values};
use crate::cpu::pack::{Panels, WeightRows, rows_together, weight_rows};
use crate::cpu::parallel::for_each;
use crate::gradients::Follower;

/// A weight's panels, whose memory is used again for each of its versions.
pub struct PackedWeight<E: Element>(RwLock<Versioned<E>>);

struct Versioned<E: Element> {
    /// The count of the weights' changes up to which the panels have them.
    version: Option<u64>,
    /// Rows of the weight are as long as this.
    inputs: usize,
    products: Products<E>,
}

/// The weight of the two products that read it.
pub struct Products<E: Element> {
    /// For the forward pass.
    pub forward: Panels<E>,
    /// For the input's gradient, where there is to be one.
    pub backward: Option<Panels<E>>,
}

/// A weight at hand.
pub struct Guard<'a, E: Element>(RwLockReadGuard<'a, Versioned<E>>);

impl<E: Element> std::ops::Deref for Guard<'_, E> {
    type Target = Products<E>;

    fn deref(&self) -> &Products<E> {
        &self.0.products
    }
}

impl<E: Element> PackedWeight<E> {
    /// Room for a weight `[out, in]`, with panels for the backward pass where it `learns`.
    pub fn new((outputs, inputs): (usize, usize), learns: bool) -> Self {
        let backward = learns.then(|| Panels::new(outputs, inputs));
        let forward = Panels::new(inputs, outputs);
        let products = Products { forward, backward };
        Self(RwLock::new(Versioned { version: None, inputs, products }))
    }

    /// Looks at it.
    pub fn read(&self) -> Guard<'_, E> {
        Guard(self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The count of the weights' changes that it is of.
    pub fn version(&self) -> Option<u64> {
        self.0.read().unwrap_or_else(PoisonError::into_inner).version
    }

    /// Packs the weight, unless this version of it was packed.
    pub fn follow(&self, weight: &[f32], version: u64) {
        let mut packed = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if packed.version == Some(version) {
            return;
        }
        let size = rows_together::<E>() * packed.inputs.max(1);
        let tasks = packed.rows().into_iter().zip(weight.chunks(size));
        for_each(tasks.collect(), |_, (mut rows, weight): (WeightRows<'_, E>, &[f32])| {
            rows.pack(weight);
        });
        packed.version = Some(version);
    }
}

impl<E: Element> Versioned<E> {
    /// The panels, to be written.
    fn rows(&mut self) -> Vec<WeightRows<'_, E>> {
        weight_rows(self.inputs, &mut self.products.forward, self.products.backward.as_mut())
    }
}

impl<E: Element> Follower for PackedWeight<E> {
    fn step(&self, version: u64, step: &Step, values: Values<'_>) {
        let mut packed = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if packed.version != Some(version) {
            drop(packed);
            return adamw::step(step, values);
        }
        let size = rows_together::<E>() * packed.inputs.max(1);
        let tasks = packed.rows().into_iter().zip(values.chunks(size));
        for_each(tasks.collect(), |_, (mut rows, mut values): (WeightRows<'_, E>, Values<'_>)| {
            values.step(step);
            // While the new values are in the cache.
            rows.pack(values.param);
        });
        packed.version = Some(version + 1);
    }
}

impl<E: Element> std::fmt::Debug for PackedWeight<E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PackedWeight").field("version", &self.version()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::Bf16;
    use crate::dropout::normal;

    fn random(seed: u64, n: usize) -> Vec<f32> {
        (0..n as u64).map(|i| normal(seed, i)).collect()
    }

    fn panels<E: Element>(packed: &PackedWeight<E>) -> [Vec<E>; 2] {
        let products = packed.read();
        let backward = products.backward.as_ref().expect("a weight that learns has two forms");
        [products.forward.data.to_vec(), backward.data.to_vec()]
    }

    fn a_step_packs_what_it_makes_in<E: Element>(shape: (usize, usize)) {
        let n = shape.0 * shape.1;
        let step = Step {
            scale: 0.5,
            mean_rate: 0.1,
            square_rate: 0.001,
            shrink: 0.99,
            step_size: 0.1,
            inverse_root: 30.0,
            eps: 1e-8,
        };
        let grad = random(2, n);
        let (mut followed, mut alone) = (random(1, n), random(1, n));
        let zeros = || [vec![0f32; n], vec![0f32; n]];
        let (mut moments, mut moments_alone) = (zeros(), zeros());
        let packed = PackedWeight::<E>::new(shape, true);
        packed.follow(&followed, 7);
        for version in [7, 8, 12] {
            let [mean, square] = &mut moments;
            packed.step(version, &step, Values { param: &mut followed, grad: &grad, mean, square });
            let [mean, square] = &mut moments_alone;
            adamw::step(&step, Values { param: &mut alone, grad: &grad, mean, square });
            assert!(followed == alone && moments == moments_alone);
            // A version that was missed is packed before its next use.
            let expected = if version == 12 { 9 } else { version + 1 };
            assert_eq!(packed.version(), Some(expected));
            packed.follow(&followed, version + 1);
            let anew = PackedWeight::<E>::new(shape, true);
            anew.follow(&followed, 0);
            assert!(panels(&packed) == panels(&anew), "{shape:?}, version {version}");
        }
    }

    #[test]
    fn a_step_packs_what_it_makes() {
        for shape in [(1, 1), (33, 70), (96, 64), (130, 31)] {
            a_step_packs_what_it_makes_in::<f32>(shape);
            a_step_packs_what_it_makes_in::<Bf16>(shape);
        }
    }
}
