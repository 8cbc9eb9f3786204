//! What holds for tiles wherever they run: unit tests natively, and in a browser, where those do not
//! run, what `scripts/build-web --checks` builds.

use std::hint::black_box;

use super::rows::{Exponential, Quantise};
use super::*;
use crate::cpu::exact::exp2_times_127;
use crate::cpu::lanes::{self, Destination, Extremes, Finish, Lanes, Map, Products};
use crate::cpu::math::by_halves;
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
    #[cfg(target_arch = "aarch64")]
    {
        tiles.push(neon::BY_PAIRS);
        if neon::has_fours() {
            tiles.push(neon::BY_FOURS);
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
        (6, 50, 20),
        (15, 17, 90),
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

/// Numbers of which there are none, fewer than a vector has, and what no vector divides.
const COUNTS: [usize; 9] = [0, 1, 7, 8, 15, 16, 47, 96, 401];

fn bits(x: &[f32]) -> Vec<u32> {
    // One that is no number is as good as another.
    x.iter().map(|x| if x.is_nan() { 0x7fc0_0000 } else { x.to_bits() }).collect()
}

/// Compares what happens to numbers in vectors with what happens to them one by one, bit by bit: of
/// usual numbers, large ones, and some that are none.
///
/// # Panics
/// When they are not the same.
pub fn vectors_give_the_bits_of_single_numbers() {
    for count in COUNTS {
        let usual: Vec<f32> = (0..count as u64).map(|i| 3.0 * normal(3, i)).collect();
        let large: Vec<f32> = usual.iter().map(|x| x * 1e30).collect();
        let mut with_others = usual.clone();
        for (at, other) in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().enumerate() {
            with_others.iter_mut().skip(at).step_by(5).for_each(|x| *x = other);
        }
        for x in [&usual, &large, &with_others] {
            for (inverse, zero) in [(21.0, 63.0), (0.0, 127.0), (1e30, 0.0)] {
                let map = Quantise { inverse, zero };
                integers_are_those_of_each(map, rows::quantise_row, x);
            }
            for (most, scale) in [(9.0, 0.5), (9e30, 1e-30), (0.0, 1.0), (f32::INFINITY, 1.0)] {
                let x: Vec<f32> = x.iter().map(|x| if *x > most { most } else { *x }).collect();
                let map = Exponential { most, scale };
                integers_are_those_of_each(map, rows::exponentials, &x);
            }
            // All scores, all but the largest ones, and none but the least.
            for most in [f32::INFINITY, 9e30, f32::NEG_INFINITY] {
                let x: Vec<f32> = x.iter().map(|x| if *x > most { most } else { *x }).collect();
                softmax_is_that_of_each(&x[..count / 16 * 16]);
            }
            #[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
            bytes_are_weighed_as_each_is(x);
        }
        products_are_finished_as_each_is(count);
    }
}

/// What a map makes of each number, one by one: what compilers make of several need not hold what
/// is no number to the bit, with WebAssembly's relaxed instructions.
fn one_by_one(x: &[f32], f: impl Fn(f32) -> f32) -> Vec<f32> {
    x.iter().map(|x| f(black_box(*x))).collect()
}

fn integers_are_those_of_each<M: Map>(
    map: M,
    way: fn(&[f32], M, Destination<'_>, &mut i32),
    x: &[f32],
) {
    let expected = one_by_one(x, |x| map.on(x));
    let expected: Vec<u8> = expected.iter().map(|x| (x.to_bits() & 127) as u8).collect();
    let total = expected.iter().map(|q| i32::from(*q)).sum::<i32>();
    // Nothing is written behind the last.
    let (mut bytes, mut words) = (vec![200u8; x.len() + 16], vec![200u16; x.len() + 16]);
    let mut sums = [0; 2];
    way(x, map, Destination::Bytes(&mut bytes[..x.len()]), &mut sums[0]);
    way(x, map, Destination::Words(&mut words[..x.len()]), &mut sums[1]);
    assert_eq!(sums, [total; 2], "{x:?}");
    assert!(bytes[..x.len()] == expected && bytes[x.len()..].iter().all(|q| *q == 200), "{x:?}");
    assert!(words.iter().zip(&bytes).all(|(word, byte)| *word == u16::from(*byte)), "{x:?}");
}

fn softmax_is_that_of_each(x: &[f32]) {
    if x.is_empty() {
        return;
    }
    let lanes_of = |x: &[f32], first: f32, f: fn(f32, f32) -> f32| {
        let mut all = [first; 16];
        for x in x.as_chunks::<16>().0 {
            all.iter_mut().zip(x).for_each(|(all, x)| *all = f(*all, black_box(*x)));
        }
        by_halves(all, f)
    };
    let most = lanes_of(x, f32::NEG_INFINITY, f32::or_larger);
    let expected = one_by_one(x, |x| exp2_times_127((x - most) * 0.3));
    let mut found = x.to_vec();
    let sum = short::exponentials(&mut found, 0.3);
    assert_eq!(bits(&found), bits(&expected), "{x:?}");
    assert_eq!(bits(&[sum]), bits(&[lanes_of(&expected, 0.0, |sum, x| sum + x)]), "{x:?}");
}

fn products_are_finished_as_each_is(count: usize) {
    let floats = |seed| (0..count as u64).map(|i| normal(seed, i)).collect::<Vec<f32>>();
    let (scales, bias) = (floats(5), floats(6));
    let integers: Vec<i32> =
        (0..4 * count as u64).map(|i| hash(7, i) as i32 % 200_000 - 100_000).collect();
    let sums: Vec<i32> = (0..count as u64).map(|i| hash(8, i) as i32 % 4_000).collect();
    let (row_scales, zeros) = ([3e-5, 1e30, 3e38, f32::NAN], [0, 127, 60, 1]);
    let products = Products {
        integers: &integers,
        ld: count,
        row_scales: &row_scales,
        zeros: &zeros,
        sums: &sums,
        scales: &scales,
        bias: &bias,
    };
    let ld = count + 3;
    let mut out = vec![7.5f32; 4 * ld];
    let mut extremes = [Extremes::ZERO; 4];
    lanes::finish(Gelu, &products, &mut out, ld, &mut extremes);
    for row in 0..4 {
        let expected: Vec<f32> = (0..count)
            .map(|column| {
                let integer = integers[row * count + column] - zeros[row] * sums[column];
                let product = integer as f32 * (row_scales[row] * scales[column]);
                Gelu.on(black_box(product), bias[column])
            })
            .collect();
        let out = &out[row * ld..][..ld];
        assert_eq!(bits(&out[..count]), bits(&expected), "{count} {row}");
        assert!(out[count..].iter().all(|x| *x == 7.5), "{count} {row}");
        let most = expected.iter().fold(0f32, |most, x| most.or_larger(black_box(*x)));
        let least = expected.iter().fold(0f32, |least, x| least.or_smaller(black_box(*x)));
        let (found_least, found_most) = extremes[row].range();
        assert!(found_least == least && found_most == most, "{count} {row}");
    }
}

#[cfg(all(target_arch = "wasm32", target_feature = "simd128"))]
fn bytes_are_weighed_as_each_is(x: &[f32]) {
    let bytes: Vec<i8> = (0..x.len() as u64).map(|i| hash(9, i) as i8).collect();
    let expected = crate::cpu::math::lanes(x, &bytes, |x, y| x * y);
    assert_eq!(bits(&[lanes::dot_bytes(x, &bytes)]), bits(&[expected]), "{x:?}");
    for (x, bytes) in x.as_chunks().0.iter().zip(bytes.as_chunks().0) {
        let mut sums = *x;
        lanes::add_weighted_bytes(&mut sums, 0.7, bytes);
        let expected: [f32; 16] = std::array::from_fn(|i| x[i] + 0.7 * f32::from(bytes[i]));
        assert_eq!(bits(&sums), bits(&expected));
    }
}
