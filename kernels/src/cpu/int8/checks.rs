//! What holds for tiles wherever they run: unit tests natively, and in a browser, where those do not
//! run, what `scripts/build-web --checks` builds.

use super::*;
#[cfg(target_arch = "x86_64")]
use crate::cpu::{Isa, isa};
use crate::dropout::{hash, normal};

/// Every tile that this processor can run; the scalar one first.
pub(super) fn tiles() -> Vec<Tile> {
    #[allow(unused_mut)]
    let mut tiles = vec![plain::TILE];
    #[cfg(target_arch = "x86_64")]
    {
        if isa() >= Isa::Avx2 {
            tiles.push(avx2::TILE);
        }
        if isa() >= Isa::Avx512 && vnni::is_there() {
            tiles.push(vnni::TILE);
        }
        if isa() == Isa::Amx {
            tiles.push(amx::TILE);
        }
    }
    #[cfg(all(target_arch = "wasm32", target_feature = "relaxed-simd"))]
    tiles.extend(relaxed::tiles());
    #[cfg(all(
        target_arch = "wasm32",
        target_feature = "simd128",
        not(target_feature = "relaxed-simd")
    ))]
    tiles.push(simd128::TILE);
    tiles
}

/// Compares all tiles' products with the scalar one's, bit by bit, of odd shapes and extreme numbers,
/// and with products in floats.
///
/// # Panics
/// When they do not.
pub fn every_tile_gives_the_same_integers() {
    for (rows, outputs, inputs) in [
        (1, 1, 1),
        (5, 7, 3),
        (9, 49, 40),
        (3, 100, 385),
        (64, 16, 1536),
        (37, 11, 530),
        (42, 9, 24),
        (36, 8, 512),
        (32, 9, 33),
    ] {
        for (extreme, most) in [(false, 63), (false, 15), (true, 63)] {
            let weight = |o: usize, i: usize| match extreme {
                true if (o + i).is_multiple_of(2) => -WEIGHT_LIMIT,
                true => WEIGHT_LIMIT,
                // The smaller ones fit 16 bits by spans, mostly.
                false => (hash(1, (o * inputs + i) as u64) % (2 * most + 1)) as i8 - most as i8,
            };
            let row = |output: usize, row: &mut [i8]| {
                row.iter_mut().enumerate().for_each(|(input, q)| *q = weight(output, input));
            };
            let x: Vec<f32> = (0..rows * inputs)
                .map(|i| if extreme { 1e30 * (i % 2) as f32 } else { normal(2, i as u64) })
                .collect();
            let scales: Vec<f32> = (0..outputs).map(|o| 0.01 * (o + 1) as f32).collect();
            let found: Vec<Vec<f32>> = tiles()
                .into_iter()
                .map(|tile| {
                    let panels = Int8Panels::with(tile, row, &scales, inputs);
                    let mut y = vec![0f32; rows * outputs];
                    // Behind rows lies what was there before.
                    let mut quantised = QuantizedRows::default();
                    let (count, columns) = (rows + 3, inputs + 37);
                    let before: Vec<f32> = (0..count * columns).map(|i| (i % 3) as f32).collect();
                    quantised.quantise(&tile, &before, columns, (count, columns));
                    quantised.quantise(&tile, &x, inputs, (rows, inputs));
                    let out = (y.as_mut_slice(), outputs);
                    panels.multiply(&quantised, (Plain, None), out, &mut [], &mut Vec::new());
                    y
                })
                .collect();
            for other in &found[1..] {
                let bits = |y: &[f32]| y.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(other), bits(&found[0]), "{rows} {outputs} {inputs} {extreme}");
            }
            // And they are the product, but for the rounding of both sides.
            for row in 0..rows {
                let x = &x[row * inputs..][..inputs];
                let width =
                    x.iter().fold(0f32, |m, x| m.max(*x)) - x.iter().fold(0f32, |m, x| m.min(*x));
                for (output, scale) in scales.iter().enumerate() {
                    let exact: f64 = x
                        .iter()
                        .enumerate()
                        .map(|(i, x)| f64::from(*x) * f64::from(weight(output, i)))
                        .sum();
                    let exact = exact * f64::from(*scale);
                    // Half a step an activation, and twice that where the zero point was rounded.
                    let bound = f64::from(width) / 127.0 * 63.0 * f64::from(*scale) * inputs as f64;
                    let y = f64::from(found[0][row * outputs + output]);
                    assert!((y - exact).abs() <= bound * 1.01 + 1e-6, "{y} {exact} {bound}");
                }
            }
        }
    }
}
