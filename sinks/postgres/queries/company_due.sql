-- Of each company of partition $1 the last override that has ended by Postgres' clock and by $2, unless it was published to topic $3
-- within $4; of at most $5 companies.
SELECT l.company_id, l.limit_name, l.expires_at
FROM (
    SELECT DISTINCT ON (o.company_id) o.company_id, o.limit_name, o.expires_at
    FROM public.limit_overrides AS o
    JOIN public.companies AS c ON c.company_id = o.company_id
    WHERE o.expires_at <= least($2::timestamptz, now()) AND c.status = 'active' AND (o.event_partition = $1 OR o.event_partition IS NULL AND $1 = 0)
    ORDER BY o.company_id, o.expires_at DESC, o.limit_name DESC) AS l
WHERE NOT EXISTS (SELECT FROM public.inbox AS i WHERE i.company_id = l.company_id AND i.state = 'waiting')
    AND NOT EXISTS (SELECT FROM public.company_blocks AS b WHERE b.company_id = l.company_id)
    -- due:<company>:override:<limit>:<time>; no id of a company has a colon.
    AND NOT EXISTS (SELECT FROM public.due_events AS d WHERE d.company_id = l.company_id AND d.topic = $3 AND d.due_at = l.expires_at
        AND split_part(d.event_id, ':', 4) = l.limit_name AND d.published_at > clock_timestamp() - $4::interval)
ORDER BY l.expires_at, l.company_id
LIMIT $5
