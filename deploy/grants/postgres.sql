-- What the service's login may do in Postgres, apart from the login that migrates. An administrator makes both, and the
-- database, once:
--
--   CREATE ROLE tenantflow LOGIN CREATEROLE;                                  -- runs the service
--   CREATE ROLE tenantflow_migrate LOGIN CREATEROLE IN ROLE tenantflow;       -- runs `tenantflow migrate`
--   CREATE DATABASE tenantflow OWNER tenantflow_migrate;
--
-- Both make roles, one for each company. The one that migrates is a member of the other because it changes the tables of
-- companies, which belong to the service. Run this file as tenantflow_migrate after each `tenantflow migrate`: it takes
-- back everything in public and grants what follows.

BEGIN;

REVOKE ALL ON ALL TABLES IN SCHEMA public FROM tenantflow;
REVOKE ALL ON ALL FUNCTIONS IN SCHEMA public FROM tenantflow;

-- A schema for each company.
DO $$ BEGIN
    EXECUTE format('GRANT CONNECT, CREATE ON DATABASE %I TO tenantflow', current_database());
END $$;
GRANT USAGE ON SCHEMA public TO tenantflow;

-- What only `migrate` writes.
GRANT SELECT ON subscription_tiers, tenant_migrations, replay_key, user_memberships TO tenantflow;

-- Companies and their books. Triggers write versions, changes and memberships with the rights of the owner.
GRANT SELECT, INSERT, UPDATE ON companies, company_heads, company_locks, payments TO tenantflow;
GRANT SELECT, INSERT, UPDATE, DELETE ON company_config, subscriptions, limit_overrides, user_directory TO tenantflow; -- a purge deletes them
GRANT SELECT, INSERT ON billing_transactions, subscription_events, audit_log TO tenantflow;
GRANT SELECT, INSERT, DELETE ON tenant_schema_versions TO tenantflow;
GRANT SELECT, DELETE ON changes TO tenantflow;

-- Events under way, schedules and tasks.
GRANT SELECT, INSERT, UPDATE, DELETE ON inbox, company_blocks, due_events, job_slots, void_requests TO tenantflow;
GRANT SELECT, INSERT, UPDATE ON jobs TO tenantflow;
GRANT SELECT, INSERT, DELETE ON usage_voids TO tenantflow; -- a purge deletes them
GRANT SELECT, INSERT, UPDATE, DELETE ON recommendations, forecasts TO tenantflow; -- old ones are deleted
GRANT SELECT, INSERT, UPDATE ON topic_partitions, dead_letters, tasks TO tenantflow;
GRANT SELECT, INSERT, DELETE ON task_identities TO tenantflow;

-- Billing exports: closed ones never change, but for the note that they were announced.
GRANT SELECT, INSERT, UPDATE (published_at) ON billing_exports TO tenantflow;
GRANT SELECT, INSERT ON billing_export_items TO tenantflow;
GRANT SELECT, INSERT, UPDATE ON billing_reported TO tenantflow;
-- Reports of the business metrics, and the sample of queries that latencies are taken from.
GRANT SELECT, INSERT, UPDATE, DELETE ON business_reports TO tenantflow;
GRANT SELECT, INSERT, DELETE ON query_samples TO tenantflow;
GRANT SELECT ON isolation_leaks TO tenantflow;

GRANT EXECUTE ON FUNCTION tenant_schema_name(text), lock_company(text), tenant_schema_version(text), has_company_schema(text),
    grant_company_schema(text), migrate_company_schema(text, bigint), create_company_tables(text), create_company_schema(text),
    drop_company_schema(text), tenant_user_put(text, text, text, timestamptz), tenant_user_remove(text, text, timestamptz),
    seat_users(text, text, timestamptz, timestamptz, jsonb, bigint, timestamptz), touch_users(text[], text[], timestamptz[]),
    period_books(subscriptions), tenant_size(text), measure_company(text, integer), job_clock() TO tenantflow;

-- Tables that a later version adds to the schemas of companies belong to the login that migrates.
ALTER DEFAULT PRIVILEGES FOR ROLE tenantflow_migrate GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO tenantflow;
ALTER DEFAULT PRIVILEGES FOR ROLE tenantflow_migrate GRANT USAGE ON SEQUENCES TO tenantflow;

COMMIT;
