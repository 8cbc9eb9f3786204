//! The tensors that a checkpoint of a configuration has: names, shapes, and how they begin.

use candle_core::{Device, Tensor};
use pagebert_kernels::{DropoutKey, dropout};

use super::PARTS;
use crate::{BertConfig, Result};

#[derive(Debug, Clone, Copy)]
pub(super) enum Init {
    Normal,
    Zeros,
    Ones,
}

pub(super) struct Expected {
    pub name: String,
    pub shape: Vec<usize>,
    pub init: Init,
}

/// Every tensor of a checkpoint of this configuration.
pub(super) fn expected(config: &BertConfig) -> Result<Vec<Expected>> {
    let hidden = config.hidden_size;
    let inner = config.intermediate_size;
    let mut all = Vec::new();
    let mut push = |name: String, shape: Vec<usize>, init| all.push(Expected { name, shape, init });
    for (table, rows) in [
        ("word", config.vocab_size),
        ("position", config.max_position_embeddings),
        ("token_type", config.type_vocab_size),
    ] {
        let name = format!("bert.embeddings.{table}_embeddings.weight");
        push(name, vec![rows, hidden], Init::Normal);
    }
    let mut norms = vec!["bert.embeddings.LayerNorm".to_string()];
    let mut linears = Vec::new();
    for layer in 0..config.num_hidden_layers {
        let layer = format!("bert.encoder.layer.{layer}");
        for part in PARTS {
            linears.push((format!("{layer}.attention.self.{part}"), hidden, hidden));
        }
        linears.push((format!("{layer}.attention.output.dense"), hidden, hidden));
        linears.push((format!("{layer}.intermediate.dense"), inner, hidden));
        linears.push((format!("{layer}.output.dense"), hidden, inner));
        norms.push(format!("{layer}.attention.output.LayerNorm"));
        norms.push(format!("{layer}.output.LayerNorm"));
    }
    linears.push(("bert.pooler.dense".into(), hidden, hidden));
    linears.push(("classifier".into(), config.labels()?.len(), hidden));
    for (name, out, input) in linears {
        push(format!("{name}.weight"), vec![out, input], Init::Normal);
        push(format!("{name}.bias"), vec![out], Init::Zeros);
    }
    for name in norms {
        push(format!("{name}.weight"), vec![hidden], Init::Ones);
        push(format!("{name}.bias"), vec![hidden], Init::Zeros);
    }
    Ok(all)
}

/// The name that today's Transformers gives a tensor.
pub(super) fn today_name(name: &str) -> String {
    let name = name.strip_prefix("module.").unwrap_or(name);
    let name = match name.strip_suffix("LayerNorm.gamma") {
        Some(prefix) => format!("{prefix}LayerNorm.weight"),
        None => match name.strip_suffix("LayerNorm.beta") {
            Some(prefix) => format!("{prefix}LayerNorm.bias"),
            None => name.to_string(),
        },
    };
    let bare = ["embeddings.", "encoder.", "pooler."].iter().any(|part| name.starts_with(part));
    if bare { format!("bert.{name}") } else { name }
}

pub(super) fn initial(
    name: &str,
    shape: &[usize],
    init: Init,
    config: &BertConfig,
    seed: u64,
    device: &Device,
) -> Result<Tensor> {
    let count = shape.iter().product::<usize>();
    let values = match init {
        Init::Zeros => vec![0.0; count],
        Init::Ones => vec![1.0; count],
        Init::Normal => {
            // The tensor's name is the generator's site, so that a tensor's start depends on
            // nothing else in the checkpoint. FNV-1a.
            let site = name.bytes().fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| {
                (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
            });
            let key = DropoutKey::new(seed, 0).site(site, 0.0).key;
            let scale = config.initializer_range as f32;
            (0..count as u64).map(|i| dropout::normal(key, i) * scale).collect()
        }
    };
    Ok(Tensor::from_vec(values, shape, device)?)
}
