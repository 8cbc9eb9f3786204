use super::checks::tiles;
use super::*;
use crate::coding::{CodedMatrix, CodedShape, CodingError, encode};
use crate::dropout::{hash, normal};

#[test]
fn every_tile_gives_the_same_integers() {
    checks::every_tile_gives_the_same_integers();
}

#[test]
fn vectors_give_the_bits_of_single_numbers() {
    checks::vectors_give_the_bits_of_single_numbers();
}

#[test]
fn a_part_of_the_outputs_is_that_part_of_all() {
    let (outputs, inputs, ld) = (100, 40, 103);
    let scales: Vec<f32> = (0..outputs).map(|output| 0.01 * (output + 1) as f32).collect();
    let bias: Vec<f32> = (0..outputs as u64).map(|output| normal(4, output)).collect();
    let weight = |output: usize, row: &mut [i8]| {
        let q = |input| (hash(1, (output * inputs + input) as u64) % 127) as i8 - 63;
        row.iter_mut().enumerate().for_each(|(input, to)| *to = q(input));
    };
    for tile in tiles() {
        let panels = Int8Panels::with(tile, weight, &scales, inputs);
        for (rows, part) in [(1, 0..20), (5, 20..100), (9, 33..49), (9, 0..100), (3, 48..48)] {
            let x: Vec<f32> = (0..(rows * inputs) as u64).map(|i| normal(2, i)).collect();
            let mut quantised = QuantizedRows::default();
            quantised.quantise(&tile, &x, inputs, (rows, inputs));
            let finish = || (Biased, Some(bias.as_slice()));
            let (mut all, mut some) = (vec![0f32; rows * ld], vec![f32::NAN; rows * ld]);
            panels.multiply(&quantised, finish(), (&mut all, ld), &mut [], &mut Vec::new());
            let out = (some.as_mut_slice(), ld);
            panels.multiply_part(part.clone(), &quantised, finish(), out, &mut [], &mut Vec::new());
            let first = part.start / tile.columns * tile.columns;
            for (all, some) in all.chunks_exact(ld).zip(some.chunks_exact(ld)) {
                assert!(all[part.clone()] == some[part.clone()], "{tile:?} {part:?}");
                let others = some[..first].iter().chain(&some[part.end..]);
                assert!(others.into_iter().all(|x| x.is_nan()), "{tile:?} {part:?}");
            }
        }
    }
}

#[test]
fn a_span_fits_where_no_activations_overflow_it() {
    for seed in 0..2_000u64 {
        // From spans that are nearly empty to some of the largest weights alone.
        let most = 1 + (seed % 63) as i32;
        let span: [i8; SPAN] = std::array::from_fn(|i| {
            let x = hash(seed, i as u64);
            let q = (x >> 8) as i32 % (2 * most + 1) - most;
            if seed.is_multiple_of(3) { q.abs() as i8 } else { q as i8 }
        });
        // The worst activations: the largest for all weights of one sign, 0 for the others.
        let worst = [0, 2].into_iter().flat_map(|lane| {
            let of_lane = move |i: &usize| i % 4 / 2 == lane / 2;
            [1, -1].map(|sign| {
                let lane = (0..SPAN).filter(of_lane).map(|i| sign * i32::from(span[i]));
                127 * lane.filter(|q| *q > 0).sum::<i32>()
            })
        });
        let holds = worst.max().is_some_and(|sum| sum <= i32::from(i16::MAX));
        assert_eq!(spans::fits(&span), holds, "{span:?}");
    }
}

/// Integers of a matrix, all of those that a weight may hold.
fn coded(shape: CodedShape) -> (Vec<i8>, CodedMatrix) {
    let integer = |i: usize| (hash(3, i as u64) % 127) as i8 - WEIGHT_LIMIT;
    let integers: Vec<i8> = (0..shape.rows * shape.columns).map(integer).collect();
    let matrix = CodedMatrix::new(encode(&integers, shape)).unwrap();
    (integers, matrix)
}

#[test]
fn coded_rows_are_taken_up_in_their_place() {
    let shape = CodedShape { rows: 35, columns: 21, block: 16 };
    let (integers, matrix) = coded(shape);
    let scales: Vec<f32> = (0..35).map(|row| 0.5 + row as f32).collect();
    let mut panels = Int8Panels::zeros(70, 21);
    panels.take_up(35, &matrix, &scales).unwrap();
    assert_eq!((panels.outputs(), panels.inputs()), (70, 21));
    let mut row = [9f32; 21];
    panels.row(0, &mut row);
    assert_eq!(row, [0.0; 21]);
    for (index, integers) in integers.chunks(21).enumerate() {
        panels.row(35 + index, &mut row);
        let expected: Vec<f32> = integers.iter().map(|q| f32::from(*q) * scales[index]).collect();
        assert_eq!(row.as_slice(), expected);
    }
    let too_large = CodedShape { rows: 1, columns: 3, block: 1 };
    let matrix = CodedMatrix::new(encode(&[1, 64, 2], too_large)).unwrap();
    let error = Int8Panels::zeros(1, 3).take_up(0, &matrix, &[1.0]).unwrap_err();
    assert_eq!(error, CodingError::Range(0));
}

#[test]
fn rows_of_a_table_come_back() {
    let shape = CodedShape { rows: 9, columns: 40, block: 1 };
    let scales: Vec<f32> = (0..9).map(|row| 0.25 * row as f32).collect();
    for keeps in [false, true] {
        let (integers, matrix) = coded(shape);
        let table = CodedTable::with(matrix, scales.clone(), keeps);
        let mut out = [0f32; 40];
        // The second time some are kept, and the third time all.
        for ids in [&[8, 0, 8, 3][..], &[3, 7, 8, 1, 0], &[7, 3]] {
            let rows = table.decode(ids).unwrap();
            for row in ids {
                rows.expand(*row, &mut out);
                let row = *row as usize;
                for (x, q) in out.iter().zip(&integers[40 * row..]) {
                    assert_eq!(*x, f32::from(*q) * scales[row]);
                }
            }
            rows.expand(5, &mut out);
            assert_eq!(out, [0.0; 40], "nobody asked for it");
        }
        assert!(table.decode(&[]).is_ok());
    }
}

#[test]
fn the_least_damaged_row_is_named_whatever_was_kept() {
    let shape = CodedShape { rows: 9, columns: 40, block: 1 };
    let (integers, _) = coded(shape);
    let mut bytes = encode(&integers, shape);
    // The last byte is the last row's.
    if let Some(last) = bytes.last_mut() {
        *last ^= 0xff;
    }
    for keeps in [false, true] {
        let matrix = CodedMatrix::new(bytes.clone()).unwrap();
        let table = CodedTable::with(matrix, vec![1.0; 9], keeps);
        assert!(table.decode(&[2, 5]).is_ok());
        assert_eq!(table.decode(&[5, 8, 2]).err(), Some(8));
        assert_eq!(table.decode(&[8]).err(), Some(8));
    }
}
