use serde_json::{Value, json};

use super::*;

fn manifest() -> Value {
    json!({
        "format": FORMAT, "version": 1, "labels": ["no", "yes"],
        "config": {
            "vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 16, "max_position_embeddings": 32,
            "id2label": {"0": "no", "1": "yes"},
        },
        "max_tokens": 32, "stride": 4, "temperature": 1.0, "threshold": 0.0, "precision": "f16",
        "files": {
            "model": FileEntry::of("model.safetensors", b"weights"),
            "tokenizer": FileEntry::of("tokenizer.txt", b"words"),
        },
    })
}

fn parse(value: &Value) -> Result<Manifest, BundleError> {
    Manifest::parse(value.to_string().as_bytes())
}

#[test]
fn a_manifest_survives_writing_and_reading() {
    let first = parse(&manifest()).unwrap();
    let again = Manifest::parse(first.to_json().unwrap().as_bytes()).unwrap();
    assert_eq!(first, again);
}

#[test]
fn each_fault_has_its_code_and_is_named() {
    let faults: [(&str, Value, &str, &str); 13] = [
        ("/version", json!(2), "version", "version 2"),
        ("/version", json!("1"), "format", "version"),
        ("/format", json!("other"), "format", "format"),
        ("/labels", json!(["yes", "no"]), "format", "labels"),
        ("/config/model_type", json!("roberta"), "format", "roberta"),
        ("/config/hidden_size", json!(9), "format", "hidden_size"),
        ("/max_tokens", json!(33), "format", "max_tokens"),
        ("/max_tokens", json!(2), "format", "max_tokens"),
        ("/stride", json!(30), "format", "stride"),
        ("/temperature", json!(0.0), "format", "temperature"),
        ("/threshold", json!(1.5), "format", "threshold"),
        ("/precision", json!("int3"), "format", "int3"),
        ("/files/model/path", json!("../model"), "format", "../model"),
    ];
    for (pointer, value, code, named) in faults {
        let mut bad = manifest();
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        bad.pointer_mut(parent).unwrap()[key] = value;
        let error = parse(&bad).unwrap_err();
        assert_eq!(error.code(), code, "{pointer}: {error}");
        assert!(error.to_string().contains(named), "{pointer}: {error}");
    }
    let error = Manifest::parse(b"{\"format\":").unwrap_err();
    assert!(error.code() == "format" && error.to_string().contains("manifest"), "{error}");
}

#[test]
fn a_manifest_of_another_version_may_look_like_anything() {
    let error = parse(&json!({"format": FORMAT, "version": 7, "labels": 3})).unwrap_err();
    assert_eq!(error.code(), "version");
}

#[test]
fn files_are_checked_against_the_manifest() {
    let whole = parse(&manifest()).unwrap();
    let take = |contents: Option<&[u8]>| {
        let mut files: HashMap<_, _> =
            contents.map(|bytes| ("model".to_string(), bytes.to_vec())).into_iter().collect();
        whole.take(MODEL, &mut files).map_err(|error| error.code())
    };
    assert_eq!(take(Some(b"weights")).unwrap(), b"weights");
    assert_eq!(take(None), Err("missing_file"));
    assert_eq!(take(Some(b"weight")), Err("size"));
    assert_eq!(take(Some(b"Weights")), Err("hash"));
    let mut fewer = manifest();
    fewer["files"].as_object_mut().unwrap().remove("model");
    let error = parse(&fewer).unwrap_err();
    assert_eq!(error.code(), "missing_file");
    assert!(error.to_string().contains("model"), "{error}");
}

#[test]
fn a_file_is_checked_while_it_arrives() {
    let whole = parse(&manifest()).unwrap();
    let receive = |chunks: &[&[u8]]| {
        let mut arrival = Arrival::of(whole.entry(MODEL).unwrap())?;
        for chunk in chunks {
            arrival.receive(chunk.len(), |room| room.copy_from_slice(chunk))?;
        }
        arrival.finish()
    };
    let code = |chunks| receive(chunks).map_err(|error: BundleError| error.code());
    assert_eq!(code(&[b"wei", b"", b"ghts"]).unwrap(), b"weights");
    assert_eq!(code(&[b"wei", b"ght"]), Err("size"));
    assert_eq!(code(&[b"weights", b"!"]), Err("size"));
    assert_eq!(code(&[b"Wei", b"ghts"]), Err("hash"));
    assert_eq!(code(&[]), Err("size"));
    let endless = FileEntry { bytes: u64::MAX, ..FileEntry::of("model", b"") };
    assert_eq!(Arrival::of(&endless).unwrap_err().code(), "memory");
}
