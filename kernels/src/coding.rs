//! Matrices of small integers in about as many bits as their distribution has: range asymmetric numeral systems.
//!
//! Duda, Asymmetric numeral systems (2013); the arithmetic is that of Giesen's ryg_rans, with 16-bit words. Owns the
//! layout of the bytes (docs/bundle-format.md, "Coded integers"). Knows nothing of what the integers stand for.
//!
//! A row has one of a few models, each a table of how often integers come; some rows make a block, which can be read
//! without the others: a table's row is decoded when it is looked up, and takes no memory before that.

mod encode;
mod model;
#[cfg(test)]
mod tests;

pub use encode::encode;
use model::Model;

/// The state of a coder at the beginning of what it codes, and so at the end of reading it.
const START: u32 = 1 << 16;
/// The most models that a matrix has.
const MOST_MODELS: usize = 32;
/// Blocks that are decoded side by side: each symbol waits for the one before it.
const TOGETHER: usize = 4;

/// Why bytes are no coded matrix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CodingError {
    /// They end too soon, or go on beyond their end.
    #[error("has {found} bytes of coded integers where {expected} are expected")]
    Length {
        /// Bytes that were found.
        found: usize,
        /// Bytes that what was read before them asks for.
        expected: usize,
    },
    /// Blocks have no rows.
    #[error("has blocks of no rows")]
    NoBlock,
    /// A model is malformed.
    #[error("has a malformed model {0}")]
    Model(usize),
    /// A row names a model that there is not.
    #[error("names a model that is not there, in row {0}")]
    Row(usize),
    /// An integer is larger than what it stands for allows.
    #[error("holds an integer that is out of range, in row {0}")]
    Range(usize),
    /// A block does not end as it should.
    #[error("is damaged in block {0}")]
    Block(usize),
}

/// The shape of a coded matrix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CodedShape {
    /// Rows.
    pub rows: usize,
    /// Columns.
    pub columns: usize,
    /// Rows of a block; the last may have fewer.
    pub block: usize,
}

/// Bytes of a shape: three numbers of 32 bits.
const SHAPE_BYTES: usize = 12;

impl CodedShape {
    fn read(bytes: &[u8]) -> Result<Self, CodingError> {
        let short = || CodingError::Length { found: bytes.len(), expected: SHAPE_BYTES };
        let head = bytes.first_chunk::<SHAPE_BYTES>().ok_or_else(short)?;
        let number = |at: usize| {
            u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]) as usize
        };
        let shape = Self { rows: number(0), columns: number(4), block: number(8) };
        if shape.block == 0 { Err(CodingError::NoBlock) } else { Ok(shape) }
    }

    fn write(&self) -> Vec<u8> {
        [self.rows, self.columns, self.block]
            .iter()
            .flat_map(|number| (*number as u32).to_le_bytes())
            .collect()
    }

    fn blocks(&self) -> usize {
        self.rows.div_ceil(self.block)
    }
}

/// A coded matrix, ready to be decoded.
#[derive(Debug)]
pub struct CodedMatrix {
    shape: CodedShape,
    models: Vec<Model>,
    /// The bytes as they came.
    bytes: Vec<u8>,
    /// Where the rows' models begin.
    row_models: usize,
    /// Where each block begins, and the last one's end.
    starts: Vec<u32>,
}

/// One block on its way.
#[derive(Clone, Copy)]
struct Cursor<'a> {
    state: u32,
    words: &'a [u8],
}

impl Cursor<'_> {
    /// The next integer.
    #[inline(always)]
    fn next(&mut self, model: &Model) -> i8 {
        let (symbol, state) = model.decode(self.state);
        self.state = state;
        if state < START {
            self.refill();
        }
        symbol
    }

    #[inline(always)]
    fn refill(&mut self) {
        let mut word = 0;
        // Where words are missing the state does not come back to its start, which is looked at in the end.
        if let Some((first, rest)) = self.words.split_first_chunk::<2>() {
            word = u16::from_le_bytes(*first);
            self.words = rest;
        }
        self.state = self.state << 16 | u32::from(word);
    }

    fn is_done(&self) -> bool {
        self.state == START && self.words.is_empty()
    }
}

impl CodedMatrix {
    /// Takes bytes up that [`encode`] made. Their shape is theirs: it should be compared with the one that is expected
    /// before anything is decoded, as room is made for so many columns.
    ///
    /// # Errors
    /// What is wrong with them, but for what is inside blocks.
    pub fn new(bytes: Vec<u8>) -> Result<Self, CodingError> {
        let shape = CodedShape::read(&bytes)?;
        let (models, row_models) = model::read_all(&bytes, SHAPE_BYTES)?;
        let lengths = row_models.saturating_add(shape.rows);
        let first = lengths.saturating_add(2 * shape.blocks());
        let short = |expected| CodingError::Length { found: bytes.len(), expected };
        let of_rows = bytes.get(row_models..lengths).ok_or_else(|| short(first))?;
        if let Some(row) = of_rows.iter().position(|model| usize::from(*model) >= models.len()) {
            return Err(CodingError::Row(row));
        }
        let of_blocks = bytes.get(lengths..first).ok_or_else(|| short(first))?;
        let mut end = first;
        let mut starts = Vec::with_capacity(shape.blocks() + 1);
        starts.push(end as u32);
        for length in of_blocks.as_chunks().0 {
            // In a page a number of 32 bits would go round.
            end = end.saturating_add(2 * usize::from(u16::from_le_bytes(*length)));
            starts.push(end as u32);
        }
        if end != bytes.len() || u32::try_from(end).is_err() {
            return Err(short(end));
        }
        Ok(Self { shape, models, bytes, row_models, starts })
    }

    /// Rows and columns.
    pub fn shape(&self) -> CodedShape {
        self.shape
    }

    fn rows_of(&self, block: usize) -> std::ops::Range<usize> {
        let first = block * self.shape.block;
        first..(first + self.shape.block).min(self.shape.rows)
    }

    fn cursor(&self, block: usize) -> Cursor<'_> {
        let words = self.starts[block] as usize..self.starts[block + 1] as usize;
        let mut cursor = Cursor { state: 0, words: &self.bytes[words] };
        cursor.refill();
        cursor.refill();
        cursor
    }

    fn model(&self, row: usize) -> &Model {
        &self.models[usize::from(self.bytes[self.row_models + row])]
    }

    /// Decodes one block into its rows, `[rows of the block, columns]`; `false` where it is damaged.
    ///
    /// # Panics
    /// When there is no such block.
    pub fn decode_block(&self, block: usize, out: &mut [i8]) -> bool {
        let mut cursor = self.cursor(block);
        for (row, out) in self.rows_of(block).zip(out.chunks_mut(self.shape.columns.max(1))) {
            let model = self.model(row);
            out.iter_mut().for_each(|q| *q = cursor.next(model));
        }
        cursor.is_done()
    }

    /// Hands every row over, in their order.
    ///
    /// # Errors
    /// [`CodingError::Block`], after as many rows as lie before it, or some more.
    pub fn decode(&self, mut each: impl FnMut(usize, &[i8])) -> Result<(), CodingError> {
        let (columns, size) = (self.shape.columns, self.shape.block * self.shape.columns);
        let mut out = vec![0i8; TOGETHER * size];
        for first in (0..self.shape.blocks()).step_by(TOGETHER) {
            let blocks = first..(first + TOGETHER).min(self.shape.blocks());
            let whole = self.rows_of(blocks.end - 1).len() == self.shape.block;
            if blocks.len() == TOGETHER && whole {
                if let Some(bad) =
                    self.decode_together(std::array::from_fn(|i| first + i), &mut out)
                {
                    return Err(CodingError::Block(bad));
                }
            } else {
                for block in blocks.clone() {
                    let rows = self.rows_of(block).len();
                    let out = &mut out[(block - first) * size..][..rows * columns];
                    if !self.decode_block(block, out) {
                        return Err(CodingError::Block(block));
                    }
                }
            }
            for block in blocks {
                let rows = out[(block - first) * size..].chunks(columns.max(1));
                self.rows_of(block).zip(rows).for_each(|(row, integers)| each(row, integers));
            }
        }
        Ok(())
    }

    /// Decodes some whole blocks, in any order, into their rows, `[blocks, rows of a block, columns]`;
    /// a damaged one.
    ///
    /// # Panics
    /// When there is no such block, or the room is not theirs: a caller's mistake.
    pub fn decode_blocks(&self, blocks: &[usize], out: &mut [i8]) -> Option<usize> {
        let size = self.shape.block * self.shape.columns;
        assert_eq!(out.len(), blocks.len() * size, "room for all rows");
        let (fours, rest) = blocks.as_chunks();
        let (of_fours, of_rest) = out.split_at_mut(fours.len() * TOGETHER * size);
        let mut of_fours = fours.iter().zip(of_fours.chunks_mut((TOGETHER * size).max(1)));
        let mut of_rest = rest.iter().zip(of_rest.chunks_mut(size.max(1)));
        of_fours.find_map(|(four, out)| self.decode_together(*four, out)).or_else(|| {
            of_rest.find_map(|(block, out)| (!self.decode_block(*block, out)).then_some(*block))
        })
    }

    /// Decodes [`TOGETHER`] whole blocks side by side; a damaged one.
    fn decode_together(&self, blocks: [usize; TOGETHER], out: &mut [i8]) -> Option<usize> {
        let CodedShape { columns, block, .. } = self.shape;
        let mut cursors: [Cursor<'_>; TOGETHER] = blocks.map(|block| self.cursor(block));
        for row in 0..block {
            let models: [&Model; TOGETHER] = blocks.map(|index| self.model(index * block + row));
            let mut rows = out
                .chunks_mut((block * columns).max(1))
                .map(|out| &mut out[row * columns..][..columns]);
            let (Some(a), Some(b), Some(c), Some(d)) =
                (rows.next(), rows.next(), rows.next(), rows.next())
            else {
                return Some(blocks[0]);
            };
            let [mut w, mut x, mut y, mut z] = cursors;
            for (((a, b), c), d) in a.iter_mut().zip(b).zip(c).zip(d) {
                *a = w.next(models[0]);
                *b = x.next(models[1]);
                *c = y.next(models[2]);
                *d = z.next(models[3]);
            }
            cursors = [w, x, y, z];
        }
        cursors.iter().position(|cursor| !cursor.is_done()).map(|bad| blocks[bad])
    }
}
