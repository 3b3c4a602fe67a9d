-- owner: fraud-features
-- description: One line of risk per customer: activity against what the customer may spend.
-- tags: fraud, scores
-- ttl: 30 days
CREATE VIEW customer_risk AS
SELECT
    a.customer_id,
    c.segment,
    a.payments_1h,
    CAST(a.spent_fils_24h AS DOUBLE) / nullif(CAST(c.credit_limit AS DOUBLE) * 100.0, 0.0) AS limit_used_24h,
    CASE
        WHEN a.declined_24h >= 3 THEN 'review'
        WHEN a.payments_5m >= 5 THEN 'watch'
        ELSE 'normal'
    END AS standing
FROM customer_activity AS a
LEFT JOIN customers AS c ON a.customer_id = c.customer_id
WHERE a.payments_24h > 0;
