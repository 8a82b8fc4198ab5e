package tier_test

import (
	"encoding/json"
	"testing"

	"tenantflow/internal/tier"
)

// A limit that no tier has to have is nowhere unless it is set.
func TestLimits_DataPointsMayBeLeftOut(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]tier.Limit{"": tier.Unlimited, "null": tier.Unlimited, `"unlimited"`: tier.Unlimited, "0": 0, "250000": 250000} {
		c, err := load(t, `{"tiers": [`+catalogue(t, map[string]string{"daily_data_points": value})+`]}`)
		if err != nil {
			t.Fatal(err)
		}
		free, _ := c.Tier("free")
		if got, ok := free.Named("daily_data_points"); got != want || !ok {
			t.Errorf("%q is %s, %t", value, got, ok)
		}
		text, err := json.Marshal(free.Limits)
		if err != nil {
			t.Fatal(err)
		}
		var back tier.Limits
		var members map[string]any
		if err := json.Unmarshal(text, &back); err != nil || back.DataPoints() != want {
			t.Errorf("%s comes back as %s: %v", text, back.DataPoints(), err)
		}
		if err := json.Unmarshal(text, &members); err != nil {
			t.Fatal(err)
		}
		if _, there := members["daily_data_points"]; there != (value != "" && value != "null") {
			t.Errorf("%q is written as %s", value, text)
		}
	}
}

// Limits are copied. Setting one of a copy leaves the others alone.
func TestLimits_SetChangesOneCopyOnly(t *testing.T) {
	t.Parallel()
	points := tier.Limit(5)
	first := tier.Limits{DailyAPICalls: 1, DailyDataPoints: &points, StorageMB: 2, MaxUsers: 3, RetentionDays: 4}
	for i, name := range tier.LimitNames() {
		second := first
		second.Set(name, tier.Limit(100+i))
		if got, ok := second.Named(name); got != tier.Limit(100+i) || !ok {
			t.Errorf("%s is %s, %t", name, got, ok)
		}
		if before, _ := first.Named(name); before > 5 {
			t.Errorf("%s of the other copy is %s", name, before)
		}
		if r := tier.Restrictions(second, first, nil); name != "max_users" && len(r) != 1 {
			t.Errorf("less of %s: %v", name, r)
		}
	}
	first.Set("nothing", 7)
	if got, ok := first.Named("nothing"); got != 0 || ok {
		t.Errorf("an unknown limit is %s, %t", got, ok)
	}
}
