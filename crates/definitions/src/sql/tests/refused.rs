//! A large table of refusals: what `check` says of SQL that has no meaning here, and where.

use super::*;

/// (the statement with «the offending place» marked, part of the message, part of the advice)
const REFUSED: &[(&str, &str, &str)] = &[
    // Statements.
    ("«SELECT 1»", "only CREATE VIEW", "CREATE VIEW name AS"),
    ("«»", "no statement", "CREATE VIEW"),
    ("CREATE «OR» REPLACE VIEW v AS SELECT card_id FROM logins", "replaces", "CREATE VIEW"),
    (
        "CREATE «MATERIALIZED» VIEW v AS SELECT card_id FROM logins",
        "every feature view",
        "CREATE VIEW",
    ),
    ("CREATE VIEW «a.b» AS SELECT card_id FROM logins", "name", "card_velocity"),
    ("CREATE VIEW v AS SELECT card_id FROM logins «LIMIT» 5", "row for every key", "LIMIT"),
    ("CREATE VIEW v AS SELECT card_id FROM logins «ORDER» BY card_id", "no order", "ORDER BY"),
    ("CREATE VIEW v AS SELECT «DISTINCT» card_id FROM logins", "DISTINCT", "GROUP BY"),
    (
        "CREATE VIEW v AS SELECT card_id FROM logins «UNION» SELECT card_id FROM payments",
        "UNION",
        "one view per input",
    ),
    (
        "CREATE VIEW v AS «WITH» a AS (SELECT 1) SELECT card_id FROM logins",
        "WITH",
        "view of its own",
    ),
    ("CREATE VIEW v AS SELECT «*» FROM logins", "`*`", "name the columns"),
    ("CREATE VIEW v AS SELECT card_id, «upper(card_id»)  FROM logins", "no name", "AS name"),
    ("CREATE VIEW v AS SELECT card_id, «ok» AS card_id FROM logins", "two columns", "AS name"),
    // FROM and joins.
    ("CREATE VIEW v AS SELECT card_id FROM «login»", "no topic or view", "`logins`"),
    ("CREATE VIEW v AS SELECT l.card_id FROM logins l, «payments p»", "cross join", "LEFT JOIN"),
    (
        "CREATE VIEW v AS SELECT p.payment_id FROM payments p «JOIN» merchants m ON p.merchant_id = m.merchant_id",
        "inner",
        "LEFT JOIN",
    ),
    (
        "CREATE VIEW v AS SELECT p.payment_id FROM payments p «INNER» JOIN merchants m ON p.merchant_id = m.merchant_id",
        "inner",
        "LEFT JOIN",
    ),
    (
        "CREATE VIEW v AS SELECT p.payment_id FROM payments p «RIGHT» JOIN merchants m ON p.merchant_id = m.merchant_id",
        "right",
        "FROM the events",
    ),
    (
        "CREATE VIEW v AS SELECT p.payment_id FROM payments p «FULL» JOIN merchants m ON p.merchant_id = m.merchant_id",
        "full",
        "LEFT JOIN",
    ),
    (
        "CREATE VIEW v AS SELECT p.payment_id FROM payments p «CROSS» JOIN merchants m",
        "cross",
        "LEFT JOIN",
    ),
    (
        "CREATE VIEW v AS SELECT p.payment_id FROM payments p LEFT JOIN «merchants» m USING (merchant_id)",
        "both sides",
        "ON l.k",
    ),
    (
        "CREATE VIEW v AS SELECT p.payment_id FROM payments p «ASOF» JOIN merchants m ON p.merchant_id = m.merchant_id AND p.event_time >= m.event_time",
        "drop",
        "ASOF LEFT JOIN",
    ),
    (
        "CREATE VIEW v AS SELECT p.payment_id FROM payments p LEFT JOIN «logins» l ON p.card_id = l.card_id",
        "event topic",
        "table topic",
    ),
    (
        "CREATE VIEW v AS SELECT p.payment_id FROM payments p LEFT JOIN «card_hourly» l ON p.card_id = l.card_id",
        "is a view",
        "FROM the view",
    ),
    (
        "CREATE VIEW v AS SELECT p.payment_id FROM payments p LEFT JOIN «nowhere» l ON p.card_id = l.card_id",
        "no table topic",
        "merchants",
    ),
    (
        "CREATE VIEW v AS SELECT p.payment_id FROM payments p LEFT JOIN merchants m ON «p.country = m.category»",
        "not a key column",
        "merchant_id",
    ),
    (
        "CREATE VIEW v AS SELECT p.payment_id FROM payments p LEFT JOIN merchants m ON p.merchant_id = m.merchant_id AND «m.risk > 0.5»",
        "equality",
        "WHERE",
    ),
    (
        "CREATE VIEW v AS SELECT p.payment_id FROM payments p LEFT JOIN «rates» r ON p.country = r.country",
        "whole primary key",
        "country, shard",
    ),
    (
        "CREATE VIEW v AS SELECT p.payment_id FROM payments p LEFT JOIN merchants m ON «p.quantity = m.merchant_id»",
        "key is Utf8",
        "CAST",
    ),
    (
        "CREATE VIEW v AS SELECT p.payment_id FROM payments p ASOF LEFT JOIN «merchants» m ON p.merchant_id = m.merchant_id",
        "ASOF",
        "event_time >=",
    ),
    (
        "CREATE VIEW v AS SELECT p.payment_id FROM payments p ASOF LEFT JOIN merchants m ON p.merchant_id = m.merchant_id AND «p.event_time > m.event_time»",
        "ASOF",
        ">=",
    ),
    (
        "CREATE VIEW v AS SELECT c.card_id FROM card_hourly c ASOF LEFT JOIN «merchants» m ON c.card_id = m.merchant_id AND c.n >= m.event_time",
        "no event time",
        "reads the topic",
    ),
    (
        "CREATE VIEW v AS SELECT x FROM («SELECT card_id AS x FROM logins»)",
        "subqueries",
        "view of its own",
    ),
    // Columns.
    ("CREATE VIEW v AS SELECT «card» FROM logins", "no column `card`", "`card_id`"),
    ("CREATE VIEW v AS SELECT «q.card_id» FROM logins l", "no `q`", "l"),
    (
        "CREATE VIEW v AS SELECT p.payment_id, «event_time» FROM payments p LEFT JOIN merchants m ON p.merchant_id = m.merchant_id",
        "several",
        "p.event_time",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id, «email» FROM payments",
        "personal data",
        "subject reference",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id, length(«email») AS n FROM payments",
        "personal data",
        "subject reference",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id FROM payments WHERE «email» IS NULL",
        "personal data",
        "subject reference",
    ),
    (
        "CREATE VIEW v AS SELECT email, count(*) AS n FROM payments GROUP BY «email»",
        "personal data",
        "subject reference",
    ),
    // Keys.
    ("CREATE VIEW v AS SELECT ok FROM «logins»", "`card_id` is not selected", "add card_id"),
    (
        "CREATE VIEW v AS SELECT count(*) AS n FROM logins GROUP BY «card_id»",
        "`card_id` is not selected",
        "add card_id",
    ),
    (
        "CREATE VIEW v AS SELECT count(*) OVER (PARTITION BY «card_id») AS n FROM logins",
        "not selected",
        "add card_id",
    ),
    (
        "CREATE VIEW v AS SELECT n FROM «card_hourly»",
        "`card_id` is not selected",
        "key of the view",
    ),
    (
        "CREATE VIEW v AS SELECT fee, count(*) AS n FROM payments GROUP BY «fee»",
        "key cannot be float64",
        "integer",
    ),
    (
        "CREATE VIEW v AS SELECT fee, count(*) OVER (PARTITION BY «fee») AS n FROM payments",
        "key cannot be float64",
        "integer",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, count(*) OVER (PARTITION BY card_id) AS n, count(*) OVER (PARTITION BY «country») AS m FROM payments",
        "one key",
        "one view per key",
    ),
    (
        "CREATE VIEW v AS SELECT m.category, count(*) AS n FROM payments p LEFT JOIN merchants m ON p.merchant_id = m.merchant_id GROUP BY «m.category»",
        "changes with its table",
        "ASOF",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, «count»(*) AS n FROM logins",
        "without GROUP BY",
        "GROUP BY key",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, «count»(*) OVER () AS n FROM logins",
        "without PARTITION BY",
        "PARTITION BY",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, count(*) AS n FROM logins «GROUP» BY ALL",
        "hides the key",
        "card_id",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, count(*) AS n FROM logins GROUP BY ROLLUP («card_id»)",
        "grouping sets",
        "one view per key",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, count(*) AS n FROM payments GROUP BY card_id, «5»",
        "constant",
        "key columns",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, «country», count(*) AS n FROM payments GROUP BY card_id",
        "many values",
        "last_value(country",
    ),
    // Windows.
    (
        "CREATE VIEW v AS SELECT card_id, «count»(*) OVER w AS n FROM card_hourly WINDOW w AS (PARTITION BY card_id)",
        "windows over a view",
        "reads the topic",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, count(*) OVER «w» AS n FROM logins",
        "no window `w`",
        "WINDOW w AS",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, count(*) OVER (PARTITION BY card_id ORDER BY event_time ROWS BETWEEN 1 PRECEDING AND 1 «FOLLOWING») AS n FROM logins",
        "future",
        "CURRENT ROW",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, count(*) OVER (PARTITION BY card_id ORDER BY event_time «GROUPS» 1 PRECEDING) AS n FROM logins",
        "GROUPS",
        "RANGE",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, count(*) OVER (PARTITION BY card_id ORDER BY event_time RANGE INTERVAL «'1 month'» PRECEDING) AS n FROM logins",
        "no fixed length",
        "30 days",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, count(*) OVER (PARTITION BY card_id ORDER BY event_time RANGE «5» PRECEDING) AS n FROM logins",
        "constant interval",
        "INTERVAL",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, count(*) OVER (PARTITION BY card_id ORDER BY event_time RANGE INTERVAL «'0 seconds'» PRECEDING) AS n FROM logins",
        "positive",
        "5 minutes",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, count(*) OVER (PARTITION BY card_id ORDER BY event_time ROWS «card_id» PRECEDING) AS n FROM logins",
        "constant number",
        "9 PRECEDING",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, count(*) OVER (PARTITION BY card_id ORDER BY «ok») AS n FROM logins",
        "one order",
        "ORDER BY event_time",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, count(*) OVER (PARTITION BY card_id ORDER BY «event_time» DESC) AS n FROM logins",
        "upwards",
        "ORDER BY event_time",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, count(*) OVER (PARTITION BY card_id ORDER BY event_time, «ok») AS n FROM logins",
        "ties",
        "alone",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, «lag»(ok) OVER (PARTITION BY card_id ORDER BY event_time) AS n FROM logins",
        "lag",
        "last_n",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, «row_number»() OVER (PARTITION BY card_id ORDER BY event_time) AS n FROM logins",
        "row_number",
        "top_n",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, count(*) OVER (PARTITION BY card_id) AS n FROM logins QUALIFY «n = 1»",
        "row for every key",
        "QUALIFY",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, count(*) OVER (PARTITION BY card_id) AS n FROM logins HAVING «card_id = 'a'»",
        "HAVING needs GROUP BY",
        "WHERE",
    ),
    // Aggregates.
    (
        "CREATE VIEW v AS SELECT card_id, «sum»(DISTINCT quantity) AS n FROM payments GROUP BY card_id",
        "DISTINCT",
        "count(DISTINCT",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, «sum»(country) AS n FROM payments GROUP BY card_id",
        "number is needed",
        "CAST",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, «sum»(approved) AS n FROM payments GROUP BY card_id",
        "booleans have no sum",
        "FILTER",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, «bool_or»(fee) AS n FROM payments GROUP BY card_id",
        "boolean is needed",
        "x > 0",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, «max»(scores) AS n FROM payments GROUP BY card_id",
        "cannot be aggregated",
        "x[1]",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, «last_value»(fee) AS n FROM payments GROUP BY card_id",
        "may be NULL",
        "IGNORE NULLS",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, last_n(fee, «0») AS n FROM payments GROUP BY card_id",
        "constant from 1",
        "last_n(x, 5)",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, «last_n»(fee) AS n FROM payments GROUP BY card_id",
        "number of values",
        "last_n(x, 5)",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, approx_quantile(fee, «95») AS n FROM payments GROUP BY card_id",
        "0 to 1",
        "0.95",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, «median»(fee) AS n FROM payments GROUP BY card_id",
        "median",
        "approx_quantile",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, «array_agg»(fee) AS n FROM payments GROUP BY card_id",
        "array_agg",
        "last_n",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, count(*) AS n FROM payments WHERE «count»(*) > 1 GROUP BY card_id",
        "WHERE",
        "HAVING",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, sum(«max»(fee)) AS n FROM payments GROUP BY card_id",
        "no meaning",
        "one view",
    ),
    (
        "CREATE VIEW v AS SELECT n, «last_value»(total IGNORE NULLS) AS x FROM card_hourly GROUP BY n",
        "no order",
        "topic",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, «sum»(*) AS x FROM payments GROUP BY card_id",
        "sum(*)",
        "column",
    ),
    // Functions.
    ("CREATE VIEW v AS SELECT card_id, «now»() AS n FROM logins", "now", "read the clock"),
    ("CREATE VIEW v AS SELECT card_id, «random»() AS n FROM logins", "random", "every replay"),
    ("CREATE VIEW v AS SELECT card_id, «uper»(card_id) AS n FROM logins", "uper", "upper"),
    (
        "CREATE VIEW v AS SELECT card_id, «upper»(card_id, 1) AS n FROM logins",
        "1 arguments, not 2",
        "",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, regexp_like(card_id, «'('») AS n FROM logins",
        "regular expression",
        "",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, regexp_like(card_id, «card_id») AS n FROM logins",
        "constant",
        "",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, lpad(card_id, «1000000») AS n FROM logins",
        "constant from 0",
        "",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, date_trunc(«'fortnight'», event_time) AS n FROM logins",
        "fortnight",
        "hour",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, «upper»(card_id) FILTER (WHERE ok) AS n FROM logins",
        "FILTER",
        "leave",
    ),
    // Expressions.
    (
        "CREATE VIEW v AS SELECT payment_id, «quantity / 2» AS n FROM payments",
        "disagree on dividing",
        "CAST(a AS DOUBLE)",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id, «amount / quantity» AS n FROM payments",
        "disagree on dividing",
        "CAST(a AS DOUBLE)",
    ),
    (
        "CREATE VIEW v AS SELECT card_id, «count(*) / count»(ok) AS n FROM logins GROUP BY card_id",
        "disagree on dividing",
        "CAST(a AS DOUBLE)",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id, CAST(«fee» AS BIGINT) AS n FROM payments",
        "fraction becomes",
        "round",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id, CAST(«quantity» AS TIMESTAMP) AS n FROM payments",
        "does not become",
        "interval",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id, CAST(«fee» AS FLOAT) AS n FROM payments",
        "32 bits",
        "DOUBLE",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id, CAST(«fee» AS VARCHAR(3)) AS n FROM payments",
        "length",
        "VARCHAR",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id, «country + 1» AS n FROM payments",
        "does not take",
        "CAST",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id, «country = 1» AS n FROM payments",
        "not of one kind",
        "CAST",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id, «fee» || 'x' AS n FROM payments",
        "joins strings",
        "VARCHAR",
    ),
    ("CREATE VIEW v AS SELECT payment_id, NOT «fee» AS n FROM payments", "boolean", ""),
    ("CREATE VIEW v AS SELECT payment_id FROM payments WHERE «fee»", "boolean", ""),
    ("CREATE VIEW v AS SELECT payment_id FROM payments WHERE «ok»", "no column `ok`", ""),
    (
        "CREATE VIEW v AS SELECT payment_id, «CASE WHEN approved THEN 1 ELSE 'a' END» AS n FROM payments",
        "not of one kind",
        "CAST",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id, «NULL» AS n FROM payments",
        "no column can hold",
        "CAST(NULL",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id, «event_time - event_time» AS n FROM payments",
        "no column can hold",
        "EPOCH",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id, country LIKE «country» AS n FROM payments",
        "constant",
        "regexp_like",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id, «country ~ 'A'» AS n FROM payments",
        "not supported",
        "regexp_like",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id, «country SIMILAR TO 'A'» AS n FROM payments",
        "disagree",
        "regexp_like",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id, «event_time AT TIME ZONE 'Asia/Muscat'» AS n FROM payments",
        "UTC",
        "interval",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id, («SELECT 1») AS n FROM payments",
        "subqueries",
        "view of its own",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id FROM payments WHERE EXISTS («SELECT 1 FROM logins»)",
        "subqueries",
        "view of its own",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id, event_time > «'yesterday'» AS n FROM payments",
        "not a timestamp",
        "UTC",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id, «scores[1:2»] AS n FROM payments",
        "one element",
        "list[1]",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id, EXTRACT(CENTURY FROM «event_time») AS n FROM payments",
        "century",
        "year",
    ),
    ("CREATE VIEW v AS SELECT payment_id, «$1» AS n FROM payments", "no parameters", "value"),
    (
        "CREATE VIEW v AS SELECT card_id FROM logins WHERE ok IS NOT DISTINCT FROM «ok AND ok»",
        "unclear",
        "parentheses",
    ),
    (
        "CREATE VIEW v AS SELECT payment_id, «day + INTERVAL '1 day'» AS n FROM payments",
        "does not take",
        "AS TIMESTAMP",
    ),
    (
        "CREATE VIEW v AS SELECT upper(country) AS country, count(*) AS n FROM payments GROUP BY «country»",
        "disagree on which",
        "another name",
    ),
    // Headers.
    ("-- «ownr»: me\nCREATE VIEW v AS SELECT card_id FROM logins", "unknown header", "owner"),
    (
        "-- ttl: «2 months»\nCREATE VIEW v AS SELECT card_id FROM logins",
        "no fixed length",
        "7 days",
    ),
    ("-- ttl: «soon»\nCREATE VIEW v AS SELECT card_id FROM logins", "whole number", "7 days"),
    ("-- hop: «0 seconds»\nCREATE VIEW v AS SELECT card_id FROM logins", "positive", "5 minutes"),
    (
        "-- ttl: 1 day\n-- «ttl»: 1 day\nCREATE VIEW v AS SELECT card_id FROM logins",
        "twice",
        "one of them",
    ),
    // Syntax.
    ("CREATE VIEW v AS SELECT card_id\nFROM logins WHERE«»", "Expected", ""),
    ("CREATE VIEW v AS SELECT card_id FROM logins; «SELECT 1»", "one view", "file of its own"),
];

/// Line and column (from 1) of a byte offset.
fn place(text: &str, offset: usize) -> (u32, u32) {
    let before = &text[..offset];
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap().chars().count() + 1;
    (u32::try_from(line).unwrap(), u32::try_from(column).unwrap())
}

#[test]
fn everything_else_is_refused_at_its_place() {
    let mut wrong = Vec::new();
    for (marked, message, help) in REFUSED {
        let text = marked.replace(['«', '»'], "");
        let start = marked.find('«').unwrap();
        let end = marked.find('»').unwrap() - '«'.len_utf8();
        let marks = (place(&text, start), place(&text, end));
        match try_plan(&text) {
            Ok(_) => wrong.push(format!("ACCEPTED {text}")),
            Err(diagnostics) => {
                let first = &diagnostics[0];
                let said = first.message.contains(message)
                    && first.help.as_deref().unwrap_or_default().contains(help)
                    && (help.is_empty() || first.help.is_some());
                let found =
                    ((first.line, first.column), first.end.unwrap_or((first.line, first.column)));
                if !said || marks != found {
                    wrong.push(format!(
                        "expected {marks:?} {message:?} {help:?}, found {found:?}\n{first}"
                    ));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong\n{}", wrong.len(), wrong.join("\n\n"));
}

#[test]
fn several_findings_are_reported_together() {
    let text = "CREATE VIEW v AS SELECT card_id, now() AS a, nope AS b, ok + 1 AS c FROM logins WHERE card_id";
    assert_eq!(try_plan(text).unwrap_err().len(), 4);
}
