//! Foreign words in messages and tables.

use super::words::{closest, names};
use super::*;

#[test]
fn excerpts_are_short_clean_and_on_one_line() {
    for (text, max, expected) in [
        ("short", 10, "short"),
        ("exactly ten", 11, "exactly ten"),
        ("one\n two\t\tthree", 20, "one two three"),
        ("a text that is too long", 10, "a text th…"),
        ("words and a cut", 7, "words…"),
        ("日本語の文章です", 5, "日本語の…"),
        ("red \u{1b}[31m", 20, "red \u{fffd}[31m"),
        ("turned \u{202e}round", 20, "turned \u{fffd}round"),
        ("", 5, ""),
    ] {
        assert_eq!(excerpt(text, max), expected, "{text:?}");
    }
    let huge = "x".repeat(1 << 20) + " y";
    assert_eq!(excerpt(&huge, 4), "xxx…");
    let spread = "é ".repeat(1 << 20);
    assert_eq!(excerpt(&spread, 4), "é é…");
}

#[test]
fn slips_are_seen_and_strangers_are_not() {
    let labels = ["positive", "negative", "no"];
    for (wanted, expected) in [
        ("postive", Some("positive")),
        ("NEGATIVE", Some("negative")),
        ("NO", Some("no")),
        ("on", None),
        ("neutral", None),
        ("", None),
    ] {
        assert_eq!(closest(wanted, labels).as_deref(), expected, "{wanted}");
    }
    let many: Vec<String> = (0..25).map(|i| i.to_string()).collect();
    assert!(names(&many).ends_with("`19` … and 5 more"));
}

/// As a terminal shows them: a CJK character takes two columns.
#[test]
fn columns_are_flush_in_any_script() {
    let rows = [["label", "rows"], ["好", "1000"], ["né", "2"]];
    let rows: Vec<Vec<String>> = rows.iter().map(|row| row.map(String::from).to_vec()).collect();
    let shown = table(&[Align::Left, Align::Right], &rows);
    assert_eq!(shown, "label  rows\n好     1000\nné        2\n");
}

#[test]
fn counts_are_a_table_that_stays_on_a_screen() {
    let labels: Vec<String> = (0..50).map(|i| format!("class {i}")).collect();
    let rows = (0..50).flat_map(|id| [(id, Side::Train), (id, Side::Train), (id, Side::Test)]);
    let counts = SideCounts::new(&labels, rows.chain([(0, Side::LeftOut)]));
    let shown = counts.to_string();
    let lines: Vec<&str> = shown.lines().collect();
    assert_eq!(lines.len(), 1 + 40 + 1 + 1 + 1, "{shown}");
    assert!(lines[1].starts_with("class 0"), "{shown}");
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>()[2..], ["2", "0", "1", "3"]);
    assert_eq!(lines[41], "… and 10 more");
    assert_eq!(lines[42].split_whitespace().collect::<Vec<_>>(), ["all", "100", "0", "50", "150"]);
    assert!(lines[43].contains("1 row also in"), "{shown}");
}
