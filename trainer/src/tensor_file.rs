//! Tensors written to a safetensors file one by one.
//!
//! A model's bytes are never in memory as a whole: beside a training's weights, gradients and running
//! means that would be what decides how much memory a training needs.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result};
use candle_core::{DType, Device, Tensor};
use safetensors::{Dtype, View};
use sha2::{Digest, Sha256};

use crate::checkpoint::temporary_beside;

/// A tensor as it is stored: f32, in the file's byte order.
struct Stored<'a> {
    tensor: Tensor,
    /// The view has no way to say that it failed.
    failed: &'a Mutex<Option<candle_core::Error>>,
}

impl View for Stored<'_> {
    fn dtype(&self) -> Dtype {
        Dtype::F32
    }

    fn shape(&self) -> &[usize] {
        self.tensor.dims()
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let values = self.tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>());
        match values {
            Ok(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            Err(error) => {
                *self.failed.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                Cow::Borrowed(&[])
            }
        }
    }

    fn data_len(&self) -> usize {
        self.tensor.elem_count() * size_of::<f32>()
    }
}

/// Writes tensors as f32, with metadata `format=pt`, under a temporary name first.
///
/// # Errors
/// When a tensor can't be read or the file can't be written.
pub fn write(path: &Path, tensors: &BTreeMap<String, Tensor>) -> Result<()> {
    let describe = || format!("{} can't be written", path.display());
    let (file, place) = temporary_beside(path)?;
    let failed = Mutex::new(None);
    let mut views = Vec::with_capacity(tensors.len());
    for (name, tensor) in tensors {
        let tensor = tensor.to_device(&Device::Cpu)?.to_dtype(DType::F32)?;
        views.push((name.as_str(), Stored { tensor, failed: &failed }));
    }
    let metadata = HashMap::from([("format".to_string(), "pt".to_string())]);
    safetensors::serialize_to_file(views, Some(metadata), file.path()).with_context(describe)?;
    if let Some(error) = failed.into_inner().unwrap_or_else(PoisonError::into_inner) {
        return Err(error).with_context(describe);
    }
    file.as_file().sync_all().with_context(describe)?;
    file.persist(place).map_err(|error| error.error).with_context(describe)?;
    Ok(())
}

/// A file's SHA-256, in hexadecimal.
///
/// # Errors
/// When it can't be read.
pub fn sha256(path: &Path) -> Result<String> {
    let describe = || format!("{} can't be read", path.display());
    let mut file = File::open(path).with_context(describe)?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0u8; 1 << 20]);
    loop {
        match file.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => hasher.update(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error).with_context(describe),
        }
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_what_serialising_in_memory_gives() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let tensor = |rows: usize| {
            let values: Vec<f32> = (0..rows * 3).map(|i| i as f32 * 0.37 - 1.0).collect();
            Tensor::from_vec(values, (rows, 3), &Device::Cpu).unwrap()
        };
        // One that is not contiguous, too, and one that is empty.
        let tensors: BTreeMap<String, Tensor> = [
            ("b".to_string(), tensor(5).t().unwrap()),
            ("a".to_string(), tensor(2)),
            ("c".to_string(), tensor(0)),
        ]
        .into();
        write(&path, &tensors).unwrap();
        let expected = pagebert_model::weights::serialize(&tensors, DType::F32).unwrap();
        assert!(std::fs::read(&path).unwrap() == expected);
        assert_eq!(sha256(&path).unwrap(), pagebert_model::bundle::sha256_hex(&expected));
        assert!(write(&folder.path().join("none/x"), &tensors).is_err());
    }
}
