-- A part of the templates: the hash of all of a row but its identity and place, as hasher makes it of an event. Fields that may hold any
-- character come with their length or last, so that no two rows share a text.
xxHash64(concat(user_id, '\n', company_id, '\n', subscription_tier, '\n', billing_period, '\n',
    toString(length(service_name)), ':', service_name, api_endpoint, '\n',
    reinterpretAsFixedString(toUnixTimestamp64Milli(timestamp)), reinterpretAsFixedString(data_points_consumed),
    reinterpretAsFixedString(reinterpret(processing_time_ms, 'Int64')), reinterpretAsFixedString(reinterpret(revenue_attributed, 'Int64'))))
