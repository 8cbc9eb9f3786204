//! What people see while work goes on: notes, warnings and bars, all on stderr.
//!
//! On a terminal a bar carries rate and time left. On a pipe there is no bar, only a plain line now
//! and then, so that a log stays readable. Owns the manners of stderr; must not know what the work
//! is, and never writes to stdout, which belongs to data.

use std::io::IsTerminal;
use std::ops::Range;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};

/// How often a bar on a pipe says a line: rarely enough for a log of hours.
const LINE_EVERY: Duration = Duration::from_secs(30);

/// How much is said.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verbosity {
    /// Warnings and errors.
    Quiet,
    /// Notes and progress as well.
    #[default]
    Normal,
    /// Details as well.
    Verbose,
}

/// The way to stderr. Clones share one screen, so that a note never tears a bar.
#[derive(Debug, Clone)]
pub struct Console {
    verbosity: Verbosity,
    terminal: bool,
    bars: MultiProgress,
}

impl Console {
    /// A console for this process's stderr.
    pub fn new(verbosity: Verbosity) -> Console {
        let terminal = std::io::stderr().is_terminal();
        let target =
            if terminal { ProgressDrawTarget::stderr() } else { ProgressDrawTarget::hidden() };
        Console { verbosity, terminal, bars: MultiProgress::with_draw_target(target) }
    }

    /// How much is said.
    pub fn verbosity(&self) -> Verbosity {
        self.verbosity
    }

    /// A line of progress. `--quiet` hides it.
    pub fn note(&self, line: impl AsRef<str>) {
        if self.verbosity >= Verbosity::Normal {
            self.line(line.as_ref());
        }
    }

    /// A line for the curious, shown with `--verbose`.
    pub fn detail(&self, line: impl AsRef<str>) {
        if self.verbosity >= Verbosity::Verbose {
            self.line(line.as_ref());
        }
    }

    /// A line that is always shown: the result may not be what the user thinks it is.
    pub fn warn(&self, line: impl AsRef<str>) {
        self.line(&format!("warning: {}", line.as_ref()));
    }

    /// A bar towards `total`; it goes away when dropped. A total of 0 means that it is unknown.
    pub fn bar(&self, what: &str, total: u64, unit: Unit) -> Bar {
        self.bar_from(what, 0, total, unit)
    }

    /// A bar of work that was begun before: rate and time left are those of what is done from now.
    pub fn bar_from(&self, what: &str, done: u64, total: u64, unit: Unit) -> Bar {
        let visible = self.verbosity >= Verbosity::Normal;
        let bar = if visible && self.terminal {
            let bar = self.bars.add(ProgressBar::new(total));
            bar.set_style(unit.style(total > 0));
            bar.set_prefix(what.to_string());
            bar.set_position(done);
            // The rate is taken from what a tick sees, so: see what is done, then forget the rate.
            bar.tick();
            bar.reset_eta();
            bar.enable_steady_tick(Duration::from_millis(200));
            bar
        } else {
            ProgressBar::hidden().with_position(done)
        };
        let lines = (visible && !self.terminal).then(|| Mutex::new(Instant::now()));
        Bar {
            console: self.clone(),
            what: what.to_string(),
            unit,
            bar,
            done,
            total,
            started: Instant::now(),
            lines,
        }
    }

    fn line(&self, line: &str) {
        self.bars.suspend(|| eprintln!("{line}"));
    }
}

/// What a bar counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unit {
    /// Things, named in the plural: `steps`.
    Items(&'static str),
    /// Bytes, shown in binary multiples.
    Bytes,
}

impl Unit {
    fn style(self, total_known: bool) -> ProgressStyle {
        let (position, rate) = match self {
            Unit::Items(_) => ("{human_pos}", "{rate}"),
            Unit::Bytes => ("{binary_bytes}", "{binary_bytes_per_sec}"),
        };
        let total = match self {
            Unit::Items(name) => format!("{{human_len}} {name}"),
            Unit::Bytes => "{binary_total_bytes}".to_string(),
        };
        let template = if total_known {
            format!("{{prefix}} {{bar:24}} {position}/{total}  {rate}  {{eta}} left  {{msg}}")
        } else {
            format!("{{prefix}} {{spinner}} {position}  {rate}  {{msg}}")
        };
        // Plain glyphs: they need no colour and survive every terminal font.
        ProgressStyle::with_template(&template)
            .unwrap_or_else(|_| ProgressStyle::default_bar())
            .progress_chars("=> ")
            .with_key("rate", |state: &ProgressState, out: &mut dyn std::fmt::Write| {
                // A formatter has nobody to report to.
                let _ = write!(out, "{:.1}/s", state.per_sec());
            })
    }

    fn show(self, count: u64) -> String {
        match self {
            Unit::Items(_) => indicatif::HumanCount(count).to_string(),
            Unit::Bytes => indicatif::BinaryBytes(count).to_string(),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Unit::Items(name) => name,
            Unit::Bytes => "",
        }
    }
}

/// Progress of one piece of work.
#[derive(Debug)]
pub struct Bar {
    console: Console,
    what: String,
    unit: Unit,
    bar: ProgressBar,
    /// What was done before.
    done: u64,
    total: u64,
    started: Instant,
    /// When the last line was said, where lines stand in for the bar.
    lines: Option<Mutex<Instant>>,
}

impl Bar {
    /// Says how far the work is.
    pub fn set(&self, position: u64) {
        self.bar.set_position(position);
        self.maybe_line();
    }

    /// Says that so much more is done.
    pub fn add(&self, count: u64) {
        self.bar.inc(count);
        self.maybe_line();
    }

    /// How far the work is.
    pub fn position(&self) -> u64 {
        self.bar.position()
    }

    /// A few words behind the bar, such as the loss.
    pub fn message(&self, words: impl Into<String>) {
        self.bar.set_message(words.into());
    }

    fn maybe_line(&self) {
        let Some(last) = &self.lines else { return };
        // A poisoned clock is still a clock.
        let mut last = last.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if last.elapsed() < LINE_EVERY {
            return;
        }
        *last = Instant::now();
        let line = plain_line(
            &self.what,
            self.unit,
            self.done..self.bar.position(),
            self.total,
            self.started.elapsed(),
            &self.bar.message(),
        );
        self.console.line(&line);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
        self.console.bars.remove(&self.bar);
    }
}

/// One log line: `training: 120/960 steps, 12.5/s, 1m 7s left, loss 0.41`. The position goes from
/// what was done before, which has no part in the rate.
fn plain_line(
    what: &str,
    unit: Unit,
    Range { start: before, end: position }: Range<u64>,
    total: u64,
    elapsed: Duration,
    message: &str,
) -> String {
    let mut line = format!("{what}: {}", unit.show(position));
    if total > 0 {
        line += &format!("/{}", unit.show(total));
    }
    if !unit.name().is_empty() {
        line += &format!(" {}", unit.name());
    }
    let rate = position.saturating_sub(before) as f64 / elapsed.as_secs_f64().max(1e-9);
    line += &match unit {
        Unit::Items(_) => format!(", {rate:.1}/s"),
        Unit::Bytes => format!(", {}/s", unit.show(rate as u64)),
    };
    if total > position && rate > 0.0 {
        let left = Duration::from_secs_f64(((total - position) as f64 / rate).min(1e9));
        line += &format!(", {} left", human_duration(left));
    }
    if !message.is_empty() {
        line += &format!(", {message}");
    }
    line
}

/// A duration in the two largest units that matter: `1h 4m`, `2m 5s`, `48s`, `0.3s`.
pub fn human_duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1}s", duration.as_secs_f64()),
        10..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {}s", seconds / 60, seconds % 60),
        _ => format!("{}h {}m", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A number of bytes for people: `86.6 MiB`.
pub fn human_bytes(bytes: u64) -> String {
    indicatif::BinaryBytes(bytes).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_line_has_rate_and_time_left() {
        let cases = [
            (
                Unit::Items("steps"),
                120,
                960,
                10,
                "loss 0.41",
                "work: 120/960 steps, 12.0/s, 1m 10s left, loss 0.41",
            ),
            (Unit::Items("texts"), 5000, 0, 2, "", "work: 5,000 texts, 2500.0/s"),
            (Unit::Items("texts"), 10, 10, 2, "", "work: 10/10 texts, 5.0/s"),
            (
                Unit::Bytes,
                1 << 20,
                3 << 20,
                1,
                "",
                "work: 1.00 MiB/3.00 MiB, 1.00 MiB/s, 2.0s left",
            ),
        ];
        for (unit, position, total, seconds, message, expected) in cases {
            let elapsed = Duration::from_secs(seconds);
            assert_eq!(plain_line("work", unit, 0..position, total, elapsed, message), expected);
        }
    }

    #[test]
    fn a_start_without_a_rate_promises_nothing() {
        let line = plain_line("work", Unit::Items("steps"), 0..0, 10, Duration::from_secs(1), "");
        assert_eq!(line, "work: 0/10 steps, 0.0/s");
    }

    #[test]
    fn what_was_done_before_makes_nothing_faster() {
        let elapsed = Duration::from_secs(10);
        let line = plain_line("work", Unit::Items("steps"), 900..920, 1000, elapsed, "");
        assert_eq!(line, "work: 920/1,000 steps, 2.0/s, 40s left");
        let bar = Console::new(Verbosity::Quiet).bar_from("work", 900, 1000, Unit::Items("steps"));
        assert_eq!(bar.position(), 900);
    }

    #[test]
    fn durations_read_well() {
        for (milliseconds, expected) in
            [(300, "0.3s"), (48_000, "48s"), (125_000, "2m 5s"), (3_840_000, "1h 4m")]
        {
            assert_eq!(human_duration(Duration::from_millis(milliseconds)), expected);
        }
    }

    #[test]
    fn bars_count() {
        let console = Console::new(Verbosity::Quiet);
        let bar = console.bar("work", 10, Unit::Items("steps"));
        bar.set(3);
        bar.add(2);
        assert_eq!(bar.position(), 5);
    }
}
