//! Foreign words in messages: cut, cleaned, listed, and the likely slip of another.
//!
//! Knows nothing of data.

/// A text cut to `max` characters, on one line, without control characters and marks that turn the
/// direction of writing: foreign data must not move the cursor of the terminal that shows it.
pub fn excerpt(text: &str, max: usize) -> String {
    // As much as can be seen: a text may be of megabytes, and this may be called for each.
    let mut clean = String::new();
    for word in text.split_whitespace().take(max + 1) {
        if !clean.is_empty() {
            clean.push(' ');
        }
        clean
            .extend(word.chars().take(max + 1).map(|c| if is_harmful(c) { '\u{FFFD}' } else { c }));
        if clean.len() > 4 * (max + 1) {
            break;
        }
    }
    if clean.chars().count() <= max {
        return clean;
    }
    let cut: String = clean.chars().take(max.saturating_sub(1)).collect();
    format!("{}…", cut.trim_end())
}

fn is_harmful(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202A}'..='\u{202E}' | '\u{2066}'..='\u{2069}')
}

/// `` `a`, `b` … and 3 more ``
pub(crate) fn names(list: &[String]) -> String {
    const SHOWN: usize = 20;
    let shown: Vec<_> = list.iter().take(SHOWN).map(|n| format!("`{}`", excerpt(n, 40))).collect();
    match list.len().saturating_sub(SHOWN) {
        0 => shown.join(", "),
        more => format!("{} … and {more} more", shown.join(", ")),
    }
}

/// `` labels `a`, `b` ``
pub(super) fn labels(list: &[String]) -> String {
    format!("label{} {}", if list.len() == 1 { "" } else { "s" }, names(list))
}

/// `` ; did you mean `a`? ``
pub(super) fn meant(similar: &Option<String>) -> String {
    similar.as_ref().map(|s| format!("; did you mean `{}`?", excerpt(s, 40))).unwrap_or_default()
}

/// The candidate that `wanted` is most likely a slip of: another case, or a few letters off.
pub(super) fn closest<'a>(
    wanted: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<String> {
    let wanted = wanted.to_lowercase();
    // A third of the letters may differ: `lable` finds `label`, and `x` finds nothing.
    let allowed = wanted.chars().count() / 3;
    candidates
        .into_iter()
        .map(|c| (strsim::osa_distance(&wanted, &c.to_lowercase()), c))
        .filter(|(distance, _)| *distance <= allowed)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, c)| c.to_string())
}
