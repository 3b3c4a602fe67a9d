-- owner: fraud-features
-- description: Where a customer pays, by what is known of the merchants now.
-- tags: fraud, merchants
-- ttl: 30 days
-- hop: chronon
CREATE VIEW customer_merchant_risk AS
SELECT
    p.customer_id,
    count(*) OVER last_24h AS payments_24h,
    count(*) FILTER (WHERE m.risk_tier = 'high') OVER last_24h AS high_risk_24h,
    sum(p.amount_fils) FILTER (WHERE m.risk_tier = 'high') OVER last_24h AS high_risk_fils_24h,
    count(DISTINCT m.category_code) OVER last_24h AS categories_24h,
    max(CASE m.risk_tier WHEN 'low' THEN 1 WHEN 'medium' THEN 2 WHEN 'high' THEN 3 END)
        OVER last_24h AS worst_tier_24h
FROM payments AS p
LEFT JOIN merchants AS m ON p.merchant_id = m.merchant_id
WINDOW last_24h AS (PARTITION BY p.customer_id ORDER BY p.paid_at
                    RANGE BETWEEN INTERVAL '24 hours' PRECEDING AND CURRENT ROW);
