//! `pagebert evaluate`: how good a model is on labelled texts.
//!
//! Owns which texts are measured and what is told about them. Figures are `metrics`'.

use std::collections::HashSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use crate::UsageError;
use crate::checkpoint::{check_writable, write_atomically};
use crate::cli::{EvaluateArgs, EvaluatedSide};
use crate::data::{
    DataError, DataOptions, Dataset, Example, Index, Side, Split, TextHash, excerpt,
};
use crate::inference::{self, LoadedModel, document_logits, encode_all};
use crate::metrics::{Report, Tally};
use crate::progress::{Console, Unit};
use crate::run_record::RunRecord;

/// Runs the command.
///
/// # Errors
/// [`UsageError`] and `DataError` for what the user can set right; anything else is a failure.
pub fn run(args: &EvaluateArgs, console: &Console) -> Result<()> {
    if let Some(path) = args.json.as_deref().filter(|path| *path != Path::new("-")) {
        check_writable(path)?;
    }
    let model = inference::load(&args.model, &args.compute)?;
    let labels = model.classifier.labels().to_vec();
    let (rows, what) = match &args.data {
        Some(path) => {
            let options = DataOptions { labels: Some(labels.clone()), ..args.read.options()? };
            let data = Dataset::load(path, &options)?;
            for bad in &data.bad_rows {
                console.warn(format!("row {} is left out: {}", bad.row, bad.reason));
            }
            let trained_on = trained_on(&args.model, &data)?;
            if let Some(count) = trained_on.filter(|count| *count > 0) {
                console.warn(format!(
                    "{count} of the {} texts were trained on: the figures flatter",
                    data.rows.len()
                ));
            }
            let what = json!({ "data": path, "trained_on": trained_on });
            (data.rows, what)
        }
        None => {
            let side = match args.split {
                EvaluatedSide::Test => Side::Test,
                EvaluatedSide::Valid => Side::Valid,
            };
            let record = model.record.as_ref().ok_or_else(|| no_split(&args.model, &model))?;
            let rows = recorded_side(&args.model, record, side, &labels, usize::MAX)?;
            (rows, json!({ "split": side, "data": record.data.path }))
        }
    };
    let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
    let truths: Vec<u32> = rows.iter().map(|row| row.label).collect();
    let (report, _) = measure(&model, &texts, &truths, console)?;
    let mut json = serde_json::to_value(&report)?;
    if let (Value::Object(json), Value::Object(what)) = (&mut json, what) {
        json.insert("labels".into(), labels.into());
        json.insert("model".into(), args.model.to_string_lossy().into());
        json.extend(what);
    }
    let mut out = std::io::stdout().lock();
    match &args.json {
        Some(path) if path == Path::new("-") => writeln!(out, "{json:#}")?,
        Some(path) => {
            write_atomically(path, format!("{json:#}\n").as_bytes())?;
            writeln!(out, "{report}")?;
        }
        None => writeln!(out, "{report}")?,
    }
    Ok(())
}

/// The figures of a model on texts, and its logits for each.
///
/// # Errors
/// When the model fails, or gives no numbers: figures of those would look like figures.
pub fn measure(
    model: &LoadedModel,
    texts: &[&str],
    truths: &[u32],
    console: &Console,
) -> Result<(Report, Vec<Vec<f32>>)> {
    let documents = encode_all(&model.classifier, texts)?;
    let bar = console.bar("classifying", texts.len() as u64, Unit::Items("texts"));
    let logits = document_logits(model.classifier.model(), &documents, &mut |done| {
        bar.set(done as u64);
    })?;
    for (text, logits) in texts.iter().zip(&logits) {
        if let Some(bad) = logits.iter().find(|logit| !logit.is_finite()) {
            bail!(
                "the model's output for `{}` is {bad}: its weights are damaged, or were trained \
                 with too high a learning rate",
                excerpt(text, 60)
            );
        }
    }
    let mut tally = Tally::new(model.classifier.labels());
    for (truth, logits) in truths.iter().zip(&logits) {
        tally.add(*truth, logits);
    }
    Ok((tally.report(), logits))
}

/// The rows of a recorded side, read again from the recorded data: all of them, or evenly spread ones.
///
/// # Errors
/// When the data is gone or is not what was split.
pub fn recorded_side(
    run: &Path,
    record: &RunRecord,
    side: Side,
    labels: &[String],
    most: usize,
) -> Result<Vec<Example>> {
    let options = record.data.options(Some(labels.to_vec()));
    let given = match side {
        Side::Valid => record.valid.as_ref(),
        Side::Test => record.test.as_ref(),
        _ => None,
    };
    if let Some(file) = given {
        still_there(&file.path)?;
        let data = Dataset::load(&file.path, &options)?;
        if data.sha256 != file.sha256 {
            return Err(changed(&file.path).into());
        }
        return Ok(data.rows);
    }
    let split = Split::read(&run.join("split.csv"))?;
    still_there(&record.data.path)?;
    let data = Index::load(&record.data.path, &options)?;
    split.verify(&data)?;
    // The texts are the same then, but their labels need not be.
    if data.sha256 != record.data.sha256 {
        return Err(changed(&record.data.path).into());
    }
    let chosen = split.indices(side);
    let every = chosen.len().div_ceil(most).max(1);
    let chosen: Vec<usize> = chosen.into_iter().step_by(every).collect();
    let texts = data.file.texts(chosen.iter().map(|index| data.rows[*index]))?;
    let rows: Vec<Example> = chosen
        .iter()
        .zip(texts)
        .map(|(index, text)| {
            Ok(Example { row: data.rows[*index], text: text?, label: data.classes[*index] })
        })
        .collect::<Result<_, DataError>>()?;
    if rows.is_empty() {
        return Err(UsageError(format!(
            "the {side} side of {} has no rows. Measure other data with --data",
            run.display()
        ))
        .into());
    }
    Ok(rows)
}

fn still_there(path: &Path) -> Result<(), UsageError> {
    if path.is_file() {
        return Ok(());
    }
    Err(UsageError(format!(
        "the data of this run, {}, is not there any more. Put it back, or measure other data with \
         --data",
        path.display()
    )))
}

fn changed(path: &Path) -> UsageError {
    UsageError(format!(
        "{} has changed since the run. Restore it, or measure the changed file with --data",
        path.display()
    ))
}

/// How many of these texts the model was trained on, where its folder says so.
fn trained_on(model: &Path, data: &Dataset) -> Result<Option<usize>> {
    let path: PathBuf = model.join("split.csv");
    if !path.is_file() {
        return Ok(None);
    }
    let trained: HashSet<TextHash> =
        Split::read(&path).with_context(|| path.display().to_string())?.texts(Side::Train);
    let known = data.rows.iter().filter(|row| trained.contains(&TextHash::of(&row.text)));
    Ok(Some(known.count()))
}

fn no_split(folder: &Path, model: &LoadedModel) -> UsageError {
    let kind = match model.manifest {
        Some(_) => "a bundle",
        None => "not a run of pagebert",
    };
    UsageError(format!(
        "{} is {kind} and records no split. Give labelled texts with --data",
        folder.display()
    ))
}
