//! What stands below each command's `--help`: commands to copy.

pub(super) const MAIN: &str = "\
From a table to a page:
  pagebert inspect  reviews.csv
  pagebert train    --data reviews.csv --base hf:google-bert/bert-base-uncased --out run
  pagebert evaluate run
  pagebert export   run --out bundle
  pagebert site     bundle --out site
  pagebert serve    site

stdout is data, stderr is progress. Exit codes: 0 done, 1 failed, 2 wrong usage or wrong input.
NO_COLOR switches colours off.";

pub(super) const INSPECT: &str = "\
Examples:
  pagebert inspect reviews.csv
  pagebert inspect tickets.tsv --text-column title,body --label-column team
  pagebert inspect reviews.jsonl.gz --base hf:google-bert/bert-base-uncased     with token lengths
  pagebert inspect reviews.csv --json - | jq .labels";

pub(super) const TRAIN: &str = "\
Examples:
  pagebert train --data reviews.csv --base hf:google-bert/bert-base-uncased --out run
  pagebert train --data reviews.csv --base ./my-bert --out run epochs=2 lr=3e-5
  pagebert train --data papers.csv --base ./my-bert --out run \\
    --config conf/experiments/long-documents.toml
  pagebert train --data reviews.csv --base ./my-bert --out run --resume

Settings, with their defaults and the reasons in conf/default.toml:
  epochs max_steps batch_size batch_tokens accumulate max_tokens stride max_windows lr warmup
  weight_decay clip dropout seed split_seed valid_fraction test_fraction precision checkpoint_layers threads
  log_every eval_every";

pub(super) const EVALUATE: &str = "\
Examples:
  pagebert evaluate run                          the test side recorded in the run
  pagebert evaluate run --split valid
  pagebert evaluate bundle --data new.csv        every row, and how many of them were trained on
  pagebert evaluate run --json - | jq .accuracy";

pub(super) const PREDICT: &str = "\
Examples:
  pagebert predict run 'What a film!' 'I want my money back.'
  pagebert predict bundle --data new.csv --out answers.csv
  pagebert predict bundle --data new.jsonl.gz --out answers.jsonl
  cat lines.txt | pagebert predict bundle > answers.jsonl           one text a line

Answers are JSON Lines on stdout; --out writes JSON Lines or CSV by the file's ending, one row per
input row, in order. CSV has the columns label,score,unsure,tokens,windows,error, then score:NAME
for each class and logit:NAME for each class. A row that can't be classified has only an error; the
exit code is then 1.";

pub(super) const EXPORT: &str = "\
Examples:
  pagebert export run --out bundle
  pagebert export run --out bundle --precision f32
  pagebert export ./checkpoint-from-elsewhere --out bundle";

pub(super) const SITE: &str = "\
Examples:
  pagebert site bundle --out site
  pagebert serve site                    then look at it here
  aws s3 sync site s3://my-bucket        or host the folder anywhere: it is only files";

pub(super) const SERVE: &str = "\
Examples:
  pagebert serve site
  pagebert serve site --port 0           any free port; the address is the first line of stdout

This is a preview: for the public, host the folder on any web host or bucket.";

pub(super) const DEVICES: &str = "\
Examples:
  pagebert devices
  pagebert devices --selftest --device cuda     ten steps there and on the CPU, compared";
