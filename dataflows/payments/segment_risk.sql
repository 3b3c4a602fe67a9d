-- owner: risk-office
-- description: How each segment of customers stands today.
-- tags: fraud, reporting
CREATE VIEW segment_risk AS
SELECT
    segment,
    count(*) AS customers,
    count(*) FILTER (WHERE standing = 'review') AS in_review,
    sum(payments_1h) AS payments_1h,
    max(limit_used_24h) AS most_limit_used_24h
FROM customer_risk
WHERE segment IS NOT NULL
GROUP BY segment;
