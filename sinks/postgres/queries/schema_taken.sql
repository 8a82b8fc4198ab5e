-- Whether there is a schema or a role of a name ($1).
SELECT EXISTS (SELECT FROM pg_catalog.pg_namespace WHERE nspname = $1) OR EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = $1)
