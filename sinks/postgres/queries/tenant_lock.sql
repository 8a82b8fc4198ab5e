-- Takes the lock of a company ($1), and says whether the company can't go on and whether the row of the event ($2 source, $3 id) in the
-- inbox has a fault. The lock is left alone where the company can't go on and the event is none of those that are tried again: it will
-- only be put behind them, or is done, and must not wait for what its company waits for.
SELECT a.blocked, coalesce(a.fault, false) AS faulty,
    (CASE WHEN NOT a.blocked OR a.state IN ('waiting', 'held') THEN public.lock_company($1) END) IS NOT NULL AS locked
FROM (
    SELECT EXISTS (SELECT FROM public.company_blocks AS b WHERE b.company_id = $1) AS blocked, i.state, i.fault IS NOT NULL AS fault
    FROM (SELECT 1) AS one LEFT JOIN public.inbox AS i ON i.source = $2 AND i.event_id = $3) AS a
