package directory

import (
	"encoding/json"
	"reflect"
	"slices"
	"testing"
	"time"

	"tenantflow/internal/tier"
)

func TestNoSettingOfACompanyCanPassForWhatItsTierDecides(t *testing.T) {
	t.Parallel()
	c := Company{CompanyID: "c", BillingEmail: "bill@example.com", Tier: "free", Limits: tier.Limits{MaxUsers: 1}, Version: 3, Config: json.RawMessage(
		`{"subscription_tier":"enterprise","SUBSCRIPTION_TIER":"enterprise","` + "\u017f" + `ubscription_tier":"enterprise","max_users":"unlimited",
		"Max_Users":-5,"version":"x","VERSION":1e300,"company_id":7,"cached_at":{},"theme":{"version":1},"quoted \"name\"":null}`)}
	config, _, err := c.documents(9, time.Now().UTC())
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	var back CompanyConfig
	if err := json.Unmarshal(text, &back); err != nil {
		t.Fatal(err)
	}
	names := []string{}
	for name := range back.Settings {
		names = append(names, name)
	}
	slices.Sort(names)
	if back.Tier != "free" || back.MaxUsers != 1 || back.CompanyID != "c" || back.Version != 9 || !reflect.DeepEqual(names, []string{`quoted "name"`, "theme"}) {
		t.Errorf("%s is read as %+v", text, back)
	}
}

func TestACompanyWithoutAConfigurationHasTheDefaults(t *testing.T) {
	t.Parallel()
	for _, config := range []string{"", "{}", "null"} {
		c := Company{CompanyID: "c", Tier: "pro", SupportLevel: "email", Config: json.RawMessage(config)}
		got, period, err := c.documents(1, time.Now())
		if err != nil || got.SupportLevel != "email" || got.FeaturesEnabled == nil || len(got.Settings) != 0 || period.PeriodEnd != nil {
			t.Errorf("from %q: %+v, %+v, %v", config, got, period, err)
		}
	}
	c := Company{CompanyID: "c", Config: json.RawMessage(`["not an object"]`)}
	if _, _, err := c.documents(1, time.Now()); err == nil {
		t.Error("a configuration that is no object is no error")
	}
}
