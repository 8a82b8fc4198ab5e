package main

import (
	"encoding/json"
	"path/filepath"
	"strings"
	"testing"
)

// Both parts of a stream go through produce, each to its own topic.
func TestGenerateCompaniesWritesWhatProduceTakes(t *testing.T) {
	t.Parallel()
	environ := ownStores(t)
	if out, errOut, code := tenantflow(t, environ, "migrate"); code != exitDone {
		t.Fatal(out, errOut)
	}
	args := []string{"generate", "companies", "--count", "10", "--events", "200", "--now", "2025-11-23T12:00:00Z", "--prefix", "t-", "--unknown", "1"}
	all, errOut, code := tenantflow(t, nil, args...)
	if code != exitDone || errOut != "" {
		t.Fatalf("exit code %d, %s", code, errOut)
	}
	written := 0
	for part, topic := range map[string]string{"companies": "company.events", "subscriptions": "subscription.events"} {
		lines, _, _ := tenantflow(t, nil, append(args, "--part", part)...)
		events := filepath.Join(t.TempDir(), part)
		write(t, events, lines)
		if out, errOut, code := tenantflow(t, environ, "produce", "--topic", topic, "--file", events); code != exitDone {
			t.Errorf("%s: exit code %d, %s%s", part, code, out, errOut)
		}
		for line := range strings.Lines(lines) {
			written++
			if !strings.Contains(all, line) {
				t.Fatalf("a line of the part %s is not in the whole: %s", part, line)
			}
		}
	}
	if n := strings.Count(all, "\n"); n != written || n < 190 {
		t.Errorf("%d lines in the whole, %d in the parts", n, written)
	}
	for _, wrong := range [][2]string{{"--part", "both"}, {"--now", "today"}, {"--lapsed", "2"}, {"--count", "-1"}, {"--prefix", "a b"}} {
		if _, errOut, code := tenantflow(t, nil, append(args, wrong[:]...)...); code != exitInvalid || !strings.Contains(errOut, wrong[1]) {
			t.Errorf("%s %s: exit code %d, %s", wrong[0], wrong[1], code, errOut)
		}
	}
}

// A newcomer makes companies and their usage, and sees quotas that count.
func TestGenerate_UsageIsOfTheGeneratedCompanies(t *testing.T) {
	t.Parallel()
	companies, _, _ := tenantflow(t, nil, "generate", "companies", "--count", "5", "--part", "companies")
	usage, _, _ := tenantflow(t, nil, "generate", "usage", "--count", "200", "--companies", "5", "--users", "1")
	for line := range strings.Lines(usage) {
		var e struct {
			Data struct {
				Company string `json:"company_id"`
				User    string `json:"user_id"`
			} `json:"data"`
		}
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(companies, `"company_id":"`+e.Data.Company+`"`) || !strings.Contains(companies, `"user_id":"`+e.Data.User+`"`) {
			t.Fatalf("%+v is not among the companies", e.Data)
		}
	}
}

func TestGenerate_SeedsShareNoEvent(t *testing.T) {
	t.Parallel()
	of := map[string]string{}
	for _, seed := range []string{"1", "2"} {
		usage, _, _ := tenantflow(t, nil, "generate", "usage", "--count", "20000", "--resends", "0", "--seed", seed)
		for line := range strings.Lines(usage) {
			var e struct{ ID, Source string }
			if err := json.Unmarshal([]byte(line), &e); err != nil {
				t.Fatal(err)
			}
			if first, there := of[e.Source+" "+e.ID]; there && first != seed {
				t.Fatalf("the event %s of %s is in both streams", e.ID, e.Source)
			}
			of[e.Source+" "+e.ID] = seed
		}
	}
}
