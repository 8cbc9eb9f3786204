//! `BertForSequenceClassification`, over packed batches. Names follow the checkpoint's.

use candle_core::{Device, Tensor};
use pagebert_kernels::{
    Activation, Dropout, DropoutKey, EmbeddingTables, LayerNorm, Sequences, attention, dropout,
    dropout_add_layer_norm, embeddings_layer_norm, linear,
};

use crate::{Batch, BertConfig, Result, Weights};

/// A linear layer: float today, and the one place that knows of other kinds.
#[derive(Debug, Clone)]
enum Linear {
    Float { weight: Tensor, bias: Tensor },
}

impl Linear {
    fn load(weights: &Weights, name: &str) -> Result<Self> {
        Ok(Self::Float {
            weight: weights.get(&format!("{name}.weight"))?.clone(),
            bias: weights.get(&format!("{name}.bias"))?.clone(),
        })
    }

    /// x `[T, in]` → `[T, out]`.
    fn forward(&self, x: &Tensor, activation: Activation) -> Result<Tensor> {
        match self {
            Self::Float { weight, bias } => Ok(linear(x, weight, bias, activation)?),
        }
    }
}

fn load_norm(weights: &Weights, config: &BertConfig, name: &str) -> Result<LayerNorm> {
    Ok(LayerNorm {
        weight: weights.get(&format!("{name}.weight"))?.clone(),
        bias: weights.get(&format!("{name}.bias"))?.clone(),
        eps: config.layer_norm_eps,
    })
}

/// The three dropouts of a layer; each layer and each of its places has a site of its own.
#[derive(Debug, Clone, Copy, Default)]
struct LayerDropout {
    probabilities: Option<Dropout>,
    attention_output: Option<Dropout>,
    output: Option<Dropout>,
}

/// The dropouts of one training step.
#[derive(Debug, Clone, Copy)]
struct Dropouts<'a> {
    config: &'a BertConfig,
    key: Option<DropoutKey>,
}

impl Dropouts<'_> {
    fn at(&self, site: u64, p: f64) -> Option<Dropout> {
        self.key.filter(|_| p > 0.0).map(|key| key.site(site, p as f32))
    }

    fn embeddings(&self) -> Option<Dropout> {
        self.at(0, self.config.hidden_dropout_prob)
    }

    fn classifier(&self) -> Option<Dropout> {
        self.at(1, self.config.classifier_dropout())
    }

    fn layer(&self, layer: usize) -> LayerDropout {
        let site = 4 * (layer as u64 + 1);
        LayerDropout {
            probabilities: self.at(site, self.config.attention_probs_dropout_prob),
            attention_output: self.at(site + 1, self.config.hidden_dropout_prob),
            output: self.at(site + 2, self.config.hidden_dropout_prob),
        }
    }
}

#[derive(Debug, Clone)]
struct BertLayer {
    qkv: Linear,
    attention_output: Linear,
    attention_norm: LayerNorm,
    intermediate: Linear,
    output: Linear,
    output_norm: LayerNorm,
    heads: usize,
    activation: Activation,
}

impl BertLayer {
    fn load(weights: &Weights, config: &BertConfig, layer: usize) -> Result<Self> {
        let name = |part: &str| format!("bert.encoder.layer.{layer}.{part}");
        Ok(Self {
            qkv: Linear::load(weights, &name("attention.self.qkv"))?,
            attention_output: Linear::load(weights, &name("attention.output.dense"))?,
            attention_norm: load_norm(weights, config, &name("attention.output.LayerNorm"))?,
            intermediate: Linear::load(weights, &name("intermediate.dense"))?,
            output: Linear::load(weights, &name("output.dense"))?,
            output_norm: load_norm(weights, config, &name("output.LayerNorm"))?,
            heads: config.num_attention_heads,
            activation: config.activation()?,
        })
    }

    /// hidden_states `[T, H]` → `[T, H]`.
    fn forward(
        &self,
        hidden_states: &Tensor,
        sequences: &Sequences,
        drop: LayerDropout,
    ) -> Result<Tensor> {
        let qkv = self.qkv.forward(hidden_states, Activation::Identity)?; // [T, 3·H]
        let context = attention(&qkv, sequences, self.heads, drop.probabilities)?; // [T, H]
        let attended = self.attention_output.forward(&context, Activation::Identity)?;
        let attended = dropout_add_layer_norm(
            &attended,
            hidden_states,
            &self.attention_norm,
            drop.attention_output,
        )?;
        let inner = self.intermediate.forward(&attended, self.activation)?; // [T, intermediate]
        let outer = self.output.forward(&inner, Activation::Identity)?; // [T, H]
        Ok(dropout_add_layer_norm(&outer, &attended, &self.output_norm, drop.output)?)
    }
}

/// BERT with a classifier on the pooled first token.
#[derive(Debug, Clone)]
pub struct BertForSequenceClassification {
    config: BertConfig,
    tables: EmbeddingTables,
    embeddings_norm: LayerNorm,
    layers: Vec<BertLayer>,
    pooler: Linear,
    classifier: Linear,
    device: Device,
}

impl BertForSequenceClassification {
    /// Builds the model on tensors that it shares with `weights`: where those are variables, an
    /// optimizer's in-place updates are the model's.
    ///
    /// # Errors
    /// When the configuration or the set of tensors does not describe a model.
    pub fn load(weights: &Weights, config: &BertConfig) -> Result<Self> {
        config.check()?;
        let table =
            |kind: &str| weights.get(&format!("bert.embeddings.{kind}_embeddings.weight")).cloned();
        let tables = EmbeddingTables {
            word: table("word")?,
            position: table("position")?,
            token_type: table("token_type")?,
        };
        let layers = (0..config.num_hidden_layers)
            .map(|layer| BertLayer::load(weights, config, layer))
            .collect::<Result<Vec<_>>>()?;
        Ok(Self {
            config: config.clone(),
            device: tables.word.device().clone(),
            tables,
            embeddings_norm: load_norm(weights, config, "bert.embeddings.LayerNorm")?,
            layers,
            pooler: Linear::load(weights, "bert.pooler.dense")?,
            classifier: Linear::load(weights, "classifier")?,
        })
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// Where its tensors are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The last layer's hidden states of every packed token, `[T, H]`. Drops out in training only,
    /// that is, with a `dropout` key.
    pub fn hidden_states(&self, batch: &Batch, dropout: Option<DropoutKey>) -> Result<Tensor> {
        let drops = Dropouts { config: &self.config, key: dropout };
        let mut hidden_states = embeddings_layer_norm(
            &Tensor::new(batch.input_ids.as_slice(), &self.device)?,
            &Tensor::new(batch.position_ids.as_slice(), &self.device)?,
            &self.tables,
            &self.embeddings_norm,
            drops.embeddings(),
        )?;
        for (index, layer) in self.layers.iter().enumerate() {
            hidden_states = layer.forward(&hidden_states, &batch.sequences, drops.layer(index))?;
        }
        Ok(hidden_states)
    }

    /// Each document's logits, `[documents, C]`: the mean over its windows.
    pub fn forward(&self, batch: &Batch, dropout_key: Option<DropoutKey>) -> Result<Tensor> {
        batch.mean_over_windows(&self.window_logits(batch, dropout_key)?)
    }

    /// Each window's logits, `[B, C]`.
    pub fn window_logits(&self, batch: &Batch, dropout_key: Option<DropoutKey>) -> Result<Tensor> {
        let hidden_states = self.hidden_states(batch, dropout_key)?;
        let first = hidden_states.index_select(&batch.first_rows(&self.device)?, 0)?; // [B, H]
        let pooled = self.pooler.forward(&first, Activation::Identity)?.tanh()?;
        let drops = Dropouts { config: &self.config, key: dropout_key };
        let pooled = dropout(&pooled, drops.classifier())?;
        self.classifier.forward(&pooled, Activation::Identity)
    }
}
