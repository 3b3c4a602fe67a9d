-- owner: fraud-features
-- description: How a customer's payments end, in windows exact to the microsecond.
-- tags: fraud
-- ttl: 7 days
-- retain: 30 days
CREATE VIEW customer_declines AS
SELECT
    customer_id,
    count(*) OVER last_10m AS payments_10m,
    CAST(count(*) FILTER (WHERE status = 'declined') OVER last_10m AS DOUBLE)
        / nullif(count(*) OVER last_10m, 0) AS declined_share_10m,
    bool_or(NOT card_present AND device_risk > 0.8) OVER last_10m AS risky_device_10m,
    max(device_risk) OVER last_10m AS worst_device_10m,
    stddev(device_risk) OVER last_10m AS device_spread_10m
FROM payments
WINDOW last_10m AS (PARTITION BY customer_id ORDER BY paid_at
                    RANGE BETWEEN INTERVAL '10 minutes' PRECEDING AND CURRENT ROW);
