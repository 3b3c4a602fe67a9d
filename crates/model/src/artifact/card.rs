//! The model card: what a person reads before a model is approved.
//!
//! Markdown and SVG plots, made of the manifest alone: the same model has the same card.

use std::fmt::Write;

use super::Artifact;
use super::manifest::Manifest;
use super::svg::{Chart, Line, bars};
use crate::metrics::Metrics;
use crate::metrics::curves::CalibrationBin;
use crate::preprocess::Encoding;
use crate::spec::Task;

/// A card with its plots.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Card {
    /// The text; it names the plots by their file names.
    pub markdown: String,
    /// File name and SVG of each plot.
    pub plots: Vec<(String, String)>,
}

/// Text in a cell of a table.
fn cell(text: &str) -> String {
    text.replace('\\', "\\\\").replace('|', "\\|").replace(['\n', '\r'], " ").replace('<', "&lt;")
}

fn figure(metrics: &Metrics, name: &str) -> String {
    metrics.get(name).map_or_else(|| "–".to_owned(), |value| format!("{value:.4}"))
}

impl Card {
    /// The card of `artifact`.
    pub fn of(artifact: &Artifact) -> Self {
        let manifest = artifact.manifest();
        let plots = plots(manifest);
        let mut text = String::new();
        opening(&mut text, artifact.id(), manifest);
        figures(&mut text, manifest);
        if !plots.is_empty() {
            text.push_str("\n## Plots\n\n");
            for (name, _) in &plots {
                let _ = writeln!(text, "![{}]({name})", name.trim_end_matches(".svg"));
            }
        }
        slices(&mut text, manifest);
        inputs(&mut text, manifest);
        origin(&mut text, manifest);
        Self { markdown: text, plots }
    }
}

fn opening(text: &mut String, id: &str, manifest: &Manifest) {
    let task = match manifest.task {
        Task::Binary => "binary classification",
        Task::Multiclass => "multiclass classification",
        Task::Regression => "regression",
    };
    let rows = &manifest.report.rows;
    let _ = write!(
        text,
        "# {}\n\n`{id}`\n\n{task} of `{}` by `{}`, seed {}. Trained on {} rows, the oldest; validated \
         on the {} that follow; figures from the {} newest. {} rows had no label.\n",
        cell(&manifest.model),
        cell(&manifest.job.label),
        manifest.job.trainer.name(),
        manifest.job.seed,
        rows.train,
        rows.validation,
        if rows.test > 0 { rows.test } else { rows.validation },
        rows.without_label,
    );
    let classes = manifest.target.classes();
    if !classes.is_empty() {
        let list: Vec<String> = classes.iter().map(|class| format!("`{}`", cell(class))).collect();
        let _ = write!(text, "\nClasses: {}.\n", list.join(", "));
    }
}

fn figures(text: &mut String, manifest: &Manifest) {
    let report = &manifest.report;
    text.push_str(
        "\n## Figures\n\n| figure | train | validation | test |\n| --- | --- | --- | --- |\n",
    );
    for name in report.test.0.keys() {
        let _ = writeln!(
            text,
            "| {name} | {} | {} | {} |",
            figure(&report.train, name),
            figure(&report.validation, name),
            figure(&report.test, name)
        );
    }
    let _ = write!(
        text,
        "\nBest of {} passes: {}. Calibration: {:?}.\n",
        report.history.len(),
        report.best_epoch,
        manifest.job.calibration
    );
}

/// The figure that slices are compared by.
fn leading(task: Task) -> &'static str {
    match task {
        Task::Binary => "log_loss",
        Task::Multiclass => "accuracy",
        Task::Regression => "rmse",
    }
}

fn slices(text: &mut String, manifest: &Manifest) {
    if manifest.report.slices.is_empty() {
        return;
    }
    let names: &[&str] = match manifest.task {
        Task::Binary => &["rows", "log_loss", "auc", "brier", "accuracy", "calibration_error"],
        Task::Multiclass => &["rows", "log_loss", "accuracy", "f1"],
        Task::Regression => &["rows", "rmse", "mae", "r2"],
    };
    let _ = write!(text, "\n## Slices\n\n| slice | {} |\n|", names.join(" | "));
    text.push_str(&" --- |".repeat(names.len() + 1));
    text.push('\n');
    for slice in &manifest.report.slices {
        let value = slice.value.as_deref().unwrap_or("NULL");
        let cells: Vec<String> = names.iter().map(|name| figure(&slice.metrics, name)).collect();
        let _ =
            writeln!(text, "| {} = {} | {} |", cell(&slice.column), cell(value), cells.join(" | "));
    }
}

fn inputs(text: &mut String, manifest: &Manifest) {
    text.push_str(
        "\n## Inputs\n\n| column | type | may be missing | as |\n| --- | --- | --- | --- |\n",
    );
    for column in &manifest.preprocessing.columns {
        let encoding = match &column.encoding {
            Encoding::Number { mean, deviation, bins, .. } => {
                let bins = if bins.is_empty() {
                    String::new()
                } else {
                    format!(", {} bins", bins.len() - 1)
                };
                format!("mean {mean:.4}, deviation {deviation:.4}{bins}")
            }
            Encoding::Category { vocabulary } => format!("{} categories", vocabulary.len()),
        };
        let missing = if column.nullable { "yes" } else { "no" };
        let _ = writeln!(
            text,
            "| {} | {} | {missing} | {encoding} |",
            cell(&column.name),
            column.input.name()
        );
    }
}

fn origin(text: &mut String, manifest: &Manifest) {
    let origin = &manifest.provenance;
    let hardware = &manifest.hardware;
    text.push_str("\n## Origin\n\n");
    let epochs = origin.epochs.map(|(first, last)| format!("{first} to {last}"));
    let rows = [
        ("run", origin.run.clone()),
        ("epochs", epochs.unwrap_or_default()),
        ("features joined", origin.mode.clone()),
        ("pipeline", origin.pipeline.clone()),
        ("commit", origin.git_commit.clone()),
        ("version", origin.code_version.clone()),
        ("hardware", format!("{} {}", hardware.backend, hardware.name)),
    ];
    for (name, value) in rows.iter().filter(|(_, value)| !value.is_empty()) {
        let _ = writeln!(text, "* {name}: {}", cell(value));
    }
    for view in &origin.views {
        let _ = writeln!(text, "* view {}: {}", cell(&view.name), cell(&view.definition));
    }
}

fn line(name: &str, points: Vec<(f64, f64)>) -> Line {
    Line { name: name.to_owned(), points, dashed: false }
}

fn chart(title: &str, x_name: &str, y_name: &str, lines: Vec<Line>) -> String {
    let own = |text: &str| text.to_owned();
    Chart { title: own(title), x_name: own(x_name), y_name: own(y_name), lines }.to_svg()
}

fn plots(manifest: &Manifest) -> Vec<(String, String)> {
    let report = &manifest.report;
    let mut plots = Vec::new();
    let mut add = |name: &str, drawing: String| plots.push((format!("{name}.svg"), drawing));
    if !report.history.is_empty() {
        let points = |value: fn(&crate::train::events::EpochPoint) -> f64| {
            report.history.iter().map(|point| (f64::from(point.epoch), value(point))).collect()
        };
        let lines = vec![
            line("train", points(|point| point.train_loss)),
            line("validation", points(|point| point.validation_loss)),
        ];
        add("loss", chart("Loss", "pass", "loss", lines));
    }
    let chance =
        || Line { name: "chance".to_owned(), points: vec![(0.0, 0.0), (1.0, 1.0)], dashed: true };
    if !report.roc.is_empty() {
        let lines = vec![line("model", report.roc.clone()), chance()];
        add("roc", chart("ROC", "false positive rate", "true positive rate", lines));
    }
    if !report.reliability.is_empty() {
        let points = |bins: &[CalibrationBin]| {
            bins.iter().filter(|bin| bin.rows > 0).map(|bin| (bin.score, bin.share)).collect()
        };
        let perfect = Line { name: "perfect".to_owned(), ..chance() };
        let lines = vec![
            line("calibrated", points(&report.reliability)),
            line("as trained", points(&report.reliability_raw)),
            perfect,
        ];
        add("calibration", chart("Calibration", "mean score", "share of positives", lines));
    }
    if !report.slices.is_empty() {
        let name = leading(manifest.task);
        let row = |slice: &crate::metrics::Slice| {
            let value = slice.metrics.get(name)?;
            let label = format!("{} = {}", slice.column, slice.value.as_deref().unwrap_or("NULL"));
            Some((label, value, format!("{value:.4}")))
        };
        let rows: Vec<_> = report.slices.iter().filter_map(row).collect();
        add("slices", bars(&format!("{name} by slice"), &rows));
    }
    plots
}
