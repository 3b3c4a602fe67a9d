//! Summaries: merging and subtracting in any order is summarising the whole.

use proptest::prelude::*;

use super::*;

fn empty() -> NumericSummary {
    let bins = BinDefinition::equal_width(-5.0, 5.0, 7).unwrap();
    NumericSummary::new(bins, Some((-4.0, 4.0)), 1_000)
}

fn filled(rows: &[(u64, Option<f64>)]) -> NumericSummary {
    let mut summary = empty();
    rows.iter().for_each(|(hash, value)| summary.add(*hash, *value));
    summary
}

fn any_rows(stream: u64) -> impl Strategy<Value = Vec<(u64, Option<f64>)>> {
    prop::collection::vec(prop::option::weighted(0.9, -9.0_f64..9.0), 0..60).prop_map(
        move |values| {
            let random = crate::CounterRandom::new(1, stream);
            (0..).map(|index| random.at(index)).zip(values).collect()
        },
    )
}

proptest! {
    #[test]
    fn parts_add_and_subtract(left in any_rows(1), right in any_rows(2)) {
        let (one, two) = (filled(&left), filled(&right));
        let mut both = one.clone();
        both.merge(&two).unwrap();
        let mut other_way = two.clone();
        other_way.merge(&one).unwrap();
        prop_assert_eq!(&both, &other_way);
        prop_assert_eq!(both.rows(), (left.len() + right.len()) as u64);
        let mut stepwise = both.clone();
        both.subtract(&two).unwrap();
        prop_assert_eq!(&both, &one);
        right.iter().for_each(|(hash, value)| stepwise.remove(*hash, *value).unwrap());
        prop_assert_eq!(&stepwise, &one);
        let text = serde_json::to_string(&one).unwrap();
        prop_assert_eq!(serde_json::from_str::<NumericSummary>(&text).unwrap(), one);
    }

    #[test]
    fn names_add_and_subtract(
        left in prop::collection::vec(prop::option::of("[a-e]"), 0..40),
        right in prop::collection::vec(prop::option::of("[a-e]"), 0..40),
    ) {
        let of = |names: &[Option<String>]| {
            let mut summary = CategorySummary::new(10);
            names.iter().for_each(|name| summary.add(name.as_deref()));
            summary
        };
        let mut both = of(&left);
        both.merge(&of(&right));
        let all: Vec<_> = left.iter().chain(&right).cloned().collect();
        prop_assert_eq!(&both, &of(&all));
        both.subtract(&of(&right)).unwrap();
        prop_assert_eq!(both, of(&left));
    }
}

#[test]
fn more_than_was_added_is_refused_and_changes_nothing() {
    let mut summary = filled(&[(1, Some(1.0)), (2, None)]);
    let before = summary.clone();
    for value in [Some(1.5), Some(-2.0), Some(99.0)] {
        assert!(summary.remove(3, value).is_err(), "{value:?}");
    }
    assert!(summary.subtract(&filled(&[(1, Some(2.0))])).is_err());
    let other = NumericSummary::new(BinDefinition::distinct([1.0]), None, 9);
    assert_eq!(summary.merge(&other), Err(DriftError::DifferentBins));
    assert_eq!(summary, before);
    summary.remove(2, None).unwrap();
    assert!(summary.remove(2, Some(f64::NAN)).is_err());
    let mut names = CategorySummary::new(2);
    ["a", "b", "c"].iter().for_each(|name| names.add(Some(name)));
    assert_eq!((names.overflow, names.present(), names.rows()), (1, 3, 3));
    let counted = names.histogram(&names.bins());
    assert_eq!(counted, [1, 1, 1]);
    assert!(names.remove(None).is_err());
    names.remove(Some("zzz")).unwrap();
    assert!(names.remove(Some("zzz")).is_err());
}

#[test]
fn ranges_and_missing_values_are_counted_apart() {
    let rows = [Some(-4.5), Some(0.0), Some(4.5), Some(9.0), Some(f64::NAN), None];
    let rows: Vec<_> = (10..).zip(rows).collect();
    let summary = filled(&rows);
    assert_eq!((summary.beyond, summary.outside, summary.missing), (3, 1, 2));
    assert_eq!((summary.present(), summary.rows()), (4, 6));
    let mut sketched = empty();
    sketched.sample = BottomSample::new(0);
    rows.iter().for_each(|(hash, value)| sketched.add(*hash, *value));
    let (exact, rough) = (summary.deviation().unwrap(), sketched.deviation().unwrap());
    assert!((exact - rough).abs() < 0.01 * exact, "{exact} and {rough}");
    assert_eq!(empty().deviation(), None);
}

/// The cost of one event, printed: `cargo test --release cost -- --nocapture`.
#[test]
fn cost_per_event() {
    let random = crate::CounterRandom::new(1, 1);
    let mut reference = NumericSummary::new(
        BinDefinition::equal_width(0.0, 1.0, 10).unwrap(),
        Some((0.0, 1.0)),
        1_000,
    );
    let events = 200_000_u64;
    let started = std::time::Instant::now();
    for index in 0..events {
        let bits = random.at(index);
        reference.add(bits, Some((bits >> 11) as f64 / (1_u64 << 53) as f64));
    }
    let nanoseconds = started.elapsed().as_nanos() as f64 / events as f64;
    println!("numeric summary: {nanoseconds:.0} ns per event");
    assert_eq!(reference.rows(), events);
}
