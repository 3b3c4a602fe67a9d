-- owner: fraud-features
-- description: A customer's latest payment beside the few before it.
-- tags: fraud, sequence
-- ttl: 90 days
CREATE VIEW customer_recent AS
SELECT
    customer_id,
    payment_id AS latest_payment_id,
    amount_fils AS latest_fils,
    upper(channel) AS latest_channel,
    EXTRACT(HOUR FROM paid_at) AS latest_hour,
    last_n(amount_fils, 5) OVER (PARTITION BY customer_id) AS latest_5_fils,
    top_n(amount_fils, 3) OVER last_20 AS greatest_3_of_20_fils,
    avg(amount_fils) OVER last_20 AS mean_of_20_fils,
    count(DISTINCT merchant_id) OVER last_20 AS merchants_of_20,
    CAST(amount_fils AS DOUBLE) / nullif(avg(amount_fils) OVER last_20, 0.0) AS latest_to_mean
FROM payments
WINDOW last_20 AS (PARTITION BY customer_id ORDER BY paid_at
                   ROWS BETWEEN 19 PRECEDING AND CURRENT ROW);
