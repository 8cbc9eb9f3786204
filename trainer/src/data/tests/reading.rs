//! Formats and bad rows.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

fn gz(content: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn pair(text: &str, label: &str) -> (String, String) {
    (text.into(), label.into())
}

#[test]
fn every_form_of_the_same_rows_reads_alike() {
    let csv = "text,label\n\"a, \"\"b\"\"\nc\",x\nd é,y\n";
    let expected = [pair("a, \"b\"\nc", "x"), pair("d é", "y")];
    let members = [gz(b"text,label\n\"a, \"\"b\"\"\nc\",x\n"), gz("d é,y\n".as_bytes())].concat();
    for (name, content) in [
        ("plain.csv", csv.as_bytes().to_vec()),
        ("bom.csv", format!("\u{feff}{csv}").into_bytes()),
        ("no-last-break.csv", csv.trim_end().as_bytes().to_vec()),
        ("blank-lines.csv", csv.replace("\nd", "\n\n\nd").into_bytes()),
        ("columns.csv", "id,label,text\n1,x,\"a, \"\"b\"\"\nc\"\n2,y,d é\n".into()),
        ("tabs.tsv", "text\tlabel\n\"a, \"\"b\"\"\nc\"\tx\nd é\ty\n".into()),
        ("compressed.csv.gz", gz(csv.as_bytes())),
        ("members.csv.gz", members),
        (
            "lines.jsonl",
            "{\"text\": \"a, \\\"b\\\"\\nc\", \"label\": \"x\"}\n\n{\"n\": {\"m\": [1]}, \"label\": \"y\", \
             \"text\": \"d \\u00e9\"}"
                .into(),
        ),
    ] {
        let rows: Vec<_> = file(name, content).rows(&ReadOptions::default());
        let rows: Vec<_> = rows.into_iter().map(|row| row.unwrap()).collect();
        assert_eq!(rows, expected, "{name}");
    }
    let crlf = file("crlf.csv", csv.replace('\n', "\r\n")).rows(&ReadOptions::default());
    assert_eq!(crlf[1].as_ref().unwrap(), &pair("d é", "y"));
}

#[test]
fn columns_are_chosen_and_joined() {
    let content = "title;body;team\nPrinter;It is on fire;ops\n;Only a body;web\n";
    let path = file("tickets.csv", content);
    let mut read = columns(&["title", "body"], "team");
    read.delimiter = Some(b';');
    let rows: Vec<_> = path.rows(&read).into_iter().map(|row| row.unwrap()).collect();
    assert_eq!(rows, [pair("Printer\nIt is on fire", "ops"), pair("Only a body", "web")]);
    assert_eq!(parse_delimiter("tab").unwrap(), b'\t');
    assert!(parse_delimiter("ab").is_err() && parse_delimiter("é").is_err());
}

#[test]
fn labels_of_json_may_be_numbers_and_truths() {
    let content = "{\"text\":\"a\",\"label\":1}\n{\"text\":\"b\",\"label\":true}\n";
    let rows = file("a.jsonl", content).rows(&ReadOptions::default());
    let labels: Vec<_> = rows.into_iter().map(|row| row.unwrap().1).collect();
    assert_eq!(labels, ["1", "true"]);
}

#[test]
fn bad_rows_are_named_by_row_and_line_and_the_next_is_read() {
    let good = ["text,label", "first,x", "second,y"].join("\n");
    for (bad, named) in [
        ("only one field", "1 fields where the header has 2"),
        ("a,b,c", "3 fields"),
        (",x", "the text (`text`) is empty"),
        ("\" \t\",x", "is empty"),
        ("words,", "the label (`label`) is empty"),
    ] {
        let path = file("bad.csv", format!("{good}\n{bad}\nlast,x\n"));
        let rows = path.rows(&ReadOptions::default());
        assert_eq!(rows.len(), 4, "{bad}");
        let error = rows[2].as_ref().unwrap_err();
        let DataError::Row { place, .. } = error else { panic!("{error}") };
        assert_eq!((place.row, place.line), (3, 4), "{bad}");
        let message = error.to_string();
        assert!(message.contains("bad.csv") && message.contains(named), "{message}");
        assert!(message.contains("--skip-bad-rows"), "{message}");
        assert_eq!(rows[3].as_ref().unwrap(), &pair("last", "x"));
    }
    let latin: &[u8] = b"text,label\ncaf\xe9,x\ntea,y\n";
    let rows = file("latin.csv", latin).rows(&ReadOptions::default());
    let message = rows[0].as_ref().unwrap_err().to_string();
    for part in ["row 1", "byte 4", "0xE9", "iconv"] {
        assert!(message.contains(part), "{part}: {message}");
    }
    assert!(rows[1].is_ok());
}

#[test]
fn bad_lines_of_json_are_named() {
    for (bad, named) in [
        ("{\"text\": \"a\"", "not valid JSON"),
        ("[1, 2]", "not an object"),
        ("{\"txt\": \"a\", \"label\": \"x\"}", "`text`"),
        ("{\"text\": \"a\"}", "`label`"),
        ("{\"text\": 3, \"label\": \"x\"}", "`text`"),
        ("{\"text\": \"a\", \"label\": 1.5}", "`label`"),
        ("{\"text\": \"a\", \"label\": null}", "label"),
        ("{\"text\": \"a\", \"text\": \"b\", \"label\": \"x\"}", "twice"),
    ] {
        let good = "{\"text\": \"a\", \"label\": \"x\"}";
        let rows =
            file("a.jsonl", format!("{good}\n{bad}\n{good}\n")).rows(&ReadOptions::default());
        assert_eq!(rows.len(), 3, "{bad}");
        let message = rows[1].as_ref().unwrap_err().to_string();
        assert!(message.contains(named) && message.contains("row 2"), "{bad}: {message}");
    }
}

#[test]
fn what_is_wrong_with_a_whole_file_is_said_at_once() {
    let half = gz("text,label\nwords,x\n".repeat(500).as_bytes());
    let cases: Vec<(&str, Vec<u8>, &[&str])> = vec![
        ("empty.csv", Vec::new(), &["empty"]),
        ("blank.csv", b"\n\n".to_vec(), &["empty"]),
        ("header.csv", b"text,label\n".to_vec(), &["no rows"]),
        ("other.csv", b"texts,label\na,x\n".to_vec(), &["`text`", "texts", "--text-column"]),
        ("other2.csv", b"text,class\na,x\n".to_vec(), &["`label`", "class", "--label-column"]),
        ("twice.csv", b"text,label,text\na,x,b\n".to_vec(), &["twice"]),
        (
            "quote.csv",
            b"text,label\na,x\n\"never closed,y\nb,x\nc,y\n".to_vec(),
            &["row 2", "line 3", "never closed"],
        ),
        ("cut.csv.gz", half[..half.len() - 20].to_vec(), &["cut.csv.gz"]),
        ("no.csv.gz", b"text,label\na,x\n".to_vec(), &["no.csv.gz"]),
        ("data.xlsx", b"PK".to_vec(), &["data.xlsx"]),
    ];
    for (name, content, parts) in cases {
        let error = file(name, content).load(&skipping()).unwrap_err();
        let message = error.to_string();
        assert!(error.is_wrong_input(), "{name}: {message}");
        for part in parts {
            assert!(message.contains(part), "{name}, {part}: {message}");
        }
    }
    let missing = Dataset::load(std::path::Path::new("no/such.csv"), &skipping()).unwrap_err();
    assert!(missing.is_wrong_input() && missing.to_string().contains("no/such.csv"), "{missing}");
}

#[test]
fn labels_are_ordered_and_checked() {
    let rows = |labels: &[&str]| -> String {
        let lines = labels.iter().enumerate().map(|(i, label)| format!("text {i},{label}\n"));
        "text,label\n".to_string() + &lines.collect::<String>()
    };
    let labels = |content: &str| {
        file("a.csv", content).load(&DataOptions::default()).map(|data| data.labels)
    };
    assert_eq!(labels(&rows(&["b", "a", "b", "a"])).unwrap(), ["a", "b"]);
    assert_eq!(labels(&rows(&["10", "9", "-1", "9", "10", "-1"])).unwrap(), ["-1", "9", "10"]);
    assert_eq!(labels(&rows(&["10", "9", "x", "9", "10", "x"])).unwrap(), ["10", "9", "x"]);
    let once = labels(&rows(&["real", "fake", "real", "fake", "fkae"])).unwrap_err().to_string();
    for part in ["row 5", "`fkae`", "`fake`", "--skip-bad-rows"] {
        assert!(once.contains(part), "{part}: {once}");
    }
    let one = labels(&rows(&["a", "a", "a"])).unwrap_err().to_string();
    assert!(one.contains("`a`") && one.contains("--label-column"), "{one}");
    let left = file("a.csv", rows(&["a", "b", "c", "a", "b"])).load(&skipping()).unwrap();
    assert_eq!((left.rows.len(), left.labels.len(), left.bad_rows[0].row), (4, 2, 3));
    let fixed = DataOptions { labels: Some(vec!["b".into(), "a".into()]), ..skipping() };
    let data = file("a.csv", rows(&["a", "b", "z"])).load(&fixed).unwrap();
    assert_eq!(data.rows.iter().map(|row| row.label).collect::<Vec<_>>(), [1, 0]);
    assert!(data.bad_rows[0].reason.contains("none of"), "{:?}", data.bad_rows);
}

/// Whatever the csv crate writes, quoted as it sees fit, is read as it was.
#[test]
fn random_tables_come_back() {
    const PIECES: [&str; 12] =
        ["a", "ü", "\"", ",", "\n", "\r\n", " ", "日本", "'", ";", "\t", "😀"];
    let mut state = 1u64;
    let mut random = |below: usize| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (state >> 33) as usize % below
    };
    for round in 0..200 {
        let rows: Vec<[String; 2]> = (0..random(20) + 1)
            .map(|_| {
                let text: String = (0..random(12)).map(|_| PIECES[random(12)]).collect();
                [format!("x{text}x"), ["one", "two, too", "\"3\""][random(3)].to_string()]
            })
            .collect();
        let mut writer = csv::Writer::from_writer(Vec::new());
        writer.write_record(["text", "label"]).unwrap();
        rows.iter().for_each(|row| writer.write_record(row).unwrap());
        let read = file("a.csv", writer.into_inner().unwrap()).rows(&ReadOptions::default());
        let read: Vec<[String; 2]> =
            read.into_iter().map(|row| row.map(|(a, b)| [a, b]).unwrap()).collect();
        assert_eq!(read, rows, "round {round}");
    }
}

/// Gives one byte at a time, as the slowest pipe does: nothing may depend on where reads end.
struct Drip(std::io::Cursor<Vec<u8>>);

impl std::io::Read for Drip {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let most = buf.len().min(1);
        self.0.read(&mut buf[..most])
    }
}

#[test]
fn rows_and_lines_do_not_depend_on_where_reads_end() {
    let long = "many words ".repeat(900);
    let wide: String = (0..200).map(|i| format!(",column {i}")).collect();
    let empty = ",".repeat(200);
    let csv = format!(
        "\u{feff}text{wide}\r\n\"two\r\nlines\"{empty}\r\n\r\n\r\n{long}{empty}\r\n\"say \"\"so\"\"\"{empty}"
    );
    let read = |reader: Box<dyn std::io::Read + Send>| -> Vec<Row> {
        let format = Format::Delimited { delimiter: b',' };
        RowReader::unlabelled_from("stdin", reader, format, &ReadOptions::default())
            .unwrap()
            .map(|row| row.unwrap())
            .collect()
    };
    let rows = read(Box::new(std::io::Cursor::new(csv.clone().into_bytes())));
    let texts: Vec<_> = rows.iter().map(|row| (row.row, row.line, row.text.as_str())).collect();
    let expected = [(1, 2, "two\r\nlines"), (2, 6, long.as_str()), (3, 7, "say \"so\"")];
    assert_eq!(texts, expected);
    assert_eq!(read(Box::new(Drip(std::io::Cursor::new(csv.into_bytes())))), rows);
}

#[test]
fn the_ending_tells_the_format_and_a_delimiter_overrides_it() {
    let delimited = |delimiter| Some((Format::Delimited { delimiter }, false));
    for (name, given, expected) in [
        ("a.csv", None, delimited(b',')),
        ("a.CSV", None, delimited(b',')),
        ("a.tsv", None, delimited(b'\t')),
        ("a.csv", Some(b';'), delimited(b';')),
        ("a.txt", Some(b'|'), delimited(b'|')),
        ("a.b.jsonl", Some(b';'), Some((Format::JsonLines, false))),
        ("a.ndjson.gz", None, Some((Format::JsonLines, true))),
        ("a.csv.GZ", None, Some((Format::Delimited { delimiter: b',' }, true))),
        ("a.txt", None, None),
        ("csv", None, None),
        ("a.gz", None, None),
    ] {
        let format = Format::of(std::path::Path::new(name), given).ok();
        assert_eq!(format, expected, "{name} {given:?}");
    }
}

#[test]
fn a_wrong_delimiter_and_a_wrong_name_are_guessed() {
    for (content, part) in [
        ("text;label\na;x\n", "--delimiter ';'"),
        ("text\tlabel\na\tx\n", "--delimiter tab"),
        ("Text,label\na,x\n", "Did you mean --text-column Text?"),
        ("text,lable\na,x\n", "Did you mean --label-column lable?"),
        ("I liked it,x\nI did not,y\n", "the first line must name the columns"),
    ] {
        let message = file("a.csv", content).load(&skipping()).unwrap_err().to_string();
        assert!(message.contains(part) && message.contains("a.csv"), "{part}: {message}");
    }
    let error = Dataset::load(
        &file("a.csv", "text,label\n").path,
        &DataOptions { read: columns(&["text", "label"], "label"), ..skipping() },
    );
    assert!(error.unwrap_err().to_string().contains("chosen twice"));
}

#[test]
fn other_kinds_of_files_are_told_by_their_bytes() {
    let utf16: Vec<u8> = "text,label\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("mark.csv", [&b"\xFF\xFE"[..], &utf16].concat(), "UTF-16"),
        ("no-mark.csv", utf16, "UTF-16"),
        ("sheet.csv", b"PK\x03\x04rest".to_vec(), "spreadsheet"),
        ("table.csv", b"PAR1rest".to_vec(), "Parquet"),
        ("packed.csv", gz(b"text,label\na,x\n"), "the ending .gz"),
        ("plain.csv.gz", b"text,label\na,x\n".to_vec(), "take the .gz off"),
        ("garbage.csv.gz", b"\x1F\x8Bgarbage".to_vec(), "gzip -t"),
        ("array.json", b"[{\"text\": \"a\", \"label\": \"x\"}]".to_vec(), "jq -c '.[]'"),
        ("pretty.json", b"{\n  \"text\": \"a\",\n  \"label\": \"x\"\n}\n".to_vec(), "jq -c ."),
        ("mark-only.csv", b"\xEF\xBB\xBF".to_vec(), "empty"),
        ("nothing.jsonl.gz", gz(b"\n\n"), "empty"),
        ("head.csv", b"\"text,label\na,x\n".to_vec(), "the header (line 1)"),
    ];
    for (name, content, part) in cases {
        let error = file(name, content).load(&DataOptions::default()).unwrap_err();
        let message = error.to_string();
        assert!(error.is_wrong_input() && message.contains(name), "{name}: {message}");
        assert!(message.contains(part), "{name}: {message}");
    }
}

/// A cut .gz gives what it holds, then says so: never a short file without a word.
#[test]
fn a_cut_gz_file_is_not_a_short_one() {
    let lines: String = (0..5000).map(|i| format!("text {i} {},x\n", i * i % 977)).collect();
    let whole = gz(format!("text,label\n{lines}").as_bytes());
    for cut in [whole.len() - 1, whole.len() - 8, whole.len() / 2, 30] {
        let rows = file("a.csv.gz", &whole[..cut]).rows_or_error();
        let error = match rows {
            Ok(rows) => rows.into_iter().find_map(Result::err).expect("an error"),
            Err(error) => error,
        };
        assert!(matches!(error, DataError::CorruptGzip { .. }), "{cut}: {error}");
    }
}

#[test]
fn all_bad_rows_are_listed_in_order() {
    let content = "text,label\na,x\n,x\nb,y\nc,once\nd\ne,x\nf,y\n\"g\",\n";
    let data = file("a.csv", content).load(&skipping()).unwrap();
    let bad: Vec<(u64, u64, &str)> =
        data.bad_rows.iter().map(|bad| (bad.row, bad.line, bad.reason.as_str())).collect();
    assert_eq!(
        bad,
        [
            (2, 3, "the text (`text`) is empty"),
            (4, 5, "no other row has the label `once`"),
            (5, 6, "1 fields where the header has 2"),
            (8, 9, "the label (`label`) is empty"),
        ]
    );
    let kept: Vec<u64> = data.rows.iter().map(|row| row.row).collect();
    assert_eq!((kept, data.class_counts()), (vec![1, 3, 6, 7], vec![2, 2]));
    let none = file("a.csv", "text,label\n,x\n,y\n").load(&skipping()).unwrap_err().to_string();
    assert!(none.contains("all 2 rows are bad") && none.contains("row 1"), "{none}");
    // Left out, they may leave one class alone.
    let one = file("a.csv", "text,label\na,x\nb,x\nc,y\n").load(&skipping()).unwrap_err();
    assert!(matches!(one, DataError::OneClass { .. }), "{one}");
}

/// The hash is that of the file as it lies there, whatever was read of it.
#[test]
fn the_hash_is_that_of_the_files_bytes() {
    for (name, content) in [
        ("a.csv", b"\xEF\xBB\xBFtext,label\na,x\nb,x\nc,y\nd,y\n".to_vec()),
        ("a.csv.gz", gz(b"text,label\na,x\nb,x\nc,y\nd,y\n\n\n")),
    ] {
        use sha2::Digest;
        let digest = sha2::Sha256::digest(&content);
        let hex: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(file(name, content).load(&DataOptions::default()).unwrap().sha256, hex);
    }
}

/// A column of ids in the place of labels must be an answer in seconds, not a comparison of each
/// with each.
#[test]
fn a_hundred_thousand_strange_labels_take_no_time() {
    let labels: Vec<String> = (0..200).map(|i| format!("a rather long label {i}")).collect();
    let known = labels.iter().map(|label| format!("text,{label}\ntext,{label}\n"));
    let strange = (0..100_000).map(|i| format!("text,another long label {i}\n"));
    let lines: String = known.chain(strange).collect();
    let path = file("a.csv", format!("text,label\n{lines}"));
    let started = std::time::Instant::now();
    assert_eq!(path.load(&skipping()).unwrap().bad_rows.len(), 100_000);
    let fixed = DataOptions { labels: Some(labels[..150].to_vec()), ..skipping() };
    assert_eq!(path.load(&fixed).unwrap().bad_rows.len(), 100_100);
    // Each with each took minutes.
    assert!(started.elapsed().as_secs() < 20, "{:?}", started.elapsed());
}
