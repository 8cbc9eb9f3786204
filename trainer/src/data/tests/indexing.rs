//! What is remembered of rows, and their texts read again.

use super::*;

/// Rows good and bad, of every length, over several chunks.
fn messy(rows: usize) -> String {
    let mut csv = String::from("text,label\n");
    for i in 0..rows {
        csv += &match i % 11 {
            3 => format!("\"two\nlines, {i}\",b\n"),
            4 => "three,fields,here\n".to_string(),
            5 => format!(" ,empty {i}\n"),
            6 => format!("alone {i},only {i}\n"),
            7 => format!("Text  NUMBER {},a\n\n", i / 3),
            _ => format!("text number {} {},a\n", i / 3, "long ".repeat(i % 40)),
        };
    }
    csv
}

#[test]
fn an_index_is_a_dataset_without_its_texts() {
    let messy = file("a.csv", messy(20_000));
    let tidy = file(
        "b.csv",
        (0..9000)
            .map(|i| format!("t {i},{}\n", i % 7))
            .fold("text,label\n".to_string(), |all, line| all + &line),
    );
    let beside = DataOptions { labels: Some(vec!["b".into(), "z".into()]), ..skipping() };
    for (file, options) in [(&messy, skipping()), (&messy, beside), (&tidy, DataOptions::default())]
    {
        let data = file.load(&options).unwrap();
        let index = file.index(&options).unwrap();
        assert!(data.rows.len() > 1500 && index.len() == data.rows.len());
        for (at, row) in data.rows.iter().enumerate() {
            let remembered = (index.rows[at], index.texts[at], index.classes[at]);
            assert_eq!(remembered, (row.row, TextHash::of(&row.text), row.label));
        }
        assert_eq!((&index.labels, &index.sha256), (&data.labels, &data.sha256));
        assert_eq!(index.bad_rows, data.bad_rows);
        let mut texts = index.read_texts().unwrap();
        for row in &data.rows {
            assert_eq!(texts.next().unwrap().unwrap(), row.text);
        }
        assert!(texts.next().is_none());
        assert_eq!(texts.finish().unwrap(), data.sha256);
        let some = [0, 1, 700, data.rows.len() - 1];
        let texts = index.file.texts(some.iter().map(|at| index.rows[*at])).unwrap();
        for (at, text) in some.iter().zip(texts) {
            assert_eq!(text.unwrap(), data.rows[*at].text);
        }
    }
}

#[test]
fn an_index_refuses_what_a_dataset_does_in_the_same_words() {
    for content in [
        "",
        "text,label\n",
        "text,label\na,x\nb,x\n",
        "text,label\na,x\nb,x\nc,y\n",
        "text,label\n,x\n,y\n",
        "text,label\na,x\n,y\nb,y\nc,x\n",
        "text,class\na,x\n",
        "text,label\n\"a,x\nb,y\n",
    ] {
        let file = file("a.csv", content);
        for options in [DataOptions::default(), skipping()] {
            let data = file.load(&options).map(|data| data.rows.len());
            let index = file.index(&options).map(|index| index.len());
            match (data, index) {
                (Err(data), Err(index)) => assert_eq!(index.to_string(), data.to_string()),
                (data, index) => assert_eq!(index.unwrap(), data.unwrap(), "{content}"),
            }
        }
    }
}

#[test]
fn a_file_that_changes_meanwhile_is_noticed() {
    let content: String = (0..50).map(|i| format!("text {i},{}\n", i % 2)).collect();
    let file = file("a.csv", format!("text,label\n{content}"));
    let index = file.index(&DataOptions::default()).unwrap();
    let read = || index.read_texts().and_then(|texts| texts.collect::<Result<Vec<_>, _>>());
    assert_eq!(read().unwrap().len(), 50);
    for changed in ["text,label\na,0\nb,1\n".to_string(), format!("text,label\n,\n{content}")] {
        std::fs::write(&file.path, changed).unwrap();
        let error = read().unwrap_err();
        assert!(matches!(error, DataError::Changed { .. }), "{error}");
        assert!(error.is_wrong_input() && error.to_string().contains("a.csv changed"), "{error}");
    }
}
