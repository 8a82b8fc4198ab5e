-- One page of the change feed, in its order: changes made by transactions in any of the ranges that begin with $1 and end with $2, behind
-- the place of transaction $3 and version $4, at most $5 of them. By hand:
--   psql -v ON_ERROR_STOP=1 -c "PREPARE page AS $(cat changes.sql)" -c "EXECUTE page ('{0}', '{9223372036854775807}', '0', 0, 100)"
SELECT c.xid, c.version, c.company_id, coalesce(c.user_id, '')
FROM unnest($1::xid8[], $2::xid8[]) AS r (low, high)
CROSS JOIN LATERAL (
    SELECT c.xid, c.version, c.company_id, c.user_id
    FROM public.changes AS c
    WHERE c.xid >= r.low AND c.xid <= r.high AND (c.xid, c.version) > ($3::xid8, $4)
    ORDER BY c.xid, c.version
    LIMIT $5) AS c
ORDER BY c.xid, c.version
LIMIT $5
