-- The rows of the users and days in the table days, added up as the daily totals are. The last row ends the answer.
SELECT company_id, user_id, tier, day, calls FROM (
    SELECT company_id, user_id, toString(subscription_tier) AS tier, toInt64(toInt32(toDate(timestamp))) AS day, toInt64(sum(sign)) AS calls
    FROM usage_tracking
    WHERE (company_id, user_id) IN (SELECT company_id, user_id FROM days)
        AND timestamp >= toDateTime64((SELECT min(day) FROM days) * 86400, 3, 'UTC')
        AND timestamp < toDateTime64((SELECT max(day) + 1 FROM days) * 86400, 3, 'UTC')
        AND (company_id, user_id, toInt32(toDate(timestamp))) IN (SELECT company_id, user_id, day FROM days)
    GROUP BY company_id, user_id, tier, day
    UNION ALL SELECT '', '', '', toInt64(0), toInt64(0)
) ORDER BY company_id = ''
