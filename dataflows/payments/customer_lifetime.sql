-- owner: customer-data
-- description: What is known of a customer over all time.
-- tags: fraud, marketing
CREATE VIEW customer_lifetime AS
SELECT
    customer_id,
    count(*) AS payments,
    sum(amount_fils) FILTER (WHERE status = 'approved') AS approved_fils,
    avg(amount_fils) AS mean_fils,
    stddev(amount_fils) AS spread_fils,
    count(DISTINCT country) AS countries,
    count(DISTINCT merchant_id) AS merchants,
    min(paid_at) AS first_paid_at,
    max(paid_at) AS last_paid_at,
    first_value(channel) AS first_channel,
    last_value(channel) AS last_channel
FROM payments
WHERE status <> 'reversed'
GROUP BY customer_id
HAVING count(*) > 0;
