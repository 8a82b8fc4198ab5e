-- A template: the months, from that of a day on, that a store or the rows have.
SELECT DISTINCT month
FROM (
    SELECT DISTINCT toUInt32(toYYYYMM(timestamp)) AS month FROM usage_tracking
    UNION ALL
    SELECT DISTINCT toUInt32({{.Month}}) AS month FROM {{.Store}}
)
WHERE month >= toYYYYMM(toDate(?))
