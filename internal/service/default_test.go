package service

import (
	"testing"

	"tenantflow/consumers"
	"tenantflow/events"
	"tenantflow/internal/config"
	"tenantflow/internal/kafka"
	"tenantflow/internal/recent"
	"tenantflow/internal/tenant"
	"tenantflow/sinks/clickhouse"
	"tenantflow/sinks/dragonfly"
	"tenantflow/sinks/postgres"
)

// What a package takes where nothing is said is what the setting's default says: there is one default of each.
func TestDefaults_ArePackagesAndSettingsAlike(t *testing.T) {
	t.Parallel()
	cfg, err := config.Load(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, pair := range map[string][2]any{
		"KAFKA_SESSION_TIMEOUT":   {cfg.KafkaSessionTimeout, kafka.DefaultSessionTimeout},
		"KAFKA_REBALANCE_TIMEOUT": {cfg.KafkaRebalanceTimeout, kafka.DefaultRebalanceTimeout},
		"USAGE_BATCH_ROWS":        {cfg.UsageBatchRows, kafka.DefaultBatchRows},
		"USAGE_BATCH_INTERVAL":    {cfg.UsageBatchInterval, kafka.DefaultBatchInterval},
		"USAGE_MEMORY":            {int(cfg.UsageMemory), kafka.DefaultBudget},
		"USAGE_INSERT_TIMEOUT":    {cfg.UsageInsertTimeout, clickhouse.DefaultInsertTimeout},
		"USAGE_FILTER_MEMORY":     {int(cfg.UsageFilterMemory), consumers.DefaultFilterBytes},
		"USAGE_STALE_PRODUCERS":   {cfg.UsageStaleProducers, consumers.DefaultStaleProducers},
		"FUTURE_TOLERANCE":        {cfg.FutureTolerance, events.DefaultFutureTolerance},
		"QUOTA_LATENESS":          {cfg.QuotaLateness, dragonfly.DefaultLateness},
		"QUOTA_RESEND_WINDOW":     {cfg.QuotaResendWindow, recent.DefaultWindow},
		"QUOTA_RESEND_RECORDS":    {cfg.QuotaResendRecords, recent.DefaultRecords},
		"WAITING_TIMEOUT":         {cfg.WaitingTimeout, postgres.DefaultWait},
		"RENEWAL_GRACE":           {cfg.RenewalGrace, tenant.DefaultRenewalGrace},
		"VOID_WINDOW":             {cfg.VoidWindow, tenant.DefaultVoidWindow},
	} {
		if pair[0] != pair[1] {
			t.Errorf("%s%s: the setting's default is %v, the package's %v", config.Prefix, name, pair[0], pair[1])
		}
	}
}
