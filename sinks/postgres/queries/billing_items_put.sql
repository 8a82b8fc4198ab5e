-- Notes which transactions and payments an export ($1) has: their kinds ($2) and ids ($3). One that another export has is an error.
INSERT INTO public.billing_export_items (kind, item_id, export_id)
SELECT i.kind, i.item_id, $1 FROM unnest($2::text[], $3::text[]) AS i (kind, item_id)
