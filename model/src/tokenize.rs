//! Text to token ids, by the tokenizers crate: the same code natively and in the page.
//!
//! A checkpoint brings `tokenizer.json`; a bundle brings `tokenizer.txt`, the compact form of a
//! WordPiece tokenizer: one line of JSON settings, then the vocabulary, a token a line, by id.

mod added;
mod bert;
#[cfg(feature = "tokenizer-json")]
mod json;
mod vocabulary;

use serde::{Deserialize, Serialize};
use tokenizers::AddedToken;
use tokenizers::normalizers::BertNormalizer;

use crate::{ModelError, Result};
use bert::BertTokenizer;
use vocabulary::Vocabulary;

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
        let (settings, lines) = CompactTokenizer::read(bytes)?;
        Self::from_word_piece(&settings, lines)
    }

    /// From `vocab.txt` alone, as BERT's first checkpoints came.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when it is not UTF-8 or lacks a special token.
    pub fn from_vocab_txt(bytes: &[u8], lowercase: bool) -> Result<Self> {
        let compact = CompactTokenizer::from_vocab_txt(bytes, lowercase)?;
        Self::from_word_piece(&compact.settings, &compact.lines)
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

    fn from_word_piece(settings: &WordPieceSettings, lines: &str) -> Result<Self> {
        let WordPieceSettings { unk_token, continuing_subword_prefix: prefix, .. } = settings;
        let longest_word = settings.max_input_chars_per_word;
        let vocabulary = Vocabulary::new(lines, prefix, unk_token, longest_word)?;
        let (cls, sep) =
            (vocabulary.special(&settings.cls_token)?, vocabulary.special(&settings.sep_token)?);
        let tokenizer = BertTokenizer::new(settings, vocabulary)?;
        Ok(Self { inner: Inner::Bert(Box::new(tokenizer)), cls, sep })
    }

    /// The ids of a text's own tokens, without special tokens around them.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when the tokenizer's own code fails.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let ids = match &self.inner {
            Inner::Bert(tokenizer) => tokenizer.encode(text),
            #[cfg(feature = "tokenizer-json")]
            Inner::Any(tokenizer) => {
                tokenizer.encode_fast(text, false).map(|encoding| encoding.get_ids().to_vec())
            }
        };
        ids.map_err(other)
    }

    /// How much of a text can be encoded by itself: ids of pieces that are cut here, put together,
    /// are the text's. A long text's pieces are long enough to cost nothing, and short enough to
    /// take little memory and time.
    ///
    /// Words end at spaces, for BERT's normalizer and pre-tokenizer; only tokens that were added
    /// by hand might have one within.
    pub fn piece(&self, text: &str) -> usize {
        const BYTES: usize = 1 << 15;
        let words = match &self.inner {
            Inner::Bert(tokenizer) => tokenizer.keeps_to_words(),
            #[cfg(feature = "tokenizer-json")]
            Inner::Any(_) => false,
        };
        if !words || text.len() <= BYTES {
            return text.len();
        }
        let is_space = |byte: &u8| matches!(byte, b' ' | b'\n');
        let (head, tail) = text.as_bytes().split_at(BYTES);
        let before = head.iter().rposition(is_space).filter(|at| *at > 0);
        let after = || tail.iter().position(is_space).map(|at| BYTES + at);
        before.or_else(after).unwrap_or(text.len())
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
            Inner::Bert(tokenizer) => tokenizer.vocab_size(),
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
    /// The vocabulary, a token a line, by id.
    lines: String,
}

impl CompactTokenizer {
    /// Reads `tokenizer.txt`.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when it is malformed.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let (settings, lines) = Self::read(bytes)?;
        Ok(Self { settings, lines: lines.to_string() })
    }

    fn read(bytes: &[u8]) -> Result<(WordPieceSettings, &str)> {
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
        Ok((settings, rest))
    }

    /// The text of `tokenizer.txt`.
    pub fn to_text(&self) -> Result<String> {
        let mut text = serde_json::to_string(&self.settings)
            .map_err(|e| ModelError::Tokenizer(e.to_string()))?;
        text.push('\n');
        text.push_str(&self.lines);
        Ok(text)
    }

    /// From `vocab.txt`, with BERT's usual settings.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when it is not UTF-8.
    pub fn from_vocab_txt(bytes: &[u8], lowercase: bool) -> Result<Self> {
        let text = std::str::from_utf8(bytes)
            .map_err(|e| ModelError::Tokenizer(format!("vocab.txt is not UTF-8: {e}")))?;
        let lines: String =
            text.lines().flat_map(|line| [line.trim_end_matches('\r'), "\n"]).collect();
        let added_tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
            .into_iter()
            .filter(|token| lines.split_terminator('\n').any(|entry| entry == *token))
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
        Ok(Self { settings, lines })
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
