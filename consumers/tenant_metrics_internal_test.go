package consumers

import (
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tenantflow/sinks/postgres"
)

func TestTenantMetrics_BlockedCompaniesAreNotNamed(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	m := NewTenantMetrics(registry)
	m.backlog(postgres.Backlog{}, []postgres.Block{{Company: "gone", Reason: "slow", Since: time.Unix(1, 0)}})
	m.backlog(postgres.Backlog{Blocked: 3}, []postgres.Block{
		{Company: "a", Reason: "lock", Since: time.Unix(300, 0)},
		{Company: "b", Reason: "lock", Since: time.Unix(200, 0)},
		{Company: "c", Reason: "state", Since: time.Unix(400, 0)},
	})
	want := `# HELP tenantflow_tenant_blocked_since_seconds Since when a company can't go on, as Unix time, by reason: of each the one that has stood still for longest.
# TYPE tenantflow_tenant_blocked_since_seconds gauge
tenantflow_tenant_blocked_since_seconds{reason="lock"} 200
tenantflow_tenant_blocked_since_seconds{reason="state"} 400
`
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), "tenantflow_tenant_blocked_since_seconds"); err != nil {
		t.Error(err)
	}
}
