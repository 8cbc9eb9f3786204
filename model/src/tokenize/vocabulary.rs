//! Pieces of words, and the words cut into them: WordPiece.
//!
//! The tokenizers crate's own model keeps each token as two strings in two maps, which in a page
//! is 3 MB to allocate and as long to wait for as all weights of a layer. Here the tokens lie in
//! one string, as `tokenizer.txt` has them. The ids are those of the crate's model (Apache-2.0,
//! `models/wordpiece`), with which the tests compare them.

use std::ops::Range;

use ahash::RandomState;
use hashbrown::HashTable;

use crate::{ModelError, Result};

/// A WordPiece vocabulary; a token's id is its place.
#[derive(Clone)]
pub(super) struct Vocabulary {
    /// One token after the other.
    text: String,
    /// The end of each token in `text`.
    ends: Vec<u32>,
    /// Ids by their token.
    ids: HashTable<u32>,
    hasher: RandomState,
    /// What a piece that does not begin its word is prefixed with.
    prefix: String,
    unknown: u32,
    /// Longer words, in characters, are unknown.
    longest_word: usize,
}

impl Vocabulary {
    /// Of the tokens' lines. Of several equal tokens the last counts.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when the unknown token is none of them, or there are too many.
    pub fn new(lines: &str, prefix: &str, unknown: &str, longest_word: usize) -> Result<Self> {
        if u32::try_from(lines.len()).is_err() {
            return Err(ModelError::Tokenizer("the vocabulary is larger than 4 GB".into()));
        }
        let count = lines.split_terminator('\n').count();
        let mut vocabulary = Self {
            text: String::with_capacity(lines.len() - count.min(lines.len())),
            ends: Vec::with_capacity(count),
            ids: HashTable::with_capacity(count),
            // Fixed keys: no source of random numbers is needed, and every run is like the last.
            hasher: RandomState::with_seeds(1, 2, 3, 4),
            prefix: prefix.to_string(),
            unknown: 0,
            longest_word,
        };
        for token in lines.split_terminator('\n') {
            vocabulary.push(token);
        }
        vocabulary.unknown = vocabulary.special(unknown)?;
        Ok(vocabulary)
    }

    fn push(&mut self, token: &str) {
        let id = self.ends.len() as u32;
        self.text.push_str(token);
        self.ends.push(self.text.len() as u32);
        let Self { text, ends, ids, hasher, .. } = self;
        let hash = |id: &u32| hasher.hash_one(&text[bounds(ends, *id)]);
        let equal = |id: &u32| &text[bounds(ends, *id)] == token;
        *ids.entry(hasher.hash_one(token), equal, hash).or_insert(id).into_mut() = id;
    }

    /// A token's id.
    pub fn id(&self, token: &str) -> Option<u32> {
        let equal = |id: &u32| &self.text[bounds(&self.ends, *id)] == token;
        self.ids.find(self.hasher.hash_one(token), equal).copied()
    }

    /// The id of a token that has to be there.
    ///
    /// # Errors
    /// [`ModelError::Tokenizer`] when it is not.
    pub fn special(&self, token: &str) -> Result<u32> {
        self.id(token).ok_or_else(|| {
            ModelError::Tokenizer(format!("special token {token:?} is not in the vocabulary"))
        })
    }

    /// How many tokens there are.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Cuts a word into the longest pieces there are, from its beginning on, and adds their ids; the
    /// unknown token's where that ends in what is no piece. `piece` is room for one.
    pub fn cut(&self, word: &str, piece: &mut String, ids: &mut Vec<u32>) {
        let first = ids.len();
        // As long as there are not more bytes, there are not more characters.
        if word.len() > self.longest_word && word.chars().count() > self.longest_word {
            ids.push(self.unknown);
            return;
        }
        let mut start = 0;
        while start < word.len() {
            piece.clear();
            piece.push_str(if start > 0 { &self.prefix } else { "" });
            let prefix = piece.len();
            piece.push_str(&word[start..]);
            let found = loop {
                if piece.len() == prefix {
                    break None;
                }
                if let Some(id) = self.id(piece) {
                    break Some(id);
                }
                piece.pop();
            };
            let Some(id) = found else {
                ids.truncate(first);
                ids.push(self.unknown);
                return;
            };
            ids.push(id);
            start += piece.len() - prefix;
        }
    }
}

/// Where a token lies.
fn bounds(ends: &[u32], id: u32) -> Range<usize> {
    let before = (id as usize).checked_sub(1).map_or(0, |before| ends[before]);
    before as usize..ends[id as usize] as usize
}

#[cfg(test)]
mod tests {
    use ahash::AHashMap;
    use tokenizers::Model;
    use tokenizers::models::wordpiece::WordPiece;

    use super::*;

    /// The same ids as the crate's model gives, of words put together of pieces and of others.
    #[test]
    fn words_are_cut_as_by_the_tokenizers_crate() {
        let tokens = [
            "[UNK]", "a", "b", "ab", "##a", "##b", "##ab", "##bab", "é", "##é", "中", "##中",
            "abab", "##", "aba", "ab", "",
        ];
        let map = tokens.iter().enumerate().map(|(id, token)| (token.to_string(), id as u32));
        let builder =
            WordPiece::builder().vocab(map.collect::<AHashMap<_, _>>()).unk_token("[UNK]".into());
        let model = builder.max_input_chars_per_word(9).build().unwrap();
        let lines = tokens.join("\n") + "\n";
        let vocabulary = Vocabulary::new(&lines, "##", "[UNK]", 9).unwrap();
        assert_eq!(vocabulary.len(), tokens.len());

        let letters = ['a', 'b', 'é', '中', '#', 'c'];
        let mut words = vec![String::new()];
        for length in 0..6 {
            let long = words.iter().filter(|word| word.chars().count() == length);
            let longer = long.flat_map(|word| letters.map(|letter| format!("{word}{letter}")));
            words.extend(longer.collect::<Vec<_>>());
        }
        words.extend((7..14).flat_map(|count| [vec!["é"; count].concat(), "ab".repeat(count / 2)]));
        let (mut piece, mut unknown) = (String::new(), 0);
        for word in words {
            let expected: Vec<u32> =
                model.tokenize(&word).unwrap().iter().map(|token| token.id).collect();
            let mut ids = vec![7];
            vocabulary.cut(&word, &mut piece, &mut ids);
            assert_eq!(ids[1..], expected, "{word:?}");
            unknown += usize::from(expected == [0]);
        }
        assert!(unknown > 1000, "{unknown} unknown words");
    }

    #[test]
    fn a_vocabulary_without_the_unknown_token_is_refused() {
        let error = Vocabulary::new("a\nb\n", "##", "[UNK]", 100).err().unwrap().to_string();
        assert!(error.contains("[UNK]"), "{error}");
        assert!(Vocabulary::new("", "##", "[UNK]", 100).is_err());
    }
}
