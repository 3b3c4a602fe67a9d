//! Tables: what was measured, its baseline, the ratio and the target.
//!
//! Does not know what the figures mean.

use crate::Scale;
use crate::measure;

/// Which side of a target is good.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Target {
    /// The ratio should be at least this.
    AtLeast(f64),
    /// The ratio should be at most this.
    AtMost(f64),
    /// The figure itself should be at least this.
    FigureAtLeast(f64, &'static str),
    /// The figure itself should be at most this.
    FigureAtMost(f64, &'static str),
    /// There is none; the figure is stated.
    Stated,
}

/// A table under construction.
pub struct Table {
    title: String,
    scale: Scale,
    load_before: f64,
    rows: Vec<[String; 6]>,
    notes: Vec<String>,
}

const HEAD: [&str; 6] = ["measured", "figure", "baseline", "ratio", "target", ""];

impl Table {
    /// An empty table; notes the load of the machine.
    pub fn new(title: &str, scale: Scale) -> Self {
        Self {
            title: title.to_owned(),
            scale,
            load_before: measure::load(),
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// A figure beside its baseline, both in `unit`; the ratio is figure ÷ baseline.
    pub fn ratio(&mut self, name: &str, figure: f64, baseline: f64, unit: &str, target: Target) {
        self.paired(name, figure, baseline, figure / baseline, unit, target);
    }

    /// As [`Table::ratio`] with a ratio of its own: the median over rounds, say.
    pub fn paired(
        &mut self,
        name: &str,
        figure: f64,
        baseline: f64,
        ratio: f64,
        unit: &str,
        target: Target,
    ) {
        self.push(name, figure, unit, Some((baseline, ratio)), target);
    }

    /// A figure that has no baseline.
    pub fn figure(&mut self, name: &str, figure: f64, unit: &str, target: Target) {
        self.push(name, figure, unit, None, target);
    }

    /// A line below the table: the limit of a hot path, a condition.
    pub fn note(&mut self, text: impl Into<String>) {
        self.notes.push(text.into());
    }

    fn push(
        &mut self,
        name: &str,
        figure: f64,
        unit: &str,
        baseline: Option<(f64, f64)>,
        target: Target,
    ) {
        let ratio = baseline.map_or(f64::NAN, |(_, ratio)| ratio);
        let (wanted, met) = match target {
            Target::AtLeast(limit) => (format!("≥ {limit}×"), Some(ratio >= limit)),
            Target::AtMost(limit) => (format!("≤ {limit}×"), Some(ratio <= limit)),
            Target::FigureAtLeast(limit, text) => (format!("≥ {text}"), Some(figure >= limit)),
            Target::FigureAtMost(limit, text) => (format!("≤ {text}"), Some(figure <= limit)),
            Target::Stated => ("stated".to_owned(), None),
        };
        let verdict = match met {
            _ if !self.scale.measured => "",
            Some(true) => "met",
            Some(false) => "MISSED",
            None => "",
        };
        self.rows.push([
            name.to_owned(),
            amount(figure, unit),
            baseline.map_or_else(String::new, |(baseline, _)| amount(baseline, unit)),
            baseline.map_or_else(String::new, |(_, ratio)| times(ratio)),
            wanted,
            verdict.to_owned(),
        ]);
    }

    /// Prints the table, the notes and the conditions.
    pub fn print(&self) {
        let cores = std::thread::available_parallelism().map_or(0, usize::from);
        println!("\n{}", self.title);
        if !self.scale.measured {
            println!("(token sizes: these figures say only that the bench runs)");
        }
        let head = HEAD.map(str::to_owned);
        let all: Vec<&[String; 6]> = std::iter::once(&head).chain(&self.rows).collect();
        let width = |column: usize| all.iter().map(|row| row[column].chars().count()).max();
        let widths: Vec<usize> = (0..HEAD.len()).map(|c| width(c).unwrap_or(0)).collect();
        for row in all {
            let cells = row.iter().zip(&widths).enumerate().map(|(column, (cell, width))| {
                let gap = " ".repeat(width.saturating_sub(cell.chars().count()));
                if column == 0 || column > 3 {
                    format!("{cell}{gap}")
                } else {
                    format!("{gap}{cell}")
                }
            });
            println!("  {}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        for note in &self.notes {
            println!("  · {note}");
        }
        println!(
            "  · {cores} cores; load of the machine {:.1} before, {:.1} after",
            self.load_before,
            measure::load()
        );
    }
}

/// A figure with its unit; seconds in the unit that fits.
fn amount(value: f64, unit: &str) -> String {
    if !value.is_finite() {
        return "too short to tell".to_owned();
    }
    if unit == "s" {
        return match value {
            v if v < 1e-3 => format!("{:.1} µs", v * 1e6),
            v if v < 1.0 => format!("{:.2} ms", v * 1e3),
            v => format!("{v:.2} s"),
        };
    }
    if unit == "MiB" {
        return format!("{:.0} MiB", value / f64::from(1 << 20));
    }
    match value.abs() {
        v if v >= 1000.0 => format!("{} {unit}", grouped(value.round() as i64)),
        v if v >= 10.0 => format!("{value:.1} {unit}"),
        _ => format!("{value:.2} {unit}"),
    }
}

fn times(ratio: f64) -> String {
    match ratio {
        ratio if !ratio.is_finite() || ratio == 0.0 => "–".to_owned(),
        ratio if ratio >= 100.0 => format!("{ratio:.0}×"),
        ratio => format!("{ratio:.2}×"),
    }
}

fn grouped(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    if value < 0 { format!("-{out}") } else { out }
}
