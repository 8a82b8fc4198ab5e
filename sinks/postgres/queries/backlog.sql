-- Counts what is not at its end: events that wait, rows with a fault, companies that can't go on, results that are not known to be
-- published, and since when the first of those is done. Before $1 (null: ever) there are none of the latter.
SELECT
    (SELECT count(*) FROM public.inbox WHERE state = 'waiting') AS waiting,
    (SELECT count(*) FROM public.inbox WHERE fault IS NOT NULL) AS faulty,
    (SELECT count(*) FROM public.company_blocks) AS blocked,
    count(*) AS unpublished,
    coalesce(clock_timestamp() - min(applied_at), '0') AS oldest
FROM public.inbox
WHERE published_at IS NULL AND state IN ('done', 'rejected') AND fault IS NULL AND applied_at >= coalesce($1::timestamptz, '-infinity')
