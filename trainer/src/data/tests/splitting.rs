//! The split: frozen, stable, without leaks.

use std::collections::HashMap;

use super::*;

fn dataset(rows: usize, labels: usize) -> Index {
    let lines: String = (0..rows).map(|i| format!("text number {i},l{}\n", i % labels)).collect();
    file("a.csv", format!("text,label\n{lines}")).index(&DataOptions::default()).unwrap()
}

fn split(data: &Index) -> Split {
    Split::new(data, HeldOut::default(), &SplitOptions::default()).unwrap()
}

/// Recorded splits are compared with these for ever. The hashes are what the Python in
/// `text_hash.rs` gives, and the sides what the rule in `split.rs` does.
#[test]
fn hashes_and_sides_are_frozen() {
    for (text, hash) in [
        ("", "e3b0c44298fc1c149afbf4c8996fb924"),
        ("Hello  World", "b94d27b9934d3e08a52e52d7da7dabfa"),
        ("\u{ff28}ello\u{3000}wo\u{72}ld\n", "b94d27b9934d3e08a52e52d7da7dabfa"),
    ] {
        assert_eq!(TextHash::of(text).to_string(), hash, "{text:?}");
    }
    let sides: String = (0..40)
        .map(|i| {
            let hash = TextHash::of(&format!("text number {i}"));
            match (SplitOptions { split_seed: 7, valid_fraction: 0.2, test_fraction: 0.2 })
                .side_of(&hash)
            {
                Side::Train => '.',
                Side::Valid => 'v',
                Side::Test => 't',
                Side::LeftOut => '?',
            }
        })
        .collect();
    assert_eq!(sides, FROZEN_SIDES);
}

const FROZEN_SIDES: &str = ".v.vt..t.vv...t...v.vttvvtv..t..tvvt..tt";

#[test]
fn fractions_are_kept_and_order_does_not_matter() {
    let data = dataset(20_000, 2);
    let counts = split(&data).counts(&data, HeldOut::default());
    let valid: usize = counts.valid.iter().sum();
    let test: usize = counts.test.iter().sum();
    // Five standard deviations of a binomial with p = 0.1 are 212.
    assert!(valid.abs_diff(2000) < 212 && test.abs_diff(2000) < 212, "{valid} {test}");
    let mut reversed = data.clone();
    reversed.rows.reverse();
    reversed.texts.reverse();
    reversed.classes.reverse();
    let sides = |split: &Split| -> HashMap<TextHash, Side> {
        split.rows.iter().map(|row| (row.text_hash, row.side)).collect()
    };
    assert_eq!(sides(&split(&data)), sides(&split(&reversed)));
}

#[test]
fn duplicates_never_straddle() {
    let lines: String = (0..3000)
        .map(|i| format!("{} number {},l{}\n", ["Text", "TEXT  ", "text"][i % 3], i % 500, i % 2))
        .collect();
    let data =
        file("a.csv", format!("text,label\n{lines}")).index(&DataOptions::default()).unwrap();
    let mut sides = HashMap::new();
    for row in split(&data).rows {
        assert_eq!(*sides.entry(row.text_hash).or_insert(row.side), row.side);
    }
    assert_eq!(sides.len(), 500);
}

#[test]
fn test_rows_stay_when_the_valid_fraction_changes() {
    let data = dataset(5000, 2);
    let test_rows = |valid_fraction| {
        let options = SplitOptions { valid_fraction, ..SplitOptions::default() };
        Split::new(&data, HeldOut::default(), &options).unwrap().indices(Side::Test)
    };
    assert_eq!(test_rows(0.1), test_rows(0.3));
}

#[test]
fn a_missing_class_is_an_error_with_a_way_out_that_works() {
    let mut lines: String = (0..300).map(|i| format!("text {i},a\n")).collect();
    lines += "few 1,b\nfew 2,b\nfew 3,b\nfew 4,b\nfew 5,b\nfew 6,b\n";
    let data =
        file("a.csv", format!("text,label\n{lines}")).index(&DataOptions::default()).unwrap();
    let error = Split::new(&data, HeldOut::default(), &SplitOptions::default()).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("`b`"), "{message}");
    let seed = message.split("split_seed=").nth(1).expect(&message);
    let seed: u64 =
        seed.chars().take_while(char::is_ascii_digit).collect::<String>().parse().unwrap();
    let options = SplitOptions { split_seed: seed, ..SplitOptions::default() };
    Split::new(&data, HeldOut::default(), &options).unwrap();
}

#[test]
fn files_in_the_place_of_sides_leak_nothing() {
    let data = dataset(2000, 2);
    let lines = "text,label\ntext number 3,l1\nTEXT  number 4,l0\nnew one,l0\nnew two,l1\n";
    let options = DataOptions { labels: Some(data.labels.clone()), ..DataOptions::default() };
    let test = file("test.csv", lines).index(&options).unwrap();
    let held_out = HeldOut { valid: None, test: Some(&test) };
    let split = Split::new(&data, held_out, &SplitOptions::default()).unwrap();
    assert_eq!(split.rows[3].side, Side::LeftOut);
    assert_eq!(split.rows[4].side, Side::LeftOut);
    assert!(split.indices(Side::Test).is_empty());
    let counts = split.counts(&data, held_out);
    assert_eq!((counts.left_out, counts.test), (2, vec![2, 2]));
}

#[test]
fn fractions_that_leave_nothing_are_refused() {
    let data = dataset(100, 2);
    for (valid_fraction, test_fraction) in [(0.5, 0.5), (-0.1, 0.1), (f64::NAN, 0.1)] {
        let options = SplitOptions { split_seed: 0, valid_fraction, test_fraction };
        let error = Split::new(&data, HeldOut::default(), &options).unwrap_err();
        assert!(error.to_string().contains("valid_fraction"), "{error}");
    }
}

fn remove(data: &mut Index, at: usize) {
    data.rows.remove(at);
    data.texts.remove(at);
    data.classes.remove(at);
}

#[test]
fn a_recorded_split_knows_its_data() {
    let data = dataset(200, 2);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("split.csv");
    split(&data).write(&path).unwrap();
    let read = Split::read(&path).unwrap();
    assert_eq!(read, split(&data));
    read.verify(&data).unwrap();
    let changed = |change: fn(&mut Index)| {
        let mut data = data.clone();
        change(&mut data);
        read.verify(&data).unwrap_err().to_string()
    };
    for (message, named) in [
        (changed(|data| data.texts[5] = TextHash::of("!")), "row 6 has another text"),
        (changed(|data| remove(data, 5)), "row 6 is missing"),
        (changed(|data| (150..200).rev().for_each(|at| remove(data, at))), "150"),
    ] {
        assert!(message.contains(named) && message.contains("changed"), "{message}");
    }
    for (content, named) in [
        ("row,text_hash,side\n", "no rows"),
        ("row,text_hash,side\n1,xyz,train\n", "xyz"),
        ("row,text_hash,side\n2,b94d27b9934d3e08a52e52d7da7dabfa,nowhere\n", "nowhere"),
        (
            "row,text_hash,side\n2,b94d27b9934d3e08a52e52d7da7dabfa,test\n1,b94d27b9934d3e08a52e52d7da7dabfa,test\n",
            "order",
        ),
    ] {
        std::fs::write(&path, content).unwrap();
        let error = Split::read(&path).unwrap_err();
        assert!(error.to_string().contains(named), "{named}: {error}");
    }
}

/// What no `split_seed` can mend is not blamed on it.
#[test]
fn the_way_out_of_a_missing_class_is_one() {
    let data = |few: &str| {
        let many: String = (0..200).map(|i| format!("text {i},a\n")).collect();
        file("a.csv", format!("text,label\n{many}{few}")).index(&DataOptions::default()).unwrap()
    };
    let message = |few: &str| {
        let data = data(few);
        let error = Split::new(&data, HeldOut::default(), &SplitOptions::default()).unwrap_err();
        assert!(error.is_wrong_input());
        error.to_string()
    };
    // Two rows, but one text.
    let same = message("few,b\nFEW,b\n");
    for part in ["a.csv", "`b`", "has 1 different text for 3 sides", "--valid FILE"] {
        assert!(same.contains(part), "{part}: {same}");
    }
    let two = message("few,b\nfewer,b\n");
    assert!(two.contains("has 2 different texts for 3 sides"), "{two}");

    // Enough texts, but next to no room on the test side.
    let data = data("one,b\ntwo,b\nthree,b\nfour,b\n");
    let options = SplitOptions { test_fraction: 1e-6, ..SplitOptions::default() };
    let error = Split::new(&data, HeldOut::default(), &options).unwrap_err().to_string();
    assert!(error.contains("No split_seed from 0 to 99 puts"), "{error}");
    assert!(error.contains("Raise valid_fraction or test_fraction"), "{error}");

    // A side of no size needs no class.
    let options = SplitOptions { valid_fraction: 0.0, test_fraction: 0.0, split_seed: 0 };
    let split = Split::new(&data, HeldOut::default(), &options).unwrap();
    assert_eq!(split.indices(Side::Train).len(), data.rows.len());
}

/// Texts that a given file takes away can't be put on a side, however many there are.
#[test]
fn a_class_that_is_all_in_a_given_file_is_missed() {
    let data = dataset(300, 3);
    let lines: String = (2..300).step_by(3).map(|i| format!("text number {i},l2\n")).collect();
    let options = DataOptions { labels: Some(data.labels.clone()), ..DataOptions::default() };
    let test = file("test.csv", format!("text,label\n{lines}")).index(&options).unwrap();
    let held_out = HeldOut { valid: None, test: Some(&test) };
    let error = Split::new(&data, held_out, &SplitOptions::default()).unwrap_err().to_string();
    assert!(error.contains("`l2` has 0 different texts for 2 sides"), "{error}");
}

#[test]
fn given_files_take_both_sides() {
    let data = dataset(1000, 2);
    let options = DataOptions { labels: Some(data.labels.clone()), ..DataOptions::default() };
    let given =
        |name, line: &str| file(name, format!("text,label\n{line}\n")).index(&options).unwrap();
    let (valid, test) = (given("v.csv", "text number 7,l0"), given("t.csv", "else,l1"));
    let held_out = HeldOut { valid: Some(&valid), test: Some(&test) };
    let split = Split::new(&data, held_out, &SplitOptions::default()).unwrap();
    assert_eq!(split.indices(Side::Train).len(), 999);
    assert_eq!(split.texts(Side::LeftOut), [TextHash::of("text number 7")].into());
    let counts = split.counts(&data, held_out);
    assert_eq!((counts.valid, counts.test), (vec![1, 0], vec![0, 1]));
    // Its recorded form keeps the rows left out.
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("split.csv");
    split.write(&path).unwrap();
    assert!(std::fs::read_to_string(&path).unwrap().contains(",left_out\n"));
    assert_eq!(Split::read(&path).unwrap(), split);
}

/// The same rows, whether bad ones are left out of the whole data or read beside a model.
#[test]
fn a_recorded_split_goes_with_rows_left_out() {
    let mut lines: String = (0..100).map(|i| format!("text {i},l{}\n", i % 2)).collect();
    lines.insert_str(0, ",l1\nalone,single\n");
    let path = file("a.csv", format!("text,label\n{lines}"));
    let data = path.index(&skipping()).unwrap();
    let beside = DataOptions { labels: Some(data.labels.clone()), ..skipping() };
    split(&data).verify(&path.index(&beside).unwrap()).unwrap();
}
