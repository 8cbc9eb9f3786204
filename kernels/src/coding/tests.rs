use super::*;
use crate::dropout::normal;

/// Rows whose integers spread the more the later they come.
fn random(rows: usize, columns: usize, seed: u64) -> Vec<i8> {
    (0..rows * columns)
        .map(|i| {
            let width = 1.0 + 40.0 * (i / columns.max(1)) as f32 / rows as f32;
            (normal(seed, i as u64) * width).round().clamp(-127.0, 127.0) as i8
        })
        .collect()
}

fn decoded(matrix: &CodedMatrix) -> Result<Vec<i8>, CodingError> {
    let mut rows = Vec::new();
    matrix.decode(|_, row| rows.extend_from_slice(row))?;
    Ok(rows)
}

const SHAPES: [(usize, usize, usize); 9] = [
    (0, 5, 1),
    (1, 1, 1),
    (3, 0, 2),
    (7, 33, 1),
    (64, 48, 16),
    (70, 48, 16),
    (129, 100, 4),
    (5, 384, 16),
    (300, 384, 1),
];

#[test]
fn a_matrix_comes_back_as_it_was_and_so_does_each_block() {
    for (seed, (rows, columns, block)) in SHAPES.into_iter().enumerate() {
        let shape = CodedShape { rows, columns, block };
        let integers = random(rows, columns, seed as u64);
        let matrix = CodedMatrix::new(encode(&integers, shape)).unwrap();
        assert!(decoded(&matrix).unwrap() == integers, "{shape:?}");
        for number in 0..shape.blocks() {
            let expected: Vec<i8> =
                integers.chunks((block * columns).max(1)).nth(number).unwrap_or_default().to_vec();
            let mut found = vec![99; expected.len()];
            assert!(
                matrix.decode_block(number, &mut found) && found == expected,
                "{shape:?}, block {number}"
            );
        }
    }
}

#[test]
fn blocks_are_decoded_in_any_order_and_the_first_damaged_one_is_named() {
    let shape = CodedShape { rows: 24, columns: 50, block: 2 };
    let integers = random(24, 50, 5);
    let good = encode(&integers, shape);
    let matrix = CodedMatrix::new(good.clone()).unwrap();
    let mut bad = good;
    // In the last word of block 7.
    bad[matrix.starts[8] as usize - 1] ^= 1;
    let damaged = CodedMatrix::new(bad).unwrap();
    for blocks in
        [&[][..], &[11], &[3, 3, 0], &[9, 1, 7, 4], &[0, 2, 7, 8, 5], &[1, 2, 3, 4, 11, 7]]
    {
        let expected: Vec<i8> =
            blocks.iter().flat_map(|block| integers[block * 100..][..100].to_vec()).collect();
        let mut found = vec![99; expected.len()];
        assert_eq!(matrix.decode_blocks(blocks, &mut found), None);
        assert!(found == expected, "{blocks:?}");
        let bad = damaged.decode_blocks(blocks, &mut found);
        assert_eq!(bad, blocks.contains(&7).then_some(7), "{blocks:?}");
    }
}

#[test]
fn equal_integers_and_all_integers_are_coded() {
    let shape = CodedShape { rows: 8, columns: 32, block: 4 };
    let all: Vec<i8> = (0..=255u8).map(|byte| byte as i8).collect();
    for integers in [vec![0; 256], vec![-128; 256], all] {
        let matrix = CodedMatrix::new(encode(&integers, shape)).unwrap();
        assert!(decoded(&matrix).unwrap() == integers);
    }
}

#[test]
fn it_takes_few_more_bits_than_the_rows_distributions_have() {
    let shape = CodedShape { rows: 4096, columns: 384, block: 16 };
    let integers = random(shape.rows, shape.columns, 1);
    let bits = 8.0 * encode(&integers, shape).len() as f64 / integers.len() as f64;
    // The entropy of a rounded normal distribution, by its width: log2(width · √(2πe)).
    let entropy = |row: usize| (1.0 + 40.0 * row as f64 / 4096.0).log2() + 2.047;
    let mean = (0..shape.rows).map(entropy).sum::<f64>() / 4096.0;
    assert!(bits < mean + 0.08 && bits > mean - 0.08, "{bits} bits for {mean}");
}

#[test]
fn bytes_that_are_no_matrix_are_refused_by_name() {
    let shape = CodedShape { rows: 40, columns: 32, block: 8 };
    let good = encode(&random(40, 32, 3), shape);
    for end in 0..good.len() {
        let error = CodedMatrix::new(good[..end].to_vec()).unwrap_err();
        assert!(
            matches!(error, CodingError::Length { found, .. } if found == end),
            "{end}: {error}"
        );
    }
    let with = |at: usize, byte: u8| {
        let mut bad = good.clone();
        bad[at] = byte;
        CodedMatrix::new(bad).and_then(|matrix| decoded(&matrix))
    };
    assert_eq!(with(8, 0), Err(CodingError::NoBlock));
    assert_eq!(with(SHAPE_BYTES, 33), Err(CodingError::Model(MOST_MODELS)));
    assert_eq!(with(SHAPE_BYTES + 3, good[SHAPE_BYTES + 3] ^ 1), Err(CodingError::Model(0)));
    let longer = CodedMatrix::new([good.as_slice(), &[0]].concat()).unwrap_err();
    assert!(matches!(longer, CodingError::Length { .. }), "{longer}");
    let matrix = CodedMatrix::new(good.clone()).unwrap();
    assert_eq!(with(matrix.row_models + 2, 40), Err(CodingError::Row(2)));
    let last = good.len() - 1;
    assert_eq!(with(last, good[last] ^ 4), Err(CodingError::Block(4)));
}

#[test]
fn no_bytes_make_it_panic() {
    let shape = CodedShape { rows: 40, columns: 32, block: 8 };
    let good = encode(&random(40, 32, 4), shape);
    for seed in 0..4000u64 {
        let mut bad = good.clone();
        let at = (normal(seed, 1).abs() * 1e4) as usize % bad.len();
        bad[at] = (normal(seed, 2).abs() * 1e4) as u8;
        // Who decodes has compared the shape with the one that is expected.
        if let Ok(matrix) = CodedMatrix::new(bad)
            && matrix.shape() == shape
        {
            let _any = decoded(&matrix);
        }
    }
}
