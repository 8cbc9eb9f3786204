//! Tokens that are taken out of a text as they are, such as `[MASK]`.
//!
//! They are found as the tokenizers crate finds them. Its own code for it is built on the regex
//! crate, which would be a quarter of the page's engine, for four patterns.

use tokenizers::AddedToken;

/// Some added tokens, and what they look like in a text.
#[derive(Debug, Clone, Default)]
pub(super) struct AddedTokens {
    tokens: Vec<Token>,
}

#[derive(Debug, Clone)]
struct Token {
    pattern: String,
    id: u32,
    options: AddedToken,
}

impl AddedTokens {
    /// Adds a token; of several with one pattern, the last counts.
    pub fn add(&mut self, pattern: String, id: u32, options: AddedToken) {
        self.tokens.retain(|token| token.pattern != pattern);
        if !pattern.is_empty() {
            self.tokens.push(Token { pattern, id, options });
        }
    }

    /// Whether one of them could go on beyond the end of a word.
    pub fn have_spaces(&self) -> bool {
        self.tokens.iter().any(|token| token.pattern.contains(char::is_whitespace))
    }

    /// Cuts a text into added tokens and what is between them.
    pub fn cut<'a>(&self, text: &'a str) -> Vec<(&'a str, Option<u32>)> {
        let mut pieces = Vec::new();
        let mut taken = 0;
        let mut from = 0;
        while let Some((at, token)) = self.find(text, from) {
            from = at + token.pattern.len();
            let Some((start, end)) = token.bounds(text, at) else { continue };
            let start = start.max(taken);
            if taken < start {
                pieces.push((&text[taken..start], None));
            }
            pieces.push((&text[start..end], Some(token.id)));
            taken = end;
        }
        if taken < text.len() {
            pieces.push((&text[taken..], None));
        }
        pieces
    }

    /// The first token in a text, and of several there the longest.
    fn find(&self, text: &str, from: usize) -> Option<(usize, &Token)> {
        let bytes = text.as_bytes();
        (from..bytes.len()).find_map(|at| {
            let here = self.tokens.iter().filter(|t| bytes[at..].starts_with(t.pattern.as_bytes()));
            here.max_by_key(|token| token.pattern.len()).map(|token| (at, token))
        })
    }
}

impl Token {
    /// What the token takes up where its pattern was found, spaces included where it takes them;
    /// nothing if it must be a word by itself and is not.
    fn bounds(&self, text: &str, at: usize) -> Option<(usize, usize)> {
        let (before, after) = (&text[..at], &text[at + self.pattern.len()..]);
        let options = &self.options;
        if options.single_word
            && (before.ends_with(is_word_character) || after.starts_with(is_word_character))
        {
            return None;
        }
        let start = if options.lstrip { before.trim_end().len() } else { at };
        let end = if options.rstrip {
            text.len() - after.trim_start().len()
        } else {
            text.len() - after.len()
        };
        Some((start, end))
    }
}

/// What `\w` stands for.
fn is_word_character(c: char) -> bool {
    regex_syntax::try_is_word_character(c).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(options: &[&AddedToken]) -> AddedTokens {
        let mut tokens = AddedTokens::default();
        for (id, token) in options.iter().enumerate() {
            tokens.add(token.content.clone(), id as u32, (*token).clone());
        }
        tokens
    }

    #[test]
    fn tokens_are_found_as_their_options_say() {
        let mask = AddedToken::from("[M]", true);
        let long = AddedToken::from("[M][M]", true);
        let greedy = mask.clone().lstrip(true).rstrip(true);
        let word = AddedToken::from("one", false).single_word(true);
        type Piece = (&'static str, Option<u32>);
        let cases: [(&[&AddedToken], &str, &[Piece]); 9] = [
            (&[], "a", &[("a", None)]),
            (&[&mask], "", &[]),
            (&[&mask], "a [M]b", &[("a ", None), ("[M]", Some(0)), ("b", None)]),
            (&[&mask], "[M][M", &[("[M]", Some(0)), ("[M", None)]),
            (&[&mask, &long], "[M][M][M]", &[("[M][M]", Some(1)), ("[M]", Some(0))]),
            (
                &[&greedy],
                "a \u{3000}[M] b",
                &[("a", None), (" \u{3000}[M] ", Some(0)), ("b", None)],
            ),
            (&[&greedy], "[M] [M]", &[("[M] ", Some(0)), ("[M]", Some(0))]),
            (&[&word], "one, bone one\u{e9}", &[("one", Some(0)), (", bone one\u{e9}", None)]),
            (&[&word], "\u{e9}one", &[("\u{e9}one", None)]),
        ];
        for (options, text, pieces) in cases {
            assert_eq!(tokens(options).cut(text), pieces, "{text:?}");
        }
    }
}
