//! When two texts count as the same: normalisation, and its hash.
//!
//! Frozen: recorded splits are compared with these hashes for ever, so neither function may change.
//! In Python, for white space as Unicode's White_Space property has it:
//!
//! ```python
//! norm = " ".join(unicodedata.normalize("NFKC", text).lower().split())
//! text_hash = hashlib.sha256(norm.encode()).digest()[:16].hex()
//! ```

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};
use unicode_normalization::UnicodeNormalization;

/// Unicode NFKC, then lower case, then every run of white space one space, none at the ends.
///
/// Unicode promises that normalisation of assigned characters never changes.
pub fn normalize(text: &str) -> String {
    let lower = if text.is_ascii() {
        text.to_ascii_lowercase()
    } else {
        text.nfkc().collect::<String>().to_lowercase()
    };
    let mut out = String::with_capacity(lower.len());
    for word in lower.split_whitespace() {
        if !out.is_empty() {
            out.push(' ');
        }
        out.push_str(word);
    }
    out
}

/// The first 16 bytes of the SHA-256 of a [normalised](normalize) text; 32 hex digits in writing.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TextHash(pub [u8; 16]);

impl TextHash {
    /// The hash of a text, which is normalised first.
    pub fn of(text: &str) -> TextHash {
        let digest = Sha256::digest(normalize(text).as_bytes());
        let mut bytes = [0; 16];
        bytes.copy_from_slice(&digest[..16]);
        TextHash(bytes)
    }
}

impl fmt::Display for TextHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for TextHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TextHash({self})")
    }
}

impl FromStr for TextHash {
    type Err = String;

    fn from_str(hex: &str) -> Result<TextHash, String> {
        let wrong = || format!("`{}` is not a text hash of 32 hex digits", super::excerpt(hex, 40));
        if hex.len() != 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        u128::from_str_radix(hex, 16)
            .map(|number| TextHash(number.to_be_bytes()))
            .map_err(|_| wrong())
    }
}
