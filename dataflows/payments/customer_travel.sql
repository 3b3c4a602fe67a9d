-- owner: fraud-features
-- description: Payments away from home, by the home that the customer had when paying.
-- tags: fraud
-- ttl: 30 days
-- hop: 1 hour
CREATE VIEW customer_travel AS
SELECT
    p.customer_id,
    count(*) FILTER (WHERE p.country <> c.country) OVER last_7d AS abroad_7d,
    sum(CASE WHEN p.country <> c.country THEN p.amount_fils ELSE 0 END) OVER last_7d AS abroad_fils_7d,
    approx_distinct(p.country) OVER last_7d AS countries_7d,
    max(CAST(p.amount_fils AS DOUBLE) / nullif(CAST(c.credit_limit AS DOUBLE) * 100.0, 0.0))
        OVER last_7d AS largest_share_of_limit_7d
FROM payments AS p
ASOF LEFT JOIN customers AS c ON p.customer_id = c.customer_id AND p.paid_at >= c.changed_at
WINDOW last_7d AS (PARTITION BY p.customer_id ORDER BY p.paid_at
                   RANGE BETWEEN INTERVAL '7 days' PRECEDING AND CURRENT ROW);
