package tenantmodel

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tenantflow/internal/generate"
	"tenantflow/internal/tier"
)

// copied is the world as another process would have read it: nothing shared, numbers and times as they come out of stores.
func copied(t *testing.T, w *World) *World {
	t.Helper()
	local := time.FixedZone("", 3600)
	other := &World{Companies: maps.Clone(w.Companies), Users: maps.Clone(w.Users), Subscriptions: maps.Clone(w.Subscriptions), Overrides: maps.Clone(w.Overrides), Configs: maps.Clone(w.Configs),
		Transactions: maps.Clone(w.Transactions), Payments: maps.Clone(w.Payments), Inbox: maps.Clone(w.Inbox), Results: map[string]Result{}, DeadLetters: maps.Clone(w.DeadLetters)}
	for id, s := range other.Subscriptions {
		s.PeriodStart, s.PeriodEnd = s.PeriodStart.In(local), s.PeriodEnd.In(local)
		other.Subscriptions[id] = s
	}
	for id, c := range other.Configs {
		other.Configs[id] = json.RawMessage(strings.ReplaceAll(string(c), `":`, `": `))
	}
	for id, r := range w.Results {
		text, err := json.Marshal(r.Data)
		if err != nil {
			t.Fatal(err)
		}
		r.Data = nil
		if err := json.Unmarshal(text, &r.Data); err != nil {
			t.Fatal(err)
		}
		r.Data["more"] = "is welcome"
		other.Results[id] = r
	}
	return other
}

func any1[K comparable, V any](m map[K]V, like func(V) bool) (K, V) {
	for k, v := range m {
		if like(v) {
			return k, v
		}
	}
	panic("nothing is like that")
}

func TestEveryDifferenceIsFound(t *testing.T) {
	t.Parallel()
	w := generator(t, everything(3, 4)).Expected()
	if d := w.Compare(copied(t, w)); len(d) > 0 {
		t.Fatalf("a copy differs: %q", d)
	}
	text, err := json.Marshal(w)
	if err != nil {
		t.Fatal(err)
	}
	var read World
	if err := json.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	if d := w.Compare(&read); len(d) > 0 {
		t.Fatalf("as JSON it differs: %q", d)
	}
	for name, change := range map[string]func(*World){
		"override ": func(o *World) {
			id, one := any1(o.Overrides, func(Override) bool { return true })
			one.ExpiresAt = one.ExpiresAt.Add(time.Second)
			o.Overrides[id] = one
		},
		"company ": func(o *World) {
			id, c := any1(o.Companies, func(Company) bool { return true })
			c.BillingEmail = "x"
			o.Companies[id] = c
		},
		"user ":       func(o *World) { id, _ := any1(o.Users, func(User) bool { return true }); delete(o.Users, id) },
		"user t-more": func(o *World) { o.Users["t-more"] = User{} },
		"subscription t-c00000": func(o *World) {
			s := o.Subscriptions["t-c00000"]
			s.PeriodEnd = s.PeriodEnd.Add(time.Microsecond)
			o.Subscriptions["t-c00000"] = s
		},
		"configuration t-c00000": func(o *World) { o.Configs["t-c00000"] = json.RawMessage(`{}`) },
		"transaction ": func(o *World) {
			id, x := any1(o.Transactions, func(x Transaction) bool { return len(x.Lines) == 2 })
			x.Lines = []int64{x.Lines[0] - 1, x.Lines[1] + 1}
			o.Transactions[id] = x
		},
		"payment ": func(o *World) {
			id, p := any1(o.Payments, func(p Payment) bool { return p.Status == "received" })
			p.AmountMinor++
			o.Payments[id] = p
		},
		"event ":                func(o *World) { id, _ := any1(o.Inbox, func(string) bool { return true }); o.Inbox[id] = "waiting" },
		"dead letters conflict": func(o *World) { o.DeadLetters["conflict"]++ },
		"result ": func(o *World) {
			id, _ := any1(o.Results, func(Result) bool { return true })
			delete(o.Results, id)
		},
		"billing_adjustment: amount_minor is": func(o *World) {
			_, r := any1(o.Results, func(r Result) bool { return r.Data["billing_adjustment"] != nil })
			r.Data["billing_adjustment"].(map[string]any)["amount_minor"] = 1.5
		},
		"unexpected: t": func(o *World) { o.Results["id"] = Result{Topic: "t"} },
	} {
		other := copied(t, w)
		change(other)
		if d := w.Compare(other); len(d) != 1 || !strings.Contains(d[0], name) {
			t.Errorf("%s: %q", name, d)
		}
	}
}

// The judge computes money in its own way. Both ways must come to the same.
func TestTheJudgeAndTheCatalogueAgreeOnMoney(t *testing.T) {
	t.Parallel()
	all, c := plans(), tier.Default()
	for _, name := range c.Names() {
		of, _ := c.Tier(name)
		text, err := json.Marshal(map[string]any{"max_users": of.MaxUsers, "features": of.Features})
		if err != nil {
			t.Fatal(err)
		}
		mine, err := json.Marshal(map[string]any{"max_users": all[name].maxUsersJSON(), "features": all[name].features})
		if err != nil {
			t.Fatal(err)
		}
		if all[name].price != of.PriceMinor || all[name].support != of.SupportLevel || string(text) != string(mine) {
			t.Errorf("%s is %+v here", name, all[name])
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		start := time.UnixMicro(rapid.Int64Range(0, 4e15).Draw(t, "start")).UTC()
		stop := generate.MonthAfter(start, rapid.IntRange(1, 31).Draw(t, "day"))
		at := start.Add(time.Duration(rapid.Int64Range(-1e9, stop.Sub(start).Microseconds()+1e9).Draw(t, "at")) * time.Microsecond)
		if rapid.Bool().Draw(t, "half") {
			at = start.Add(stop.Sub(start) / 2)
		}
		low, high := rapid.Int64Range(1, 49900).Draw(t, "low"), int64(49900)
		got, err := c.Upgrade(tier.Current{Tier: "pro", PriceMinor: low, PeriodStart: start, PeriodEnd: stop}, "enterprise", at)
		if err != nil {
			t.Fatal(err)
		}
		amount, credit := portion(high-low, start, stop, at), -portion(low, start, stop, at)
		if a := got.Adjustment; a.AmountMinor != amount || a.Lines[0].AmountMinor != credit || a.Lines[1].AmountMinor != amount-credit {
			t.Fatalf("%+v, here %d with a credit of %d", a, amount, credit)
		}
		day := rapid.IntRange(1, 31).Draw(t, "anchor")
		if a, b := tier.NextPeriodEnd(start, day), generate.MonthAfter(start, day); !a.Equal(b) {
			t.Fatalf("a month after %s on day %d is %s, here %s", start, day, a, b)
		}
	})
}

func TestAConfigThatIsWrongSaysAllOfIt(t *testing.T) {
	t.Parallel()
	_, err := New(Config{Companies: -1, Events: -1, Phases: 100, Prefix: "a b", Rejected: 2, Lapsed: -1, Unknown: -1, Soon: -1})
	if err == nil {
		t.Fatal("it was accepted")
	}
	for _, says := range []string{"companies -1", "events -1", "phases 100", `prefix "a b"`, "rejected 2", "lapsed -1", "unknown -1", "soon -1ns", "now is missing"} {
		if !strings.Contains(err.Error(), says) {
			t.Errorf("nothing of %q in: %v", says, err)
		}
	}
}

func TestALongStreamIsMadeInAMoment(t *testing.T) {
	t.Parallel()
	g := generator(t, Config{Seed: 1, Companies: 2000, Events: 20_000, Now: end})
	results := 0
	for _, r := range g.Expected().Results {
		if r.CompanyID != "" {
			results++
		}
	}
	if g.Len() < 20_000 || results < 20_000 {
		t.Errorf("%d messages, %d results", g.Len(), results)
	}
}
