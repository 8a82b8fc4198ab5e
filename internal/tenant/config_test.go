package tenant

import (
	"encoding/json"
	"strings"
	"testing"
)

// What Postgres makes of a configuration, and what was allowed once, must not keep a company from changing it.
func TestConfig_RulesOfInputLeaveStoredStateAlone(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", maxConfig)
	for name, stored := range map[string]string{
		"a number written out":    `{"billing_email": "a@x", "max": 1` + strings.Repeat("0", 150) + `}`,
		"a number of many digits": `{"billing_email": "a@x", "max": 0.` + strings.Repeat("1", 399) + `}`,
		"an email of old":         `{"billing_email": "nobody", "max": 1}`,
		"no email":                `{"max": 1}`,
		"one that is too large":   `{"billing_email": "a@x", "max": 1, "big": "` + big + `"}`,
	} {
		got, err := patchConfig(json.RawMessage(stored), json.RawMessage(`{"max":null,"a":1}`))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var read map[string]any
		if err := json.Unmarshal(got, &read); err != nil || read["a"] == nil || read["max"] != nil {
			t.Errorf("%s: %.100s, %v", name, got, err)
		}
	}
	if _, err := patchConfig(json.RawMessage(`{"billing_email":"a@x","big":"`+big+`"}`), json.RawMessage(`{"a":"`+big+`"}`)); err == nil {
		t.Error("a configuration that is too large may grow")
	}
	for _, sent := range []string{`{"max":1e999}`, `{"max":1` + strings.Repeat("0", 150) + `}`, `{"list":[1e401]}`, `{"billing_email":"nobody"}`, `{"billing_email":null}`,
		`{"big":"` + big + `"}`, `{"list":[` + strings.Repeat("1e300,", 250) + `1]}`} {
		if _, err := patchConfig(json.RawMessage(`{"billing_email":"a@x"}`), json.RawMessage(sent)); err == nil {
			t.Errorf("%.60s is taken", sent)
		}
	}
}
