//! Tokenizing once: what is kept, when it is used, and what happens where it can't be.

mod support;

use std::path::PathBuf;

use support::*;

const QUICK: [&str; 4] = ["epochs=2", "lr=2e-3", "batch_size=8", "log_every=1"];
const HIT: &str = "was tokenized before";

/// The files that are kept.
fn kept(project: &Project) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(project.path("cache/tokens")) else { return Vec::new() };
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// All that a run decides: weights, the split, losses and the report's words.
fn result(project: &Project, run: &str) -> (Vec<u8>, Vec<u8>, Vec<String>) {
    let log = json_lines(&project.text(&format!("{run}/metrics.jsonl")));
    let losses = log.iter().map(|line| line["loss"].to_string()).collect();
    let file = |name: &str| project.read(&format!("{run}/{name}"));
    (file("model.safetensors"), file("split.csv"), losses)
}

#[test]
fn a_second_run_tokenizes_nothing_and_ends_in_the_same_bytes() {
    let project = Project::new(200);
    let first = project.train("a", &QUICK).ok();
    assert!(!first.err.contains(HIT), "{}", first.err);
    assert_eq!(kept(&project).len(), 1);
    let second = project.train("b", &QUICK).ok();
    assert!(second.err.contains(HIT) && second.err.contains("cache/tokens/"), "{}", second.err);
    assert!(result(&project, "a") == result(&project, "b"));
    // Splits, windows and all else that comes after have no part in it.
    let other = project.train("c", &["split_seed=3", "max_tokens=16", "stride=2", "epochs=1"]).ok();
    assert!(other.err.contains(HIT), "{}", other.err);
    assert_eq!(kept(&project).len(), 1);
}

#[test]
fn other_data_another_reading_and_another_tokenizer_are_tokenized_anew() {
    let project = Project::new(200);
    project.train("a", &["epochs=1"]).ok();
    let other = [
        ("columns", vec!["--text-column", "text,more"]),
        ("labels", vec!["--label-column", "other"]),
        ("bad", vec!["--skip-bad-rows"]),
    ];
    let rows = reviews(200).replace("text,label\n", "");
    let rows = rows.lines().enumerate().map(|(i, row)| format!("{row},it was {i},{}\n", i % 2));
    project.write("data.csv", "text,label,more,other\n".to_string() + &rows.collect::<String>());
    let said = project.train("other", &["epochs=1"]).ok();
    assert!(!said.err.contains(HIT), "other data: {}", said.err);
    for (name, more) in other {
        let said = project.train(name, &[&more[..], &["epochs=1"]].concat()).ok();
        assert!(!said.err.contains(HIT), "{name}: {}", said.err);
    }
    assert_eq!(kept(&project).len(), 5);

    // The same texts by a tokenizer that lacks a word.
    std::fs::create_dir(project.path("base")).unwrap();
    for file in ["config.json", "model.safetensors", "tokenizer.json"] {
        let content = std::fs::read(fixture("tiny").join(file)).unwrap();
        project.write(&format!("base/{file}"), content);
    }
    let tokenizer = project.text("base/tokenizer.json").replacen("\"film\"", "\"movie\"", 1);
    project.write("base/tokenizer.json", tokenizer);
    let train = ["train", "--data", "data.csv", "--base", "base", "--out", "tokenizer", "epochs=1"];
    let said = project.run(&train).ok();
    assert!(!said.err.contains(HIT), "tokenizer: {}", said.err);
}

#[test]
fn a_damaged_file_is_noticed_and_made_again() {
    let project = Project::new(200);
    project.train("a", &QUICK).ok();
    let path = kept(&project).remove(0);
    let whole = std::fs::read(&path).unwrap();
    let mut flipped = whole.clone();
    flipped[whole.len() / 2] ^= 4;
    for (name, damaged) in [
        ("flipped", flipped),
        ("cut", whole[..whole.len() / 2].to_vec()),
        ("empty", Vec::new()),
        ("foreign", b"text,label\n".repeat(500)),
    ] {
        std::fs::write(&path, damaged).unwrap();
        let said = project.train(name, &QUICK).ok();
        assert!(
            said.err.contains("warning: ") && said.err.contains("can't be used"),
            "{name}: {}",
            said.err
        );
        assert!(result(&project, "a") == result(&project, name), "{name}");
        assert!(std::fs::read(&path).unwrap() == whole, "{name} was made again");
    }
    let said = project.train("hit", &QUICK).ok();
    assert!(said.err.contains(HIT) && !said.err.contains("can't be used"), "{}", said.err);
}

#[test]
fn where_nothing_can_be_kept_training_goes_on() {
    let project = Project::new(200);
    project.train("a", &QUICK).ok();
    std::fs::remove_dir_all(project.path("cache")).unwrap();
    // A file where the folder would be: nobody can write there, root neither.
    project.write("cache", "");
    let said = project.train("b", &QUICK).ok();
    assert!(said.err.contains("tokenize again"), "{}", said.err);
    assert!(result(&project, "a") == result(&project, "b"));
    assert_eq!(project.read("cache"), b"");
}

#[test]
fn held_out_files_are_kept_apart_and_shared_texts_are_told() {
    let project = Project::new(200);
    let rows = |from: usize, to: usize| {
        let all = reviews(400);
        let rows = all.lines().skip(1 + from).take(to - from).map(|row| format!("{row}\n"));
        "text,label\n".to_string() + &rows.collect::<String>()
    };
    project.write("valid.csv", rows(300, 340));
    project.write("test.csv", rows(330, 380) + &rows(330, 332).replace("text,label\n", ""));
    let files = ["--valid", "valid.csv", "--test", "test.csv", "epochs=1"];
    let said = project.train("run", &files).ok();
    let warning =
        "warning: 10 texts of the --test file (12 of its 52 rows) are in the --valid file";
    assert!(said.err.contains(warning), "{}", said.err);
    assert_eq!(kept(&project).len(), 3);
    project.write("test.csv", rows(340, 380));
    let said = project.train("again", &files).ok();
    assert!(!said.err.contains("--valid file"), "{}", said.err);
    assert_eq!(said.err.matches(HIT).count(), 2, "{}", said.err);
    // The report has texts of the file in the test side's place.
    project.write(
        "test.csv",
        rows(340, 380).replace(",yes", ",?").replace(",no", ",yes").replace(",?", ",no"),
    );
    project.train("wrong", &[&files[..], &["epochs=6", "lr=3e-3", "batch_size=8"]].concat()).ok();
    let report = project.text("wrong/report.html");
    assert!(report.contains("great love good") && report.contains("<h2>"), "{report}");
}

#[test]
fn data_may_come_through_a_pipe() {
    let project = Project::new(200);
    project.train("a", &QUICK).ok();
    let arguments =
        project.train_arguments("/dev/stdin", "b", &[&QUICK[..], &["--delimiter", ","]].concat());
    let arguments: Vec<&str> = arguments.iter().map(|argument| &**argument).collect();
    run_with_input(project.folder.path(), &arguments, &project.read("data.csv")).ok();
    assert!(result(&project, "a") == result(&project, "b"));
}
