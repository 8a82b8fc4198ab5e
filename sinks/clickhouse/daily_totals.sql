-- The daily totals of the users and days in the table days. The last row ends the answer.
SELECT company_id, user_id, tier, day, calls FROM (
    SELECT company_id, user_id, toString(subscription_tier) AS tier, toInt64(toInt32(day)) AS day, toInt64(total_api_calls) AS calls
    FROM usage_daily
    WHERE (company_id, user_id) IN (SELECT company_id, user_id FROM days)
        AND (company_id, user_id, toInt32(day)) IN (SELECT company_id, user_id, day FROM days)
    UNION ALL SELECT '', '', '', toInt64(0), toInt64(0)
) ORDER BY company_id = ''
