//! `RUN/report.html`: one page about a run, for people. It loads nothing from anywhere.
//!
//! Owns its layout. Figures come from elsewhere; texts are escaped here.

mod chart;

use std::fmt::Write;

use serde_json::Value;

use crate::data::{SideCounts, excerpt};
use crate::metrics::Report;
use crate::run_record::RunRecord;

const STYLE: &str = include_str!("report/style.css");
/// Mistakes shown, the surest first.
pub const MISTAKES: usize = 25;

/// What the report tells.
pub struct Input<'a> {
    /// `run.toml`.
    pub record: &'a RunRecord,
    /// Rows per class and side.
    pub counts: &'a SideCounts,
    /// The lines of `metrics.jsonl`.
    pub log: &'a [Value],
    /// Figures on the test side, if there is one.
    pub test: Option<&'a Report>,
    /// Texts of the test side that were labelled wrong, the surest first.
    pub mistakes: &'a [Mistake],
}

/// A text that was labelled wrong.
pub struct Mistake {
    /// Its row number in the data.
    pub row: u64,
    /// The text.
    pub text: String,
    /// Its label.
    pub truth: String,
    /// What the model says.
    pub predicted: String,
    /// How sure the model is.
    pub score: f32,
}

/// The page.
pub fn html(input: &Input<'_>) -> String {
    let mut body = String::new();
    summary(&mut body, input);
    body += "<h2>Training</h2>\n";
    body += &chart::losses(input.log);
    if let Some(test) = input.test {
        figures(&mut body, test);
        confusion(&mut body, test);
    }
    mistakes(&mut body, input.mistakes);
    counts(&mut body, input.counts);
    settings(&mut body, input.record);
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src \
         'unsafe-inline'\">\n<title>Pagebert run</title>\n<style>{STYLE}</style>\n</head>\n<body>\n\
         <main>\n{body}</main>\n</body>\n</html>\n"
    )
}

fn summary(out: &mut String, input: &Input<'_>) {
    let RunRecord { base, data, started, device, computed_in, .. } = input.record;
    let data = data.path.display().to_string();
    let _infallible = write!(
        out,
        "<h1>Fine-tuned from {}</h1>\n<p class=\"quiet\">on {}, begun {}, on {} in {}</p>\n",
        escape(base),
        escape(&data),
        escape(started),
        escape(device),
        escape(computed_in)
    );
    if let Some(test) = input.test {
        *out += "<dl class=\"figures\">\n";
        for (name, value) in [
            ("test accuracy", percent(test.accuracy)),
            ("macro F1", percent(test.macro_f1)),
            ("loss", format!("{:.4}", test.loss)),
            ("texts", test.rows.to_string()),
        ] {
            let _infallible = writeln!(out, "<div><dt>{name}</dt><dd>{value}</dd></div>");
        }
        *out += "</dl>\n";
    }
    if let Some(best) = best_validation(input.log) {
        let figure = |name: &str| best[name].as_f64().unwrap_or(f64::NAN);
        let _infallible = writeln!(
            out,
            "<p>Best on the validation side, and kept: step {}, with accuracy {}, macro F1 {}, \
             loss {:.4}.</p>",
            figure("step"),
            percent(figure("accuracy")),
            percent(figure("macro_f1")),
            figure("loss")
        );
    }
}

/// The line of the log on the checkpoint that was kept: of equal losses the first, as in training.
fn best_validation(log: &[Value]) -> Option<&Value> {
    let valid = log.iter().filter(|line| line["split"] == "valid" && line["loss"].is_f64());
    let loss = |line: &Value| line["loss"].as_f64().unwrap_or(f64::INFINITY);
    valid.min_by(|a, b| loss(a).total_cmp(&loss(b)))
}

fn figures(out: &mut String, test: &Report) {
    *out += "<h2>Classes, on the test side</h2>\n";
    let rows = test.classes.iter().map(|class| {
        vec![
            escape(&class.label),
            percent(class.precision),
            percent(class.recall),
            percent(class.f1),
            class.support.to_string(),
        ]
    });
    table(out, &["label", "precision", "recall", "F1", "texts"], rows);
}

fn confusion(out: &mut String, test: &Report) {
    let names: Vec<String> = test.classes.iter().map(|class| escape(&class.label)).collect();
    *out += "<h2>Confusion matrix</h2>\n<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr><th>has ↓ given →</th>";
    out.extend(names.iter().map(|name| format!("<th scope=\"col\">{name}</th>")));
    *out += "</tr></thead>\n<tbody>\n";
    for (truth, (name, row)) in names.iter().zip(&test.confusion).enumerate() {
        let support = row.iter().sum::<u64>().max(1);
        let _infallible = write!(out, "<tr><th scope=\"row\">{name}</th>");
        for (predicted, count) in row.iter().enumerate() {
            let kind = if truth == predicted { "right" } else { "wrong" };
            let share = *count as f64 / support as f64;
            let _infallible =
                write!(out, "<td class=\"{kind}\" style=\"--share:{share:.3}\">{count}</td>");
        }
        *out += "</tr>\n";
    }
    *out += "</tbody>\n</table></div>\n";
}

fn mistakes(out: &mut String, mistakes: &[Mistake]) {
    if mistakes.is_empty() {
        return;
    }
    *out += "<h2>Surest mistakes</h2>\n<p class=\"quiet\">Labels that are wrong in the data often \
             show up here.</p>\n";
    let rows = mistakes.iter().map(|mistake| {
        vec![
            mistake.row.to_string(),
            escape(&mistake.truth),
            escape(&mistake.predicted),
            percent(f64::from(mistake.score)),
            escape(&excerpt(&mistake.text, 300)),
        ]
    });
    *out += "<div class=\"mistakes\">\n";
    table(out, &["row", "has", "given", "probability", "text"], rows);
    *out += "</div>\n";
}

fn counts(out: &mut String, counts: &SideCounts) {
    *out += "<h2>Data</h2>\n";
    let rows = counts.labels.iter().enumerate().map(|(id, label)| {
        let side = |rows: &[usize]| rows.get(id).copied().unwrap_or(0).to_string();
        vec![escape(label), side(&counts.train), side(&counts.valid), side(&counts.test)]
    });
    table(out, &["label", "train", "valid", "test"], rows);
}

fn settings(out: &mut String, record: &RunRecord) {
    let _infallible = write!(
        out,
        "<h2>Settings</h2>\n<pre>{}</pre>\n",
        escape(&record.to_toml().unwrap_or_default())
    );
}

fn table(out: &mut String, header: &[&str], rows: impl Iterator<Item = Vec<String>>) {
    *out += "<div class=\"scroll\" tabindex=\"0\"><table>\n<thead><tr>";
    out.extend(header.iter().map(|name| format!("<th scope=\"col\">{name}</th>")));
    *out += "</tr></thead>\n<tbody>\n";
    for row in rows {
        *out += "<tr>";
        out.extend(row.iter().map(|cell| format!("<td>{cell}</td>")));
        *out += "</tr>\n";
    }
    *out += "</tbody>\n</table></div>\n";
}

fn percent(part: f64) -> String {
    format!("{:.2} %", 100.0 * part)
}

/// Foreign text, harmless in HTML.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped += "&amp;",
            '<' => escaped += "&lt;",
            '>' => escaped += "&gt;",
            '"' => escaped += "&quot;",
            '\'' => escaped += "&#39;",
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use serde_json::json;

    use super::*;
    use crate::data::Side;
    use crate::metrics::Tally;
    use crate::run_record::DataRecord;
    use crate::settings::Settings;

    fn record() -> RunRecord {
        RunRecord {
            pagebert: "1".into(),
            started: "2026-01-01T00:00:00Z".into(),
            base: "hf:org/<base>@1".into(),
            base_sha256: "0".into(),
            device: "cpu".into(),
            computed_in: "f32".into(),
            data: DataRecord {
                path: PathBuf::from("/data/a&b.csv"),
                sha256: "1".into(),
                text_columns: vec!["text".into()],
                label_column: "label".into(),
                delimiter: None,
                skip_bad_rows: false,
            },
            valid: None,
            test: None,
            settings: Settings::default(),
        }
    }

    #[test]
    fn the_page_has_every_figure_and_asks_nobody_for_anything() {
        let record = record();
        let labels = ["no".to_string(), "<yes>".to_string()];
        let rows = [(0, Side::Train), (1, Side::Train), (1, Side::Test)].into_iter();
        let counts = SideCounts::new(&labels, rows);
        let log = [
            json!({"step": 5, "loss": 0.9}),
            json!({"step": 5, "split": "valid", "accuracy": 0.5, "macro_f1": 0.5, "loss": 0.75}),
            json!({"step": 9, "split": "valid", "accuracy": 0.9, "macro_f1": 0.9, "loss": 0.25}),
            json!({"step": 12, "split": "valid", "accuracy": 1.0, "macro_f1": 1.0, "loss": null}),
        ];
        let mut tally = Tally::new(&labels);
        tally.add(1, &[0.0, 3.0]);
        let test = tally.report();
        let page = html(&Input {
            record: &record,
            counts: &counts,
            log: &log,
            test: Some(&test),
            mistakes: &[],
        });
        for words in [
            "&lt;yes&gt;",
            "a&amp;b.csv",
            "&lt;base&gt;",
            "test accuracy",
            "100.00 %",
            "kept: step 9, with accuracy 90.00 %",
            "<polyline",
            "split_seed = ",
        ] {
            assert!(page.contains(words), "{words}: {page}");
        }
        for words in ["<yes>", "<base>", "src=", "href=", "@import", "url(", "<script"] {
            assert!(!page.contains(words), "{words}: {page}");
        }
        let page =
            html(&Input { record: &record, counts: &counts, log: &[], test: None, mistakes: &[] });
        assert!(!page.contains("test accuracy") && !page.contains("kept: step"), "{page}");
    }

    #[test]
    fn foreign_text_stays_text() {
        let mut out = String::new();
        let mistake = Mistake {
            row: 3,
            text: "<script>alert(\"1\")</script> & 'more'".into(),
            truth: "<a>".into(),
            predicted: "b".into(),
            score: 0.987,
        };
        mistakes(&mut out, &[mistake]);
        assert!(!out.contains("<script") && !out.contains("<a>"), "{out}");
        assert!(out.contains("&lt;script&gt;") && out.contains("98.70 %"), "{out}");
    }
}
