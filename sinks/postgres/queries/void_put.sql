-- Records that usage ($3 source, $4 id, $5 timestamp) of a company ($1) is taken back by the void $2, which a request ($6 source, $7 id) has
-- asked for, and when ($8).
INSERT INTO public.usage_voids (company_id, void_id, usage_source, usage_id, usage_timestamp, request_source, request_id, voided_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
