-- The effects on the subscription of a company ($1): as the audit log has them, in the order in which they happened.
SELECT seq, coalesce(event_source, '') AS source, coalesce(event_id, '') AS event_id, action, occurred_at, details
FROM public.audit_log
WHERE company_id = $1 AND (action LIKE 'subscription.%' OR action = 'company.created')
ORDER BY seq
