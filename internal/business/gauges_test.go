package business

import (
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tenantflow/internal/tier"
)

func TestGauges_ShowTheLastReport(t *testing.T) {
	t.Parallel()
	registry := prometheus.NewRegistry()
	g := NewGauges(registry)
	g.Set(Of(facts()))
	want := `# HELP tenantflow_business_arpu Charged revenue for each active user in the last whole month, in units of the currency.
# TYPE tenantflow_business_arpu gauge
tenantflow_business_arpu{currency="EUR",tier="legacy"} 7.25
tenantflow_business_arpu{currency="USD",tier="free"} 0
tenantflow_business_arpu{currency="USD",tier="other"} 0
tenantflow_business_arpu{currency="USD",tier="pro"} 29.4
# HELP tenantflow_business_query_p95_seconds Time below which 95 % of the sampled queries about companies of a tier stayed in 24 hours.
# TYPE tenantflow_business_query_p95_seconds gauge
tenantflow_business_query_p95_seconds{tier="legacy"} 0.0015
tenantflow_business_query_p95_seconds{tier="pro"} 1.001
# HELP tenantflow_business_retention_compliance_ratio Share of the companies that hold no closed position beyond their retention, by the last report. Not there: none could be measured.
# TYPE tenantflow_business_retention_compliance_ratio gauge
tenantflow_business_retention_compliance_ratio 0.75
`
	names := []string{"tenantflow_business_arpu", "tenantflow_business_query_p95_seconds", "tenantflow_business_retention_compliance_ratio"}
	if err := testutil.GatherAndCompare(registry, strings.NewReader(want), names...); err != nil {
		t.Error(err)
	}
	// What the next one has no number for is gone, not 0.
	g.Set(Of(&Facts{At: noon, Tiers: tier.Default()}))
	if n, err := testutil.GatherAndCount(registry, names...); err != nil || n != 0 {
		t.Errorf("%d series are left, %v", n, err)
	}
}
