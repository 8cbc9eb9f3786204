//! `BertForSequenceClassification`, over packed batches. Names follow the checkpoint's.

use candle_core::{Device, Tensor};
use pagebert_kernels::{
    Dropout, DropoutKey, Encoder, EncoderDropout, EncoderInput, EncoderOptions, EncoderParameters,
    LayerDropout, LayerParameters, LinearParameters, LinearWeight, NormParameters, Parameter,
    Queries, WordTable, dropout, head,
};

use pagebert_kernels::int8::{Squash, exact_linear};
use pagebert_kernels::reference::LinearPlace;

use crate::{Batch, BertConfig, Result, Weights};

/// Finds parameters by name.
struct Parameters<'a> {
    weights: &'a Weights,
    config: &'a BertConfig,
    options: &'a EncoderOptions,
}

impl Parameters<'_> {
    fn get(&self, name: &str) -> Result<Parameter> {
        Ok(Parameter {
            value: self.weights.get(name)?.clone(),
            gradient: self.options.gradients.as_ref().map(|gradients| gradients.slot(name)),
        })
    }

    fn linear(&self, name: &str) -> Result<LinearParameters> {
        Ok(LinearParameters {
            weight: match self.weights.linear(&format!("{name}.weight")) {
                Some(integers) => LinearWeight::Int8(integers.clone()),
                None => LinearWeight::Float(self.get(&format!("{name}.weight"))?),
            },
            bias: self.get(&format!("{name}.bias"))?,
        })
    }

    fn head(&self, name: &str) -> Result<Head> {
        Ok(Head {
            weight: self.get(&format!("{name}.weight"))?,
            bias: self.get(&format!("{name}.bias"))?,
        })
    }

    fn norm(&self, name: &str) -> Result<NormParameters> {
        Ok(NormParameters {
            weight: self.get(&format!("{name}.weight"))?,
            bias: self.get(&format!("{name}.bias"))?,
            eps: self.config.layer_norm_eps,
        })
    }

    fn layer(&self, layer: usize) -> Result<LayerParameters> {
        let name = |part: &str| format!("bert.encoder.layer.{layer}.{part}");
        Ok(LayerParameters {
            qkv: self.linear(&name("attention.self.qkv"))?,
            attention_output: self.linear(&name("attention.output.dense"))?,
            attention_norm: self.norm(&name("attention.output.LayerNorm"))?,
            intermediate: self.linear(&name("intermediate.dense"))?,
            output: self.linear(&name("output.dense"))?,
            output_norm: self.norm(&name("output.LayerNorm"))?,
            heads: self.config.num_attention_heads,
            activation: self.config.activation()?,
        })
    }

    fn encoder(&self) -> Result<EncoderParameters> {
        let table = |kind: &str| self.get(&format!("bert.embeddings.{kind}_embeddings.weight"));
        let layers = (0..self.config.num_hidden_layers).map(|layer| self.layer(layer));
        Ok(EncoderParameters {
            word: match self.weights.table() {
                Some(coded) => WordTable::Coded(coded.clone()),
                None => WordTable::Float(table("word")?),
            },
            position: table("position")?,
            token_type: table("token_type")?,
            norm: self.norm("bert.embeddings.LayerNorm")?,
            layers: layers.collect::<Result<Vec<_>>>()?,
        })
    }
}

/// A small layer, always of floats.
#[derive(Debug, Clone)]
struct Head {
    weight: Parameter,
    bias: Parameter,
}

impl Head {
    /// x `[B, in]` → `[B, out]`.
    fn forward(&self, x: &Tensor, squash: Squash) -> Result<Tensor> {
        let y = head::linear(x, &self.weight, &self.bias)?;
        Ok(if squash == Squash::Tanh { y.tanh()? } else { y })
    }

    /// The same, equal to the bit on every processor.
    fn forward_exactly(&self, x: &Tensor, squash: Squash) -> Result<Tensor> {
        Ok(exact_linear(x, &self.weight.value, &self.bias.value, squash)?)
    }
}

/// The dropouts of one training step; each layer and each of its places has a site of its own.
#[derive(Debug, Clone, Copy)]
struct Dropouts<'a> {
    config: &'a BertConfig,
    key: Option<DropoutKey>,
}

impl Dropouts<'_> {
    fn at(&self, site: u64, p: f64) -> Option<Dropout> {
        self.key.filter(|_| p > 0.0).map(|key| key.site(site, p as f32))
    }

    fn classifier(&self) -> Option<Dropout> {
        self.at(1, self.config.classifier_dropout())
    }

    fn encoder(&self) -> EncoderDropout {
        let hidden = self.config.hidden_dropout_prob;
        let layers = (0..self.config.num_hidden_layers as u64).map(|layer| {
            let site = 4 * (layer + 1);
            LayerDropout {
                probabilities: self.at(site, self.config.attention_probs_dropout_prob),
                attention_output: self.at(site + 1, hidden),
                output: self.at(site + 2, hidden),
            }
        });
        EncoderDropout { embeddings: self.at(0, hidden), layers: layers.collect() }
    }
}

/// BERT with a classifier on the pooled first token.
#[derive(Clone)]
pub struct BertForSequenceClassification {
    config: BertConfig,
    encoder: Encoder,
    pooler: Head,
    classifier: Head,
    /// Whether products are those of integers, and what comes out is equal to the bit everywhere.
    int8: bool,
    device: Device,
}

impl BertForSequenceClassification {
    /// Builds the model on tensors that it shares with `weights`: where those are variables, an
    /// optimizer's in-place updates are the model's. Computes in f32, and leaves gradients to
    /// candle's autograd.
    ///
    /// # Errors
    /// When the configuration or the set of tensors does not describe a model.
    pub fn load(weights: &Weights, config: &BertConfig) -> Result<Self> {
        Self::load_with(weights, config, EncoderOptions::default())
    }

    /// As [`Self::load`], computed as the options say.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_with(
        weights: &Weights,
        config: &BertConfig,
        options: EncoderOptions,
    ) -> Result<Self> {
        config.check()?;
        let parameters = Parameters { weights, config, options: &options };
        let (pooler, classifier) =
            (parameters.head("bert.pooler.dense")?, parameters.head("classifier")?);
        let parameters = parameters.encoder()?;
        Ok(Self {
            config: config.clone(),
            device: parameters.position.value.device().clone(),
            int8: parameters.is_int8(),
            encoder: Encoder::new(parameters, options)?,
            pooler,
            classifier,
        })
    }

    /// The configuration it was built from.
    pub fn config(&self) -> &BertConfig {
        &self.config
    }

    /// Whether its weights are integers.
    pub fn is_int8(&self) -> bool {
        self.int8
    }

    /// Where its tensors are.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The last layer's hidden states of every packed token, `[T, H]`. Drops out in training only,
    /// that is, with a `dropout` key.
    pub fn hidden_states(&self, batch: &Batch, dropout: Option<DropoutKey>) -> Result<Tensor> {
        self.encode(batch, dropout, Queries::All)
    }

    /// Has a look at what goes into each linear layer of the encoder, `[T, in]`, by the layer's name.
    ///
    /// # Errors
    /// When a tensor operation fails, and what `see` gives.
    pub fn observe(
        &self,
        batch: &Batch,
        mut see: impl FnMut(&str, &Tensor) -> candle_core::Result<()>,
    ) -> Result<()> {
        let input = self.input(batch, None, Queries::All);
        Ok(self.encoder.observe(&input, |(layer, place), x| {
            let part = match place {
                LinearPlace::Qkv => "attention.self.qkv",
                LinearPlace::AttentionOutput => "attention.output.dense",
                LinearPlace::Intermediate => "intermediate.dense",
                LinearPlace::Output => "output.dense",
            };
            see(&format!("bert.encoder.layer.{layer}.{part}"), x)
        })?)
    }

    fn encode(&self, batch: &Batch, key: Option<DropoutKey>, queries: Queries) -> Result<Tensor> {
        Ok(self.encoder.forward(&self.input(batch, key, queries))?)
    }

    fn input(&self, batch: &Batch, key: Option<DropoutKey>, queries: Queries) -> EncoderInput {
        EncoderInput {
            input_ids: batch.input_ids.clone(),
            position_ids: batch.position_ids.clone(),
            sequences: batch.sequences.clone(),
            queries,
            dropout: Dropouts { config: &self.config, key }.encoder(),
        }
    }

    /// Each document's logits, `[documents, C]`: the mean over its windows.
    pub fn forward(&self, batch: &Batch, dropout_key: Option<DropoutKey>) -> Result<Tensor> {
        batch.mean_over_windows(&self.window_logits(batch, dropout_key)?)
    }

    /// Each window's logits, `[B, C]`. The classifier looks at first tokens alone, so the last
    /// layer computes no others.
    pub fn window_logits(&self, batch: &Batch, dropout_key: Option<DropoutKey>) -> Result<Tensor> {
        let first = self.encode(batch, dropout_key, Queries::First)?; // [B, H]
        if self.int8 {
            let pooled = self.pooler.forward_exactly(&first, Squash::Tanh)?;
            return self.classifier.forward_exactly(&pooled, Squash::None);
        }
        let pooled = self.pooler.forward(&first, Squash::Tanh)?;
        let drops = Dropouts { config: &self.config, key: dropout_key };
        let pooled = dropout(&pooled, drops.classifier())?;
        self.classifier.forward(&pooled, Squash::None)
    }
}
