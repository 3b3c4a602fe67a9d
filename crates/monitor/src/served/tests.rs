//! Buckets hold what they say, and windows close once.

use super::*;

#[test]
fn a_bucket_is_off_by_no_more_than_a_thirty_second() {
    let values = (0..200).chain((8..64).map(|power| (1_u64 << power) + (1 << (power - 3))));
    for value in values.chain([u64::MAX]) {
        let end = upper_end(bucket(value));
        assert!(end >= value, "{value}: {end}");
        assert!(end - value <= value / 32, "{value}: {end}");
    }
}

#[test]
fn quantiles_are_of_the_counts() {
    let mut latencies = Latencies::default();
    assert_eq!(latencies.quantile_us(0.99), None);
    (1..=100).for_each(|at| latencies.add(at * 1_000));
    let p50 = latencies.quantile_us(0.5).unwrap();
    let p99 = latencies.quantile_us(0.99).unwrap();
    assert!((50.0..=52.0).contains(&p50) && (99.0..=102.5).contains(&p99), "{p50} {p99}");
    let text = serde_json::to_string(&latencies).unwrap();
    assert_eq!(serde_json::from_str::<Latencies>(&text).unwrap(), latencies);
    let mut twice = latencies.clone();
    twice.merge(&latencies);
    assert_eq!((twice.count(), twice.quantile_us(0.5)), (200, Some(p50)));
}

#[test]
fn a_window_is_told_when_it_closes() {
    let mut gather = Gather::<Served>::new(100);
    gather.of(LogTime(110), 3).merge(&Served { rows: 10, errors: 1, ..Served::default() });
    gather.of(LogTime(199), 3).merge(&Served {
        rows: 10,
        errors: 2,
        refused: 7,
        ..Served::default()
    });
    assert!(gather.advance(LogTime(199)).is_empty());
    let closed = gather.advance(LogTime(350));
    assert!(gather.advance(LogTime(900)).is_empty(), "once");
    let figure = ServedFigure {
        name: ERROR_RATE.to_owned(),
        length_us: 100,
        limit: Some(Limit::AtMost(0.1)),
    };
    let told = figure.of_served(&closed[0], LogTime(350));
    let window = Window::tumbling(1, 100);
    assert_eq!(told.rows[0].value, Some(0.15));
    assert_eq!((told.rows[0].alarm, told.rows[0].window), (true, window));
    let finding = Finding::Figure {
        version: 3,
        window,
        figure: ERROR_RATE.to_owned(),
        value: Some(0.15),
        support: 20,
    };
    assert_eq!(told.findings, [finding]);
    let nothing = ServedFigure { name: LATENCY_P99_US.to_owned(), ..figure };
    let told = nothing.of_served(&closed[0], LogTime(350));
    assert_eq!((told.rows[0].value, told.rows[0].alarm), (None, false), "nobody was timed");
    let nobody = ClosedWindow { gathered: Served::default(), ..closed[0].clone() };
    assert_eq!(nothing.of_served(&nobody, LogTime(350)), Closed::default());
}
