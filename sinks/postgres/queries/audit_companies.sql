-- The companies that have an audit log or a head of one; only $1, unless that is empty.
SELECT company_id FROM public.audit_log WHERE $1 = '' OR company_id = $1
UNION
SELECT company_id FROM public.company_heads WHERE $1 = '' OR company_id = $1
ORDER BY 1
