package tenant_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tenantflow/events"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tenantmodel"
	"tenantflow/internal/tier"
)

// A history is what two logs say of one company: what publishers sent, and what the schedule put between.
type history struct {
	id                    string // of the company
	company, subscription []tenantmodel.Event
	live                  *ledger // handled as it was written
}

// A writer writes a history, handling each event when it is appended.
type writer struct {
	t     *rapid.T
	h     *history
	clock time.Time
	n     int
	kinds []int // of events that any sends
	ends  int   // how many events are sent before the closing of the company enters subscription.events
	first []int // and those that it sends before
}

func (w *writer) append(e tenantmodel.Event) {
	e.Company = w.h.id
	if e.Topic == events.TopicCompany {
		w.h.company = append(w.h.company, e)
	} else {
		w.h.subscription = append(w.h.subscription, e)
	}
	w.h.live.take(e)
	if e.Topic == events.TopicCompany && len(w.h.live.sent) > 0 {
		w.ends = rapid.IntRange(0, 3).Draw(w.t, "events before the closing is in the log")
	}
}

// close appends the end of the subscription that came of the company's, sometimes twice.
func (w *writer) close() {
	sent := w.h.live.sent
	w.h.live.sent = nil
	for _, out := range sent {
		var data map[string]any
		if err := json.Unmarshal(out.Event.Data, &data); err != nil {
			w.t.Fatal(err)
		}
		partitions := []int{0} // that of the events
		if out.Everywhere {
			partitions = rapid.Permutation([]int{0, 1, 2}).Draw(w.t, "partitions")
		} else if *out.Partition != 0 {
			w.t.Fatalf("the closing is for partition %d, and the events are in another", *out.Partition)
		}
		for range rapid.IntRange(1, 2).Draw(w.t, "closings") {
			for _, p := range partitions {
				w.append(tenantmodel.Event{Topic: out.Topic, Type: out.Type, Source: out.Event.Source, ID: out.Event.ID, Time: out.Event.Time, Appended: w.clock, Partition: p, Data: maps.Clone(data)})
			}
		}
	}
}

// send appends what a publisher says, whose clock may be wrong.
func (w *writer) send(topic, kind string, data map[string]any) {
	w.n++
	at := w.clock
	switch rapid.IntRange(0, 7).Draw(w.t, "publisher") {
	case 0:
		at = at.Add(time.Duration(rapid.IntRange(1, 300).Draw(w.t, "fast")) * time.Second)
	case 1:
		at = at.Add(-time.Duration(rapid.IntRange(1, 4*24*3600).Draw(w.t, "slow")) * time.Second)
	}
	e := tenantmodel.Event{Topic: topic, Type: kind, Source: "/s", ID: fmt.Sprintf("%s-%s-%d", w.h.id, topic, w.n), Time: at, Appended: w.clock, Data: data}
	w.append(e)
	if rapid.IntRange(0, 9).Draw(w.t, "resent") == 0 {
		w.append(e)
	}
}

// pass lets time pass. The schedule publishes what is due, unless it is down, sometimes twice and sometimes late.
func (w *writer) pass(until time.Time, down bool) {
	for !down {
		due := w.next()
		if len(due) == 0 || due[0].At.After(until) {
			break
		}
		if due[0].At.After(w.clock) {
			w.clock = due[0].At
		}
		w.clock = w.clock.Add(time.Duration(rapid.IntRange(0, 3).Draw(w.t, "lag")) * time.Second)
		if last := len(due) - 1; due[0].Kind == tenant.DueOverride && !due[last].At.After(w.clock) && rapid.Bool().Draw(w.t, "the last one") {
			due = due[last:] // which ends those before it, too
		}
		w.due(due[0], w.clock)
		if rapid.IntRange(0, 4).Draw(w.t, "twice") == 0 {
			w.due(due[0], w.clock)
		}
	}
	if until.After(w.clock) {
		w.clock = until
	}
}

// next lists what is due to the subscription or the company, whichever is first.
func (w *writer) next() []tenant.Due {
	s := &w.h.live.state
	subscription, company := s.Due(), s.DueBefore(&events.ConfigUpdated{})
	if len(subscription) == 0 || len(company) > 0 && company[0].At.Before(subscription[0].At) {
		return company
	}
	return subscription
}

func (w *writer) due(d tenant.Due, appended time.Time) {
	c := tenant.DueCause(w.h.id, d)
	topic, _ := events.TopicOf(c.Event.Type)
	w.append(tenantmodel.Event{Topic: topic, Type: c.Event.Type, Source: c.Event.Source, ID: c.Event.ID, Time: d.At, Appended: appended,
		Data: map[string]any{"kind": d.Kind, "name": d.Name, "due_at": d.At.Format(time.RFC3339Nano)}})
}

func writeHistory(t *rapid.T, rules *tenant.Rules, id string) *history {
	w := &writer{t: t, h: &history{id: id, live: newLedger(t, rules, id)}}
	w.clock = rapid.SampledFrom([]time.Time{
		time.Date(2026, 1, 31, 10, 0, 0, 0, time.UTC), time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC), time.Date(2024, 2, 29, 23, 59, 59, 999_999_000, time.UTC),
	}).Draw(t, "begins")
	register := func() {
		w.send(events.TopicCompany, events.TypeCompanyRegistered, map[string]any{"name": "A", "billing_email": "a@x", "initial_user": map[string]any{"user_id": id + "-u", "email": "u@x"}})
	}
	w.kinds = kinds(t)
	if rapid.IntRange(0, 2).Draw(t, "opening") == 0 { // an upgrade, and what meets at the end of its period
		w.first = append([]int{0}, rapid.Permutation([]int{3, 4, 6, 11, 15}).Draw(t, "first")...)
	}
	late := rapid.IntRange(0, 9).Draw(t, "registered late") == 0
	if !late {
		register()
	}
	for i := range rapid.IntRange(1, 30).Draw(t, "events") {
		until := w.clock.Add(time.Duration(rapid.IntRange(0, 6*24*3600).Draw(t, "pause")) * time.Second)
		switch rapid.IntRange(0, 5).Draw(t, "jump") {
		case 0:
			until = w.clock.AddDate(0, 0, rapid.IntRange(0, 70).Draw(t, "days"))
		case 1: // close to something that is due
			if due := w.next(); len(due) > 0 {
				until = due[0].At.Add(time.Duration(rapid.SampledFrom([]int{-86400, -1, 0, 1, 60}).Draw(t, "beside")) * time.Second)
			}
		}
		w.pass(until, rapid.IntRange(0, 3).Draw(t, "down") == 0)
		if late && i == 2 {
			register()
		}
		if w.ends--; w.ends < 0 {
			w.close()
		}
		w.any()
		if i%3 == 0 {
			w.h.live.foresee(t, w.clock)
		}
	}
	if late {
		register()
	}
	w.close()
	w.pass(w.clock.AddDate(0, rapid.IntRange(0, 3).Draw(t, "months after"), 0), false)
	return w.h
}

// kinds are those of any that a history has. With a few only, what needs several of them in a row comes about more often.
func kinds(t *rapid.T) []int {
	all := []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20}
	if !rapid.Bool().Draw(t, "some kinds only") {
		return all
	}
	return append([]int{0}, rapid.SliceOfN(rapid.SampledFrom(all[1:]), 3, 6).Draw(t, "kinds")...)
}

// any sends one event of any type: some that make sense in the state, and some that don't.
func (w *writer) any() {
	t := w.t
	tiers := []string{"free", "pro", "enterprise"}
	effective := rapid.SampledFrom([]string{"period_end", "period_end", "immediate"}).Draw(t, "effective")
	sub := func(kind string, data map[string]any) { w.send(events.TopicSubscription, kind, data) }
	id := w.payment()
	named := func(data map[string]any) map[string]any {
		if rapid.Bool().Draw(t, "names a payment") {
			data["payment"] = map[string]any{"payment_id": id, "method": "card"}
		}
		return data
	}
	s := w.h.live.state.Subscription
	kind := rapid.SampledFrom(w.kinds).Draw(t, "event")
	if len(w.first) > 0 {
		kind, w.first = w.first[0], w.first[1:]
	}
	switch {
	case kind <= 2:
		sub(events.TypeUpgradeRequested, named(map[string]any{"new_tier": rapid.SampledFrom(tiers[1:]).Draw(t, "tier")}))
	case kind == 3:
		sub(events.TypeDowngradeRequested, map[string]any{"new_tier": rapid.SampledFrom(tiers[:2]).Draw(t, "tier"), "effective": effective})
	case kind == 4:
		sub(events.TypeCancelRequested, map[string]any{"effective": effective})
	case kind == 5:
		sub(events.TypeChangeWithdrawn, map[string]any{})
	case kind <= 9 && s != nil:
		sub(events.TypeRenewed, named(w.period(s)))
	case kind == 10:
		data := map[string]any{}
		if rapid.Bool().Draw(t, "says when") {
			data["expired_at"] = w.clock.Add(time.Duration(rapid.IntRange(-100, 20).Draw(t, "when")) * time.Hour).Format(time.RFC3339Nano)
		}
		sub(events.TypeExpired, data)
	case kind <= 12:
		sub(events.TypePaymentFailed, map[string]any{"payment_id": id, "reason": "card"})
	case kind == 13:
		w.send(events.TopicCompany, events.TypeConfigUpdated, map[string]any{"config": map[string]any{fmt.Sprintf("s%d", rapid.IntRange(0, 3).Draw(t, "setting")): w.n}})
	case kind == 17:
		if w.n > 8 || rapid.IntRange(0, 4).Draw(t, "closes early") == 0 {
			w.send(events.TopicCompany, events.TypeCompanyClosed, map[string]any{"purge": rapid.IntRange(0, 2).Draw(t, "purge") == 0})
		}
	case kind == 14:
		if due := w.next(); len(due) > 0 { // before its time, or what is not due any more
			w.due(tenant.Due{Kind: rapid.SampledFrom([]string{due[0].Kind, tenant.DueRenewal}).Draw(t, "kind"), Name: due[0].Name, At: due[0].At}, w.clock)
		}
	case kind >= 18:
		w.override()
	default:
		data := map[string]any{"payment_id": id, "currency": "USD", "paid_at": w.clock.Format(time.RFC3339Nano),
			"amount_minor": rapid.SampledFrom([]int64{1, 4900, 49900, 58800, 22500, 1_000_000}).Draw(t, "amount")}
		if rapid.Bool().Draw(t, "for a month") {
			data["billing_period"] = w.clock.AddDate(0, 0, rapid.IntRange(-30, 5).Draw(t, "month of")).Format("2006-01")
		}
		sub(events.TypePaymentReceived, data)
	}
}

// override sets limits, and takes others back. No tier has these numbers of users: which one the tier gives depends on the order of the
// topics, and so whether the configuration changes would.
func (w *writer) override() {
	t := w.t
	limits := map[string]any{}
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom(tier.LimitNames()), 1, 3, rapid.ID[string]).Draw(t, "limits") {
		values := []any{nil, 0, 7, 1_000_000, "unlimited"}
		if name == "max_users" {
			values = []any{nil, 0, 3, 40}
		}
		limits[name] = rapid.SampledFrom(values).Draw(t, name)
	}
	data := map[string]any{"limits": limits, "reason": fmt.Sprintf("ticket %d", w.n)}
	if rapid.IntRange(0, 3).Draw(t, "ends") > 0 {
		data["expires_at"] = w.clock.Add(time.Duration(rapid.SampledFrom([]int{-1, 1, 3600, 86400, 7 * 86400, 40 * 86400}).Draw(t, "for")) * time.Second).Format(time.RFC3339Nano)
	}
	w.send(events.TopicCompany, events.TypeLimitsOverridden, data)
}

// payment is the id of one: often of one that is awaited or has failed.
func (w *writer) payment() string {
	id := fmt.Sprintf("%s-p%d", w.h.id, rapid.IntRange(1, 12).Draw(w.t, "payment"))
	var open []string
	for known, p := range w.h.live.payments {
		if p.Status != tenant.PaymentReceived {
			open = append(open, known)
		}
	}
	if slices.Sort(open); len(open) > 0 && rapid.Bool().Draw(w.t, "an open payment") {
		id = rapid.SampledFrom(open).Draw(w.t, "open")
	}
	return id
}

// period is one that a renewal may name.
func (w *writer) period(s *tenant.Subscription) map[string]any {
	t := w.t
	held := &s.Term
	if s.Expired != nil {
		held = s.Expired
	}
	months := rapid.SampledFrom([]int{1, 1, 1, 2, 12, 36, 37}).Draw(t, "months")
	start, end := held.PeriodEnd, tier.AddMonths(held.PeriodEnd, months, held.AnchorDay)
	switch rapid.IntRange(0, 9).Draw(t, "period") {
	case 0, 1:
		start, end = held.PeriodStart, held.PeriodEnd
	case 2:
		end = end.Add(time.Second)
	case 3:
		start = held.PeriodStart
	case 4:
		start, end = end, tier.AddMonths(end, 1, held.AnchorDay)
	}
	return map[string]any{"period_start": start.Format(time.RFC3339Nano), "period_end": end.Format(time.RFC3339Nano)}
}

// books are what must not depend on how a log was handled.
func books(w *tenantmodel.World) *tenantmodel.World {
	same := *w
	same.Results = maps.Clone(w.Results)
	for id, r := range same.Results {
		if same.Companies[r.CompanyID].Status == tenant.Purged && (r.Topic == events.TopicCompanyConfig || r.Topic == events.TopicNotifications) {
			delete(same.Results, id) // there is no configuration and no user once it is purged
			continue
		}
		if r.Topic != events.TopicSubscriptionResults {
			r.Data = nil
			same.Results[id] = r
		}
	}
	return unlimited(&same)
}

// unlimited leaves out what results of subscriptions say of limits: those depend on the overrides, and so on the order of the two topics.
func unlimited(w *tenantmodel.World) *tenantmodel.World {
	same := *w
	same.Results = maps.Clone(w.Results)
	for id, r := range same.Results {
		if r.Topic == events.TopicSubscriptionResults && r.Data != nil {
			r.Data = maps.Clone(r.Data)
			delete(r.Data, "limits")
			delete(r.Data, "restrictions_applied")
			same.Results[id] = r
		}
	}
	return &same
}

// The same log gives the same books, however it is handled: as it is written, with the clock moving; as a backlog, in which the two
// topics interleave in any way; and into empty stores, with the small topic read first. Amounts are those of the model, which shares no
// code with the rules. No period is charged twice, and none overlaps another: the ledger looks at every step.
func TestBooks_AreAFunctionOfTheLog(t *testing.T) {
	t.Parallel()
	rules := tenant.New(tenant.Config{Catalogue: tier.Default()})
	for shard := range 4 { // of 100 histories; -rapid.checks=2000 tries 8000
		t.Run(fmt.Sprint(shard), func(t *testing.T) {
			t.Parallel()
			rapid.Check(t, func(t *rapid.T) { checkHistory(t, rules) })
		})
	}
}

func checkHistory(t *rapid.T, rules *tenant.Rules) {
	t.Helper()
	h := writeHistory(t, rules, "acme")
	live := h.live.world()
	first := newLedger(t, rules, "acme")
	elsewhere := slices.Clone(h.subscription) // no partition waits for another: what is in others comes first here
	slices.SortStableFunc(elsewhere, func(a, b tenantmodel.Event) int { return cmp.Compare(min(b.Partition, 1), min(a.Partition, 1)) })
	for _, e := range slices.Concat(h.company, elsewhere) {
		first.take(e)
	}
	backlog := newLedger(t, rules, "acme")
	company, subscription := h.company, h.subscription
	for len(company)+len(subscription) > 0 {
		if len(subscription) == 0 || len(company) > 0 && rapid.IntRange(0, 5).Draw(t, "topic") == 0 {
			backlog.take(company[0])
			company = company[1:]
			continue
		}
		backlog.take(subscription[0])
		subscription = subscription[1:]
	}
	for name, other := range map[string]*ledger{"company.events first": first, "a backlog": backlog} {
		if d := books(live).Compare(books(other.world())); len(d) > 0 {
			t.Fatalf("%s: %d differences from live:\n%s", name, len(d), strings.Join(d[:min(8, len(d))], "\n"))
		}
	}
	model := judged(h)
	if live.Companies["acme"].Status == tenant.Purged {
		model, live = books(model), books(live)
	}
	if d := unlimited(model).Compare(unlimited(live)); len(d) > 0 {
		t.Fatalf("%d differences from the model:\n%s\n%s", len(d), strings.Join(d[:min(8, len(d))], "\n"), h)
	}
}

// judged is what the model makes of a history.
func judged(h *history) *tenantmodel.World {
	judge, seen := tenantmodel.NewJudge(), map[string]bool{}
	company := slices.Clone(h.company) // what came before the registration waits for it
	registration := slices.IndexFunc(company, func(e tenantmodel.Event) bool { return e.Type == events.TypeCompanyRegistered })
	company = slices.Insert(slices.Delete(company, registration, registration+1), 0, h.company[registration])
	for _, e := range slices.Concat(company, h.subscription) {
		id := e.Source + " " + e.ID
		if seen[id] && e.Source != tenant.DueSource {
			continue
		}
		seen[id] = true
		judge.Apply(e)
	}
	return judge.World()
}

func (h *history) String() string {
	var b strings.Builder
	for _, e := range slices.Concat(h.company, h.subscription) {
		fmt.Fprintf(&b, "%s of %s, appended %s: %v\n", e.Type, e.Time.Format(time.RFC3339Nano), e.Appended.Format(time.RFC3339Nano), e.Data)
	}
	return b.String()
}
