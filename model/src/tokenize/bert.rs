//! BERT's tokenizer, put together of the tokenizers crate's parts: added tokens, normalizer,
//! words, pieces of words.

use tokenizers::normalizers::BertNormalizer;
use tokenizers::pre_tokenizers::bert::BertPreTokenizer;
use tokenizers::{
    NormalizedString, Normalizer, OffsetReferential, OffsetType, PreTokenizedString, PreTokenizer,
    Result,
};

use super::added::AddedTokens;
use super::vocabulary::Vocabulary;
use super::{WordPieceSettings, other};
use crate::ModelError;

/// The crate's own way to put them together is for any tokenizer, and as large.
#[derive(Clone)]
pub(super) struct BertTokenizer {
    /// Found in the text as it is.
    added: AddedTokens,
    /// Found in the normalized text.
    added_to_normalized: AddedTokens,
    normalizer: BertNormalizer,
    vocabulary: Vocabulary,
}

impl BertTokenizer {
    pub fn new(
        settings: &WordPieceSettings,
        vocabulary: Vocabulary,
    ) -> std::result::Result<Self, ModelError> {
        let normalizer = settings.normalizer;
        let [mut added, mut added_to_normalized] = [AddedTokens::default(), AddedTokens::default()];
        for token in settings.added_tokens.iter().cloned() {
            let id = vocabulary.id(&token.content).ok_or_else(|| {
                ModelError::Tokenizer(format!("added token {:?} has no id", token.content))
            })?;
            if token.normalized {
                let mut content = NormalizedString::from(token.content.as_str());
                normalizer.normalize(&mut content).map_err(other)?;
                added_to_normalized.add(content.get().to_string(), id, token);
            } else {
                added.add(token.content.clone(), id, token);
            }
        }
        Ok(Self { added, added_to_normalized, normalizer, vocabulary })
    }

    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let mut ids = Vec::new();
        for (piece, added) in self.added.cut(text) {
            if let Some(id) = added {
                ids.push(id);
                continue;
            }
            let mut normalized = NormalizedString::from(piece);
            self.normalizer.normalize(&mut normalized)?;
            for (piece, added) in self.added_to_normalized.cut(normalized.get()) {
                match added {
                    Some(id) => ids.push(id),
                    None => self.encode_words(piece, &mut ids)?,
                }
            }
        }
        Ok(ids)
    }

    fn encode_words(&self, text: &str, ids: &mut Vec<u32>) -> Result<()> {
        let mut words = PreTokenizedString::from(text);
        BertPreTokenizer.pre_tokenize(&mut words)?;
        let mut piece = String::new();
        for (word, ..) in words.get_splits(OffsetReferential::Normalized, OffsetType::None) {
            self.vocabulary.cut(word, &mut piece, ids);
        }
        Ok(())
    }

    /// Whether every token lies within a word, or between two.
    pub fn keeps_to_words(&self) -> bool {
        !self.added.have_spaces() && !self.added_to_normalized.have_spaces()
    }

    pub fn vocab_size(&self) -> usize {
        self.vocabulary.len()
    }
}
