-- Whether the usage of a company ($1) that a void ($2) takes back is taken back already.
SELECT EXISTS (SELECT FROM public.usage_voids WHERE company_id = $1 AND void_id = $2)
