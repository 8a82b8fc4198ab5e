package tenant_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tier"
)

// Which answer a request to take usage back gets, by the times it names, the voids that are recorded and what was found.
func TestVoidRequest_IsDecidedByTimesBooksAndUsage(t *testing.T) {
	t.Parallel()
	used := time.Date(2026, 11, 1, 10, 0, 0, 123e6, time.UTC)
	const window = 24 * time.Hour
	partition := 5
	usage := func() *tenant.StoredUsage {
		return &tenant.StoredUsage{Void: events.UsageVoided{CompanyID: "acme", UserID: "u-1", Timestamp: used, VoidsSource: "/s", VoidsID: "e-1",
			DataPoints: 7, Revenue: 1_250, BillingPeriod: "2026-11", VoidsRecordedAt: used}, Key: "any", Partition: &partition}
	}
	held, voided := "held", "voided"
	for _, c := range []struct {
		name   string
		after  time.Duration // the request's time, after the usage
		status string
		void   bool                // one is recorded
		looked *tenant.UsageLookup // but for its time
		found  *tenant.StoredUsage // of looked
		want   string              // held, voided, or a code
	}{
		{"a request", time.Hour, tenant.Active, false, nil, nil, held},
		{"at the last moment", window, tenant.Active, false, nil, nil, held},
		{"too late", window + time.Nanosecond, tenant.Active, false, nil, nil, tenant.VoidTooLate},
		{"too late for a second one", window + time.Nanosecond, tenant.Active, true, nil, nil, tenant.VoidTooLate},
		{"before the usage", -time.Hour, tenant.Active, false, nil, nil, held},
		{"a second one", time.Hour, tenant.Active, true, nil, nil, tenant.AlreadyVoided},
		{"of a closed company", time.Hour, tenant.Closed, false, nil, nil, tenant.CompanyClosed},
		{"found", time.Hour, tenant.Active, false, &tenant.UsageLookup{}, usage(), voided},
		{"found, and closed meanwhile", time.Hour, tenant.Closed, false, &tenant.UsageLookup{}, usage(), voided},
		{"found, and purged meanwhile", time.Hour, tenant.Purged, false, &tenant.UsageLookup{}, usage(), tenant.CompanyClosed},
		{"found, and taken back meanwhile", time.Hour, tenant.Active, true, &tenant.UsageLookup{}, usage(), tenant.AlreadyVoided},
		{"not found", time.Hour, tenant.Active, false, &tenant.UsageLookup{}, nil, tenant.UnknownUsage},
		{"not found, and taken back", time.Hour, tenant.Active, true, &tenant.UsageLookup{}, nil, tenant.AlreadyVoided},
	} {
		asks := &events.UsageVoidRequested{CompanyID: "acme", UserID: "u-1", UsageSource: "/s", UsageID: "e-1", Timestamp: used, Reason: "wrong"}
		at := used.Add(c.after)
		if c.looked != nil {
			c.looked.At, c.looked.Usage = at.Add(time.Minute), c.found
		}
		s := &tenant.State{CompanyID: "acme", Company: &tenant.Company{Status: c.status}, Voided: c.void, LastEffect: at.Add(time.Hour)}
		d, err := tenant.New(tenant.Config{Catalogue: tier.Default(), VoidWindow: window}).Decide(s, &tenant.Cause{
			Event: &events.Event{Key: "acme", Envelope: events.Envelope{Type: events.TypeUsageVoidRequested, Time: at}}, Payload: asks, Looked: c.looked})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := voided
		switch {
		case d.Refused != nil:
			got = d.Refused.Code
		case d.Held:
			got = held
		}
		if got != c.want {
			t.Errorf("%s: %s, want %s", c.name, got, c.want)
		}
		if d.Held && !d.At.Equal(s.LastEffect) || c.looked != nil && !d.At.Equal(c.looked.At) {
			t.Errorf("%s: the effect is at %s", c.name, d.At)
		}
		if got == voided {
			checkVoid(t, d, asks)
		}
	}
}

// checkVoid sees what a void is written and published as.
func checkVoid(t *testing.T, d *tenant.Decision, asks *events.UsageVoidRequested) {
	t.Helper()
	out := d.Outputs(tenant.Written{})
	if len(out) != 2 || out[0].Topic != events.TopicUsage || out[0].Void == nil || out[1].Type != events.TypeCompanyUsageVoided {
		t.Fatalf("it leads to %+v", out)
	}
	if v := out[0]; *v.Partition != 5 || v.Key != "any" || v.Void.Reason != "wrong" || v.Void.DataPoints != 7 {
		t.Errorf("the void is %+v for partition %d, key %s", v.Void, *v.Partition, v.Key)
	}
	if id := events.VoidID("/s", "e-1", asks.Timestamp); d.Void.ID != id || out[1].Data["void_id"] != id || out[1].Data["user_id"] != "u-1" {
		t.Errorf("the void is %+v, the result %v", d.Void, out[1].Data)
	}
	audit, err := json.Marshal(d.Details)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{`"revenue_attributed":"0.001250"`, `"reason":"wrong"`, tenant.Pseudonym("acme", "u-1")} {
		if !strings.Contains(string(audit), part) {
			t.Errorf("the audit has no %s: %s", part, audit)
		}
	}
	if strings.Contains(string(audit), "u-1\"") {
		t.Errorf("the audit names the user: %s", audit)
	}
}
