//! Finished models on many texts: loading RUN or BUNDLE, and running windows in packed batches.
//!
//! Owns how texts are gathered for speed. What a text's logits mean is `pagebert_model::classify`'s.

use std::collections::HashMap;
use std::path::Path;

use anyhow::{Context, Result};
use candle_core::Device;
use pagebert_kernels::{EncoderOptions, Precision as Products};
use pagebert_model::BertForSequenceClassification;
use pagebert_model::batch::Batch;
use pagebert_model::bundle::{BundleError, Manifest};
use pagebert_model::classify::{Classifier, Encoded, Mean, Options};
use rayon::prelude::*;

use crate::UsageError;
use crate::base::resolve_folder;
use crate::checkpoint::{Checkpoint, ModelFolder, read};
use crate::cli::ComputeArgs;
use crate::devices::DeviceSpec;
use crate::run_record::RunRecord;
use crate::settings::Precision;

/// Tokens of a packed batch for each thread: enough to fill the processor's tiles, and little enough
/// that what a layer hands to the next stays in the caches.
const THREAD_TOKENS: usize = 512;
/// Tokens of a packed batch at most.
const BATCH_TOKENS: usize = 4096;
/// How many batches each thread has to itself, where it has, before all are waited for.
const BATCHES_A_THREAD: usize = 8;

/// A model ready to classify.
pub struct LoadedModel {
    /// The model.
    pub classifier: Classifier,
    /// The run's record, where the folder has one.
    pub record: Option<RunRecord>,
    /// The manifest, of a bundle.
    pub manifest: Option<Manifest>,
}

/// Loads a RUN, a Hugging Face checkpoint or a BUNDLE.
///
/// # Errors
/// [`UsageError`] when the folder holds no model that can be used.
pub fn load(folder: &Path, compute: &ComputeArgs) -> Result<LoadedModel> {
    if compute.precision == Precision::Int8 && compute.device != DeviceSpec::Cpu {
        return Err(UsageError(
            "--precision int8 is computed by processors alone: leave --precision int8 or --device away"
                .to_string(),
        )
        .into());
    }
    set_threads(compute.threads)?;
    let device = device(compute.device)?;
    match ModelFolder::find(folder)? {
        ModelFolder::Bundle(folder) => {
            if compute.device != DeviceSpec::Cpu {
                return Err(UsageError(
                    "a bundle is computed as the page computes it, on the CPU: leave --device away"
                        .to_string(),
                )
                .into());
            }
            if matches!(compute.precision, Precision::Bf16 | Precision::Int8) {
                return Err(UsageError(
                    "a bundle has its own precision: leave --precision away".to_string(),
                )
                .into());
            }
            load_bundle(&folder)
        }
        ModelFolder::Checkpoint(folder) => {
            let record = RunRecord::read(&folder)?;
            let checkpoint = Checkpoint::load(resolve_folder(&folder)?, &device)?;
            let precision = match compute.precision {
                Precision::Bf16 => Products::Bf16,
                Precision::Int8 => Products::Int8,
                Precision::Auto | Precision::F32 => Products::F32,
            };
            let classifier = classifier_in(checkpoint, record.as_ref(), precision)?;
            Ok(LoadedModel { classifier, record, manifest: None })
        }
    }
}

/// A bundle's classifier.
///
/// # Errors
/// [`UsageError`] naming what is wrong with the bundle.
pub fn load_bundle(folder: &Path) -> Result<LoadedModel> {
    let wrong = |error: BundleError| UsageError(format!("{}: {error}", folder.display()));
    let bytes = read(&folder.join("manifest.json"))?;
    let manifest = Manifest::parse(&bytes).map_err(wrong)?;
    let mut files = HashMap::new();
    for (name, entry) in &manifest.files {
        let path = folder.join(&entry.path);
        // A file that is missing is the bundle's fault, and named by its reader.
        if path.is_file() {
            files.insert(name.clone(), read(&path)?);
        }
    }
    let classifier = Classifier::from_bundle(&bytes, files).map_err(wrong)?;
    Ok(LoadedModel { classifier, record: None, manifest: Some(manifest) })
}

/// A checkpoint's classifier. Windows are those of its training, or BERT's own.
///
/// # Errors
/// When the parts don't belong together.
pub fn classifier(checkpoint: Checkpoint, record: Option<&RunRecord>) -> Result<Classifier> {
    classifier_in(checkpoint, record, Products::F32)
}

fn classifier_in(
    checkpoint: Checkpoint,
    record: Option<&RunRecord>,
    precision: Products,
) -> Result<Classifier> {
    let Checkpoint { config, weights, tokenizer, files, .. } = checkpoint;
    let (max_tokens, stride) =
        record.map_or((512, 64), |record| (record.settings.max_tokens, record.settings.stride));
    let (max_tokens, stride) = fit_window(max_tokens, stride, config.max_position_embeddings);
    let options = EncoderOptions { precision, ..EncoderOptions::default() };
    let model = BertForSequenceClassification::load_with(&weights, &config, options)?;
    let options = Options { max_tokens, stride, temperature: 1.0, threshold: 0.0 };
    Classifier::new(model, tokenizer, options).with_context(|| files.name)
}

/// A window and its overlap, for a model of so many positions.
pub fn fit_window(max_tokens: usize, stride: usize, positions: usize) -> (usize, usize) {
    let max_tokens = max_tokens.min(positions);
    (max_tokens, stride.min(max_tokens.saturating_sub(2) / 2))
}

/// How many threads compute; 0 for one a core. To be called once, before anything is computed.
///
/// # Errors
/// When the threads can't be started.
pub fn set_threads(threads: usize) -> Result<()> {
    if threads == 0 {
        return Ok(());
    }
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build_global()
        .with_context(|| format!("{threads} threads can't be started"))
}

/// The device to compute on.
///
/// # Errors
/// [`UsageError`] when this build has no such device, another error when it does not answer.
pub fn device(spec: DeviceSpec) -> Result<Device> {
    match spec.built()? {
        DeviceSpec::Cpu => Ok(Device::Cpu),
        DeviceSpec::Cuda(index) => pagebert_kernels::device::cuda(index).with_context(|| {
            format!("{spec} can't be used; `pagebert devices` lists what there is")
        }),
    }
}

/// Tokenizes texts, in parallel and in order.
///
/// # Errors
/// When the tokenizer fails.
pub fn encode_all<T: AsRef<str> + Sync>(
    classifier: &Classifier,
    texts: &[T],
) -> Result<Vec<Encoded>> {
    let encoded: pagebert_model::Result<Vec<Encoded>> =
        texts.par_iter().map(|text| classifier.encode(text.as_ref())).collect();
    Ok(encoded?)
}

/// Each document's logits, the mean over its windows, in the order of the documents. `progress`
/// hears how many documents are done.
///
/// # Errors
/// When the model fails.
pub fn document_logits(
    model: &BertForSequenceClassification,
    documents: &[Encoded],
    progress: &mut dyn FnMut(usize),
) -> Result<Vec<Vec<f32>>> {
    let mut order: Vec<(usize, usize)> = documents
        .iter()
        .enumerate()
        .flat_map(|(document, encoded)| (0..encoded.windows.len()).map(move |w| (document, w)))
        .collect();
    let window =
        |(document, window): (usize, usize)| documents[document].windows[window].as_slice();
    // Alike lengths together, for devices that pad inside attention.
    order.sort_by_key(|at| (window(*at).len(), *at));
    let mut logits: Vec<Vec<Vec<f32>>> =
        documents.iter().map(|encoded| vec![Vec::new(); encoded.windows.len()]).collect();
    let mut unfinished: Vec<usize> =
        documents.iter().map(|encoded| encoded.windows.len()).collect();
    let threads = rayon::current_num_threads();
    // In integers a thread has batches to itself, and waits for others seldom. Floats keep locks and
    // what a backward pass needs while they are computed: there all threads share one batch.
    let (most, together) = match model.is_int8() {
        true => (THREAD_TOKENS, BATCHES_A_THREAD * threads),
        false => (BATCH_TOKENS.min(THREAD_TOKENS * threads), 1),
    };
    let logits_of = |chosen: &&[(usize, usize)]| -> Result<Vec<Vec<f32>>> {
        let batch = Batch::pack(chosen.iter().map(|at| [window(*at)]))?;
        let found = model.window_logits(&batch, None)?;
        Ok(found.to_dtype(candle_core::DType::F32)?.to_vec2()?)
    };
    let batches = cut(&order, most, |at| window(*at).len());
    let mut finished = 0;
    for batches in batches.chunks(together) {
        // On threads that share the work, which have to wake no other in each loop.
        let found: Result<Vec<Vec<Vec<f32>>>> =
            rayon::scope(|_| batches.par_iter().with_max_len(1).map(logits_of).collect());
        let found = found?.into_iter().flatten();
        for ((document, window), row) in batches.iter().copied().flatten().zip(found) {
            logits[*document][*window] = row;
            unfinished[*document] -= 1;
            finished += usize::from(unfinished[*document] == 0);
        }
        progress(finished);
    }
    // In the windows' order, so that the mean is that of a text classified by itself.
    Ok(logits
        .iter()
        .map(|windows| {
            let mut mean = Mean::default();
            windows.iter().for_each(|logits| mean.add(logits));
            mean.get()
        })
        .collect())
}

/// Cuts items into pieces of at most so much in all, or of one item that is more by itself.
fn cut<T>(items: &[T], most: usize, size: impl Fn(&T) -> usize) -> Vec<&[T]> {
    let mut all = 0;
    let (mut pieces, mut start) = (Vec::new(), 0);
    for (index, item) in items.iter().enumerate() {
        all += size(item);
        if all > most && index > start {
            pieces.push(&items[start..index]);
            (start, all) = (index, size(item));
        }
    }
    if start < items.len() {
        pieces.push(&items[start..]);
    }
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_all_items_in_their_order_and_as_full_as_may_be() {
        for (sizes, pieces) in [
            (vec![], vec![]),
            (vec![3], vec![vec![3]]),
            (vec![11], vec![vec![11]]),
            (vec![1, 2, 7, 1], vec![vec![1, 2, 7], vec![1]]),
            (vec![4, 11, 6, 5], vec![vec![4], vec![11], vec![6], vec![5]]),
            (vec![0, 0, 10, 0], vec![vec![0, 0, 10, 0]]),
        ] {
            assert_eq!(cut(&sizes, 10, |size| *size), pieces, "{sizes:?}");
        }
    }

    #[test]
    fn texts_in_batches_have_the_logits_that_they_have_alone() {
        let tiny = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/tiny");
        let checkpoint = Checkpoint::load(resolve_folder(&tiny).unwrap(), &Device::Cpu).unwrap();
        let classifier = classifier(checkpoint, None).unwrap();
        // From nothing at all to a text of more windows than a batch holds.
        let texts: Vec<String> = [0, 40, 1, 400, 7, 62, 63, 9000, 3, 61]
            .map(|words| (0..words).map(|i| ["good ", "film ", "never ", "x "][i % 4]).collect())
            .to_vec();
        let documents = encode_all(&classifier, &texts).unwrap();
        assert!(documents[7].tokens() > BATCH_TOKENS);
        let mut heard = Vec::new();
        let logits =
            document_logits(classifier.model(), &documents, &mut |done| heard.push(done)).unwrap();
        for ((text, document), logits) in texts.iter().zip(&documents).zip(&logits) {
            let alone = classifier.classify(text).unwrap();
            assert_eq!((alone.windows, alone.tokens), (document.windows.len(), document.tokens()));
            for (a, b) in logits.iter().zip(&alone.logits) {
                assert!((a - b).abs() < 1e-5, "{} tokens: {a} {b}", alone.tokens);
            }
        }
        assert!(heard.is_sorted() && heard.last() == Some(&texts.len()), "{heard:?}");
        assert!(document_logits(classifier.model(), &[], &mut |_| {}).unwrap().is_empty());
    }

    #[test]
    fn a_window_fits_the_model() {
        for (asked, positions, fits) in [
            ((512, 64), 512, (512, 64)),
            ((512, 64), 1024, (512, 64)),
            ((512, 64), 64, (64, 31)),
            ((8, 5), 512, (8, 3)),
            ((512, 64), 3, (3, 0)),
        ] {
            assert_eq!(fit_window(asked.0, asked.1, positions), fits, "{asked:?} in {positions}");
        }
    }
}
