//! A linear layer's weight in the order in which products read it, kept in step with the weight.
//!
//! An optimizer that has a weight's new values in the cache packs them there and then; who changes
//! a weight otherwise says so, and it is packed before its next use.

use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use super::linear::large_kernel;
use crate::cpu::Element;
use crate::cpu::adamw::{self, Step, Values};
use crate::cpu::eight_bits::{self, Panels8, WeightRows8};
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
    /// Of integers, the columns' sums in pieces of the weight's rows.
    partial: Vec<i32>,
}

/// The weight of the two products that read it.
pub struct Products<E: Element> {
    /// For the forward pass.
    pub forward: WeightPanels<E>,
    /// For the input's gradient, where there is to be one.
    pub backward: Option<WeightPanels<E>>,
}

/// A weight in the order in which a product reads it.
pub enum WeightPanels<E: Element> {
    /// As floats.
    Floats(Panels<E>),
    /// As integers.
    Integers(Panels8),
}

impl<E: Element> WeightPanels<E> {
    /// How many panels there are.
    pub fn count(&self) -> usize {
        match self {
            Self::Floats(panels) => panels.count,
            Self::Integers(panels) => panels.count,
        }
    }

    /// Rows of a tile that multiplies them.
    pub fn tile_rows(&self) -> usize {
        match self {
            Self::Floats(_) => large_kernel::<E>().rows,
            Self::Integers(panels) => panels.tile().rows,
        }
    }

    /// Columns of each.
    pub fn columns(&self) -> usize {
        match self {
            Self::Floats(_) => E::kernel().columns,
            Self::Integers(panels) => panels.columns(),
        }
    }
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
    pub fn new((outputs, inputs): (usize, usize), learns: bool, products_in: ProductsIn) -> Self {
        let mut partial = Vec::new();
        let products = match products_in {
            ProductsIn::Floats => Products {
                forward: WeightPanels::Floats(Panels::new(inputs, outputs)),
                backward: learns.then(|| WeightPanels::Floats(Panels::new(outputs, inputs))),
            },
            ProductsIn::EightBits => {
                partial.resize(outputs.div_ceil(eight_bits::rows_together()) * inputs, 0);
                Products {
                    forward: WeightPanels::Integers(Panels8::new(inputs, outputs, false)),
                    backward: learns
                        .then(|| WeightPanels::Integers(Panels8::new(outputs, inputs, true))),
                }
            }
        };
        Self(RwLock::new(Versioned { version: None, inputs, products, partial }))
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
        let size = packed.together();
        packed.each(weight.chunks(size), |rows, weight| rows.pack(weight));
        packed.version = Some(version);
    }
}

/// What a weight's products are computed in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProductsIn {
    /// As all others are.
    Floats,
    /// Integers of 8 bits.
    EightBits,
}

/// Some rows of a weight, and where they go.
enum Piece<'a, E: Element> {
    Floats(WeightRows<'a, E>),
    Integers(WeightRows8<'a>),
}

impl<E: Element> Piece<'_, E> {
    fn pack(&mut self, weight: &[f32]) {
        match self {
            Self::Floats(rows) => rows.pack(weight),
            Self::Integers(rows) => rows.pack(weight),
        }
    }
}

impl<E: Element> Versioned<E> {
    /// How many weights are packed together.
    fn together(&self) -> usize {
        let rows = match &self.products.forward {
            WeightPanels::Floats(_) => rows_together::<E>(),
            WeightPanels::Integers(_) => eight_bits::rows_together(),
        };
        rows * self.inputs.max(1)
    }

    /// Hands each piece of the panels to what is to be packed there.
    fn each<T: Send>(
        &mut self,
        what: impl Iterator<Item = T>,
        pack: impl Fn(&mut Piece<'_, E>, T) + Sync,
    ) {
        let Products { forward, backward } = &mut self.products;
        let pieces: Vec<Piece<'_, E>> = match forward {
            WeightPanels::Floats(forward) => {
                let backward = match backward {
                    Some(WeightPanels::Floats(backward)) => Some(backward),
                    _ => None,
                };
                weight_rows(self.inputs, forward, backward).into_iter().map(Piece::Floats).collect()
            }
            WeightPanels::Integers(forward) => {
                let backward = match backward {
                    Some(WeightPanels::Integers(backward)) => Some(backward),
                    _ => None,
                };
                let pieces =
                    eight_bits::weight_rows(self.inputs, forward, backward, &mut self.partial);
                pieces.into_iter().map(Piece::Integers).collect()
            }
        };
        let tasks = pieces.into_iter().zip(what);
        for_each(tasks.collect(), |_, (mut piece, what): (Piece<'_, E>, T)| {
            pack(&mut piece, what);
        });
        if let Some(WeightPanels::Integers(backward)) = backward {
            backward.add_up(&self.partial, self.inputs);
        }
    }
}

impl<E: Element> Follower for PackedWeight<E> {
    fn step(&self, version: u64, step: &Step, values: Values<'_>) {
        let mut packed = self.0.write().unwrap_or_else(PoisonError::into_inner);
        if packed.version != Some(version) {
            drop(packed);
            return adamw::step(step, values);
        }
        let size = packed.together();
        packed.each(values.chunks(size), |rows, mut values| {
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

    /// Everything that products read, as bits.
    fn panels<E: Element>(packed: &PackedWeight<E>) -> [Vec<u32>; 2] {
        let bits = |panels: &WeightPanels<E>| match panels {
            WeightPanels::Floats(panels) => panels.data.iter().map(|x| x.bits()).collect(),
            WeightPanels::Integers(panels) => {
                let (integers, sums, scales, factors) = panels.all();
                let integers = integers.iter().map(|q| *q as u32);
                let integers = integers.chain(sums.iter().map(|sum| *sum as u32));
                integers.chain(scales.iter().chain(factors).map(|x| x.to_bits())).collect()
            }
        };
        let products = packed.read();
        let backward = products.backward.as_ref().expect("a weight that learns has two forms");
        [bits(&products.forward), bits(backward)]
    }

    fn a_step_packs_what_it_makes_in<E: Element>(shape: (usize, usize), products_in: ProductsIn) {
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
        let packed = PackedWeight::<E>::new(shape, true, products_in);
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
            let anew = PackedWeight::<E>::new(shape, true, products_in);
            anew.follow(&followed, 0);
            assert!(panels(&packed) == panels(&anew), "{shape:?}, version {version}");
        }
    }

    #[test]
    fn a_step_packs_what_it_makes() {
        for shape in [(1, 1), (33, 70), (96, 64), (130, 31)] {
            for products_in in [ProductsIn::Floats, ProductsIn::EightBits] {
                a_step_packs_what_it_makes_in::<f32>(shape, products_in);
                a_step_packs_what_it_makes_in::<Bf16>(shape, products_in);
            }
        }
    }
}
