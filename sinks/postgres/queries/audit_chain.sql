-- The audit log of a company ($1) in its order, with what the company's head says of the last record. A head without a log is one row,
-- of record 0.
SELECT
    coalesce(h.audit_seq, 0) AS audit_seq,
    coalesce(h.audit_hash, '') AS audit_hash,
    $1::text AS company_id,
    coalesce(a.seq, 0) AS seq,
    coalesce(a.event_source, '') AS source,
    coalesce(a.event_id, '') AS event_id,
    coalesce(a.event_type, '') AS type,
    coalesce(a.action, '') AS action,
    coalesce(a.occurred_at, 'epoch') AS occurred_at,
    coalesce(a.details, '') AS details,
    coalesce(a.previous_hash, '') AS previous_hash,
    coalesce(a.hash, '') AS hash
FROM (SELECT 1) AS one
LEFT JOIN public.company_heads AS h ON h.company_id = $1
LEFT JOIN public.audit_log AS a ON a.company_id = $1
ORDER BY a.seq
