-- The effects on the subscription of a company ($1): as its history has them, in the order in which they happened.
SELECT id AS seq, coalesce(source, '') AS source, coalesce(event_id, '') AS event_id, event AS action, event_time AS occurred_at,
    coalesce(data::text, '') AS details
FROM public.subscription_events WHERE company_id = $1 ORDER BY id
