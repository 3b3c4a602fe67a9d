-- owner: fraud-features
-- description: How often and for how much a customer pays: the last 5 minutes, hour and day.
-- tags: fraud, velocity
-- ttl: 30 days
-- hop: 1 minute
-- retain: 30 days
CREATE VIEW customer_activity AS
SELECT
    customer_id,
    count(*) OVER last_5m AS payments_5m,
    count(*) OVER last_1h AS payments_1h,
    count(*) OVER last_24h AS payments_24h,
    sum(amount_fils) OVER last_5m AS spent_fils_5m,
    sum(amount_fils) OVER last_1h AS spent_fils_1h,
    sum(amount_fils) OVER last_24h AS spent_fils_24h,
    avg(amount_fils) OVER last_24h AS mean_fils_24h,
    min(amount_fils) OVER last_24h AS least_fils_24h,
    max(amount_fils) OVER last_24h AS most_fils_24h,
    count(*) FILTER (WHERE status = 'declined') OVER last_1h AS declined_1h,
    count(*) FILTER (WHERE status = 'declined') OVER last_24h AS declined_24h
FROM payments
WINDOW
    last_5m AS (PARTITION BY customer_id ORDER BY paid_at
                RANGE BETWEEN INTERVAL '5 minutes' PRECEDING AND CURRENT ROW),
    last_1h AS (PARTITION BY customer_id ORDER BY paid_at
                RANGE BETWEEN INTERVAL '1 hour' PRECEDING AND CURRENT ROW),
    last_24h AS (PARTITION BY customer_id ORDER BY paid_at
                 RANGE BETWEEN INTERVAL '24 hours' PRECEDING AND CURRENT ROW);
