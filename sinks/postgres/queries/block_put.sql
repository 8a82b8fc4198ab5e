-- Notes that a company ($1) can't go on: $2 the reason, $3 what was said, $4 who blocks it, or empty. It is tried again after a second,
-- and ever later the more tries have failed, up to half a minute; after ten minutes where a try takes long. Returns how many have failed.
INSERT INTO public.company_blocks AS b (company_id, reason, detail, blocked_by, next_try)
VALUES ($1, $2, $3, nullif($4, ''), clock_timestamp() + CASE $2 WHEN 'slow' THEN interval '10 minutes' ELSE interval '1 second' END)
ON CONFLICT (company_id) DO UPDATE
    SET reason = EXCLUDED.reason, detail = EXCLUDED.detail, tries = b.tries + 1,
        blocked_by = CASE WHEN EXCLUDED.reason = b.reason THEN coalesce(EXCLUDED.blocked_by, b.blocked_by) ELSE EXCLUDED.blocked_by END,
        next_try = clock_timestamp() + CASE EXCLUDED.reason WHEN 'slow' THEN interval '10 minutes'
            ELSE least(interval '1 second' * 2 ^ least(b.tries, 10), interval '30 seconds') END
RETURNING tries
