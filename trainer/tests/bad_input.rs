//! Bad input: a message with file, row and the way out, exit code 2, nothing written.

mod support;

use support::*;

#[test]
fn bad_data_is_named_and_nothing_is_written() {
    let good = reviews(40);
    let without_last =
        |n: usize| good.lines().take(n).map(|l| format!("{l}\n")).collect::<String>();
    let head = without_last(6);
    let mut latin = head.clone().into_bytes();
    latin.extend(b"caf\xe9,yes\n");
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        (
            "no-text.csv",
            good.replace("text,label", "body,label").into(),
            &["`text`", "body", "--text-column"],
        ),
        (
            "no-label.csv",
            good.replace("text,label", "text,class").into(),
            &["`label`", "class", "--label-column"],
        ),
        (
            "fields.csv",
            format!("{head}one, two, three\n").into(),
            &["row 6", "line 7", "3 fields", "quotes"],
        ),
        ("latin.csv", latin, &["row 6", "UTF-8", "iconv"]),
        ("empty-text.csv", format!("{head} ,yes\n").into(), &["row 6", "empty", "--skip-bad-rows"]),
        ("once.csv", format!("{good}words,yse\n").into(), &["row 41", "`yse`", "`yes`"]),
        ("one-class.csv", good.replace(",no", ",yes").into(), &["`yes`", "two labels"]),
        (
            "quote.csv",
            format!("{head}\"never closed,yes\n{good}").into(),
            &["row 6", "quote", "never closed"],
        ),
        ("empty.csv", Vec::new(), &["empty", "header line"]),
        ("header.csv", "text,label\n".into(), &["no rows", "Add rows"]),
        ("no-text.jsonl", "{\"body\": \"a\"}\n".into(), &["`text`", "body", "--text-column"]),
        (
            "type.jsonl",
            "{\"text\": \"a\", \"label\": 1}\n{\"text\": 2, \"label\": 1}\n".into(),
            &["row 2", "`text` is a number", "--skip-bad-rows"],
        ),
        (
            "twice.csv",
            good.replace("text,label", "text,text").into(),
            &["`text` twice", "columns 1 and 2", "Rename"],
        ),
        ("plain.csv.gz", good.clone().into(), &["not gzip", ".gz off"]),
        (
            "rare.csv",
            format!("{good}one,maybe\nONE,maybe\n").into(),
            &["`maybe`", "1 different text for 3 sides", "--test FILE"],
        ),
        ("sheet.xlsx", "PK\u{3}\u{4}".into(), &["spreadsheet", "save the sheet as CSV"]),
    ];
    for (name, content, words) in cases {
        let project = Project::new(4);
        project.write(name, content);
        let arguments = project.train_arguments(name, "run", &[]);
        let arguments: Vec<&str> = arguments.iter().map(|argument| &**argument).collect();
        let said = project.run(&arguments).fails(2, words).fails(2, &[name]);
        assert!(said.out.is_empty(), "{said:#?}");
        assert!(!project.path("run").exists(), "{name}");
        let left: Vec<_> = std::fs::read_dir(project.folder.path()).unwrap().collect();
        assert_eq!(left.len(), 2, "{name}: {left:?}");
    }
}

/// A model's labels are fixed; whatever else is wrong with data is said in the same words.
#[test]
fn bad_data_beside_a_model_is_named() {
    let tiny = fixture("tiny");
    let tiny = tiny.to_str().unwrap();
    let cases: [(&str, &[u8], &[&str]); 6] = [
        ("label.csv", b"text,label\na,good\nb,godo\n", &["row 2", "`godo`", "did you mean `good`"]),
        ("text.csv", b"text,label\na,good\n,bad\n", &["row 2", "empty", "--skip-bad-rows"]),
        ("fields.csv", b"text,label\na,good\nb,c,bad\n", &["row 2", "3 fields"]),
        ("latin.csv", b"text,label\na,good\ncaf\xe9,bad\n", &["row 2", "0xE9", "iconv"]),
        ("quote.csv", b"text,label\n\"a,good\nb,bad\n", &["row 1", "never closed"]),
        ("empty.csv", b"", &["empty"]),
    ];
    for (name, content, words) in cases {
        let project = Project::new(4);
        project.write(name, content);
        let said = project.run(&["evaluate", tiny, "--data", name, "--json", "figures.json"]);
        let said = said.fails(2, words).fails(2, &[name]);
        assert!(said.out.is_empty() && !project.path("figures.json").exists(), "{said:#?}");
    }
}

#[test]
fn bad_rows_of_a_given_file_are_named() {
    let project = Project::new(80);
    project.write("test.csv", "text,label\nfine,yes\nodd,yess\n");
    let said = project.train("run", &["--test", "test.csv"]);
    said.fails(2, &["test.csv, row 2 (line 3)", "`yess`", "`yes`"]);
    assert!(!project.path("run").exists());
}

#[test]
fn bad_arguments_are_named_and_nothing_is_written() {
    let project = Project::new(40);
    let base = fixture("tiny");
    let base = base.to_str().unwrap();
    let train = ["train", "--data", "data.csv", "--base", base, "--out", "run"];
    let with = |more: &[&str]| project.run(&[&train[..], more].concat());
    for (said, words) in [
        (with(&["epoch=3"]), &["epoch", "epochs"][..]),
        (with(&["epochs=many"]), &["epochs=many"]),
        (with(&["valid_fraction=0.9", "test_fraction=0.5"]), &["valid_fraction"]),
        (with(&["--config", "none.toml"]), &["none.toml"]),
        (with(&["--resume"]), &["no run to resume"]),
        (with(&["--device", "tpu"]), &["tpu"]),
        (with(&["--text-column", "label"]), &["chosen twice"]),
        (
            project.run(&["train", "--data", "none.csv", "--base", base, "--out", "run"]),
            &["none.csv"],
        ),
        (
            project.run(&["train", "--data", "data.csv", "--base", "none", "--out", "run"]),
            &["none", "no such folder"],
        ),
        (project.run(&["evaluate", "data.csv"]), &["data.csv"]),
        (
            project.run(&["predict", base, "--data", "data.csv", "--out", "out.xls"]),
            &[".jsonl or .csv"],
        ),
    ] {
        let said = said.fails(2, words);
        assert!(said.out.is_empty() && !project.path("run").exists(), "{said:#?}");
    }
}

#[test]
fn bad_rows_are_left_out_and_listed_where_that_is_asked_for() {
    let project = Project::new(40);
    project.write("data.csv", reviews(80) + ",yes\nthree,fields,here\nalone,single\n");
    project.train("run", &["epochs=1", "--skip-bad-rows"]).ok();
    let listed = project.text("run/bad_rows.csv");
    let rows: Vec<&str> = listed.lines().collect();
    assert_eq!(rows.len(), 4, "{listed}");
    assert!(rows[0] == "row,line,reason" && rows[1].starts_with("81,82,"), "{listed}");
    // The recorded split goes with the data read in the same way.
    project.run(&["evaluate", "run"]).ok();
}

#[test]
fn data_that_changed_is_noticed() {
    let project = Project::new(80);
    project.train("run", &["epochs=1"]).ok();
    project.write("data.csv", reviews(80).replace("film", "movie"));
    project.run(&["evaluate", "run"]).fails(2, &["data.csv", "changed", "--data"]);
    // The same texts with another label are other data too.
    project.write("data.csv", reviews(80).replacen(",yes", ",no", 1));
    project.run(&["evaluate", "run"]).fails(2, &["data.csv", "changed", "--data"]);
    std::fs::remove_file(project.path("data.csv")).unwrap();
    project.run(&["evaluate", "run"]).fails(2, &["data.csv", "--data"]);
}
