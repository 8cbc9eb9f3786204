//! Labels and class ids: numbering them as they turn up, then putting them in order.
//!
//! Knows nothing of texts or files.

use std::collections::HashMap;

use super::problem::RowProblem;
use super::words::{closest, names};

/// Labels are compared with the spelling of no more than so many others, and no more often: where
/// there are millions, they are no slips of each other.
const COMPARED: usize = 200;

/// The labels seen so far. Ids count up from 0 in the order seen, or are those of a fixed list.
pub(crate) struct Labels {
    /// The labels of a fixed list, as messages have them.
    fixed: Option<String>,
    ids: HashMap<String, u32>,
    seen: Vec<Seen>,
    unknown: usize,
}

/// A label, how often it was seen, and where first.
pub(crate) struct Seen {
    pub name: String,
    pub count: usize,
    pub row: u64,
    pub line: u64,
}

impl Labels {
    pub fn new(fixed: Option<&[String]>) -> Labels {
        let mut labels = Labels { fixed: None, ids: HashMap::new(), seen: Vec::new(), unknown: 0 };
        for name in fixed.unwrap_or_default() {
            labels.add(name, 0, 0);
        }
        labels.fixed = fixed.map(names);
        labels
    }

    /// The id of a row's label, which is new unless the list is fixed.
    pub fn id(&mut self, name: &str, row: u64, line: u64) -> Result<u32, RowProblem> {
        let id = match (self.ids.get(name), &self.fixed) {
            (Some(id), _) => *id,
            (None, Some(known)) => {
                self.unknown += 1;
                let compared = self.unknown <= COMPARED && self.seen.len() <= COMPARED;
                let known = known.clone();
                let all = self.seen.iter().map(|seen| seen.name.as_str());
                let similar = compared.then(|| closest(name, all)).flatten();
                return Err(RowProblem::UnknownLabel { label: name.to_string(), known, similar });
            }
            (None, None) => self.add(name, row, line),
        };
        self.seen[id as usize].count += 1;
        Ok(id)
    }

    /// All labels, by id.
    pub fn seen(&self) -> &[Seen] {
        &self.seen
    }

    /// Labels that one row alone has, with what is wrong with that row.
    pub fn rare(&self) -> impl Iterator<Item = (&Seen, RowProblem)> {
        let frequent: Vec<&str> =
            self.seen.iter().filter(|seen| seen.count > 1).map(|seen| &*seen.name).collect();
        let rare = self.seen.iter().filter(|seen| seen.count == 1).enumerate();
        rare.map(move |(index, seen)| {
            let compared = index < COMPARED && frequent.len() <= COMPARED;
            let others = frequent.iter().copied();
            let similar = compared.then(|| closest(&seen.name, others)).flatten();
            (seen, RowProblem::RareLabel { label: seen.name.clone(), similar })
        })
    }

    /// The labels that two rows or more have, in the order of class ids (numeric if all are
    /// integers, else that of their bytes), and by old id the new one. A fixed list stays as it is.
    pub fn into_classes(self) -> (Vec<String>, Vec<Option<u32>>) {
        if self.fixed.is_some() {
            let ids = (0..self.seen.len() as u32).map(Some).collect();
            return (self.seen.into_iter().map(|seen| seen.name).collect(), ids);
        }
        let kept = self.seen.iter().filter(|seen| seen.count > 1);
        let mut classes: Vec<String> = kept.map(|seen| seen.name.clone()).collect();
        let integer = |label: &String| label.parse::<i64>().ok();
        if classes.iter().all(|label| integer(label).is_some()) {
            classes.sort_by(|a, b| (integer(a), a).cmp(&(integer(b), b)));
        } else {
            classes.sort();
        }
        let mut ids = vec![None; self.seen.len()];
        for (new, name) in classes.iter().enumerate() {
            ids[self.ids[name] as usize] = Some(new as u32);
        }
        (classes, ids)
    }

    fn add(&mut self, name: &str, row: u64, line: u64) -> u32 {
        let id = self.seen.len() as u32;
        self.ids.insert(name.to_string(), id);
        self.seen.push(Seen { name: name.to_string(), count: 0, row, line });
        id
    }
}
