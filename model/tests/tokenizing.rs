//! The same token ids as Python's tokenizers, from every form that a tokenizer comes in.

mod support;

use pagebert_model::TextTokenizer;
use pagebert_model::tokenize::CompactTokenizer;
use serde::Deserialize;
use support::*;

#[derive(Deserialize)]
struct Line {
    text: String,
    uncased: Vec<u32>,
    cased: Vec<u32>,
    minilm: Vec<u32>,
}

fn lines() -> Vec<Line> {
    let file = String::from_utf8(bytes("awkward.jsonl")).unwrap();
    file.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn check(form: &str, tokenizer: &TextTokenizer, expected: fn(&Line) -> &Vec<u32>) {
    for line in lines() {
        let start: String = line.text.chars().take(60).collect();
        assert_eq!(&tokenizer.encode(&line.text).unwrap(), expected(&line), "{form}: {start:?}");
    }
}

/// Every form that a `tokenizer.json` can be turned into.
fn forms(json: &[u8]) -> Vec<(&'static str, TextTokenizer)> {
    let compact = CompactTokenizer::from_tokenizer_json(json).unwrap();
    let text = compact.to_text().unwrap();
    let back = CompactTokenizer::parse(text.as_bytes()).unwrap().to_tokenizer_json().unwrap();
    vec![
        ("tokenizer.json", TextTokenizer::from_tokenizer_json(json).unwrap()),
        ("tokenizer.txt", TextTokenizer::from_compact(text.as_bytes()).unwrap()),
        ("written tokenizer.json", TextTokenizer::from_tokenizer_json(back.as_bytes()).unwrap()),
    ]
}

#[test]
fn awkward_text_has_pythons_ids() {
    for (form, tokenizer) in forms(&bytes("tiny/tokenizer.json")) {
        check(form, &tokenizer, |line| &line.uncased);
        assert_eq!(tokenizer.frame(&[7, 8]), [2, 7, 8, 3], "{form}");
        assert_eq!(tokenizer.vocab_size(), 275, "{form}");
    }
}

#[test]
fn awkward_text_has_pythons_ids_from_a_vocabulary_alone() {
    let vocabulary = bytes("tiny-old/vocab.txt");
    let uncased = TextTokenizer::from_vocab_txt(&vocabulary, true).unwrap();
    check("uncased", &uncased, |line| &line.uncased);
    let cased = TextTokenizer::from_vocab_txt(&vocabulary, false).unwrap();
    check("cased", &cased, |line| &line.cased);
    let json = CompactTokenizer::from_vocab_txt(&vocabulary, false).unwrap();
    for (form, tokenizer) in forms(json.to_tokenizer_json().unwrap().as_bytes()) {
        check(form, &tokenizer, |line| &line.cased);
    }
}

#[test]
#[ignore = "needs sample/base: scripts/fetch-sample, then cargo test -- --include-ignored"]
fn awkward_text_has_pythons_ids_with_a_real_vocabulary() {
    let json = std::fs::read(path("../../sample/base/tokenizer.json")).unwrap();
    for (form, tokenizer) in forms(&json) {
        check(form, &tokenizer, |line| &line.minilm);
    }
}

#[test]
fn a_text_in_pieces_has_the_ids_of_the_whole() {
    let awkward: String = lines().into_iter().map(|line| line.text + "\n").collect();
    let ideographs = "\u{91ce}\u{53e3}".repeat(20_000);
    for (form, tokenizer) in forms(&bytes("tiny/tokenizer.json")) {
        for text in [awkward.repeat(40), ideographs.clone(), format!("{ideographs} end"), "".into()]
        {
            let mut ids = Vec::new();
            let mut rest = text.as_str();
            let mut longest = 0;
            while !rest.is_empty() {
                let (piece, after) = rest.split_at(tokenizer.piece(rest));
                ids.append(&mut tokenizer.encode(piece).unwrap());
                longest = longest.max(piece.len());
                rest = after;
            }
            assert_eq!(ids, tokenizer.encode(&text).unwrap(), "{form}");
            if form == "tokenizer.txt" && text.starts_with(&awkward) {
                assert!(longest < text.len() / 2, "{form}: a piece of {longest}");
            }
        }
    }
}

#[test]
fn malformed_tokenizers_are_named() {
    let json = bytes("tiny/tokenizer.json");
    let changed = |from: &str, to: &str| {
        let text = String::from_utf8(json.clone()).unwrap();
        assert!(text.contains(from), "{from}");
        text.replace(from, to).into_bytes()
    };
    let good = CompactTokenizer::from_tokenizer_json(&json).unwrap().to_text().unwrap();
    let compact = |bytes: &[u8]| TextTokenizer::from_compact(bytes).err().unwrap().to_string();
    let from_json =
        |bytes: &[u8]| CompactTokenizer::from_tokenizer_json(bytes).err().unwrap().to_string();
    for (message, named) in [
        (compact(b""), "first line"),
        (compact(b"\xff\xfe"), "UTF-8"),
        (compact(good.replace("pagebert-wordpiece-1", "other").as_bytes()), "other"),
        (compact(good.replace("\n[CLS]\n", "\n[other]\n").as_bytes()), "[CLS]"),
        (from_json(b"{"), "tokenizer.json"),
        (from_json(&changed("\"WordPiece\"", "\"BPE\"")), "BPE"),
        (from_json(&changed("BertNormalizer", "NFC")), "NFC"),
        (from_json(&changed("BertPreTokenizer", "Whitespace")), "Whitespace"),
    ] {
        assert!(message.contains(named), "{named}: {message}");
    }
}
