use super::*;
use crate::cpu::Bf16;
use crate::dropout::normal;

fn random<E: Element>(seed: u64, n: usize) -> Vec<E> {
    (0..n as u64).map(|i| E::new(normal(seed, i))).collect()
}

/// What panels `[count, depth / GROUP, columns, GROUP]` hold by the definition.
fn panels<E: Element>(
    count: usize,
    depth: usize,
    columns: usize,
    at: impl Fn(usize, usize) -> Option<E>,
) -> Vec<E> {
    let mut out = vec![E::zeroed(); count * depth * columns];
    for panel in 0..count {
        for k in 0..depth {
            for j in 0..columns {
                let group = (k / E::GROUP * columns + j) * E::GROUP;
                out[panel * depth * columns + group + k % E::GROUP] =
                    at(k, panel * columns + j).unwrap_or(E::zeroed());
            }
        }
    }
    out
}

fn rows_become_panels_and_columns<E: Element>() {
    let columns = E::kernel().columns;
    for (count, width) in [
        (1usize, 1usize),
        (2, 32),
        (27, 32),
        (32, 48),
        (33, 49),
        (64, 96),
        (61, 130),
        (5, 384),
        (63, 15),
    ] {
        let (ld, depth) = (width + 3, count.next_multiple_of(16 * E::GROUP));
        let rows = random::<E>(1, count * ld);
        let dirty = |n: usize| vec![E::new(7.0); n];

        let wide = width.div_ceil(columns);
        let mut out = dirty(wide * depth * columns);
        rows_to_panels(&rows, ld, count, width, depth, columns, &mut out);
        let at = |k: usize, j: usize| (k < count && j < width).then(|| rows[k * ld + j]);
        assert!(out == panels(wide, depth, columns, at), "{count} {width}: rows to panels");

        let (many, deep) = (count.div_ceil(columns), padded::<E>(width));
        let mut out = dirty(many * deep * columns);
        columns_to_panels(&rows, ld, count, width, deep, columns, &mut out);
        let at = |k: usize, j: usize| (k < width && j < count).then(|| rows[j * ld + k]);
        assert!(out == panels(many, deep, columns, at), "{count} {width}: columns to panels");

        let mut out = dirty(width * depth);
        rows_to_columns(&rows, ld, count, width, depth, &mut out);
        for (j, column) in out.chunks(depth).enumerate() {
            for (t, x) in column.iter().enumerate() {
                let expected = if t < count { rows[t * ld + j] } else { E::zeroed() };
                assert!(*x == expected, "{count} {width}: column {j}, row {t}");
            }
        }
    }
}

fn weights_become_panels<E: Element>() {
    let columns = E::kernel().columns;
    for (outputs, inputs) in [(1usize, 1usize), (48, 32), (97, 33), (130, 70), (64, 384), (384, 96)]
    {
        let weight = random::<f32>(2, outputs * inputs);
        let (mut forward, mut backward) =
            (Panels::<E>::new(inputs, outputs), Panels::<E>::new(outputs, inputs));
        let rows = rows_together::<E>() * inputs;
        let pieces = weight_rows(inputs, &mut forward, Some(&mut backward));
        for (mut piece, weight) in pieces.into_iter().zip(weight.chunks(rows)) {
            piece.pack(weight);
        }
        let at = |output: usize, input: usize| {
            (output < outputs && input < inputs).then(|| E::new(weight[output * inputs + input]))
        };
        let expected = panels(forward.count, forward.depth, columns, |k, j| at(j, k));
        assert!(forward.data[..] == expected[..], "{outputs} {inputs}: forward");
        let expected = panels(backward.count, backward.depth, columns, at);
        assert!(backward.data[..] == expected[..], "{outputs} {inputs}: backward");
    }
}

#[test]
fn packed_operands_are_as_defined() {
    rows_become_panels_and_columns::<f32>();
    rows_become_panels_and_columns::<Bf16>();
    weights_become_panels::<f32>();
    weights_become_panels::<Bf16>();
}
