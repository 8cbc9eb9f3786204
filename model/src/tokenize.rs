//! Text to token ids, by the tokenizers crate: the same code natively and in the page.
//!
//! A checkpoint brings `tokenizer.json`; a bundle brings `tokenizer.txt`, the compact form of a
//! WordPiece tokenizer: one line of JSON settings, then the vocabulary, a token a line, by id.

use ahash::AHashMap;
use serde::{Deserialize, Serialize};
use tokenizers::decoders::wordpiece::WordPiece as WordPieceDecoder;
use tokenizers::models::wordpiece::WordPiece;
use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::processors::bert::BertProcessing;
use tokenizers::{AddedToken, TokenizerImpl};

use crate::{ModelError, Result};

type BertTokenizer =
    TokenizerImpl<WordPiece, BertNormalizer, BertPreTokenizer, BertProcessing, WordPieceDecoder>;

#[derive(Clone)]
enum Inner {
    Bert(Box<BertTokenizer>),
    #[cfg(feature = "tokenizer-json")]
    Any(Box<tokenizers::Tokenizer>),
}

/// Gives a text's token ids.
#[derive(Clone)]
pub struct TextTokenizer {
    inner: Inner,
    cls: u32,
    sep: u32,
}

impl TextTokenizer {
    /// From the compact form, `tokenizer.txt`.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when it is malformed.
    pub fn from_compact(bytes: &[u8]) -> Result<Self> {
        Self::from_word_piece(CompactTokenizer::parse(bytes)?)
    }

    /// From `vocab.txt` alone, as BERT's first checkpoints came.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when it is not UTF-8 or lacks a special token.
    pub fn from_vocab_txt(bytes: &[u8], lowercase: bool) -> Result<Self> {
        Self::from_word_piece(CompactTokenizer::from_vocab_txt(bytes, lowercase)?)
    }

    /// From `tokenizer.json`, of any kind that frames a text with one token before and one after.
    /// Its own truncation and padding are switched off: they are the caller's business.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when it cannot be read or frames texts in another way.
    #[cfg(feature = "tokenizer-json")]
    pub fn from_tokenizer_json(bytes: &[u8]) -> Result<Self> {
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(bytes).map_err(other)?;
        tokenizer.with_truncation(None).map_err(other)?;
        tokenizer.with_padding(None);
        let frame = tokenizer.encode_fast("", true).map_err(other)?;
        let &[cls, sep] = frame.get_ids() else {
            return Err(ModelError::Tokenizer(format!(
                "an empty text becomes {:?}, not a first and a last special token",
                frame.get_tokens()
            )));
        };
        Ok(Self { inner: Inner::Any(Box::new(tokenizer)), cls, sep })
    }

    fn from_word_piece(compact: CompactTokenizer) -> Result<Self> {
        let CompactTokenizer { settings, vocabulary } = compact;
        let ids: AHashMap<String, u32> =
            vocabulary.into_iter().enumerate().map(|(id, token)| (token, id as u32)).collect();
        let id_of = |token: &str| {
            ids.get(token).copied().ok_or_else(|| {
                ModelError::Tokenizer(format!("special token {token:?} is not in the vocabulary"))
            })
        };
        let (cls, sep) = (id_of(&settings.cls_token)?, id_of(&settings.sep_token)?);
        id_of(&settings.unk_token)?;
        for added in &settings.added_tokens {
            id_of(&added.content)?;
        }
        let model = WordPiece::builder()
            .vocab(ids)
            .unk_token(settings.unk_token)
            .continuing_subword_prefix(settings.continuing_subword_prefix)
            .max_input_chars_per_word(settings.max_input_chars_per_word)
            .build()
            .map_err(other)?;
        let mut tokenizer = BertTokenizer::new(model);
        tokenizer.with_normalizer(Some(settings.normalizer)).map_err(other)?;
        tokenizer.with_pre_tokenizer(Some(BertPreTokenizer));
        tokenizer.add_tokens(settings.added_tokens).map_err(other)?;
        Ok(Self { inner: Inner::Bert(Box::new(tokenizer)), cls, sep })
    }

    /// The ids of a text's own tokens, without special tokens around them.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when the tokenizer's own code fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let encoding = match &self.inner {
            Inner::Bert(tokenizer) => tokenizer.encode_fast(text, false),
            #[cfg(feature = "tokenizer-json")]
            Inner::Any(tokenizer) => tokenizer.encode_fast(text, false),
        };
        Ok(encoding.map_err(other)?.get_ids().to_vec())
    }

    /// A window as the model takes it: first special token, the ids, last special token.
    pub fn frame(&self, ids: &[u32]) -> Vec<u32> {
        let mut framed = Vec::with_capacity(ids.len() + 2);
        framed.push(self.cls);
        framed.extend_from_slice(ids);
        framed.push(self.sep);
        framed
    }

    /// The number of ids; the model's vocabulary must not be smaller.
    pub fn vocab_size(&self) -> usize {
        match &self.inner {
            Inner::Bert(tokenizer) => tokenizer.get_vocab_size(true),
            #[cfg(feature = "tokenizer-json")]
            Inner::Any(tokenizer) => tokenizer.get_vocab_size(true),
        }
    }
}

fn other(error: tokenizers::Error) -> ModelError {
    ModelError::Tokenizer(error.to_string())
}

const FORMAT: &str = "pagebert-wordpiece-1";

/// The first line of `tokenizer.txt`.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct WordPieceSettings {
    format: String,
    normalizer: BertNormalizer,
    unk_token: String,
    cls_token: String,
    sep_token: String,
    continuing_subword_prefix: String,
    max_input_chars_per_word: usize,
    added_tokens: Vec<AddedToken>,
}

/// A WordPiece tokenizer as data.
#[derive(Debug, Clone)]
pub struct CompactTokenizer {
    settings: WordPieceSettings,
    vocabulary: Vec<String>,
}

impl CompactTokenizer {
    /// Reads `tokenizer.txt`.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when it is malformed.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(bytes)
            .map_err(|e| ModelError::Tokenizer(format!("not UTF-8: {e}")))?;
        let (first, rest) = text.split_once('\n').unwrap_or((text, ""));
        let settings: WordPieceSettings = serde_json::from_str(first)
            .map_err(|e| ModelError::Tokenizer(format!("its first line: {e}")))?;
        if settings.format != FORMAT {
            return Err(ModelError::Tokenizer(format!(
                "format is {:?}, this version reads {FORMAT:?}",
                settings.format
            )));
        }
        let vocabulary = rest.split_terminator('\n').map(str::to_string).collect();
        Ok(Self { settings, vocabulary })
    }

    /// The text of `tokenizer.txt`.
    pub fn to_text(&self) -> Result<String> {
        let mut text = serde_json::to_string(&self.settings)
            .map_err(|e| ModelError::Tokenizer(e.to_string()))?;
        text.push('\n');
        for token in &self.vocabulary {
            text.push_str(token);
            text.push('\n');
        }
        Ok(text)
    }

    /// From `vocab.txt`, with BERT's usual settings.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when it is not UTF-8.
    pub fn from_vocab_txt(bytes: &[u8], lowercase: bool) -> Result<Self> {
        let text = std::str::from_utf8(bytes)
            .map_err(|e| ModelError::Tokenizer(format!("vocab.txt is not UTF-8: {e}")))?;
        let vocabulary: Vec<String> =
            text.lines().map(|line| line.trim_end_matches('\r').to_string()).collect();
        let added_tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
            .into_iter()
            .filter(|token| vocabulary.iter().any(|entry| entry == token))
            .map(|token| AddedToken::from(token, true))
            .collect();
        let settings = WordPieceSettings {
            format: FORMAT.into(),
            // BERT's own: clean, split CJK, strip accents where lower-casing.
            normalizer: BertNormalizer::new(true, true, None, lowercase),
            unk_token: "[UNK]".into(),
            cls_token: "[CLS]".into(),
            sep_token: "[SEP]".into(),
            continuing_subword_prefix: "##".into(),
            max_input_chars_per_word: 100,
            added_tokens,
        };
        Ok(Self { settings, vocabulary })
    }

    /// From `tokenizer.json`.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`], naming the part that is not BERT's, for any tokenizer other than
    /// WordPiece with BERT's normalizer and pre-tokenizer.
    #[cfg(feature = "tokenizer-json")]
    pub fn from_tokenizer_json(bytes: &[u8]) -> Result<Self> {
        json::compact(bytes)
    }
}

#[cfg(feature = "tokenizer-json")]
mod json {
    //! `tokenizer.json` to the compact form and back.

    use super::*;

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
        Ok(CompactTokenizer { settings, vocabulary })
    }

    impl CompactTokenizer {
        /// The text of an equal `tokenizer.json`.
        ///
        /// # Errors
        /// [`ModelError::Tokenizer`] when a special token is not in the vocabulary.
        pub fn to_tokenizer_json(&self) -> Result<String> {
            let tokenizer = TextTokenizer::from_word_piece(self.clone())?;
            let Inner::Bert(mut bert) = tokenizer.inner else {
                return Err(ModelError::Tokenizer("not WordPiece".into()));
            };
            let (cls, sep) = (&self.settings.cls_token, &self.settings.sep_token);
            bert.with_post_processor(Some(BertProcessing::new(
                (sep.clone(), tokenizer.sep),
                (cls.clone(), tokenizer.cls),
            )));
            bert.with_decoder(Some(WordPieceDecoder::default()));
            serde_json::to_string_pretty(&*bert).map_err(|e| ModelError::Tokenizer(e.to_string()))
        }
    }
}
