//! Scores against SciPy's and Evidently's values on the shared reference data, and against small
//! cases that travel with the code.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value as Json;

use super::*;
use crate::distance::shares;
use crate::samples::{asymptotic_p_value, kolmogorov_smirnov, moments, sorted, wasserstein};

/// The folder of the shared data set, beside this working copy or above it.
fn shared() -> Option<PathBuf> {
    let named = std::env::var_os("FALAJ_SHARED").map(|root| PathBuf::from(root).join("data/drift"));
    let above = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors();
    let found = named.into_iter().chain(above.map(|folder| folder.join("shared/data/drift")));
    let found = found.into_iter().find(|folder| folder.join("reference_values.json").exists());
    if found.is_none() {
        println!("skipped: shared/data/drift is not there");
    }
    found
}

fn columns(path: &Path) -> BTreeMap<String, Vec<String>> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines().map(|line| line.trim_end().split(','));
    let names: Vec<&str> = lines.next().unwrap().collect();
    let mut columns: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in lines {
        for (name, cell) in names.iter().zip(line) {
            columns.entry((*name).to_owned()).or_default().push(cell.to_owned());
        }
    }
    columns
}

fn close(found: f64, expected: &Json, what: &str) {
    let expected = expected.as_f64().unwrap();
    assert!((found - expected).abs() <= 1e-9, "{what}: {found} is not {expected}");
    // p-values far below 1e-9 are compared by their size as well.
    if expected > 0.0 && expected < 1e-6 {
        assert!((found / expected - 1.0).abs() <= 1e-6, "{what}: {found} is not {expected}");
    }
}

fn counts(bins: &BinDefinition, values: &[f64]) -> Vec<u64> {
    let mut counts = vec![0; bins.len()];
    for bin in values.iter().filter_map(|value| bins.of_number(*value)) {
        counts[bin] += 1;
    }
    counts
}

fn check_numeric(name: &str, reference: &[f64], current: &[f64], expected: &Json) {
    let (left, right) = (sorted(reference), sorted(current));
    let test = kolmogorov_smirnov(&left, &right, None).unwrap();
    close(test.statistic, &expected["ks"], &format!("{name} ks"));
    close(test.p_value, &expected["ks_p"], &format!("{name} ks_p"));
    let asymptotic = asymptotic_p_value(left.len() as u64, right.len() as u64, test.statistic);
    close(asymptotic, &expected["ks_p_asymp"], &format!("{name} ks_p_asymp"));
    let distance = wasserstein(&left, &right).unwrap();
    close(distance, &expected["wasserstein"], &format!("{name} wasserstein"));
    let (mean, deviation) = moments(reference);
    close(mean, &expected["mean_reference"], &format!("{name} mean"));
    close(deviation, &expected["std_reference"], &format!("{name} std"));
    let (mean, spread) = moments(current);
    close(mean, &expected["mean_current"], &format!("{name} mean of the window"));
    close(spread, &expected["std_current"], &format!("{name} std of the window"));
    let normed = samples::normalised(distance, deviation);
    close(normed, &expected["wasserstein_normed"], &format!("{name} wasserstein_normed"));

    let both: Vec<f64> = reference.iter().chain(current).copied().collect();
    let mut distinct = left.clone();
    distinct.dedup();
    let bins = if distinct.len() <= 20 {
        BinDefinition::distinct(both)
    } else {
        BinDefinition::sturges(&both).unwrap()
    };
    assert_eq!(bins.len() as u64, expected["bins"].as_u64().unwrap(), "{name} bins");
    if let (BinDefinition::Edges { edges, .. }, Json::Array(listed)) = (&bins, &expected["edges"]) {
        for (edge, listed) in edges.iter().zip(listed) {
            close(*edge, listed, &format!("{name} edges"));
        }
    }
    let p = shares(&counts(&bins, reference)).unwrap();
    let q = shares(&counts(&bins, current)).unwrap();
    let js = distance::jensen_shannon_distance(&p, &q, LogBase::E).unwrap();
    close(js, &expected["js"], &format!("{name} js"));
    let psi = distance::psi(&p, &q, ZeroRule::Evidently).unwrap();
    close(psi, &expected["psi"], &format!("{name} psi"));

    let bins = BinDefinition::quantiles(&left, 10).unwrap();
    let BinDefinition::Cuts { cuts, .. } = &bins else { panic!("quantiles are cuts") };
    for (cut, listed) in cuts.iter().zip(expected["quantile_cuts"].as_array().unwrap()) {
        close(*cut, listed, &format!("{name} quantile_cuts"));
    }
    let p = shares(&counts(&bins, reference)).unwrap();
    let q = shares(&counts(&bins, current)).unwrap();
    let psi = distance::psi(&p, &q, ZeroRule::TenThousandth).unwrap();
    close(psi, &expected["psi10"], &format!("{name} psi10"));
    check_summary(name, &bins, reference, current, expected);
}

/// The same values from mergeable summaries.
fn check_summary(
    name: &str,
    bins: &BinDefinition,
    reference: &[f64],
    current: &[f64],
    expected: &Json,
) {
    let of = |values: &[f64]| -> Vec<Option<f64>> { values.iter().copied().map(Some).collect() };
    let reference = NumericSummary::of_reference(bins.clone(), &of(reference), 10_000);
    let mut window = reference.empty_like(10_000);
    for (position, value) in current.iter().enumerate() {
        window.add(crate::CounterRandom::new(5, 5).at(position as u64), Some(*value));
    }
    let (reference, window) = (ColumnSummary::Numeric(reference), ColumnSummary::Numeric(window));
    let value = |metric| score(&reference, &window, metric).unwrap();
    close(value(Metric::Psi).value, &expected["psi10"], &format!("{name} psi10 of summaries"));
    let ks = value(Metric::KolmogorovSmirnov);
    close(ks.value, &expected["ks"], &format!("{name} ks of summaries"));
    close(ks.p_value.unwrap(), &expected["ks_p"], &format!("{name} ks_p of summaries"));
    let wasserstein = value(Metric::Wasserstein);
    close(wasserstein.value, &expected["wasserstein_normed"], &format!("{name} of summaries"));
}

#[test]
fn numeric_columns_score_as_scipy_and_evidently_do() {
    let Some(folder) = shared() else { return };
    let reference = columns(&folder.join("drift_reference.csv"));
    let current = columns(&folder.join("drift_current.csv"));
    let text = fs::read_to_string(folder.join("reference_values.json")).unwrap();
    let expected: Json = serde_json::from_str(&text).unwrap();
    let numbers =
        |cells: &[String]| -> Vec<f64> { cells.iter().map(|cell| cell.parse().unwrap()).collect() };
    let mut checked = 0;
    for (name, cells) in reference.iter().filter(|(name, _)| name.starts_with('x')) {
        let values = &expected["rows_2000"][name];
        check_numeric(name, &numbers(cells), &numbers(&current[name]), values);
        checked += 1;
    }
    assert_eq!(checked, 10);
}

#[test]
fn categories_score_as_scipy_and_evidently_do() {
    let Some(folder) = shared() else { return };
    let text = fs::read_to_string(folder.join("reference_values.json")).unwrap();
    let expected: Json = serde_json::from_str(&text).unwrap();
    let expected = &expected["rows_2000"]["c0"];
    let of = |file: &str| {
        let mut summary = CategorySummary::new(1_000);
        columns(&folder.join(file))["c0"].iter().for_each(|name| summary.add(Some(name)));
        summary
    };
    let (reference, current) = (of("drift_reference.csv"), of("drift_current.csv"));
    let bins = reference.bins();
    let (left, right) = (reference.histogram(&bins), current.histogram(&bins));
    let list = |key: &str| -> Vec<u64> { serde_json::from_value(expected[key].clone()).unwrap() };
    assert_eq!(left[..left.len() - 1], list("counts_reference"));
    assert_eq!(right[..right.len() - 1], list("counts_current"));
    let homogeneity = chi_square::two_sample(&left, &right).unwrap();
    close(homogeneity.statistic, &expected["chi2"], "chi2");
    close(homogeneity.p_value, &expected["chi2_p"], "chi2_p");
    assert_eq!(Some(homogeneity.degrees), expected["chi2_df"].as_u64());
    let fit = chi_square::goodness_of_fit(&left, &right).unwrap();
    close(fit.statistic, &expected["chi2_expected"], "chi2_expected");
    close(fit.p_value, &expected["chi2_expected_p"], "chi2_expected_p");
    let (reference, current) =
        (ColumnSummary::Category(reference), ColumnSummary::Category(current));
    let value = |metric| score(&reference, &current, metric).unwrap().value;
    close(value(Metric::JensenShannon), &expected["js"], "js");
    close(value(Metric::Psi), &expected["psi"], "psi");
    close(value(Metric::ChiSquare), &expected["chi2"], "chi2 of summaries");
    assert_eq!(value(Metric::OutOfRange), 0.0);
}

/// The 20,000 rows themselves are not shared, but their counts by name are; Evidently's own answer for
/// them stands beside SciPy's.
#[test]
fn counts_of_larger_samples_score_as_scipy_and_evidently_do() {
    let Some(folder) = shared() else { return };
    let text = fs::read_to_string(folder.join("reference_values.json")).unwrap();
    let all: Json = serde_json::from_str(&text).unwrap();
    let expected = &all["rows_20000"]["c0"];
    let keys: Vec<String> = serde_json::from_value(expected["keys"].clone()).unwrap();
    let of = |key: &str| {
        let counts: Vec<u64> = serde_json::from_value(expected[key].clone()).unwrap();
        let mut summary = CategorySummary::new(1_000);
        summary.counts = keys.iter().cloned().zip(counts).collect();
        assert_eq!(summary.rows(), 20_000);
        ColumnSummary::Category(summary)
    };
    let (reference, current) = (of("counts_reference"), of("counts_current"));
    let homogeneity = score(&reference, &current, Metric::ChiSquare).unwrap();
    close(homogeneity.value, &expected["chi2"], "chi2");
    close(homogeneity.p_value.unwrap(), &expected["chi2_p"], "chi2_p");
    let list = |key: &str| -> Vec<u64> { serde_json::from_value(expected[key].clone()).unwrap() };
    let fit =
        chi_square::goodness_of_fit(&list("counts_reference"), &list("counts_current")).unwrap();
    close(fit.statistic, &expected["chi2_expected"], "chi2_expected");
    close(fit.p_value, &expected["chi2_expected_p"], "chi2_expected_p");
    let distance = score(&reference, &current, Metric::JensenShannon).unwrap().value;
    close(distance, &expected["js"], "js");
    close(distance, &all["evidently_c0_default_js"], "Evidently's own js");
    close(score(&reference, &current, Metric::Psi).unwrap().value, &expected["psi"], "psi");
}
