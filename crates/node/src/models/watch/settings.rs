//! From what a pipeline's file declares to what its monitors, triggers and guardrails take.
//!
//! Only translation: every default was settled when the file was read.

use falaj_definitions::pipelines as declared;
use falaj_definitions::pipelines::{Action, Bound, FeedbackJoin, InputKind, Pipeline};
use falaj_lifecycle::{GuardrailRule, TriggerCondition, TriggerRule};
use falaj_monitor::JoinRule;
use falaj_monitor::figures::MEAN_SCORE;
use falaj_monitor::metrics::names;
use falaj_monitor::settings::{
    ColumnKind, Correction, Figure, FigureWindows, InputColumn, Limit, MonitorSettings, Test,
};

use crate::models::outcomes::{declared_classes, judged_task};
use crate::models::rules::bounds;

/// The figure that says how often detectors raised an alarm within a drift window.
pub const DETECTOR_ALARMS: &str = "detector_alarms";

/// How a pipeline is watched.
pub fn monitor_settings(pipeline: &Pipeline) -> MonitorSettings {
    let monitors = &pipeline.monitors;
    let inputs = &pipeline.signature.inputs;
    let position = |name: &String| inputs.iter().position(|input| input.name == *name);
    let task = judged_task(pipeline, &declared_classes(pipeline));
    MonitorSettings {
        pipeline: pipeline.name.clone(),
        figures: figures(pipeline, &task),
        task,
        threshold: pipeline.serving.threshold,
        inputs: inputs
            .iter()
            .map(|input| InputColumn {
                name: input.name.clone(),
                kind: match input.kind {
                    InputKind::Numeric => ColumnKind::Number,
                    InputKind::Categorical | InputKind::Boolean => ColumnKind::Name,
                },
            })
            .collect(),
        columns: monitors.columns.iter().filter_map(position).collect(),
        slices: monitors.slices.iter().filter_map(position).collect(),
        window_us: monitors.window_us,
        min_rows: monitors.min_rows.into(),
        tests: monitors.tests.iter().filter_map(|name| Test::from_name(name)).collect(),
        correction: match monitors.correction {
            declared::Correction::None => Correction::None,
            declared::Correction::Bonferroni => Correction::Bonferroni,
            declared::Correction::Holm => Correction::Holm,
            declared::Correction::BenjaminiHochberg => Correction::BenjaminiHochberg,
        },
        alpha: monitors.alpha,
        spread: monitors.spread,
        detectors: monitors.detectors.clone(),
        estimate: monitors.estimate,
    }
}

/// Every length of window that anything looks at, shortest first, each with its figures.
fn figures(pipeline: &Pipeline, task: &falaj_monitor::Task) -> Vec<FigureWindows> {
    let mut all: Vec<FigureWindows> = Vec::new();
    let mut add = |length_us: u64, name: &str, limit: Option<Limit>| {
        let known = name == MEAN_SCORE || names(task).contains(&name);
        if !known || length_us == 0 {
            // Served figures (latency, errors) and the KPI are measured elsewhere.
            return;
        }
        let place = match all.iter().position(|windows| windows.length_us == length_us) {
            Some(place) => place,
            None => {
                all.push(FigureWindows { length_us, figures: Vec::new() });
                all.len() - 1
            }
        };
        let figures = &mut all[place].figures;
        match figures.iter_mut().find(|figure| figure.name == name) {
            Some(figure) => figure.limit = figure.limit.or(limit),
            None => figures.push(Figure { name: name.to_owned(), limit }),
        }
    };
    for length_us in &pipeline.monitors.metric_windows_us {
        for name in &pipeline.monitors.metrics {
            add(*length_us, name, None);
        }
    }
    for floor in &pipeline.retrain.floors {
        add(floor.window_us, &floor.metric, Some(limit(floor.bound)));
    }
    for guardrail in &pipeline.monitors.guardrails {
        add(guardrail.window_us, &guardrail.metric, Some(limit(guardrail.bound)));
    }
    all.sort_by_key(|windows| windows.length_us);
    all
}

fn limit(bound: Bound) -> Limit {
    match bound {
        Bound::AtLeast(least) => Limit::AtLeast(least),
        Bound::AtMost(most) => Limit::AtMost(most),
    }
}

/// How the pipeline's labels find its predictions.
pub fn join_rule(pipeline: &Pipeline) -> JoinRule {
    let within_us = match &pipeline.label.join {
        FeedbackJoin::PredictionId { within_us, .. } | FeedbackJoin::KeyAndTime { within_us } => {
            *within_us
        }
    };
    JoinRule { within_us, delay_us: pipeline.label.delay_us }
}

/// A figure of windows of one length, as rules name it.
pub fn figure_name(figure: &str, length_us: u64) -> String {
    format!("{figure}@{length_us}us")
}

/// What starts a run by itself.
pub fn trigger_rules(pipeline: &Pipeline) -> Vec<TriggerRule> {
    let retrain = &pipeline.retrain;
    let rule = |name: &str, condition, fire_after| TriggerRule {
        name: name.to_owned(),
        condition,
        fire_after,
        clear_after: 1,
        cooldown_us: retrain.cool_down_us,
        repeat_after_us: None,
    };
    let mut rules = Vec::new();
    if let Some(windows) = retrain.drift_windows {
        let condition =
            TriggerCondition::Drift { minimum_share: 0.0, calm_share: None, columns: Vec::new() };
        rules.push(rule("drift", condition, windows));
        if !pipeline.monitors.detectors.is_empty() {
            let condition = TriggerCondition::Metric {
                metric: DETECTOR_ALARMS.to_owned(),
                minimum: None,
                maximum: Some(0.0),
                margin: 0.0,
                minimum_support: 0,
            };
            rules.push(rule("detector", condition, 1));
        }
    }
    for floor in &retrain.floors {
        let (minimum, maximum) = bounds(floor.bound);
        let metric = figure_name(&floor.metric, floor.window_us);
        let name = format!("floor {metric}");
        let condition = TriggerCondition::Metric {
            metric,
            minimum,
            maximum,
            margin: 0.0,
            minimum_support: pipeline.monitors.min_rows.into(),
        };
        rules.push(rule(&name, condition, 1));
    }
    if let Some(count) = retrain.labels {
        rules.push(rule("labels", TriggerCondition::Labels { count: count.into() }, 1));
    }
    if let Some(every_us) = retrain.every_us.and_then(|us| i64::try_from(us).ok()) {
        rules.push(rule("schedule", TriggerCondition::Schedule { every_us }, 1));
    }
    rules
}

/// What takes a version out.
pub fn guardrail_rules(pipeline: &Pipeline) -> Vec<GuardrailRule> {
    let rule = |guardrail: &declared::Guardrail| {
        let (minimum, maximum) = bounds(guardrail.bound);
        let figure = figure_name(&guardrail.metric, guardrail.window_us);
        GuardrailRule {
            name: figure.clone(),
            figure,
            minimum,
            maximum,
            minimum_support: guardrail.minimum_support.into(),
            break_after: 1,
            mend_after: 1,
            rollback_within_us: (guardrail.action == Action::Rollback).then_some(u64::MAX),
        }
    };
    pipeline.monitors.guardrails.iter().map(rule).collect()
}
