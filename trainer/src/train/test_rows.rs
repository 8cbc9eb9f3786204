//! Rows of the test side, whose texts the report shows: read again when it is written, for most
//! are not shown.

use crate::data::{DataError, DataFile, Index, TextHash};

/// Where the texts of the test side are, for the report.
pub struct TestRows {
    file: DataFile,
    /// The number of each row in the file, and what its text hashes to.
    pub rows: Vec<(u64, TextHash)>,
}

impl TestRows {
    /// Some rows of a file, in its order.
    pub fn new(data: &Index, chosen: impl Iterator<Item = usize>) -> TestRows {
        let rows = chosen.map(|index| (data.rows[index], data.texts[index])).collect();
        TestRows { file: data.file.clone(), rows }
    }

    /// The texts of some rows, by their place in the list.
    ///
    /// # Errors
    /// When the file is gone or has changed.
    pub fn texts(&self, chosen: impl Iterator<Item = usize>) -> Result<Vec<String>, DataError> {
        let mut chosen: Vec<(usize, usize)> = chosen.enumerate().collect();
        chosen.sort_by_key(|(_, index)| *index);
        let mut texts = vec![String::new(); chosen.len()];
        let read = self.file.texts(chosen.iter().map(|(_, index)| self.rows[*index].0))?;
        for ((place, index), text) in chosen.iter().zip(read) {
            let text = text?;
            if TextHash::of(&text) != self.rows[*index].1 {
                let file = self.file.path.display().to_string();
                return Err(DataError::Changed { file });
            }
            texts[*place] = text;
        }
        Ok(texts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::DataOptions;

    #[test]
    fn texts_come_as_asked_for_and_others_never() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.csv");
        let rows =
            |word: &str| -> String { (0..20).map(|i| format!("{word} {i},{}\n", i % 2)).collect() };
        std::fs::write(&path, format!("text,label\n{}", rows("text"))).unwrap();
        let data = Index::load(&path, &DataOptions::default()).unwrap();
        let test = TestRows::new(&data, (0..20).step_by(3));
        assert_eq!(test.texts([5, 0, 2].into_iter()).unwrap(), ["text 15", "text 0", "text 6"]);
        assert!(test.texts([].into_iter()).unwrap().is_empty());
        for content in [format!("text,label\n{}", rows("other")), "text,label\na,b\n".into()] {
            std::fs::write(&path, content).unwrap();
            let error = test.texts([1, 4].into_iter()).unwrap_err();
            assert!(matches!(error, DataError::Changed { .. }), "{error}");
        }
        std::fs::remove_file(&path).unwrap();
        assert!(matches!(test.texts([1].into_iter()), Err(DataError::NotFound { .. })));
    }
}
