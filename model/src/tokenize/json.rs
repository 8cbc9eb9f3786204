//! `tokenizer.json` to the compact form and back.

use ahash::AHashMap;
use tokenizers::TokenizerImpl;
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;

use super::*;

type WholeTokenizer =
    TokenizerImpl<WordPiece, BertNormalizer, BertPreTokenizer, BertProcessing, WordPieceDecoder>;

#[derive(Deserialize)]
struct File {
    normalizer: Option<serde_json::Value>,
    pre_tokenizer: Option<serde_json::Value>,
    model: serde_json::Value,
    #[serde(default)]
    added_tokens: Vec<Added>,
}

#[derive(Deserialize)]
struct Added {
    id: usize,
    #[serde(flatten)]
    token: AddedToken,
}

#[derive(Deserialize)]
struct Model {
    unk_token: String,
    continuing_subword_prefix: String,
    max_input_chars_per_word: usize,
    vocab: std::collections::HashMap<String, usize>,
}

fn kind(part: Option<&serde_json::Value>) -> &str {
    part.and_then(|part| part["type"].as_str()).unwrap_or("none")
}

pub(super) fn compact(bytes: &[u8]) -> Result<CompactTokenizer> {
    let fail = |what: &str, e: serde_json::Error| {
        ModelError::Tokenizer(format!("tokenizer.json, {what}: {e}"))
    };
    let file: File = serde_json::from_slice(bytes).map_err(|e| fail("as a whole", e))?;
    // Files written before 2021 do not say what kind of model they hold.
    let model_kind = file.model["type"].as_str().unwrap_or("WordPiece");
    for (part, found, wanted) in [
        ("model", model_kind, "WordPiece"),
        ("normalizer", kind(file.normalizer.as_ref()), "BertNormalizer"),
        ("pre-tokenizer", kind(file.pre_tokenizer.as_ref()), "BertPreTokenizer"),
    ] {
        if found != wanted {
            return Err(ModelError::Tokenizer(format!(
                "its {part} is {found}; only {wanted} can go into a page"
            )));
        }
    }
    let model: Model = serde_json::from_value(file.model).map_err(|e| fail("model", e))?;
    let normalizer = serde_json::from_value(file.normalizer.unwrap_or_default())
        .map_err(|e| fail("normalizer", e))?;
    let tokenizer = TextTokenizer::from_tokenizer_json(bytes)?;
    let size = model.vocab.values().chain(file.added_tokens.iter().map(|a| &a.id)).max();
    let size = size.map_or(0, |id| id + 1);
    if size > 1 << 24 {
        return Err(ModelError::Tokenizer(format!("token ids go up to {size}")));
    }
    let mut by_id = vec![None; size];
    for (token, id) in model.vocab {
        by_id[id] = Some(token);
    }
    for added in &file.added_tokens {
        by_id[added.id] = Some(added.token.content.clone());
    }
    let mut vocabulary = Vec::with_capacity(size);
    for (id, token) in by_id.into_iter().enumerate() {
        // An id without a token keeps its place: nothing tokenizes to a line that is so named.
        let token = token.unwrap_or_else(|| format!("[id {id} has no token]"));
        if token.contains('\n') {
            return Err(ModelError::Tokenizer(format!("token {id} contains a line break")));
        }
        vocabulary.push(token);
    }
    let name = |id: u32| vocabulary.get(id as usize).cloned().unwrap_or_default();
    let settings = WordPieceSettings {
        format: FORMAT.into(),
        normalizer,
        unk_token: model.unk_token,
        cls_token: name(tokenizer.cls),
        sep_token: name(tokenizer.sep),
        continuing_subword_prefix: model.continuing_subword_prefix,
        max_input_chars_per_word: model.max_input_chars_per_word,
        added_tokens: file.added_tokens.into_iter().map(|added| added.token).collect(),
    };
    let lines = vocabulary.iter().flat_map(|token| [token.as_str(), "\n"]).collect();
    Ok(CompactTokenizer { settings, lines })
}

impl CompactTokenizer {
    /// The text of an equal `tokenizer.json`.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when a special token is not in the vocabulary.
    pub fn to_tokenizer_json(&self) -> Result<String> {
        let CompactTokenizer { settings, lines } = self.clone();
        let TextTokenizer { cls, sep, .. } = TextTokenizer::from_word_piece(&settings, &lines)?;
        // Tokens' ids are their places in the vocabulary.
        let tokens = lines.split_terminator('\n').zip(0u32..);
        let ids: AHashMap<_, _> = tokens.map(|(token, id)| (token.to_string(), id)).collect();
        let model = WordPiece::builder()
            .vocab(ids)
            .unk_token(settings.unk_token)
            .continuing_subword_prefix(settings.continuing_subword_prefix)
            .max_input_chars_per_word(settings.max_input_chars_per_word);
        let mut whole = WholeTokenizer::new(model.build().map_err(other)?);
        whole.with_normalizer(Some(settings.normalizer)).map_err(other)?;
        whole.with_pre_tokenizer(Some(BertPreTokenizer));
        whole.add_tokens(settings.added_tokens).map_err(other)?;
        whole.with_post_processor(Some(BertProcessing::new(
            (settings.sep_token, sep),
            (settings.cls_token, cls),
        )));
        whole.with_decoder(Some(WordPieceDecoder::default()));
        serde_json::to_string_pretty(&whole).map_err(|e| ModelError::Tokenizer(e.to_string()))
    }
}
