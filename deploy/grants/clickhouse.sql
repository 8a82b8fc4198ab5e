-- What the service's login may do in ClickHouse, apart from the login that migrates. An administrator makes the database and both
-- users once, and runs this file; again after an update that adds a line here.
--
--   CREATE DATABASE IF NOT EXISTS tenantflow;
--   CREATE USER tenantflow IDENTIFIED WITH sha256_password BY 'change-this';           -- runs the service
--   CREATE USER tenantflow_migrate IDENTIFIED WITH sha256_password BY 'change-this';   -- runs `tenantflow migrate`
--
-- The service changes no table. It deletes rows of usage only where one landed twice, and updates maxima that `verify --repair` has
-- found to be wrong.

GRANT SELECT, INSERT, ALTER DELETE ON tenantflow.usage_tracking TO tenantflow;
GRANT SELECT, INSERT, ALTER UPDATE ON tenantflow.usage_hourly_store TO tenantflow;
GRANT SELECT, INSERT, ALTER UPDATE ON tenantflow.usage_daily_store TO tenantflow;
GRANT SELECT, INSERT, ALTER UPDATE ON tenantflow.billing_monthly_store TO tenantflow;
GRANT SELECT, INSERT ON tenantflow.usage_corrections TO tenantflow;
GRANT SELECT, INSERT ON tenantflow.usage_rechecks TO tenantflow;
GRANT SELECT, INSERT ON tenantflow.usage_writers TO tenantflow;
GRANT SELECT ON tenantflow.usage_analytics_hourly TO tenantflow;
GRANT SELECT ON tenantflow.usage_daily TO tenantflow;
GRANT SELECT ON tenantflow.billing_monthly TO tenantflow;
GRANT SELECT ON tenantflow.goose_db_version TO tenantflow;

-- What is under way, and what there is: an insert of unknown outcome is settled when no query of its name runs any more.
GRANT SELECT ON system.processes TO tenantflow;
GRANT SELECT ON system.parts TO tenantflow;
GRANT SELECT ON system.tables TO tenantflow;
GRANT SELECT ON system.databases TO tenantflow;

-- Identities to look up are sent along with the query, as a temporary table.
GRANT CREATE TEMPORARY TABLE ON *.* TO tenantflow;

GRANT SELECT, INSERT, ALTER, CREATE TABLE, CREATE VIEW, DROP TABLE, DROP VIEW ON tenantflow.* TO tenantflow_migrate;
GRANT SELECT ON system.databases TO tenantflow_migrate;
GRANT SELECT ON system.tables TO tenantflow_migrate;
