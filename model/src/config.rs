//! `config.json`: the model's shape and its labels, readable and writable without loss.

use std::collections::BTreeMap;

use pagebert_kernels::Activation;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::{ModelError, Result};

/// A Hugging Face BERT configuration. Fields that this crate does not use are kept in `other`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[allow(missing_docs)] // The names are the checkpoint format's own.
pub struct BertConfig {
    #[serde(default = "bert")]
    pub model_type: String,
    pub vocab_size: usize,
    pub hidden_size: usize,
    pub num_hidden_layers: usize,
    pub num_attention_heads: usize,
    pub intermediate_size: usize,
    #[serde(default = "gelu")]
    pub hidden_act: String,
    #[serde(default = "tenth")]
    pub hidden_dropout_prob: f64,
    #[serde(default = "tenth")]
    pub attention_probs_dropout_prob: f64,
    /// Dropout before the classifier; `hidden_dropout_prob` where it is absent.
    #[serde(default)]
    pub classifier_dropout: Option<f64>,
    #[serde(default = "max_position_embeddings")]
    pub max_position_embeddings: usize,
    #[serde(default = "type_vocab_size")]
    pub type_vocab_size: usize,
    #[serde(default = "initializer_range")]
    pub initializer_range: f64,
    #[serde(default = "layer_norm_eps")]
    pub layer_norm_eps: f64,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub id2label: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub label2id: BTreeMap<String, Value>,
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn bert() -> String {
    "bert".into()
}
fn gelu() -> String {
    "gelu".into()
}
fn tenth() -> f64 {
    0.1
}
fn max_position_embeddings() -> usize {
    512
}
fn type_vocab_size() -> usize {
    2
}
fn initializer_range() -> f64 {
    0.02
}
fn layer_norm_eps() -> f64 {
    1e-12
}

impl BertConfig {
    /// Reads and checks `config.json`.
    ///
    /// # Errors
    /// [`ModelError::Config`] when it is not JSON, lacks a field, or describes another architecture.
    pub fn from_json(bytes: &[u8]) -> Result<Self> {
        let config: Self =
            serde_json::from_slice(bytes).map_err(|e| ModelError::Config(e.to_string()))?;
        config.check()?;
        Ok(config)
    }

    /// The text of `config.json`.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string_pretty(self)
            .map(|text| text + "\n")
            .map_err(|e| ModelError::Config(e.to_string()))
    }

    /// Whether a model can be built from this.
    pub fn check(&self) -> Result<()> {
        let fail = |message: String| Err(ModelError::Config(message));
        if self.model_type != "bert" {
            return fail(format!(
                "model_type is {:?}; only \"bert\" is supported (not RoBERTa, DistilBERT, …)",
                self.model_type
            ));
        }
        for (name, n) in [
            ("vocab_size", self.vocab_size),
            ("hidden_size", self.hidden_size),
            ("num_hidden_layers", self.num_hidden_layers),
            ("num_attention_heads", self.num_attention_heads),
            ("intermediate_size", self.intermediate_size),
            ("type_vocab_size", self.type_vocab_size),
        ] {
            if n == 0 || n > 1 << 24 {
                return fail(format!("{name} is {n}"));
            }
        }
        if !self.hidden_size.is_multiple_of(self.num_attention_heads) {
            return fail(format!(
                "hidden_size {} is not a multiple of num_attention_heads {}",
                self.hidden_size, self.num_attention_heads
            ));
        }
        if !(3..=1 << 20).contains(&self.max_position_embeddings) {
            return fail(format!("max_position_embeddings is {}", self.max_position_embeddings));
        }
        for (name, p) in [
            ("hidden_dropout_prob", self.hidden_dropout_prob),
            ("attention_probs_dropout_prob", self.attention_probs_dropout_prob),
            ("classifier_dropout", self.classifier_dropout.unwrap_or(0.0)),
        ] {
            if !(0.0..1.0).contains(&p) {
                return fail(format!("{name} is {p}, outside 0 to 1"));
            }
        }
        if !(self.layer_norm_eps >= 0.0 && self.layer_norm_eps < 1.0) {
            return fail(format!("layer_norm_eps is {}", self.layer_norm_eps));
        }
        self.activation()?;
        match self.other.get("position_embedding_type") {
            None | Some(Value::Null) => {}
            Some(Value::String(kind)) if kind == "absolute" => {}
            Some(kind) => {
                return fail(format!("position_embedding_type {kind} is not supported"));
            }
        }
        if self.other.get("is_decoder") == Some(&Value::Bool(true)) {
            return fail("is_decoder is true: only encoders are supported".into());
        }
        match self.other.get("problem_type") {
            None | Some(Value::Null) => {}
            Some(Value::String(kind)) if kind == "single_label_classification" => {}
            Some(kind) => return fail(format!("problem_type {kind} is not supported")),
        }
        self.labels().map(|_| ())
    }

    /// The non-linearity between the two halves of a feed-forward block.
    pub fn activation(&self) -> Result<Activation> {
        match self.hidden_act.as_str() {
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            other => Err(ModelError::Config(format!(
                "hidden_act {other:?} is not supported (gelu, gelu_new, relu are)"
            ))),
        }
    }

    /// Class names by class id; `LABEL_0` and `LABEL_1` where the file has none.
    pub fn labels(&self) -> Result<Vec<String>> {
        if self.id2label.is_empty() {
            return Ok(vec!["LABEL_0".into(), "LABEL_1".into()]);
        }
        (0..self.id2label.len())
            .map(|id| {
                self.id2label.get(&id.to_string()).cloned().ok_or_else(|| {
                    ModelError::Config(format!(
                        "id2label has {} entries, but none for class {id}",
                        self.id2label.len()
                    ))
                })
            })
            .collect()
    }

    /// Sets the classes.
    pub fn set_labels(&mut self, labels: &[String]) {
        self.id2label =
            labels.iter().enumerate().map(|(id, l)| (id.to_string(), l.clone())).collect();
        self.label2id = labels.iter().enumerate().map(|(id, l)| (l.clone(), id.into())).collect();
    }

    /// The dropout before the classifier.
    pub fn classifier_dropout(&self) -> f64 {
        self.classifier_dropout.unwrap_or(self.hidden_dropout_prob)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"{"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1,
        "num_attention_heads": 2, "intermediate_size": 16, "transformers_version": "4.8.2"}"#;

    fn with(name: &str, value: Value) -> String {
        let mut config: Map<String, Value> = serde_json::from_str(MINIMAL).unwrap();
        config.insert(name.into(), value);
        Value::Object(config).to_string()
    }

    #[test]
    fn defaults_are_berts_and_unknown_fields_survive() {
        let config = BertConfig::from_json(MINIMAL.as_bytes()).unwrap();
        assert_eq!(config.layer_norm_eps, 1e-12);
        assert_eq!(config.labels().unwrap(), ["LABEL_0", "LABEL_1"]);
        let again = BertConfig::from_json(config.to_json().unwrap().as_bytes()).unwrap();
        assert_eq!(again, config);
        assert_eq!(again.other["transformers_version"], "4.8.2");
    }

    #[test]
    fn labels_are_ordered_by_number_not_by_spelling() {
        let mut config = BertConfig::from_json(MINIMAL.as_bytes()).unwrap();
        let labels: Vec<String> = (0..12).map(|i| format!("class {i}")).collect();
        config.set_labels(&labels);
        let again = BertConfig::from_json(config.to_json().unwrap().as_bytes()).unwrap();
        assert_eq!(again.labels().unwrap(), labels);
    }

    #[test]
    fn what_cannot_be_built_is_refused_by_name() {
        for (name, value) in [
            ("model_type", Value::from("roberta")),
            ("num_attention_heads", Value::from(3)),
            ("hidden_act", Value::from("silu")),
            ("position_embedding_type", Value::from("relative_key")),
            ("is_decoder", Value::from(true)),
            ("problem_type", Value::from("regression")),
            ("hidden_dropout_prob", Value::from(1.0)),
            ("vocab_size", Value::from(0)),
            ("max_position_embeddings", Value::from(2)),
            ("layer_norm_eps", Value::from(-1.0)),
            ("id2label", serde_json::json!({"0": "a", "2": "b"})),
        ] {
            let error = BertConfig::from_json(with(name, value).as_bytes()).unwrap_err();
            assert!(error.to_string().contains(name), "{name}: {error}");
        }
    }
}
