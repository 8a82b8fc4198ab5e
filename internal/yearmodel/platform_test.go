package yearmodel

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

// Two companies: acme pays for pro from 20 August on; globex is free, and was closed on 5 October.
func TestPlatform_ByHand(t *testing.T) {
	t.Parallel()
	m, acme := calm()
	globex := &Company{ID: "globex", index: 1, registered: acme.registered, tier: free, closed: true, held: []tierFrom{{acme.registered, free}},
		levels: []level{{time.Date(2026, 10, 5, 0, 0, 0, 0, time.UTC), 0}}}
	m.world.Companies = append(m.world.Companies, globex)
	m.used = append(m.used, map[cell]*amount{})
	at := time.Date(2026, 11, 15, 12, 0, 0, 0, time.UTC)
	m.use(0, pro, at.AddDate(0, -1, 0), 3, 1)
	m.use(1, "legacy", at.AddDate(0, -1, 0), 1, 1)
	text, err := json.Marshal(m.platform(at))
	if err != nil {
		t.Fatal(err)
	}
	got, err := keyed(text)
	if err != nil {
		t.Fatal(err)
	}
	for field, want := range map[string]string{
		"month": "2026-10", "tiers.pro.companies": "1", "tiers.free.companies": "0", "arpu.2026-10 pro USD.arpu": "49.00", "arpu.2026-10 other USD.active_users": "1",
		"arpu.2026-10 free USD.arpu": "null", "churn.paid.percentage": "0.00", "churn.paid.met": "true", "churn.tiers.free.churned": "1", "churn.tiers.free.percentage": "100.00",
		"churn.tiers.free.met": "null", "churn.tiers.enterprise.percentage": "null", "lifetime_value.pro USD.company_months": "2", "lifetime_value.pro USD.revenue_per_company_month": "73.50",
		"lifetime_value.pro USD.value": "null", "conversion.registered_before": "2026-08-17", "conversion.companies": "2", "conversion.converted": "1", "conversion.percentage": "50.00",
		"months.2026-08 USD.mrr": "49.00", "months.2026-07 USD.mrr": "0.00", "months.2026-09 USD.tiers.free.companies": "1", "months.2026-10 USD.tiers.free.companies": "0",
		"months.2026-10 USD.arpu": "24.50", "months.2026-10 USD.active_users": "2", "months.2026-11 USD.complete": "false",
	} {
		if got[field] != want {
			t.Errorf("%s: %q, want %q", field, got[field], want)
		}
	}
	answer := strings.TrimSuffix(listOf(t, text), "}") + `,"isolation":{"leaks":0},"retention_compliance":{"percentage":100.00},"health":{"score":null}}`
	if n, found := m.ComparePlatform(at, []byte(answer)); len(found) > 0 || n < 100 {
		t.Errorf("%d members, %v", n, found)
	}
	for from, to := range map[string]string{`"leaks":0`: `"leaks":1`, `"mrr":49.00`: `"mrr":49.01`, `"converted":1`: `"converted":1,"more":2`} {
		if _, found := m.ComparePlatform(at, []byte(strings.Replace(answer, from, to, 1))); len(found) != 1 {
			t.Errorf("%s: %v", to, found)
		}
	}
}

// listOf writes the model's answer with lists in place of its maps, as the service does.
func listOf(t *testing.T, text []byte) string {
	t.Helper()
	var answer map[string]json.RawMessage
	if err := json.Unmarshal(text, &answer); err != nil {
		t.Fatal(err)
	}
	lists(t, answer, "tiers", "arpu", "lifetime_value", "months")
	var churn map[string]json.RawMessage
	if err := json.Unmarshal(answer["churn"], &churn); err != nil {
		t.Fatal(err)
	}
	lists(t, churn, "tiers")
	answer["churn"] = write(t, churn)
	var months []map[string]json.RawMessage
	if err := json.Unmarshal(answer["months"], &months); err != nil {
		t.Fatal(err)
	}
	for _, month := range months {
		lists(t, month, "tiers")
	}
	answer["months"] = write(t, months)
	return string(write(t, answer))
}

// lists turns members that are maps into lists of their values.
func lists(t *testing.T, object map[string]json.RawMessage, names ...string) {
	t.Helper()
	for _, name := range names {
		var entries map[string]json.RawMessage
		if err := json.Unmarshal(object[name], &entries); err != nil {
			t.Fatal(err)
		}
		list := []json.RawMessage{}
		for _, entry := range entries {
			list = append(list, entry)
		}
		object[name] = write(t, list)
	}
}

func write(t *testing.T, value any) json.RawMessage {
	t.Helper()
	text, err := json.Marshal(value)
	if err != nil {
		t.Fatal(err)
	}
	return text
}
