//! The loss curve, as SVG.

use std::fmt::Write;

use serde_json::Value;

const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 260.0;
const MARGIN: f64 = 40.0;

/// Training and validation loss by step; a sentence where nothing was logged.
pub fn losses(log: &[Value]) -> String {
    let points = |split: Option<&str>| -> Vec<(f64, f64)> {
        log.iter()
            .filter(|line| line.get("split").and_then(Value::as_str) == split)
            .filter_map(|line| Some((line["step"].as_f64()?, line["loss"].as_f64()?)))
            .collect()
    };
    let (train, valid) = (points(None), points(Some("valid")));
    let all = || train.iter().chain(&valid);
    let steps = all().map(|point| point.0).fold(0.0, f64::max);
    let top = all().map(|point| point.1).fold(0.0, f64::max);
    if steps <= 0.0 || top <= 0.0 {
        return "<p>Nothing was logged.</p>\n".into();
    }
    let x = |step: f64| MARGIN + (WIDTH - 2.0 * MARGIN) * step / steps;
    let y = |loss: f64| HEIGHT - MARGIN - (HEIGHT - 2.0 * MARGIN) * loss / top;
    let path = |points: &[(f64, f64)]| {
        let places = points.iter().map(|(step, loss)| format!("{:.1},{:.1}", x(*step), y(*loss)));
        places.collect::<Vec<_>>().join(" ")
    };
    let mut svg = format!(
        "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"Training and validation \
         loss over {steps} steps\">\n"
    );
    for part in [0.0, 0.25, 0.5, 0.75, 1.0] {
        let (loss, at) = (top * part, y(top * part));
        let _infallible = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{MARGIN}\" x2=\"{:.0}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
             <text x=\"0\" y=\"{:.1}\">{loss:.2}</text>",
            WIDTH - MARGIN,
            at + 4.0
        );
    }
    let _infallible = writeln!(
        svg,
        "<polyline class=\"train\" points=\"{}\"/>\n<polyline class=\"valid\" \
         style=\"fill:none\" points=\"{}\"/>",
        path(&train),
        path(&valid)
    );
    for (step, loss) in &valid {
        let _infallible = writeln!(
            svg,
            "<circle class=\"valid\" cx=\"{:.1}\" cy=\"{:.1}\" r=\"3\"/>",
            x(*step),
            y(*loss)
        );
    }
    let _infallible = writeln!(
        svg,
        "<text x=\"{:.0}\" y=\"{:.0}\" text-anchor=\"end\">step {steps}</text>\n</svg>",
        WIDTH - MARGIN,
        HEIGHT - MARGIN + 20.0
    );
    svg + "<p class=\"quiet\">Thin blue: training loss, with dropout. Orange dots: validation loss, \
           without.</p>\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn lines_of_the_log_become_points() {
        let log = [
            json!({"step": 10, "loss": 0.8}),
            json!({"step": 20, "loss": 0.4}),
            json!({"step": 20, "split": "valid", "loss": 0.5}),
            json!({"step": 20, "split": "test", "loss": 9.0}),
        ];
        let svg = losses(&log);
        assert_eq!(svg.matches("<circle").count(), 1);
        assert!(svg.contains("points=\"450.0,40.0 860.0,130.0\""), "{svg}");
        assert!(losses(&[]).contains("Nothing"));
    }
}
