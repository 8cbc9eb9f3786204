use serde_json::{Value, json};

use super::*;

fn manifest() -> Value {
    json!({
        "format": FORMAT, "version": VERSION, "labels": ["no", "yes"],
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
        ("/version", json!(1), "version", "version 1"),
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
fn files_are_checked_while_they_arrive() {
    let receive = |manifest: &Value, chunks: &[&[u8]]| {
        let mut arrival = Arrival::new(parse(manifest).unwrap())?;
        arrival.receive(TOKENIZER, b"words")?;
        for chunk in chunks {
            arrival.receive(MODEL, chunk)?;
        }
        arrival.finish()
    };
    let code = |chunks: &[&[u8]]| receive(&manifest(), chunks).err().map(|error| error.code());
    // What the manifest describes, but no weights.
    assert_eq!(code(&[b"wei", b"", b"ghts"]), Some("format"));
    assert_eq!(code(&[b"wei", b"ght"]), Some("size"));
    assert_eq!(code(&[b"weights", b"!"]), Some("size"));
    // These are no weights either, but the hash is the reason.
    assert_eq!(code(&[b"Wei", b"ghts"]), Some("hash"));
    assert_eq!(code(&[]), Some("size"));
    let mut endless = manifest();
    endless["files"]["model"]["bytes"] = json!(u64::MAX);
    assert_eq!(receive(&endless, &[]).err().map(|error| error.code()), Some("memory"));
}
