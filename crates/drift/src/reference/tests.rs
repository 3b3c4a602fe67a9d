//! References: deterministic, silent on themselves, loud on drift; correction over columns.

use super::*;

fn values(seed: u64, count: u64, shift: f64) -> Vec<Option<f64>> {
    let random = CounterRandom::new(seed, 1);
    (0..count)
        .map(|index| (index % 50 != 7).then(|| (random.at(index) >> 11) as f64 / 9e15 + shift))
        .collect()
}

fn window(reference: &ColumnReference, values: &[Option<f64>]) -> ColumnSummary {
    let ColumnSummary::Numeric(mut summary) = reference.window() else { panic!("numeric") };
    let random = CounterRandom::new(99, 9);
    for (index, value) in values.iter().enumerate() {
        summary.add(random.at(index as u64), *value);
    }
    ColumnSummary::Numeric(summary)
}

fn alarms(reference: &ColumnReference, window: &ColumnSummary) -> Vec<Metric> {
    let judged = reference.judge(window, &AlarmPolicy::default()).unwrap();
    let over = judged.iter().filter(|judged| judged.judgement.is_some_and(|j| j.over));
    over.map(|judged| judged.score.metric).collect()
}

#[test]
fn a_reference_is_silent_on_its_like_and_loud_on_drift() {
    let options = ReferenceOptions { chunk_rows: 500, ..ReferenceOptions::default() };
    let reference = ColumnReference::numeric(&values(1, 5_000, 0.0), &options).unwrap();
    assert_eq!(reference.spreads.len(), Metric::ALL.len());
    assert_eq!(reference.spreads[&Metric::Psi].chunks, 10);
    for rows in [500, 100, 40] {
        let like = (10..40)
            .map(|seed| alarms(&reference, &window(&reference, &values(seed, rows, 0.0))).len());
        let like: usize = like.sum();
        // 30 windows by nine metrics: a share of false alarms of 4 %.
        assert!(like <= 11, "{like} alarms of windows of {rows} rows without drift");
    }
    let drifted = alarms(&reference, &window(&reference, &values(3, 500, 0.15)));
    for metric in [Metric::Psi, Metric::KolmogorovSmirnov, Metric::Wasserstein, Metric::OutOfRange]
    {
        assert!(drifted.contains(&metric), "{metric:?} not in {drifted:?}");
    }
    let text = serde_json::to_string(&reference).unwrap();
    assert_eq!(serde_json::from_str::<ColumnReference>(&text).unwrap(), reference);
    assert_eq!(ColumnReference::numeric(&values(1, 5_000, 0.0), &options).unwrap(), reference);
}

#[test]
fn categories_have_references_too() {
    let names = ["a", "a", "b", "c"];
    let of = |count: usize, last: &'static str| -> Vec<Option<&str>> {
        (0..count)
            .map(|i| (i % 9 != 0).then(|| if i % 4 == 3 { last } else { names[i % 4] }))
            .collect()
    };
    let reference = ColumnReference::category(&of(900, "c"), &ReferenceOptions::default()).unwrap();
    assert!(!reference.spreads.contains_key(&Metric::Wasserstein));
    let ColumnSummary::Category(mut window) = reference.window() else { panic!("categories") };
    of(90, "new").iter().for_each(|name| window.add(*name));
    let judged =
        reference.judge(&ColumnSummary::Category(window), &AlarmPolicy::default()).unwrap();
    let new = judged.iter().find(|judged| judged.score.metric == Metric::OutOfRange).unwrap();
    assert!(new.score.value > 0.2 && new.judgement.unwrap().over);
}

#[test]
fn short_or_empty_references() {
    let options = ReferenceOptions::default();
    let one = ColumnReference::numeric(&[Some(1.0)], &options).unwrap();
    assert!(one.spreads.is_empty());
    assert!(ColumnReference::numeric(&[None, Some(f64::NAN)], &options).is_err());
    assert!(ColumnReference::category(&[], &options).is_err());
    let judged = one.judge(&window(&one, &[Some(2.0)]), &AlarmPolicy::default()).unwrap();
    assert!(judged.iter().all(|judged| judged.judgement.is_none()));
}

#[test]
fn columns_are_judged_together() {
    let options = ReferenceOptions::default();
    let reference = ColumnReference::numeric(&values(1, 2_000, 0.0), &options).unwrap();
    let score = |shift| {
        let window = window(&reference, &values(4, 400, shift));
        crate::score(&reference.summary, &window, Metric::KolmogorovSmirnov).unwrap()
    };
    let (same, moved) = (score(0.0), score(0.3));
    let bare = crate::score(&reference.summary, &reference.summary, Metric::Psi).unwrap();
    let policy = AlarmPolicy {
        threshold: Threshold::Significance { alpha: 0.05 },
        ..AlarmPolicy::default()
    };
    let judged = judge_together(&[&same, &bare, &moved], &policy, Correction::default());
    assert_eq!(
        judged.iter().map(|j| j.map(|j| j.over)).collect::<Vec<_>>(),
        [Some(false), None, Some(true)]
    );
    let relative = AlarmPolicy::default();
    assert_eq!(judge_together(&[&same], &relative, Correction::Holm), [None]);
}
