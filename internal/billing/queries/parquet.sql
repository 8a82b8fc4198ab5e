-- Lines of an export ($1: one JSON object each) as typed columns.
SELECT *
FROM format(JSONEachRow,
    'line String, company_id String, billing_period String, corrects_period String, cause String, reference String, type String, status String, user_id String,
    subscription_tier String, service_name String, calls Nullable(Int64), data_points Nullable(Int64), identities Nullable(Int64), attributed_revenue Nullable(Decimal(38, 6)),
    amount Nullable(Decimal(18, 2)), currency String, starts_at Nullable(DateTime64(6, \'UTC\')), ends_at Nullable(DateTime64(6, \'UTC\')),
    happened_at Nullable(DateTime64(6, \'UTC\')), detail String', $1)
