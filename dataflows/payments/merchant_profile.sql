-- owner: acquiring
-- description: What passes through a merchant in a day and in a month.
-- tags: merchants, drift
-- hop: chronon
CREATE VIEW merchant_profile AS
SELECT
    merchant_id,
    count(*) OVER last_24h AS payments_24h,
    sum(amount_fils) OVER last_24h AS turnover_fils_24h,
    approx_quantile(amount_fils, 0.5) OVER last_30d AS median_fils_30d,
    approx_quantile(amount_fils, 0.99) OVER last_30d AS p99_fils_30d,
    approx_distinct(customer_id) OVER last_30d AS customers_30d,
    var_pop(device_risk) OVER last_30d AS device_risk_variance_30d,
    CAST(count(*) FILTER (WHERE status = 'declined') OVER last_24h AS DOUBLE)
        / nullif(count(*) OVER last_24h, 0) AS declined_share_24h
FROM payments
WINDOW
    last_24h AS (PARTITION BY merchant_id ORDER BY paid_at
                 RANGE BETWEEN INTERVAL '24 hours' PRECEDING AND CURRENT ROW),
    last_30d AS (PARTITION BY merchant_id ORDER BY paid_at
                 RANGE BETWEEN INTERVAL '30 days' PRECEDING AND CURRENT ROW);
