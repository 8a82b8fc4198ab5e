package tier_test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"tenantflow/internal/tier"
)

func TestTheBuiltInCatalogueIsTheAgreedOne(t *testing.T) {
	t.Parallel()
	c := tier.Default()
	if names := c.Names(); !slices.Equal(names, []string{"free", "pro", "enterprise"}) {
		t.Fatalf("tiers %q", names)
	}
	for _, want := range []tier.Tier{
		{Name: "free", Limits: tier.Limits{DailyAPICalls: 1000, StorageMB: 100, MaxUsers: 1, RetentionDays: 30, Features: []string{"basic_trading", "email_notifications"}},
			Thresholds: []int{80, 100},
			Benefits:   map[string]any{}, SupportLevel: "community", Backup: tier.Backup{Every: "weekly", Keep: 1}, StatementTimeout: 5 * time.Second, P95Target: 2 * time.Second},
		{Name: "pro", PriceMinor: 4900, Limits: tier.Limits{DailyAPICalls: 50000, StorageMB: 10240, MaxUsers: 25, RetentionDays: 365,
			Features: []string{"basic_trading", "advanced_analytics", "email_notifications", "sms_notifications", "api_access"}},
			Thresholds:   []int{80, 100},
			Benefits:     map[string]any{"increased_storage": "10GB", "advanced_features": []any{"real_time_alerts", "advanced_charts"}, "support_level": "email"},
			SupportLevel: "email", Backup: tier.Backup{Every: "daily", Keep: 7}, StatementTimeout: 15 * time.Second, P95Target: time.Second},
		{Name: "enterprise", PriceMinor: 49900, Limits: tier.Limits{DailyAPICalls: tier.Unlimited, StorageMB: tier.Unlimited, MaxUsers: tier.Unlimited,
			RetentionDays: 1095, Features: []string{"all_features"}},
			Thresholds:   []int{},
			Benefits:     map[string]any{"unlimited_storage": true, "premium_features": []any{"ai_predictions", "custom_indicators", "api_access"}, "support_level": "phone", "dedicated_resources": true},
			SupportLevel: "phone", Backup: tier.Backup{Every: "hourly", Keep: 72}, StatementTimeout: time.Minute, P95Target: 500 * time.Millisecond},
	} {
		if got, ok := c.Tier(want.Name); !ok || !reflect.DeepEqual(got, want) {
			t.Errorf("%s is\n%+v\nwant\n%+v", want.Name, got, want)
		}
	}
	if got, ok := c.Tier("gold"); ok || got.Name != "free" {
		t.Errorf("an unknown tier is %s, %v", got.Name, ok)
	}
}

func TestALimitIsANumberOrUnlimited(t *testing.T) {
	t.Parallel()
	for _, l := range []tier.Limit{0, 1, 50000, 1<<63 - 1, tier.Unlimited} {
		text, err := json.Marshal(l)
		if err != nil {
			t.Fatal(err)
		}
		var back tier.Limit
		if err := json.Unmarshal(text, &back); err != nil || back != l {
			t.Errorf("%s comes back as %d: %v", text, back, err)
		}
		if l.String() != strings.Trim(string(text), `"`) {
			t.Errorf("%s prints as %s", text, l)
		}
	}
	for _, text := range []string{`-1`, `1.5`, `"many"`, `"UNLIMITED"`, `null`, `true`, `{}`, `9223372036854775808`, `""`} {
		var l tier.Limit
		if err := json.Unmarshal([]byte(text), &l); err == nil {
			t.Errorf("%s is read as %d", text, l)
		}
	}
}

// catalogue is one free tier, with some of its fields changed: a JSON value, or nothing for a field that is left out.
func catalogue(t *testing.T, changes map[string]string) string {
	t.Helper()
	fields := map[string]string{"name": `"free"`, "price_minor": "0", "daily_api_calls": "10", "storage_mb": "10", "retention_days": "1", "max_users": "1",
		"features_enabled": `["a"]`, "benefits": "{}", "support_level": `"none"`, "backup": `{"every": "daily", "keep": 1}`,
		"statement_timeout": `"5s"`, "p95_target": `"1s"`}
	for name, value := range changes {
		fields[name] = value
	}
	var members []string
	for name, value := range fields {
		if value != "" {
			members = append(members, fmt.Sprintf("%q: %s", name, value))
		}
	}
	return "{" + strings.Join(members, ", ") + "}"
}

func load(t *testing.T, text string) (*tier.Catalogue, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tiers.json")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return tier.Load(path)
}

func TestAFileReplacesTheCatalogue(t *testing.T) {
	t.Parallel()
	c, err := load(t, `{"tiers": [`+catalogue(t, map[string]string{"name": `"gold"`, "price_minor": "5", "daily_api_calls": `"unlimited"`, "benefits": ""})+", "+
		catalogue(t, nil)+"]}")
	if err != nil {
		t.Fatal(err)
	}
	gold, ok := c.Tier("gold")
	if !slices.Equal(c.Names(), []string{"gold", "free"}) || !ok || gold.DailyAPICalls != tier.Unlimited || gold.Benefits == nil || gold.PriceMinor != 5 {
		t.Errorf("%q, %+v", c.Names(), gold)
	}
	if pro, ok := c.Tier("pro"); ok || pro.Name != "free" {
		t.Errorf("pro is still there: %+v", pro)
	}
	if c, err := tier.Load(""); err != nil || len(c.Names()) != 3 {
		t.Errorf("no file: %v", err)
	}
	if _, err := tier.Load(filepath.Join(t.TempDir(), "nothing")); err == nil || !strings.Contains(err.Error(), "read the catalogue of tiers") {
		t.Errorf("a file that is not there: %v", err)
	}
}

func TestEveryImpossibleValueIsNamed(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ field, value, says string }{
		{"name", `"Free"`, `name: "Free" is not`}, {"name", `7`, "name: it must be a string"}, {"name", "", "tier number 1: name: it is missing"},
		{"price_minor", "-1", "price_minor: -1 is not between"}, {"price_minor", "1.5", "price_minor: it must be a whole number"},
		{"price_minor", "4900", "the free tier can't cost 4900"}, {"price_minor", `"4900"`, "price_minor: it must be a whole number, not string"},
		{"daily_api_calls", "-1", "daily_api_calls: a limit is"}, {"storage_mb", `"much"`, "storage_mb: a limit is"},
		{"storage_mb", "1000000000000000000", "storage_mb: 1000000000000000000 is more than"},
		{"daily_data_points", "-1", "daily_data_points: a limit is"}, {"daily_data_points", "1000000000000000000", "daily_data_points: 1000000000000000000 is more than"},
		{"max_users", "0", "at least one user"}, {"max_users", "null", "max_users: it is missing"},
		{"retention_days", "0", "retention_days: 0 is not between"}, {"retention_days", `"unlimited"`, "retention_days: it must be a whole number"},
		{"features_enabled", `["a", "a"]`, `features_enabled: "a" is empty or there twice`}, {"features_enabled", `"a"`, "features_enabled: it must be a list"},
		{"benefits", `[]`, "benefits: it must be an object"}, {"benefits", `{"a": "\u0000"}`, "which Postgres can't store"},
		{"thresholds", "[50, 0]", `tier "free": thresholds: 0 is not between 1 and 1000`}, {"thresholds", "[1001]", `tier "free": thresholds: 1001 is not between`},
		{"thresholds", "[80, 100, 80]", `tier "free": thresholds: 80 is there twice; leave one out`}, {"thresholds", "[null]", "thresholds: 0 is not between"},
		{"thresholds", "80", "thresholds: it must be a list of whole numbers from 1 to 1000, such as [80, 100]: it must be a list of whole numbers, not number"},
		{"thresholds", "[80.5]", "such as [80, 100]: it must be a whole number, not number 80.5"}, {"thresholds", `["80"]`, "it must be a whole number, not string"},
		{"thresholds", "[1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21]", "thresholds: there are 21; leave out all but 20"},
		{"support_level", `""`, "support_level: it is empty"},
		{"backup", `{"every": "yearly", "keep": 1}`, `every "yearly" is none of`}, {"backup", `{"every": "daily"}`, "keep 0 is not between"},
		{"backup", `{"every": "daily", "keep": 1, "where": 1}`, `backup: unknown field "where"`},
		{"statement_timeout", `"5"`, `"5" is not a duration`}, {"statement_timeout", `"0s"`, "0s is not between"}, {"statement_timeout", `"2h"`, "2h is not between"},
		{"p95_target", `"6s"`, "6s is longer than"}, {"p95_target", "5", "p95_target: it must be a string"},
		{"prize", "1", "prize: not a field of a tier"},
	} {
		_, err := load(t, `{"tiers": [`+catalogue(t, map[string]string{c.field: c.value})+`]}`)
		if err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s %s: %v", c.field, c.value, err)
		}
	}
	for text, says := range map[string]string{
		``: "not a JSON object", `[]`: "not a JSON object", `{"tiers": [{}], `: "not a JSON object", `{"tiers": []} {}`: "not a JSON object",
		`{}`: "a list of objects", `{"tiers": {}}`: "a list of objects", `{"tiers": []}`: `no tier is called "free"`, `{"tiers": null}`: `no tier is called "free"`,
		`{"tiers": [` + catalogue(t, nil) + `, ` + catalogue(t, nil) + `]}`: "another tier of this name",
	} {
		if _, err := load(t, text); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestAllThatIsWrongIsNamedAtOnce(t *testing.T) {
	t.Parallel()
	_, err := load(t, `{"currency": "EUR", "tiers": [`+catalogue(t, map[string]string{"storage_mb": "-5", "backup": "1", "statement_timeout": `"soon"`, "x": "1"})+`, {"name": "gold"}]}`)
	if err == nil {
		t.Fatal("it was accepted")
	}
	for _, says := range []string{"currency: not a field", `tier "free": storage_mb: `, `tier "free": backup: it must be an object, not number`,
		`tier "free": statement_timeout: "soon"`, `tier "free": x: not a field`, `tier "gold": price_minor: it is missing`, `tier "gold": p95_target: it is missing`} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("nothing of %q in:\n%v", says, err)
		}
	}
}
