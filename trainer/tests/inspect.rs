//! `pagebert inspect`: everything about a file at once, and nothing of it an error.

mod support;

use serde_json::{Value, json};
use support::*;

/// One of each thing that there is to find.
fn crafted() -> String {
    let mut csv = reviews(200);
    for line in [
        "The SAME   text,yes",                 // row 201
        "the same text,no",                    // 202: conflicts
        "the same text,yes",                   // 203
        ",yes",                                // 204: no text
        "no label,",                           // 205
        "one, two, three",                     // 206
        "alone,yse",                           // 207: a label of one row
        "日本語のテキスト,Yes",                // 208, 209: two, of another case
        "日本語のテキスト 2,Yes",              //
        "text,label",                          // 210, 211: headers in the middle
        "again,label",                         //
        "a \u{1b}[31mred\u{1b}[0m text,maybe", // 212 to 214
        "\"two\nlines\",maybe",
        "and one more,maybe",
    ] {
        csv += &format!("{line}\n");
    }
    csv += &format!("{},no\n", "long ".repeat(200)); // 215
    csv
}

#[test]
fn a_file_is_told_to_people() {
    let project = Project::new(4);
    project.write("data.csv", crafted());
    let tiny = fixture("tiny");
    let said = project.run(&["inspect", "data.csv", "--base", tiny.to_str().unwrap()]).ok();
    assert_eq!(said.err, "", "stderr is for progress, and a pipe wants none");
    let lines: Vec<&str> = said.out.lines().collect();
    for expected in [
        "data.csv: 215 rows, 211 good",
        "1 text has more than 64 tokens, and is read in 25 windows.",
        "210 different texts; 2 rows repeat an earlier one.",
        "  most often, in 3 rows (the first: 201): the same text",
        "1 text has different labels:",
        "  rows 201 (yes) and 202 (no): the same text",
        "1 row without a text:",
        "  row 204 (line 205): the text (`text`) is empty",
        "1 row with a label that no other row has:",
        "  row 207 (line 208): no other row has the label `yse`; did you mean `yes`?",
        "Worth a look",
        "Training would stop at",
    ] {
        assert!(lines.contains(&expected), "{expected}\n{}", said.out);
    }
    for part in [
        "`yes` (102 rows) and `Yes` (2 rows) differ in little but case",
        "row 210 has the label `label`, the name of its column",
        "4 bad rows (the first: row 204)",
        "--skip-bad-rows",
    ] {
        assert!(said.out.contains(part), "{part}\n{}", said.out);
    }
    assert!(!said.out.contains('\u{1b}'), "control characters stay out of the terminal");
    let figures = |name: &str| -> Vec<&str> {
        lines.iter().find(|line| line.starts_with(name)).unwrap().split_whitespace().collect()
    };
    assert_eq!(figures("yes")[1], "102");
    assert_eq!(figures("tokens")[5], "802");
}

#[test]
fn a_file_is_told_as_json() {
    let project = Project::new(4);
    project.write("data.csv", crafted());
    let said = project.run(&["inspect", "data.csv", "--json", "-"]).ok();
    let found: Value = serde_json::from_str(&said.out).unwrap();
    for (pointer, expected) in [
        ("/data", json!("data.csv")),
        ("/rows", json!(215)),
        ("/good_rows", json!(211)),
        ("/labels/0", json!({"label": "no", "rows": 102, "share": 102.0 / 212.0, "first_row": 2})),
        ("/tokens", json!(null)),
        ("/windows", json!(null)),
        ("/words/longest", json!(200)),
        ("/characters/longest", json!(1000)),
        ("/distinct_texts", json!(210)),
        ("/duplicate_rows", json!(2)),
        ("/most_repeated", json!({"rows": 3, "first_row": 201, "text": "the same text"})),
        (
            "/conflicts",
            json!([{"rows": [201, 202], "labels": ["yes", "no"], "text": "the same text"}]),
        ),
        (
            "/bad_rows/0",
            json!({"kind": "empty_text", "count": 1, "first": [
                {"row": 204, "line": 205, "reason": "the text (`text`) is empty"}]}),
        ),
        ("/bad_rows/1/kind", json!("empty_label")),
        ("/bad_rows/2/kind", json!("field_count")),
        ("/bad_rows/3/kind", json!("rare_label")),
        ("/bad_rows/4", json!(null)),
        ("/split/labels", json!(["Yes", "label", "maybe", "no", "yes"])),
        ("/valid_file", json!(null)),
        ("/texts_in_both_files", json!(0)),
    ] {
        let value = found.pointer(pointer).cloned().unwrap_or_default();
        assert_eq!(value, expected, "{pointer}");
    }
    let sides = ["train", "valid", "test"].map(|side| {
        let counts = found["split"][side].as_array().unwrap();
        counts.iter().map(|count| count.as_u64().unwrap()).sum::<u64>()
    });
    assert_eq!(sides.iter().sum::<u64>(), 211);

    // To a file, the people's form goes to stdout beside it.
    let said = project.run(&["inspect", "data.csv", "--json", "found.json"]).ok();
    assert!(said.out.starts_with("data.csv: 215 rows"), "{said:#?}");
    assert_eq!(serde_json::from_str::<Value>(&project.text("found.json")).unwrap(), found);
}

#[test]
fn what_inspect_says_of_the_split_is_what_training_does() {
    let project = Project::new(120);
    project.write("test.csv", "text,label\nunseen,yes\nseen,no\n");
    project.write("data.csv", reviews(120) + "SEEN,no\nnot seen,yes\n");
    let arguments = ["--test", "test.csv"];
    let said =
        project.run(&[&["inspect", "data.csv", "--json", "-"], &arguments[..]].concat()).ok();
    let found: Value = serde_json::from_str(&said.out).unwrap();
    assert_eq!(found["training_refuses"], json!([]), "{found:#}");
    let test = json!({"file": "test.csv", "rows": 2, "good_rows": 2, "bad_rows": [],
        "also_in_data": 1});
    assert_eq!(found["test_file"], test);
    assert_eq!(found["split"]["left_out"], 1);

    project.train("run", &[&["max_steps=1"], &arguments[..]].concat()).ok();
    let split = project.text("run/split.csv");
    for (name, side) in [("train", ",train"), ("valid", ",valid"), ("left_out", ",left_out")] {
        let lines = split.lines().filter(|line| line.ends_with(side)).count() as u64;
        let told = &found["split"][name];
        let told = match told.as_array() {
            Some(counts) => counts.iter().map(|count| count.as_u64().unwrap()).sum(),
            None => told.as_u64().unwrap(),
        };
        assert_eq!(told, lines, "{name}");
    }
}

#[test]
fn leaks_and_rows_of_the_given_files_are_findings() {
    let project = Project::new(80);
    // One class alone, and a label of a single row: what a test file may well have.
    project.write("test.csv", "text,label\nfresh,yes\nleak,yes\nodd,unheard\n,yes\n");
    project.write("valid.csv", "text,label\nLEAK,no\nfine,yes\n");
    let files = ["--valid", "valid.csv", "--test", "test.csv"];
    let said = project.run(&[&["inspect", "data.csv"], &files[..]].concat()).ok();
    for part in [
        "test.csv, the --test file: 4 rows, 2 good.",
        "valid.csv, the --valid file: 2 rows, 2 good.",
        "1 row with a label that the data doesn't have:",
        "the label `unheard` is none of `no`, `yes`",
        "A leak: 1 text is in both files",
        "2 bad rows in test.csv (the first: row 3",
    ] {
        assert!(said.out.contains(part), "{part}\n{}", said.out);
    }
    project.run(&["inspect", "data.csv", "--test", "none.csv"]).fails(2, &["none.csv"]);
}

/// The seed that the way out names is one that works.
#[test]
fn the_way_out_works() {
    let project = Project::new(4);
    let few: String = (0..5).map(|i| format!("rare {i},maybe\n")).collect();
    project.write("data.csv", reviews(100) + &few);
    let found = |seed: &str| -> Value {
        let said = project.run(&["inspect", "data.csv", "--json", "-", "--split-seed", seed]).ok();
        serde_json::from_str(&said.out).unwrap()
    };
    let refused = found("0")["training_refuses"][0].as_str().unwrap().to_string();
    assert!(refused.contains("`maybe`"), "{refused}");
    let seed = refused.split("split_seed=").nth(1).expect(&refused);
    let seed: String = seed.chars().take_while(char::is_ascii_digit).collect();
    assert_eq!(found(&seed)["training_refuses"], json!([]));
    project.train("run", &["max_steps=1"]).fails(2, &["data.csv", "`maybe`", "split_seed="]);
    project.train("run", &["max_steps=1", &format!("split_seed={seed}")]).ok();
}

#[test]
fn every_file_that_can_be_read_is_inspected() {
    for (name, content, parts) in [
        ("header.csv", "text,label\n", &["0 rows, 0 good", "there are no rows"][..]),
        ("once.csv", "text,label\na,x\nb,y\n", &["2 rows, 0 good", "--label-column"]),
        ("one.csv", "text,label\na,x\nb,x\n", &["2 rows, 2 good", "two labels or more"]),
        ("bad.csv", "text,label\n,x\n,y\n", &["2 rows, 0 good", "2 rows without a text:"]),
        (
            "rows.jsonl",
            "{\"text\": \"a\", \"label\": 1}\n{\"text\": 3}\nnonsense\n",
            &["3 rows, 0 good", "2 rows with JSON that can't be used:", "row 3 (line 3)"],
        ),
        (
            "ids.csv",
            &("text,label\n".to_string()
                + &(0..300).map(|i| format!("t {i},{}\n", i / 2)).collect::<String>()),
            &["has 150 different values in 300 rows", "… and 120 more"],
        ),
    ] {
        let project = Project::new(4);
        project.write(name, content);
        let said = project.run(&["inspect", name]).ok();
        for part in parts {
            assert!(said.out.contains(part), "{name}, {part}\n{}", said.out);
        }
        assert!(said.out.contains("Training would stop at"), "{name}\n{}", said.out);
        let said = project.run(&["inspect", name, "--json", "-"]).ok();
        serde_json::from_str::<Value>(&said.out).unwrap();
    }
}

#[test]
fn a_file_that_cannot_be_read_is_wrong_input() {
    for (name, content, words) in [
        ("empty.csv", &b""[..], &["empty"][..]),
        ("quote.csv", b"text,label\na,x\n\"b,y\n", &["row 2", "never closed"]),
        ("column.csv", b"body,label\na,x\n", &["`text`", "body", "--text-column"]),
        ("cut.csv.gz", b"\x1F\x8B\x08\x00\x00", &["gzip"]),
    ] {
        let project = Project::new(4);
        project.write(name, content);
        let said = project.run(&["inspect", name, "--json", "found.json"]);
        let said = said.fails(2, words).fails(2, &[name]);
        assert!(said.out.is_empty() && !project.path("found.json").exists(), "{said:#?}");
    }
}
