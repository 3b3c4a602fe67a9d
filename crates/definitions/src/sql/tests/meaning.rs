//! Accepted statements and the plans that they mean.

use super::*;

const HOUR: u64 = 3_600_000_000;

fn types(plan: &ViewPlan) -> Vec<(String, String)> {
    plan.output.iter().map(|c| (c.name.clone(), c.column_type.to_string())).collect()
}

#[test]
fn a_windowed_view_is_keyed_by_its_partition() {
    let plan = planned(CARD_HOURLY);
    assert_eq!(plan.name, "card_hourly");
    assert!(matches!(&plan.source, Source::Topic(t) if t.name == "payments"));
    assert_eq!(plan.output_key, [0]);
    let (bare, aggregates) = keyed(&plan);
    assert!(bare.is_empty());
    let frame = Frame::Range { preceding_us: HOUR, hop_us: 60_000_000 };
    assert_eq!(aggregates.iter().map(|a| a.frame).collect::<Vec<_>>(), [frame; 3]);
    assert_eq!(plan.horizon_us, Some(HOUR + 60_000_000));
    let expected =
        [("card_id", "string"), ("n", "int64"), ("total", "decimal(38,2)"), ("fee", "float64")];
    assert_eq!(types(&plan), expected.map(|(a, b)| (a.to_owned(), b.to_owned())));
    assert_eq!(
        plan.output.iter().map(|c| c.class).collect::<Vec<_>>(),
        [CostClass::Plain, CostClass::Accumulable, CostClass::Accumulable, CostClass::Accumulable]
    );
}

#[test]
fn headers_become_options() {
    let text = format!(
        "-- owner: risk@bank\n-- description: how fast a card is used\n-- tags: fraud, card\n-- ttl: 7 days\n-- hop: chronon\n-- retain: 1 day 12 hours\n-- an ordinary remark\n\n{}",
        CARD_HOURLY.split_once('\n').unwrap().1
    );
    let plan = planned(&text);
    assert_eq!(plan.description.owner.as_deref(), Some("risk@bank"));
    assert_eq!(plan.description.text.as_deref(), Some("how fast a card is used"));
    assert_eq!(plan.description.tags, ["fraud", "card"]);
    assert_eq!(plan.ttl_us, Some(7 * 24 * HOUR));
    assert_eq!(plan.retain_us, 36 * HOUR);
    assert_eq!(keyed(&plan).1[0].frame, Frame::Range { preceding_us: HOUR, hop_us: 300_000_000 });
}

#[test]
fn chronon_hops_follow_the_length_of_the_window() {
    for (window, hop_us) in
        [("11 hours", HOUR / 12), ("12 hours", HOUR), ("11 days", HOUR), ("12 days", 24 * HOUR)]
    {
        let text = format!(
            "-- hop: chronon\n{}",
            hourly("count(*) OVER w AS n").replace("1 hour", window)
        );
        match keyed(&planned(&text)).1[0].frame {
            Frame::Range { hop_us: found, .. } => assert_eq!(found, hop_us, "{window}"),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn frames_mean_what_sql_means() {
    let over = |window: &str| {
        let text =
            format!("CREATE VIEW v AS SELECT card_id, sum(fee) OVER ({window}) AS s FROM payments");
        keyed(&planned(&text)).1[0].frame
    };
    assert_eq!(over("PARTITION BY card_id"), Frame::Lifetime);
    assert_eq!(over("PARTITION BY card_id ORDER BY event_time"), Frame::Lifetime);
    assert_eq!(
        over("PARTITION BY card_id ORDER BY event_time ROWS UNBOUNDED PRECEDING"),
        Frame::Lifetime
    );
    assert_eq!(
        over("PARTITION BY card_id ORDER BY event_time ROWS BETWEEN 9 PRECEDING AND CURRENT ROW"),
        Frame::Rows { preceding: 9 }
    );
    assert_eq!(
        over(
            "PARTITION BY payments.card_id ORDER BY payments.event_time RANGE INTERVAL 90 SECOND PRECEDING"
        ),
        Frame::Range { preceding_us: 90_000_000, hop_us: 1 }
    );
    assert_eq!(
        over(
            "PARTITION BY card_id ORDER BY event_time RANGE BETWEEN INTERVAL '1 day 2 hours' PRECEDING AND CURRENT ROW"
        ),
        Frame::Range { preceding_us: 26 * HOUR, hop_us: 1 }
    );
}

#[test]
fn windows_may_be_named_through_each_other() {
    let plan = planned(
        "CREATE VIEW v AS SELECT card_id, count(*) OVER (w RANGE INTERVAL '1 hour' PRECEDING) AS a, count(*) OVER u AS b
         FROM payments WINDOW w AS (PARTITION BY card_id ORDER BY event_time), u AS w",
    );
    let frames: Vec<_> = keyed(&plan).1.iter().map(|a| a.frame).collect();
    assert_eq!(frames, [Frame::Range { preceding_us: HOUR, hop_us: 1 }, Frame::Lifetime]);
}

#[test]
fn every_aggregate_has_its_documented_type_and_class() {
    use AggregateFunction as F;
    let cases: &[(&str, F, &str)] = &[
        ("count(*)", F::CountRows, "int64"),
        ("count(fee)", F::Count, "int64"),
        ("count(DISTINCT merchant_id)", F::CountDistinct, "int64"),
        ("sum(quantity)", F::Sum, "decimal(38,0)"),
        ("sum(amount)", F::Sum, "decimal(38,2)"),
        ("sum(fee)", F::Sum, "float64"),
        ("avg(quantity)", F::Avg, "float64"),
        ("avg(amount)", F::Avg, "decimal(16,6)"),
        ("min(country)", F::Min, "string"),
        ("max(event_time)", F::Max, "timestamp"),
        ("stddev(fee)", F::Stddev { sample: true }, "float64"),
        ("stddev_pop(amount)", F::Stddev { sample: false }, "float64"),
        ("variance(quantity)", F::Variance { sample: true }, "float64"),
        ("var_samp(fee)", F::Variance { sample: true }, "float64"),
        ("var_pop(fee)", F::Variance { sample: false }, "float64"),
        ("first_value(country IGNORE NULLS)", F::First, "string"),
        ("last_value(merchant_id)", F::Last, "string"),
        ("last_n(amount, 5)", F::LastN(5), "list<decimal(12,2)>"),
        ("top_n(fee, 3)", F::TopN(3), "list<float64>"),
        ("approx_distinct(country)", F::ApproxDistinct, "int64"),
        ("approx_count_distinct(country)", F::ApproxDistinct, "int64"),
        ("approx_quantile(amount, 0.95)", F::ApproxQuantile(0.95), "float64"),
        ("bool_and(approved)", F::BoolAnd, "bool"),
        ("bool_or(amount > 100)", F::BoolOr, "bool"),
    ];
    for (call, function, output) in cases {
        for text in [
            hourly(&format!("{call} OVER w AS x")),
            format!("CREATE VIEW v AS SELECT card_id, {call} AS x FROM payments GROUP BY card_id"),
            hourly(&format!("{call} FILTER (WHERE approved) OVER w AS x")),
        ] {
            let plan = planned(&text);
            let aggregates = keyed(&plan).1;
            assert_eq!(aggregates[0].function, *function, "{call}");
            assert_eq!(plan.output[1].column_type.to_string(), *output, "{call}");
            assert_eq!(plan.output[1].class, function.class(), "{call}");
            assert_eq!(aggregates[0].filter.is_some(), text.contains("FILTER"));
        }
    }
}

#[test]
fn ignore_nulls_behind_a_call_belongs_to_the_aggregate() {
    let plain = planned(&hourly("last_value(upper(country)) IGNORE NULLS OVER w AS x"));
    for spelled in ["upper(country) IGNORE NULLS", "(upper(country)) IGNORE NULLS"] {
        let plan = planned(&hourly(&format!("last_value({spelled}) OVER w AS x")));
        assert_eq!(keyed(&plan), keyed(&plain), "{spelled}");
    }
    let nested = planned(&hourly("first_value('+' || upper(country) IGNORE NULLS) OVER w AS x"));
    assert_eq!(keyed(&nested).1[0].function, AggregateFunction::First);
}

#[test]
fn equal_calls_and_inputs_are_computed_once() {
    let plan = planned(&hourly(
        "sum(fee) OVER w AS a, sum(fee) OVER w / count(fee) OVER w AS b, max(fee) OVER w AS c",
    ));
    let (bare, aggregates) = keyed(&plan);
    assert!(bare.is_empty());
    assert_eq!(aggregates.len(), 3);
    assert_eq!(aggregates[0].input, aggregates[2].input);
    assert_eq!(plan.prepare.output_types().len(), 2);
}

#[test]
fn a_plain_projection_is_the_latest_event_of_the_topics_key() {
    let plan = planned(
        "CREATE VIEW v AS SELECT card_id, ok, NOT ok AS failed FROM logins WHERE ok IS NOT NULL",
    );
    let (bare, aggregates) = keyed(&plan);
    assert_eq!((bare.len(), aggregates.len()), (1, 0));
    assert!(plan.predicate.is_some());
    assert_eq!(plan.horizon_us, None);
    let table =
        planned("CREATE VIEW v AS SELECT merchant_id AS m, upper(category) AS c FROM merchants");
    assert_eq!(table.output_key, [0]);
    assert!(table.is_retractable());
}

#[test]
fn groups_may_be_expressions_aliases_and_ordinals() {
    for group in ["card_id, date_trunc('day', event_time)", "1, 2", "card_id, d"] {
        let plan = planned(&format!(
            "CREATE VIEW v AS SELECT card_id, date_trunc('day', event_time) AS d, count(*) AS n FROM payments GROUP BY {group} HAVING count(*) > 3"
        ));
        assert_eq!(plan.output_key, [0, 1]);
        assert_eq!(plan.having, Some(3));
        assert_eq!(plan.output.len(), 3);
        assert_eq!(plan.output[1].column_type, ColumnType::Timestamp);
    }
}

#[test]
fn joins_append_the_tables_columns() {
    let plan = planned(
        "CREATE VIEW v AS SELECT p.card_id, sum(p.amount) FILTER (WHERE m.category = 'fuel') OVER w AS fuel
         FROM payments p LEFT JOIN merchants m ON m.merchant_id = p.merchant_id
         WINDOW w AS (PARTITION BY p.card_id ORDER BY p.event_time RANGE INTERVAL '1 day' PRECEDING)",
    );
    assert_eq!(plan.joins.len(), 1);
    assert_eq!(plan.joins[0].kind, JoinKind::Left);
    assert_eq!(plan.joins[0].left_key.passed_columns(), [Some(3)]);
    assert_eq!(plan.prepare.input_schema().fields().len(), 17);
    assert_eq!(plan.horizon_us, Some(24 * HOUR + 1));
}

#[test]
fn an_asof_join_takes_the_key_and_the_event_time() {
    let plan = planned(
        "CREATE VIEW v AS SELECT p.card_id, avg(m.risk) OVER (PARTITION BY p.card_id) AS risk, avg(r.rate) OVER (PARTITION BY p.card_id) AS rate
         FROM payments AS p
         ASOF LEFT JOIN merchants AS m ON p.merchant_id = m.merchant_id AND p.event_time >= m.event_time
         LEFT JOIN rates r ON p.quantity = r.shard AND r.country = p.country",
    );
    assert_eq!(
        plan.joins.iter().map(|j| j.kind).collect::<Vec<_>>(),
        [JoinKind::AsOf, JoinKind::Left]
    );
    let key = &plan.joins[1].left_key;
    assert_eq!(
        key.output_types(),
        [ColumnType::String, ColumnType::Int64],
        "in the order of the table's key"
    );
    assert_eq!(plan.horizon_us, None);
}

#[test]
fn a_view_over_a_view_keeps_its_key() {
    let plan = planned(
        "CREATE VIEW v AS SELECT card_id AS card, total / 2.0e0 AS half FROM card_hourly WHERE n > 3",
    );
    assert!(matches!(plan.shape, Shape::PerRow));
    assert_eq!(plan.output_key, [0]);
    let grouped = planned(
        "CREATE VIEW v AS SELECT n, count(*) AS cards, max(total) AS top FROM card_hourly GROUP BY n",
    );
    assert!(matches!(grouped.source, Source::View(_)));
    assert_eq!(grouped.output_key, [0]);
}

#[test]
fn identity_follows_meaning_and_not_layout() {
    let plan = |text: &str| planned(text).hash;
    let base = plan(&hourly("count(*) OVER w AS n"));
    assert_eq!(base, plan(&hourly("count( * )\n OVER w   AS n -- remark\n")));
    assert_ne!(base, plan(&hourly("count(fee) OVER w AS n")));
    assert_ne!(base, plan(&format!("-- hop: 1 second\n{}", hourly("count(*) OVER w AS n"))));
    assert_eq!(base, plan(&format!("-- owner: me\n{}", hourly("count(*) OVER w AS n"))));
}

#[test]
fn scalar_expressions_have_types() {
    let cases = [
        ("amount * 2", "decimal(33,2)"),
        ("amount * 0.5", "decimal(14,3)"),
        ("fee / 3", "float64"),
        ("CAST(quantity AS DOUBLE) / 3", "float64"),
        ("quantity % 7", "int64"),
        ("-quantity", "int32"),
        ("round(amount, 1)", "decimal(12,1)"),
        ("CAST(round(fee) AS BIGINT)", "int64"),
        ("ln(fee + 1)", "float64"),
        ("sqrt(quantity)", "float64"),
        ("country || '-' || merchant_id", "string"),
        ("CASE WHEN fee > 0.1 THEN 'high' ELSE 'low' END", "string"),
        ("CASE country WHEN 'AE' THEN 1 END", "int64"),
        ("coalesce(fee, 0)", "float64"),
        ("EXTRACT(HOUR FROM event_time)", "int64"),
        ("EXTRACT(EPOCH FROM (event_time - TIMESTAMP '2026-01-01 00:00:00'))", "float64"),
        ("date_trunc('hour', event_time)", "timestamp"),
        ("event_time + INTERVAL '1 month'", "timestamp"),
        ("CAST(event_time AS DATE)", "date"),
        ("event_time > '2026-01-01'", "bool"),
        ("country IN ('AE', 'OM')", "bool"),
        ("quantity BETWEEN 1 AND 5", "bool"),
        ("country LIKE 'A%'", "bool"),
        ("regexp_like(country, '^[A-Z]{2}$')", "bool"),
        ("substring(country FROM 1 FOR 1)", "string"),
        ("trim(country)", "string"),
        ("length(country)", "int32"),
        ("scores[1]", "float64"),
        ("cardinality(scores)", "int64"),
        ("array_has(scores, 0.5)", "bool"),
        ("CAST(NULL AS BIGINT)", "int64"),
        ("TRY_CAST(country AS INTEGER)", "int32"),
        ("greatest(fee, 1)", "float64"),
        ("atan2(fee, 2)", "float64"),
        ("position('A' IN country)", "int32"),
        ("fee IS NOT DISTINCT FROM 0.0", "bool"),
        ("date_bin(INTERVAL '15 minutes', event_time)", "timestamp"),
    ];
    let mut wrong = Vec::new();
    for (expression, expected) in cases {
        match try_plan(&format!(
            "CREATE VIEW v AS SELECT payment_id, {expression} AS x FROM payments"
        )) {
            Ok(plan) if plan.output[1].column_type.to_string() == expected => {}
            Ok(plan) => wrong.push(format!("{expression}: {}", plan.output[1].column_type)),
            Err(diagnostics) => wrong.push(format!("{expression}: {}", diagnostics[0])),
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn references_name_everything_that_is_read() {
    let text = "CREATE VIEW v AS SELECT a.x FROM falaj.epochs a ASOF LEFT JOIN t ON a.k = t.k AND a.e >= t.e LEFT JOIN u ON a.k = u.k";
    assert_eq!(references(text).into_iter().collect::<Vec<_>>(), ["falaj.epochs", "t", "u"]);
    assert_eq!(view_name(text).as_deref(), Some("v"));
    assert!(references("SELECT").is_empty());
}
