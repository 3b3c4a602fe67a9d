//! Reports of known views.

use super::*;
use crate::sql::tests::{CARD_HOURLY, hourly, planned};

#[test]
fn tiles_are_counted_per_feature() {
    let report = report(&planned(CARD_HOURLY));
    assert_eq!((report.name.as_str(), report.source.as_str()), ("card_hourly", "payments"));
    assert_eq!(report.key, ["card_id"]);
    assert!(!report.retractable_input && report.proposals.is_empty());
    let n = &report.features[1];
    assert_eq!(
        (n.class, n.frames.as_slice()),
        ("accumulable", ["1 hour by 1 minute".to_owned()].as_slice())
    );
    assert_eq!(n.state.formula, "62 tiles × 8 B");
    assert_eq!(
        (n.state.entries, n.state.bytes, n.state.bounded_by_time),
        (Some(62), Some(496), true)
    );
    assert_eq!(report.features[0].class, "plain");
    assert_eq!(report.bytes_per_key, Some(62 * (8 + 16 + 104)));
}

#[test]
fn long_exact_windows_get_a_proposal() {
    let exact = report(&planned(&hourly("count(*) OVER w AS n, min(fee) OVER w AS m")));
    assert_eq!(exact.bytes_per_key, None);
    assert_eq!(exact.features[1].frames, ["1 hour exact"]);
    assert_eq!(
        exact.proposals,
        [
            "the exact window of 1 hour keeps every event in it; `-- hop: 1 minute` bounds it to 62 tiles per key"
        ]
    );
    let short = report(&planned(&hourly("count(*) OVER w AS n").replace("1 hour", "5 minutes")));
    assert!(short.proposals.is_empty());
    let fine = report(&planned(&format!(
        "-- hop: 1 second\n{}",
        hourly("count(*) OVER w AS n").replace("1 hour", "1 day")
    )));
    assert_eq!(fine.proposals.len(), 1);
    assert!(
        fine.proposals[0].contains("86402 tiles") && fine.proposals[0].contains("hop: 5 minutes"),
        "{}",
        fine.proposals[0]
    );
}

#[test]
fn growth_is_named() {
    let lifetime = report(&planned(
        "CREATE VIEW v AS SELECT card_id, count(DISTINCT merchant_id) AS d, sum(fee) / count(fee) AS r FROM payments GROUP BY card_id",
    ));
    assert_eq!(lifetime.features[1].state.formula, "values ever × 32 B");
    assert_eq!(lifetime.features[1].state.bytes, None);
    assert_eq!(lifetime.features[2].state.formula, "1 total × 96 B + 1 total × 8 B");
    assert!(!lifetime.features[2].state.bounded_by_time);
    let rows = report(&planned(
        "CREATE VIEW v AS SELECT card_id, max(fee) OVER (PARTITION BY card_id ORDER BY event_time ROWS 9 PRECEDING) AS m FROM payments",
    ));
    assert_eq!(rows.features[1].state.formula, "10 events × 8 B");
}
