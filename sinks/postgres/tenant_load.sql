-- Everything that is needed to judge one event of a company ($1), whose lock is held: the event's own row in the inbox ($2 source,
-- $3 id), who has the user it names ($4, or empty), what is known of the payment it names ($5, or empty), how many users
-- there are ($6: whether that is asked for), and the last effect of its topic ($7: it is subscription.events). There is always one row.
SELECT
    c.company_id IS NOT NULL,
    coalesce(c.name, ''), coalesce(c.billing_email, ''), coalesce(c.currency, ''), coalesce(c.status, ''), c.created_at,
    f.config,
    s.company_id IS NOT NULL,
    coalesce(s.tier, ''), coalesce(s.status, ''), s.period_start, s.period_end, coalesce(s.period_months, 1), coalesce(s.price_minor, 0),
    coalesce(s.currency, ''), coalesce(s.pending_tier, ''), s.pending_at, coalesce(s.cancel_at_period_end, false), s.grace_until,
    s.renewal_until, s.next_period_start, s.next_period_end, s.next_renewal, coalesce(s.payment_failed, false), s.expired_term,
    coalesce(s.anchor_day, 0), s.limits, s.benefits, s.event_partition,
    coalesce(b.charged, 0), coalesce(b.tiers, '{}'), coalesce(b.received, 0),
    CASE WHEN $7 THEN h.subscription_effect_at ELSE h.company_effect_at END, h.last_effect_at,
    coalesce(h.audit_seq, 0), coalesce(h.audit_hash, ''),
    coalesce(i.state, ''), i.fingerprint, coalesce(i.seq, 0), i.result, i.published_at IS NOT NULL,
    -- The first of the events that wait for the company; 0: none does.
    coalesce((SELECT w.seq FROM public.inbox AS w WHERE w.company_id = $1 AND w.state = 'waiting' ORDER BY w.seq LIMIT 1), 0),
    coalesce((SELECT u.company_id FROM public.user_directory AS u WHERE u.user_id = $4), ''),
    CASE WHEN $6 THEN (SELECT count(*) FROM public.user_directory AS u WHERE u.company_id = $1) ELSE 0 END,
    p.payment_id IS NOT NULL,
    coalesce(p.company_id, ''), p.amount_minor, coalesce(p.currency, ''), p.paid_at, coalesce(p.method, ''), coalesce(p.status, ''),
    coalesce(p.billing_period, ''), coalesce(p.transaction_id, ''), p.period_start, coalesce(p.reason, ''),
    CASE WHEN $6 THEN coalesce((SELECT max(v.version) FROM public.tenant_schema_versions AS v WHERE v.company_id = $1), 0) ELSE 0 END,
    CASE WHEN $6 THEN coalesce((SELECT max(m.version) FROM public.tenant_migrations AS m), 0) ELSE 0 END
FROM (SELECT 1) AS one
LEFT JOIN public.companies AS c ON c.company_id = $1
LEFT JOIN public.company_config AS f ON f.company_id = $1
LEFT JOIN public.subscriptions AS s ON s.company_id = $1
LEFT JOIN public.company_heads AS h ON h.company_id = $1
LEFT JOIN public.inbox AS i ON i.source = $2 AND i.event_id = $3
LEFT JOIN public.payments AS p ON p.payment_id = $5
LEFT JOIN LATERAL public.period_books(s) AS b ON $7
