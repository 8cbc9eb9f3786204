//! A table of rows in 4 bits, expanded when they are looked up.

/// Columns that share a scale.
pub const GROUP: usize = 32;

/// Expands one row: `bytes` hold two columns each, the first in the lower half, as 0…15 for
/// −8…7; `scales` one number for each [`GROUP`] columns.
pub fn expand_row(bytes: &[u8], scales: &[f32], out: &mut [f32]) {
    for ((out, bytes), scale) in out.chunks_mut(GROUP).zip(bytes.chunks(GROUP / 2)).zip(scales) {
        for (pair, byte) in out.chunks_mut(2).zip(bytes) {
            for (i, x) in pair.iter_mut().enumerate() {
                *x = f32::from((byte >> (4 * i) & 15) as i8 - 8) * scale;
            }
        }
    }
}
