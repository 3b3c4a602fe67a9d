//! Gates: what a trained version must fulfil before it may go further.
//!
//! [`GateRules::evaluate`] compares [`Evidence`] with the rules and lists every gate, passed or
//! failed, each naming the figure and the rule. A figure that is missing or not a number fails its
//! gate: nothing passes by absence. Does not know how a figure was measured.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};

/// Whether more of a figure is better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// More is better: AUC, accuracy, a KPI.
    HigherIsBetter,
    /// Less is better: log loss, Brier score, latency.
    LowerIsBetter,
}

/// A figure and the range that it must lie in.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AbsoluteGate {
    /// The figure's name in [`Evidence::metrics`].
    pub metric: String,
    /// The least value that passes.
    #[serde(default)]
    pub minimum: Option<f64>,
    /// The greatest value that passes.
    #[serde(default)]
    pub maximum: Option<f64>,
}

/// No worse than the champion by more than `delta`, on the same rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ChampionGate {
    /// The figure's name in both sets of metrics.
    pub metric: String,
    /// Which way is better.
    pub direction: Direction,
    /// The worsening that is tolerated, in the figure's own units; below 0 it is an improvement
    /// that is demanded.
    pub delta: f64,
}

/// A floor or ceiling in every slice that is large enough.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SliceGate {
    /// The column that cuts the slices.
    pub column: String,
    /// The figure's name in [`SliceEvidence::metrics`].
    pub metric: String,
    /// The least value that passes.
    #[serde(default)]
    pub minimum: Option<f64>,
    /// The greatest value that passes.
    #[serde(default)]
    pub maximum: Option<f64>,
    /// Rows below which a slice is not judged.
    pub minimum_support: u64,
}

/// What a pipeline demands of a trained version. Without any rule every version passes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GateRules {
    /// The least number of rows that the figures were measured on.
    pub minimum_rows: u64,
    /// Ranges of figures.
    pub absolute: Vec<AbsoluteGate>,
    /// Comparisons with the champion.
    pub champion: Vec<ChampionGate>,
    /// Floors per slice.
    pub slices: Vec<SliceGate>,
    /// The greatest expected calibration error (ECE; Naeini, Cooper and Hauskrecht, AAAI 2015).
    pub maximum_ece: Option<f64>,
    /// Latency budgets: percentile name (`p50`, `p99`) → microseconds.
    pub latency_us: BTreeMap<String, f64>,
    /// The business KPI's range, in its own units.
    pub kpi: Option<KpiGate>,
}

/// The business KPI's rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct KpiGate {
    /// The least value that passes.
    pub minimum: Option<f64>,
    /// How far below the champion's it may lie, on the same rows.
    pub champion_delta: Option<f64>,
}

/// What was measured.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    /// Rows that the figures were measured on.
    pub rows: u64,
    /// Names those rows (their digest): two figures compare only where it is the same.
    pub rows_digest: String,
    /// Figures by name.
    pub metrics: BTreeMap<String, f64>,
    /// The champion on the same rows; `None` where nothing serves yet.
    pub champion: Option<ChampionEvidence>,
    /// Figures per slice.
    pub slices: Vec<SliceEvidence>,
    /// Expected calibration error.
    pub ece: Option<f64>,
    /// Latency percentiles in microseconds.
    pub latency_us: BTreeMap<String, f64>,
    /// The business KPI.
    pub kpi: Option<f64>,
}

/// The champion's figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ChampionEvidence {
    /// Its version.
    pub version: u32,
    /// Names the rows that it was measured on.
    pub rows_digest: String,
    /// Figures by name.
    pub metrics: BTreeMap<String, f64>,
    /// Its business KPI.
    pub kpi: Option<f64>,
}

/// One slice's figures.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SliceEvidence {
    /// The column.
    pub column: String,
    /// The column's value in this slice.
    pub value: String,
    /// Rows in it.
    pub support: u64,
    /// Figures by name.
    pub metrics: BTreeMap<String, f64>,
}

/// How a gate came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The figure fulfils the rule.
    Passed,
    /// It does not, or there is no such figure.
    Failed,
    /// The rule does not apply: no champion yet, or a slice with too few rows.
    NotApplicable,
}

/// One gate: the figure, the rule, the verdict.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GateOutcome {
    /// What was measured, with its slice: `auc`, `recall[country=OM]`, `latency p99`.
    pub figure: String,
    /// Its value; `None` where it was not measured.
    pub value: Option<f64>,
    /// The rule in words, its bound included.
    pub rule: String,
    /// The verdict.
    pub verdict: Verdict,
}

impl fmt::Display for GateOutcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verdict = match self.verdict {
            Verdict::Passed => "passes",
            Verdict::Failed => "fails",
            Verdict::NotApplicable => "is not judged by",
        };
        match self.value {
            Some(value) => write!(f, "{} = {value} {verdict} {:?}", self.figure, self.rule),
            None => write!(f, "{} (not measured) {verdict} {:?}", self.figure, self.rule),
        }
    }
}

/// Every gate of one version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct GateReport {
    /// The gates, in the order of the rules.
    pub outcomes: Vec<GateOutcome>,
}

impl GateReport {
    /// Whether no gate failed.
    pub fn passed(&self) -> bool {
        self.failures().next().is_none()
    }

    /// The gates that failed.
    pub fn failures(&self) -> impl Iterator<Item = &GateOutcome> {
        self.outcomes.iter().filter(|outcome| outcome.verdict == Verdict::Failed)
    }
}

impl GateRules {
    /// Every gate, in the order: rows, absolute, champion, slices, calibration, latency, KPI.
    pub fn evaluate(&self, evidence: &Evidence) -> GateReport {
        let mut outcomes = Vec::new();
        if self.minimum_rows > 0 {
            let range = Range::at_least(self.minimum_rows as f64);
            outcomes.push(range.judge("rows".to_owned(), Some(evidence.rows as f64)));
        }
        for gate in &self.absolute {
            let range = Range { minimum: gate.minimum, maximum: gate.maximum };
            let value = evidence.metrics.get(&gate.metric).copied();
            outcomes.push(range.judge(gate.metric.clone(), value));
        }
        outcomes.extend(self.champion.iter().map(|gate| {
            let value = evidence.metrics.get(&gate.metric).copied();
            let champion = |c: &ChampionEvidence| c.metrics.get(&gate.metric).copied();
            against_champion(evidence, &gate.metric, value, champion, gate.direction, gate.delta)
        }));
        for gate in &self.slices {
            outcomes.extend(slice_outcomes(gate, evidence));
        }
        if let Some(maximum) = self.maximum_ece {
            outcomes.push(Range::at_most(maximum).judge("ece".to_owned(), evidence.ece));
        }
        for (percentile, budget) in &self.latency_us {
            let value = evidence.latency_us.get(percentile).copied();
            outcomes.push(Range::at_most(*budget).judge(format!("latency {percentile}"), value));
        }
        if let Some(gate) = &self.kpi {
            outcomes.extend(kpi_outcomes(gate, evidence));
        }
        GateReport { outcomes }
    }
}

fn kpi_outcomes(gate: &KpiGate, evidence: &Evidence) -> Vec<GateOutcome> {
    let mut outcomes = Vec::new();
    if let Some(minimum) = gate.minimum {
        outcomes.push(Range::at_least(minimum).judge("kpi".to_owned(), evidence.kpi));
    }
    if let Some(delta) = gate.champion_delta {
        let champion = |c: &ChampionEvidence| c.kpi;
        let better = Direction::HigherIsBetter;
        outcomes.push(against_champion(evidence, "kpi", evidence.kpi, champion, better, delta));
    }
    outcomes
}

/// One outcome per slice of the gate's column; one failure where the column was never cut.
fn slice_outcomes(gate: &SliceGate, evidence: &Evidence) -> Vec<GateOutcome> {
    let range = Range { minimum: gate.minimum, maximum: gate.maximum };
    let slices: Vec<_> = evidence.slices.iter().filter(|s| s.column == gate.column).collect();
    if slices.is_empty() {
        return vec![range.judge(format!("{}[{}=?]", gate.metric, gate.column), None)];
    }
    let judge = |slice: &&SliceEvidence| {
        let figure = format!("{}[{}={}]", gate.metric, slice.column, slice.value);
        let value = slice.metrics.get(&gate.metric).copied();
        if slice.support >= gate.minimum_support {
            return range.judge(figure, value);
        }
        let (has, needs) = (slice.support, gate.minimum_support);
        let rule = format!("{} (of slices of {needs} rows; this has {has})", range.words());
        GateOutcome { figure, value, rule, verdict: Verdict::NotApplicable }
    };
    slices.iter().map(judge).collect()
}

fn against_champion(
    evidence: &Evidence,
    figure: &str,
    value: Option<f64>,
    of_champion: impl Fn(&ChampionEvidence) -> Option<f64>,
    direction: Direction,
    delta: f64,
) -> GateOutcome {
    let outcome = |value, rule, verdict| GateOutcome {
        figure: format!("{figure} against champion"),
        value,
        rule,
        verdict,
    };
    let Some(champion) = &evidence.champion else {
        let rule = format!("no worse than the champion by {delta} (nothing serves yet)");
        return outcome(value, rule, Verdict::NotApplicable);
    };
    let version = champion.version;
    if champion.rows_digest != evidence.rows_digest || evidence.rows_digest.is_empty() {
        let rule = format!("measured on the same rows as version {version}");
        return outcome(value, rule, Verdict::Failed);
    }
    let Some(baseline) = of_champion(champion) else {
        let rule = format!("version {version} has the figure as well");
        return outcome(value, rule, Verdict::Failed);
    };
    let range = match direction {
        Direction::HigherIsBetter => Range::at_least(baseline - delta),
        Direction::LowerIsBetter => Range::at_most(baseline + delta),
    };
    let rule = format!("{} (version {version}: {baseline}, tolerance {delta})", range.words());
    outcome(value, rule, range.verdict(value))
}

struct Range {
    minimum: Option<f64>,
    maximum: Option<f64>,
}

impl Range {
    fn at_least(minimum: f64) -> Self {
        Self { minimum: Some(minimum), maximum: None }
    }

    fn at_most(maximum: f64) -> Self {
        Self { minimum: None, maximum: Some(maximum) }
    }

    /// A bound that is not a number lets nothing pass; neither does a range without any bound,
    /// which a file declares by mistake only.
    fn verdict(&self, value: Option<f64>) -> Verdict {
        let Some(value) = value.filter(|value| !value.is_nan()) else { return Verdict::Failed };
        let bounded = self.minimum.is_some() || self.maximum.is_some();
        let above = self.minimum.is_none_or(|minimum| value >= minimum);
        let below = self.maximum.is_none_or(|maximum| value <= maximum);
        if bounded && above && below { Verdict::Passed } else { Verdict::Failed }
    }

    fn words(&self) -> String {
        match (self.minimum, self.maximum) {
            (Some(minimum), None) => format!("at least {minimum}"),
            (None, Some(maximum)) => format!("at most {maximum}"),
            (Some(minimum), Some(maximum)) => format!("between {minimum} and {maximum}"),
            (None, None) => "a minimum or a maximum (the rule names neither)".to_owned(),
        }
    }

    fn judge(&self, figure: String, value: Option<f64>) -> GateOutcome {
        GateOutcome { figure, value, rule: self.words(), verdict: self.verdict(value) }
    }
}
