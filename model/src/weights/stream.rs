//! A weights file on its way: each tensor is taken up as soon as it is there, and its bytes go.

use std::borrow::Cow;

use candle_core::Device;
use safetensors::tensor::{Dtype, Metadata};

use super::assembly::{Assembly, Stored};
use super::{LoadReport, Missing, Weights};
use crate::{BertConfig, ModelError, Result};

/// Bytes of the header's length, at the beginning.
const LENGTH_BYTES: usize = 8;
/// A longer header is none: safetensors' own limit.
const MOST_HEADER_BYTES: u64 = 100_000_000;

/// One tensor that is to come.
struct Coming {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    bytes: usize,
}

/// What comes next.
enum Next {
    /// The header's length.
    Length,
    /// The header.
    Header,
    /// Tensors, the next one last.
    Tensors(Vec<Coming>),
}

/// A safetensors file of which a part is there.
pub struct WeightsStream {
    assembly: Assembly,
    next: Next,
    /// What has come of it.
    part: Vec<u8>,
    /// Bytes that it has in all.
    wanted: usize,
}

impl WeightsStream {
    /// Waits for the weights of a model of this configuration.
    ///
    /// # Errors
    /// When the configuration describes no model.
    pub fn new(config: &BertConfig) -> Result<Self> {
        let assembly = Assembly::new(config, Missing::Refuse, &Device::Cpu)?;
        Ok(Self { assembly, next: Next::Length, part: Vec::new(), wanted: LENGTH_BYTES })
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// As [`Weights::from_safetensors`]; after an error the rest is of no use.
    pub fn receive(&mut self, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            if self.part.is_empty() {
                self.reserve()?;
            }
            let (now, later) = bytes.split_at(bytes.len().min(self.wanted - self.part.len()));
            self.part.extend_from_slice(now);
            bytes = later;
            if self.part.len() == self.wanted {
                let part = std::mem::take(&mut self.part);
                self.take(part)?;
            }
        }
        Ok(())
    }

    fn reserve(&mut self) -> Result<()> {
        if self.wanted == 0 {
            return Err(malformed("it goes on behind its last tensor"));
        }
        let room = self.part.try_reserve_exact(self.wanted);
        room.map_err(|_| ModelError::Memory(self.wanted as u64))
    }

    /// Takes a whole part, and says how long the next one is.
    fn take(&mut self, part: Vec<u8>) -> Result<()> {
        match &mut self.next {
            Next::Length => {
                let length = part.try_into().map_or(0, u64::from_le_bytes);
                if length > MOST_HEADER_BYTES {
                    return Err(malformed(format!("its header has {length} bytes")));
                }
                (self.next, self.wanted) = (Next::Header, length as usize);
            }
            Next::Header => {
                let tensors = coming(&part)?;
                self.next = Next::Tensors(tensors);
                self.skip_empty()?;
            }
            Next::Tensors(tensors) => {
                if let Some(tensor) = tensors.pop() {
                    self.assembly.take(tensor.of(Cow::Owned(part)))?;
                }
                self.skip_empty()?;
            }
        }
        Ok(())
    }

    /// Says how long the next tensor with bytes is, and takes up those without.
    fn skip_empty(&mut self) -> Result<()> {
        let Next::Tensors(tensors) = &mut self.next else { return Ok(()) };
        while let Some(empty) = tensors.pop_if(|tensor| tensor.bytes == 0) {
            self.assembly.take(empty.of(Cow::Borrowed(&[])))?;
        }
        self.wanted = tensors.last().map_or(0, |tensor| tensor.bytes);
        Ok(())
    }

    /// The weights, once all of the file has come.
    ///
    /// # Errors
    /// As [`Weights::from_safetensors`].
    pub fn finish(self) -> Result<(Weights, LoadReport)> {
        if self.wanted > 0 || !matches!(self.next, Next::Tensors(_)) {
            return Err(malformed("it is cut off"));
        }
        self.assembly.finish()
    }
}

impl Coming {
    fn of<'a>(&'a self, data: Cow<'a, [u8]>) -> Stored<'a> {
        Stored { name: &self.name, dtype: self.dtype, shape: &self.shape, data }
    }
}

/// The tensors that a header names, in the order of their bytes, the first one last.
fn coming(header: &[u8]) -> Result<Vec<Coming>> {
    let metadata: Metadata = serde_json::from_slice(header).map_err(malformed)?;
    let names = metadata.offset_keys().into_iter().rev();
    let tensors = names.filter_map(|name| {
        let info = metadata.info(&name)?;
        let bytes = info.data_offsets.1 - info.data_offsets.0;
        Some(Coming { dtype: info.dtype, shape: info.shape.clone(), bytes, name })
    });
    Ok(tensors.collect())
}

fn malformed(detail: impl std::fmt::Display) -> ModelError {
    ModelError::Weights(format!("not a readable safetensors file: {detail}"))
}
