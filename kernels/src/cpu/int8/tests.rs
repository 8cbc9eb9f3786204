use super::*;
use crate::cpu::{Isa, isa};
use crate::dropout::{hash, normal};

/// Every tile that this processor can run.
fn tiles() -> Vec<Tile> {
    let mut tiles = vec![plain::TILE];
    #[cfg(target_arch = "x86_64")]
    {
        if isa() >= Isa::Avx2 {
            tiles.push(avx2::TILE);
        }
        if isa() >= Isa::Avx512 && vnni::is_there() {
            tiles.push(vnni::TILE);
        }
    }
    tiles
}

#[test]
fn every_tile_gives_the_same_integers() {
    for (rows, outputs, inputs) in
        [(1, 1, 1), (5, 7, 3), (9, 49, 40), (3, 100, 385), (64, 16, 1536)]
    {
        for extreme in [false, true] {
            let weight = |o: usize, i: usize| match extreme {
                true if (o + i).is_multiple_of(2) => -WEIGHT_LIMIT,
                true => WEIGHT_LIMIT,
                false => (hash(1, (o * inputs + i) as u64) % 127) as i8 - WEIGHT_LIMIT,
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
                    panels.multiply(&x, inputs, rows, |first, products| {
                        let here = panels.columns().min(outputs - first);
                        for (row, from) in products.chunks_exact(panels.columns()).enumerate() {
                            y[row * outputs + first..][..here].copy_from_slice(&from[..here]);
                        }
                    });
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

#[test]
fn rows_of_a_table_come_back() {
    let bytes: Vec<u8> = (0..32).map(|i| (hash(3, i) & 255) as u8).collect();
    let mut out = vec![0f32; 64];
    expand_row(&bytes, &[0.5, 2.0], &mut out);
    for (i, x) in out.iter().enumerate() {
        let nibble = bytes[i / 2] >> (4 * (i % 2)) & 15;
        let scale = if i < 32 { 0.5 } else { 2.0 };
        assert_eq!(*x, (f32::from(nibble) - 8.0) * scale);
    }
}
