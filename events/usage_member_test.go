package events

import (
	"math/rand/v2"
	"strings"
	"testing"
)

// A decoder knows how members were spelled before. That must not change what it reads.
func TestUsageDecode_SpellingsBeforeChangeNothing(t *testing.T) {
	t.Parallel()
	members := []string{`"company_id":"acme"`, `"user_id":"u-1"`, `"subscription_tier":"pro"`, `"service_name":"s"`, `"api_endpoint":"/v1"`,
		`"data_points_consumed":7`, `"processing_time_ms":1.5`, `"timestamp":"2026-07-31T11:29:58Z"`, `"billing_period":"2026-07"`, `"revenue_attributed":"0.5"`,
		`"reservation_id":"r-1"`,
		`"other":[1,{"user_id":"x"}]`}
	spell := []func(string) string{
		func(s string) string { return s },
		func(s string) string { return " \n" + strings.Replace(s, ":", " : ", 1) },
		func(s string) string { return strings.Replace(s, ":", ":"+strings.Repeat(" ", 60), 1) },
		func(s string) string { return strings.Replace(s, "e", `\u0065`, 1) },
		func(s string) string { return strings.Replace(s, "user_id", "user_ID", 1) },
		func(s string) string { return strings.Replace(s, ":", "", 1) },
		func(s string) string { return s[:strings.Index(s, ":")+1] },
	}
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	used, unused := NewUsageDecoder(UsageLimits{}), NewUsageDecoder(UsageLimits{})
	accepted := 0
	for range 5000 {
		var all []string
		for _, at := range r.Perm(len(members)) {
			if at < 7 || r.IntN(3) > 0 {
				all = append(all, spell[max(0, r.IntN(60)-60+len(spell))](members[at]))
			}
		}
		if r.IntN(2) == 0 { // as most producers do: always in one order
			all = members[:7+r.IntN(5)]
		}
		record := binaryRecord("{" + strings.Join(all, ",") + "}")
		var got, want Usage
		accepts := used.fast(record, &got)
		fresh := *unused
		if otherwise := fresh.fast(record, &want); accepts != otherwise {
			t.Fatalf("seed %d: %s: accepted %t, by a fresh decoder %t", seed, record.Value, accepts, otherwise)
		}
		if accepts {
			accepted++
			sameUsage(t, string(record.Value), &got, &want)
		}
	}
	if accepted < 1000 {
		t.Errorf("seed %d: only %d were accepted", seed, accepted)
	}
}
