package analytics_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tenantflow/internal/analytics"
)

// effect is one of a day of 2026, as "08-03 upgraded 4900"; without a price it is one of before that was recorded.
func effect(t *testing.T, line string) analytics.Effect {
	t.Helper()
	fields := strings.Fields(line)
	at, err := time.Parse("2006-01-02", "2026-"+fields[0])
	if err != nil {
		t.Fatal(err)
	}
	e := analytics.Effect{At: at, Event: "subscription." + fields[1], Tier: "pro"}
	if len(fields) > 2 {
		var price analytics.Money
		if _, err := fmt.Sscan(fields[2], &price); err != nil {
			t.Fatal(err)
		}
		e.PriceMinor = &price
	}
	e.Reinstated = len(fields) > 3
	return e
}

// line is a movement as "start +new ^expansion *reactivated vcontraction -churned =end", without what is 0.
func line(m analytics.Movement) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s %d", m.Month, int64(m.Start))
	for _, part := range []struct {
		sign   string
		amount analytics.Money
	}{{"+", m.New}, {"^", m.Expansion}, {"*", m.Reactivated}, {"v", m.Contraction}, {"-", m.Churned}} {
		if part.amount != 0 {
			fmt.Fprintf(&b, " %s%d", part.sign, int64(part.amount))
		}
	}
	fmt.Fprintf(&b, " =%d", int64(m.End))
	return b.String()
}

func TestMovements_AreToldApart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		effects []string
		want    []string // of 2026-02 to 2026-04
	}{
		"nothing":                           {nil, []string{"2026-02 0 =0", "2026-03 0 =0", "2026-04 0 =0"}},
		"new":                               {[]string{"03-31 upgraded 4900"}, []string{"2026-02 0 =0", "2026-03 0 +4900 =4900", "2026-04 4900 =4900"}},
		"new before the months":             {[]string{"01-31 upgraded 4900"}, []string{"2026-02 4900 =4900", "2026-03 4900 =4900", "2026-04 4900 =4900"}},
		"expansion":                         {[]string{"02-01 upgraded 4900", "03-01 upgraded 49900"}, []string{"2026-02 0 +4900 =4900", "2026-03 4900 ^45000 =49900", "2026-04 49900 =49900"}},
		"contraction":                       {[]string{"01-01 upgraded 49900", "04-30 downgraded 4900"}, []string{"2026-02 49900 =49900", "2026-03 49900 =49900", "2026-04 49900 v45000 =4900"}},
		"a downgrade to a free tier":        {[]string{"01-01 upgraded 4900", "02-02 downgraded 0"}, []string{"2026-02 4900 -4900 =0", "2026-03 0 =0", "2026-04 0 =0"}},
		"cancelled":                         {[]string{"01-01 upgraded 4900", "02-02 cancelled"}, []string{"2026-02 4900 -4900 =0", "2026-03 0 =0", "2026-04 0 =0"}},
		"expired and reinstated":            {[]string{"01-01 upgraded 4900", "02-04 expired", "02-06 payment_recorded 4900 reinstated"}, []string{"2026-02 4900 *4900 -4900 =4900", "2026-03 4900 =4900", "2026-04 4900 =4900"}},
		"a payment that reinstates nothing": {[]string{"01-01 upgraded 4900", "02-04 expired", "02-06 payment_recorded 4900"}, []string{"2026-02 4900 -4900 =0", "2026-03 0 =0", "2026-04 0 =0"}},
		"reactivated, though churned before the months": {[]string{"01-01 upgraded 4900", "01-20 cancelled", "03-01 upgraded 49900"}, []string{"2026-02 0 =0", "2026-03 0 *49900 =49900", "2026-04 49900 =49900"}},
		"a renewal at the same price":                   {[]string{"01-01 upgraded 4900", "02-01 renewed 4900", "03-01 renewed 4900"}, []string{"2026-02 4900 =4900", "2026-03 4900 =4900", "2026-04 4900 =4900"}},
		"a renewal at a new price":                      {[]string{"01-01 upgraded 4900", "03-01 renewed 5900"}, []string{"2026-02 4900 =4900", "2026-03 4900 ^1000 =5900", "2026-04 5900 =5900"}},
		"two changes of one moment":                     {[]string{"01-01 upgraded 49900", "03-01 downgraded 4900", "03-01 renewed 5900"}, []string{"2026-02 49900 =49900", "2026-03 49900 v44000 =5900", "2026-04 5900 =5900"}},
		"several changes in a month":                    {[]string{"02-01 upgraded 4900", "02-03 upgraded 49900", "02-05 downgraded 4900", "02-07 cancelled", "02-09 upgraded 4900"}, []string{"2026-02 0 +4900 ^45000 *4900 v45000 -4900 =4900", "2026-03 4900 =4900", "2026-04 4900 =4900"}},
		"closed":                                        {[]string{"01-01 upgraded 4900", "03-15 closed"}, []string{"2026-02 4900 =4900", "2026-03 4900 -4900 =0", "2026-04 0 =0"}},
		"a closing read before an upgrade":              {[]string{"03-15 closed", "02-15 upgraded 4900", "03-15 closed"}, []string{"2026-02 0 +4900 =4900", "2026-03 4900 -4900 =0", "2026-04 0 =0"}},
		"what changes no price": {[]string{"01-01 upgraded 4900", "02-01 payment_failed", "02-02 downgrade_scheduled", "02-03 change_withdrawn", "02-04 renewal_recorded", "02-05 expiry_repeated"},
			[]string{"2026-02 4900 =4900", "2026-03 4900 =4900", "2026-04 4900 =4900"}},
		"a record without a price": {[]string{"02-01 upgraded"}, []string{"2026-02 0 +3900 =3900", "2026-03 3900 =3900", "2026-04 3900 =3900"}},
	} {
		var effects []analytics.Effect
		for _, e := range c.effects {
			effects = append(effects, effect(t, e))
		}
		var got []string
		for _, m := range analytics.Movements(effects, map[string]analytics.Money{"pro": 3900}, month(t, "2026-02"), month(t, "2026-04")) {
			got = append(got, line(m))
		}
		if strings.Join(got, "; ") != strings.Join(c.want, "; ") {
			t.Errorf("%s: got %s, want %s", name, strings.Join(got, "; "), strings.Join(c.want, "; "))
		}
	}
}

// Every month begins with what the one before ended with, its parts explain its end, and no part is below 0: whatever the effects are. A
// window that begins later says the same of its months.
func TestMovements_ExplainEveryMonth(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		begin := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
		effects := rapid.SliceOf(rapid.Custom(func(t *rapid.T) analytics.Effect {
			e := analytics.Effect{At: begin.Add(time.Duration(rapid.IntRange(0, 200*24).Draw(t, "hours")) * time.Hour), Tier: rapid.SampledFrom([]string{"free", "pro", "gone"}).Draw(t, "tier"),
				Event:      "subscription." + rapid.SampledFrom([]string{"upgraded", "downgraded", "renewed", "cancelled", "expired", "closed", "payment_recorded", "payment_failed"}).Draw(t, "event"),
				Reinstated: rapid.Bool().Draw(t, "reinstated")}
			if price := analytics.Money(rapid.SampledFrom([]int64{-1, 0, 4900, 49900}).Draw(t, "price")); price >= 0 {
				e.PriceMinor = &price
			}
			return e
		})).Draw(t, "effects")
		prices := map[string]analytics.Money{"free": 0, "pro": 4900}
		first, last := analytics.MonthOf(begin)-1, analytics.MonthOf(begin)+8
		all := analytics.Movements(effects, prices, first, last)
		before := analytics.Money(0)
		for _, m := range all {
			if m.Start != before || m.Start+m.New+m.Expansion+m.Reactivated-m.Contraction-m.Churned != m.End {
				t.Fatalf("%s after %s", line(m), before)
			}
			if min(m.Start, m.New, m.Expansion, m.Reactivated, m.Contraction, m.Churned, m.End) < 0 {
				t.Fatalf("a part of %s is below 0", line(m))
			}
			before = m.End
		}
		from := rapid.IntRange(0, len(all)-1).Draw(t, "from")
		for i, m := range analytics.Movements(effects, prices, first+analytics.Month(from), last) {
			if m != all[from+i] {
				t.Fatalf("%s, and %s in a longer window", line(m), line(all[from+i]))
			}
		}
	})
}
