//! The rule of the split with the files that override it, and the check that every class is on
//! every side.

use std::collections::HashSet;
use std::path::Path;
use std::sync::Arc;

use rayon::prelude::*;

use super::error::DataError;
use super::side_counts::SideCounts;
use super::split::{HeldOut, Side, SplitOptions};
use super::text_hash::TextHash;
use super::words::excerpt;

/// The rule with the files that override it.
pub(crate) struct SideRule {
    options: SplitOptions,
    valid_given: bool,
    test_given: bool,
    held_out: Arc<HashSet<TextHash>>,
}

impl SideRule {
    pub fn new(held_out: HeldOut<'_>, options: SplitOptions) -> SideRule {
        let files = held_out.valid.into_iter().chain(held_out.test);
        let texts = files.flat_map(|file| &file.texts).copied().collect();
        SideRule::of_texts(options, held_out.valid.is_some(), held_out.test.is_some(), texts)
    }

    /// `held_out` are the texts of the files that are given.
    pub fn of_texts(
        options: SplitOptions,
        valid_given: bool,
        test_given: bool,
        held_out: HashSet<TextHash>,
    ) -> SideRule {
        SideRule { options, valid_given, test_given, held_out: Arc::new(held_out) }
    }

    /// The sides of texts, whose classes are `labels`: ids that index `names`.
    ///
    /// A side that lacks a class is an error, with a way out that was tried.
    pub fn sides(
        &self,
        file: &Path,
        names: &[String],
        texts: &[TextHash],
        labels: &[u32],
    ) -> Result<Vec<Side>, DataError> {
        let sides_by = |rule: &SideRule| -> Vec<Side> {
            texts.par_iter().map(|text| rule.side_of(text)).collect()
        };
        let missing = |rule: &SideRule, sides: &[Side]| {
            let rows = labels.iter().copied().zip(sides.iter().copied());
            SideCounts::new(names, rows).missing(rule)
        };
        let sides = sides_by(self);
        let Some((side, classes)) = missing(self, &sides) else { return Ok(sides) };

        let texts_of = |id: usize| {
            let of_class = texts
                .iter()
                .zip(labels)
                .filter(|(text, label)| **label as usize == id && !self.held_out.contains(*text));
            of_class.map(|(text, _)| *text).collect::<HashSet<_>>().len()
        };
        let fewest = classes.iter().map(|id| (texts_of(*id), *id)).min().unwrap_or_default();
        let works = |split_seed: &u64| {
            let rule = self.with_seed(*split_seed);
            missing(&rule, &sides_by(&rule)).is_none()
        };
        // A search of seconds, not minutes: with many rows, what is missing is very rare.
        let tries = (2_000_000 / texts.len().max(1)).clamp(1, 100) as u64;
        let seed = (0..tries).find(works).ok_or(tries);
        Err(DataError::MissingClass {
            file: file.display().to_string(),
            side,
            way_out: way_out(side, self, fewest.0, &names[fewest.1], seed),
            missing: classes.into_iter().map(|id| names[id].clone()).collect(),
        })
    }

    /// The side of a text.
    pub fn side_of(&self, text: &TextHash) -> Side {
        if self.held_out.contains(text) {
            return Side::LeftOut;
        }
        match self.options.side_of(text) {
            Side::Valid if self.valid_given => Side::Train,
            Side::Test if self.test_given => Side::Train,
            side => side,
        }
    }

    fn with_seed(&self, split_seed: u64) -> SideRule {
        let options = SplitOptions { split_seed, ..self.options };
        SideRule { options, held_out: Arc::clone(&self.held_out), ..*self }
    }

    /// Whether the rule puts rows of the data on a side.
    pub fn fills(&self, side: Side) -> bool {
        match side {
            Side::Train => true,
            Side::Valid => !self.valid_given && self.options.valid_fraction > 0.0,
            Side::Test => !self.test_given && self.options.test_fraction > 0.0,
            Side::LeftOut => false,
        }
    }
}

/// `texts` is how many different texts the scarcest missing class has.
/// `seed` is a `split_seed` that works, or how many were tried in vain.
fn way_out(
    side: Side,
    rule: &SideRule,
    texts: usize,
    label: &str,
    seed: Result<u64, u64>,
) -> String {
    let label = excerpt(label, 40);
    let sides = [Side::Train, Side::Valid, Side::Test].into_iter().filter(|s| rule.fills(*s));
    let sides = sides.count();
    if texts < sides {
        return format!(
            "`{label}` has {texts} different text{} for {sides} side{}. Add rows, remove the \
             class, or give --valid FILE or --test FILE",
            if texts == 1 { "" } else { "s" },
            if sides == 1 { "" } else { "s" }
        );
    }
    let seed = match seed {
        Ok(seed) => format!("split_seed={seed} puts every class on every side"),
        Err(1) => "Try another split_seed".to_string(),
        // The side at fault may be another than the first found without the class.
        Err(tries) => {
            return format!(
                "No split_seed from 0 to {} puts every class on every side. Raise valid_fraction \
                 or test_fraction, give --valid FILE or --test FILE, or add rows of the class",
                tries - 1
            );
        }
    };
    match side {
        Side::Valid => format!("{seed}; or raise valid_fraction, or give --valid FILE"),
        Side::Test => format!("{seed}; or raise test_fraction, or give --test FILE"),
        Side::Train | Side::LeftOut => {
            format!("{seed}; or lower valid_fraction or test_fraction, or add rows of the class")
        }
    }
}
