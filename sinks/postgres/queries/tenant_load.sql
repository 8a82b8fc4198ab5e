-- Everything that is needed to judge one event of a company ($1), whose lock is held: the event's own row in the inbox ($2 source,
-- $3 id), who has the user it names ($4, or empty), how many users there are ($5: whether that is asked for), and the last effect of its
-- topic ($6: it is subscription.events). There is always one row. Where there is no company (created_at is null), no subscription
-- (subscribed is false) or no row of the inbox, the columns hold values that mean nothing.
SELECT
    coalesce(c.name, '') AS company_name,
    coalesce(c.billing_email, '') AS billing_email,
    coalesce(c.currency, '') AS company_currency,
    coalesce(c.status, '') AS company_status,
    c.created_at,
    f.config,
    s.company_id IS NOT NULL AS subscribed,
    coalesce(s.tier, '') AS tier,
    coalesce(s.status, '') AS status,
    coalesce(s.period_start, 'epoch') AS period_start,
    coalesce(s.period_end, 'epoch') AS period_end,
    coalesce(s.period_months, 1) AS months,
    coalesce(s.anchor_day, 0) AS anchor_day,
    coalesce(s.price_minor, 0) AS price_minor,
    coalesce(s.currency, '') AS currency,
    coalesce(s.pending_tier, '') AS pending_tier,
    s.pending_at,
    coalesce(s.cancel_at_period_end, false) AS cancel_at_end,
    s.grace_until,
    s.renewal_until,
    s.next_period_start,
    s.next_period_end,
    s.next_renewal AS renewal,
    coalesce(s.payment_failed, false) AS failed,
    s.expired_term AS expired,
    coalesce(s.limits, '{}') AS limits,
    s.benefits,
    s.closed_at,
    coalesce(s.closed_in, '{}') AS closed_in,
    s.event_partition AS partition,
    coalesce((
        SELECT jsonb_agg(to_jsonb(o) - '{company_id,event_partition}'::text[] ORDER BY o.limit_name)
        FROM public.limit_overrides AS o WHERE o.company_id = $1), '[]') AS overrides,
    coalesce(b.charged, 0) AS charged,
    coalesce(b.tiers, '{}') AS tiers,
    coalesce(b.received, 0) AS received,
    coalesce(a.received, 0) AS ahead_received,
    coalesce(a.failed, false) AS ahead_failed,
    -- How many partitions subscription.events has; 0: it was never consumed.
    CASE WHEN $6 THEN coalesce((SELECT max(t.partitions) FROM public.topic_partitions AS t WHERE t.topic LIKE '%subscription.events'), 0) ELSE 0 END AS partitions,
    CASE WHEN $6 THEN h.subscription_effect_at ELSE h.company_effect_at END AS effect_at,
    h.last_effect_at,
    coalesce(h.audit_seq, 0) AS audit_seq,
    coalesce(h.audit_hash, '') AS audit_hash,
    -- The log has records, and where it goes on is lost.
    h.company_id IS NULL AND EXISTS (SELECT FROM public.audit_log AS a WHERE a.company_id = $1) AS headless,
    coalesce(i.state, '') AS inbox_state,
    i.fingerprint,
    coalesce(i.seq, 0) AS inbox_seq,
    i.result,
    i.published_at IS NOT NULL AS published,
    -- The first of the events that wait for the company; 0: none does.
    coalesce((SELECT w.seq FROM public.inbox AS w WHERE w.company_id = $1 AND w.state = 'waiting' ORDER BY w.seq LIMIT 1), 0) AS queue_head,
    coalesce((SELECT u.company_id FROM public.user_directory AS u WHERE u.user_id = $4), '') AS user_of,
    CASE WHEN $5 THEN (SELECT count(*) FROM public.user_directory AS u WHERE u.company_id = $1) ELSE 0 END AS users,
    CASE WHEN $5 THEN coalesce((SELECT max(v.version) FROM public.tenant_schema_versions AS v WHERE v.company_id = $1), 0) ELSE 0 END AS schema_version,
    CASE WHEN $5 THEN coalesce((SELECT max(m.version) FROM public.tenant_migrations AS m), 0) ELSE 0 END AS newest_schema
FROM (SELECT 1) AS one
LEFT JOIN public.companies AS c ON c.company_id = $1
LEFT JOIN public.company_config AS f ON f.company_id = $1
LEFT JOIN public.subscriptions AS s ON s.company_id = $1
LEFT JOIN public.company_heads AS h ON h.company_id = $1
LEFT JOIN public.inbox AS i ON i.source = $2 AND i.event_id = $3
LEFT JOIN LATERAL public.period_books(s) AS b ON $6
LEFT JOIN LATERAL (
    -- Of the period that is recorded ahead: the payments that belong to it, and those for its month, which will.
    SELECT
        coalesce(sum(p.amount_minor) FILTER (WHERE p.status = 'received'), 0)::bigint AS received,
        coalesce(bool_or(p.status = 'failed' AND p.period_start IS NOT NULL), false) AS failed
    FROM public.payments AS p
    WHERE s.next_period_start IS NOT NULL AND p.company_id = $1 AND (p.period_start = s.next_period_start
        OR p.period_start IS NULL AND p.billing_period = to_char(s.next_period_start AT TIME ZONE 'UTC', 'YYYY-MM'))
) AS a ON $6
