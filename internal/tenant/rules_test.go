package tenant_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/tenant"
	"tenantflow/internal/tenantmodel"
	"tenantflow/internal/tier"
)

// A story is what happens to one company that has registered on 1 October, an event a line: when, what, and more of its data. What is due
// is published when its time has come.
type story struct {
	*ledger
	n int
}

func newStory(t fataler, rules *tenant.Rules) *story {
	s := &story{ledger: newLedger(t, rules, "acme")}
	s.take(tenantmodel.Event{Topic: events.TopicCompany, Type: events.TypeCompanyRegistered, Company: "acme", Source: "/s", ID: "registered", Time: when(t, "10-01"),
		Data: map[string]any{"name": "A", "billing_email": "a@x", "initial_user": map[string]any{"user_id": "acme-u", "email": "u@x"}}})
	return s
}

// when reads 11-09, 11-09T12:30 or 27-11-09 (the year 2027).
func when(t fataler, text string) time.Time {
	t.Helper()
	year := "2026-"
	if strings.Count(strings.SplitN(text, "T", 2)[0], "-") == 2 {
		year = "20"
	}
	for _, form := range []string{"2006-01-02", "2006-01-02T15:04", "2006-01-02T15:04:05"} {
		if at, err := time.Parse(form, year+text); err == nil {
			return at
		}
	}
	t.Fatalf("%q is no time", text)
	return time.Time{}
}

// tell adds one line and returns the results it leads to.
func (s *story) tell(line string) string {
	s.t.Helper()
	words := strings.Fields(line)
	at := when(s.t, words[0])
	s.n++
	e := tenantmodel.Event{Topic: events.TopicSubscription, Company: "acme", Source: "/s", ID: fmt.Sprint(s.n), Time: at, Appended: at, Data: map[string]any{}}
	word := func(i int) string {
		if i < len(words) {
			return words[i]
		}
		return ""
	}
	pays := func(i int) {
		if word(i) != "" {
			e.Data["payment"] = map[string]any{"payment_id": word(i)}
		}
	}
	switch words[1] {
	case "up":
		e.Type, e.Data["new_tier"] = events.TypeUpgradeRequested, word(2)
		pays(3)
	case "down":
		e.Type, e.Data["new_tier"] = events.TypeDowngradeRequested, word(2)
		if word(3) == "now" {
			e.Data["effective"] = "immediate"
		}
	case "cancel":
		e.Type = events.TypeCancelRequested
		if word(2) == "now" {
			e.Data["effective"] = "immediate"
		}
	case "withdraw":
		e.Type = events.TypeChangeWithdrawn
	case "renew":
		e.Type = events.TypeRenewed
		e.Data["period_start"], e.Data["period_end"] = when(s.t, word(2)).Format(time.RFC3339), when(s.t, word(3)).Format(time.RFC3339)
		pays(4)
	case "expired":
		e.Type = events.TypeExpired
		if word(2) != "" {
			e.Data["expired_at"] = when(s.t, word(2)).Format(time.RFC3339)
		}
	case "failed":
		e.Type, e.Data["payment_id"] = events.TypePaymentFailed, word(2)
	case "paid":
		amount := int64(0)
		if _, err := fmt.Sscan(word(3), &amount); err != nil {
			s.t.Fatalf("%s: %v", line, err)
		}
		e.Type = events.TypePaymentReceived
		e.Data["payment_id"], e.Data["amount_minor"], e.Data["currency"], e.Data["paid_at"] = word(2), amount, "USD", at.Format(time.RFC3339)
		if word(4) != "" {
			e.Data["billing_period"] = word(4)
		}
	case "clock": // what is due by then is published, one after the other
		known := s.known()
		for due := s.state.Due(); len(due) > 0 && !due[0].At.After(at); due = s.state.Due() {
			s.schedule(due[0], due[0].At)
		}
		return s.since(known)
	default:
		s.t.Fatalf("%q is not known", line)
	}
	known := s.known()
	s.take(e)
	return s.since(known)
}

// schedule publishes something that is due.
func (s *story) schedule(due tenant.Due, appended time.Time) {
	c := tenant.DueCause("acme", due)
	s.take(tenantmodel.Event{Topic: events.TopicSubscription, Type: c.Event.Type, Company: "acme", Source: c.Event.Source, ID: c.Event.ID, Time: due.At, Appended: appended,
		Data: map[string]any{"kind": due.Kind, "due_at": due.At.Format(time.RFC3339Nano)}})
}

func (s *story) known() map[string]bool {
	known := map[string]bool{}
	for id := range s.results {
		known[id] = true
	}
	return known
}

// since lists results of subscription.results that were not known, by their short types, sorted.
func (s *story) since(known map[string]bool) string {
	lines := []string{}
	for id, r := range s.results {
		if r.Topic != events.TopicSubscriptionResults || known[id] {
			continue
		}
		line := strings.TrimSuffix(strings.TrimPrefix(r.Type, "subscription."), ".v1")
		if code, refused := r.Data["code"].(string); refused {
			line = code
		}
		lines = append(lines, line)
	}
	slices.Sort(lines)
	return strings.Join(lines, " ")
}

// is is the subscription on one line: tier, status, period, what is to come.
func (s *story) is() string {
	sub := s.state.Subscription
	day := func(at time.Time) string { return strings.TrimSuffix(at.Format("06-01-02T15:04"), "T00:00") }
	line := fmt.Sprintf("%s %s %s %s", sub.Tier, sub.Status, day(sub.PeriodStart), day(sub.PeriodEnd))
	if sub.PendingAt != nil {
		line += fmt.Sprintf(", %s at %s", sub.PendingTier, day(*sub.PendingAt))
	}
	if sub.Renewal != nil {
		line += ", then to " + day(sub.Renewal.End)
	}
	if due := s.state.Due(); len(due) > 0 {
		line += fmt.Sprintf("; %s %s", due[0].Kind, day(due[0].At))
	}
	return line
}

// charged is what was charged, amount by amount.
func (s *story) charged() string {
	amounts := []int{}
	for _, tx := range s.transactions {
		if tx.Adjustment.AmountMinor != 0 {
			amounts = append(amounts, int(tx.Adjustment.AmountMinor))
		}
	}
	slices.Sort(amounts)
	return strings.Trim(fmt.Sprint(amounts), "[]")
}

func TestStories_LeadToTheseBooks(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		lines   string // each with what it leads to behind an arrow
		is      string
		charged string
	}{
		// Due first.
		{"a cancellation due before a renewal", `10-01 up pro > upgraded
			10-10 cancel > cancellation_scheduled
			11-02 renew 11-01 12-01 > cancelled nothing_to_renew`, "free cancelled 26-11-01 26-12-01", "4900"},
		{"a payment after the grace period", `11-01 up pro p1 > upgraded
			11-02 failed p1 > payment_failure_recorded
			11-10 paid p1 4900 > expiry_handled payment_recorded`, "free expired 26-11-09 26-12-09", "4900"},
		{"a downgrade due before a renewal", `10-01 up enterprise > upgraded
			10-10 down pro > downgrade_scheduled
			11-02 renew 11-01 12-01 > downgraded renewal_recorded`, "pro active 26-11-01 26-12-01; renewal_grace 26-12-04", "4900 49900"},
		// One charge a period.
		{"a renewal of the period that has expired", `11-01 up pro p1 > upgraded
			11-02 failed p1 > payment_failure_recorded
			11-09 clock > expiry_handled
			11-10 paid p1 4900 > payment_recorded
			11-11 renew 11-01 12-01 > renewal_recorded`, "pro active 26-11-01 26-12-01; renewal_grace 26-12-04", "4900"},
		{"a tier left and taken again in a period", `11-01 up pro > upgraded
			11-16 up enterprise > upgraded
			11-17 down pro now > downgraded
			11-18 up enterprise > upgraded`, "enterprise active 26-11-01 26-12-01; renewal_grace 26-12-04", "4900 22500"},
		{"a renewal that is sent again under another id", `11-01 up pro > upgraded
			12-01 renew 12-01 27-01-01 > renewal_recorded
			12-02 renew 12-01 27-01-01 > renewal_recorded`, "pro active 26-12-01 27-01-01; renewal_grace 27-01-04", "4900 4900"},
		{"periods that are none", `11-01 up pro > upgraded
			11-05 renew 11-01 12-01T00:00:01 > invalid_period
			11-05 renew 11-15 12-01 > invalid_period
			11-05 renew 11-01 27-01-01 > invalid_period
			11-05 renew 12-01 27-01-02 > invalid_period
			11-05 renew 12-01 12-01 > invalid_period
			11-05 renew 27-06-01 27-07-01 > invalid_period
			11-05 renew 12-01 30-01-01 > invalid_period
			11-05 renew 10-01 11-01 > invalid_period`, "pro active 26-11-01 26-12-01; renewal_grace 26-12-04", "4900"},
		{"a period that is over after an expiry", `11-01 up pro > upgraded
			27-01-05 renew 12-01 27-01-01 > expiry_handled invalid_period
			27-01-05 renew 11-01 12-01 > invalid_period`, "free expired 26-12-04 27-01-04", "4900"},
		{"a year", `11-01 up pro > upgraded
			12-01 renew 12-01 27-12-01 > renewal_recorded
			27-06-01 up enterprise > upgraded`, "enterprise active 26-12-01 27-12-01; renewal_grace 27-12-04", fmt.Sprint(4900, " ", 12*4900, " ", 270740)},
		// Renewals change what they name.
		{"the present period again, with something scheduled", `11-01 up enterprise > upgraded
			11-02 down pro > downgrade_scheduled
			11-03 renew 11-01 12-01 > renewal_recorded`, "enterprise active 26-11-01 26-12-01, pro at 26-12-01; period_end 26-12-01", "49900"},
		{"the present period again, with a cancellation", `11-01 up pro > upgraded
			11-02 cancel > cancellation_scheduled
			11-03 renew 11-01 12-01 > renewal_recorded`, "pro active 26-11-01 26-12-01, free at 26-12-01; period_end 26-12-01", "4900"},
		{"the present period again, past due", `11-01 up pro p1 > upgraded
			11-02 failed p1 > payment_failure_recorded
			11-03 renew 11-01 12-01 > renewal_recorded`, "pro past_due 26-11-01 26-12-01; payment_grace 26-11-09", "4900"},
		{"the present period again, with money that has come", `11-01 up pro p1 > upgraded
			11-02 failed p1 > payment_failure_recorded
			11-03 paid p2 4900 > payment_recorded
			11-04 renew 11-01 12-01 p2 > renewal_recorded`, "pro active 26-11-01 26-12-01; renewal_grace 26-12-04", "4900"},
		{"an upgrade with money that has come, past due", `11-01 up pro p1 > upgraded
			11-14 failed p1 > payment_failure_recorded
			11-15 paid p2 27400 > payment_recorded
			11-16 up enterprise p2 > upgraded`, "enterprise active 26-11-01 26-12-01; renewal_grace 26-12-04", "4900 22500"},
		{"an upgrade with too little money, past due", `11-01 up pro p1 > upgraded
			11-14 failed p1 > payment_failure_recorded
			11-15 paid p2 27399 > payment_recorded
			11-16 up enterprise p2 > upgraded`, "enterprise past_due 26-11-01 26-12-01; payment_grace 26-11-21", "4900 22500"},
		{"an early renewal", `11-01 up enterprise > upgraded
			11-02 down pro > downgrade_scheduled
			11-24 renew 12-01 27-01-01 > renewal_recorded
			11-30 clock >
			12-01 clock > downgraded renewal_recorded`, "pro active 26-12-01 27-01-01; renewal_grace 27-01-04", "4900 49900"},
		{"one renewal ahead", `11-01 up pro > upgraded
			11-10 renew 12-01 27-12-01 > renewal_recorded
			11-11 renew 12-01 27-01-01 > invalid_period
			11-11 renew 27-12-01 28-12-01 > invalid_period
			11-12 renew 12-01 27-12-01 > renewal_recorded
			11-13 cancel > cancellation_scheduled`, "pro active 26-11-01 26-12-01, free at 27-12-01, then to 27-12-01; renewal 26-12-01", "4900"},
		{"a cancellation that is asked after a renewal", `11-01 up pro > upgraded
			11-10 renew 12-01 27-01-01 > renewal_recorded
			11-13 cancel > cancellation_scheduled
			12-31 clock > renewal_recorded
			27-01-01 clock > cancelled`, "free cancelled 27-01-01 27-02-01", "4900 4900"},
		{"a renewal while a cancellation is scheduled", `11-01 up pro > upgraded
			11-02 cancel > cancellation_scheduled
			11-10 renew 12-01 27-01-01 > nothing_to_renew
			11-11 withdraw > change_withdrawn
			11-11 withdraw > nothing_scheduled
			11-12 renew 12-01 27-01-01 > renewal_recorded`, "pro active 26-11-01 26-12-01, then to 27-01-01; renewal 26-12-01", "4900"},
		{"nothing was ever paid", `11-01 renew 11-01 12-01 > nothing_to_renew
			11-01 withdraw > nothing_scheduled`, "free active 26-10-01 26-11-01", ""},
		{"a recorded renewal that can't begin", `11-01 up pro p1 > upgraded
			11-02 renew 12-01 27-01-01 p2 > renewal_recorded
			11-03 failed p1 > payment_failure_recorded
			11-10 clock > change_withdrawn expiry_handled
			12-02 up pro p2 > upgraded`, "pro active 26-12-02 27-01-02; renewal_grace 27-01-05", "4900 4900"},
		{"the next period after an expiry", `11-01 up pro > upgraded
			12-10 renew 12-01 27-01-01 > expiry_handled renewal_recorded`, "pro active 26-12-01 27-01-01; renewal_grace 27-01-04", "4900 4900"},
		{"the next period after an expiry, before its start", `11-01 up pro p1 > upgraded
			11-02 failed p1 > payment_failure_recorded
			11-15 renew 12-01 27-01-01 > expiry_handled renewal_recorded
			12-01 clock > renewal_recorded`, "pro active 26-12-01 27-01-01; renewal_grace 27-01-04", "4900 4900"},
		// Expiries.
		{"an expiry that is to come", `11-01 up pro > upgraded
			11-20 expired 12-01 > not_expired`, "pro active 26-11-01 26-12-01; renewal_grace 26-12-04", "4900"},
		{"an expiry in the grace period", `11-01 up pro > upgraded
			11-30 expired > not_expired
			12-02 expired 12-01 > expiry_handled
			12-03 expired 12-01 > expiry_handled`, "free expired 26-12-02 27-01-02", "4900"},
		{"the grace period of a renewal", `11-01 up pro > upgraded
			12-03T23:59 clock >
			12-04 clock > expiry_handled
			12-05 expired > expiry_handled`, "free expired 26-12-04 27-01-04", "4900"},
		{"a change for the end of a period that is over", `11-01 up enterprise > upgraded
			12-02 down pro > downgraded
			12-03 renew 12-01 27-01-01 > renewal_recorded`, "pro active 26-12-01 27-01-01; renewal_grace 27-01-04", "4900 49900"},
		{"a cancellation of a period that is over", `11-01 up pro > upgraded
			12-02 cancel > cancelled`, "free cancelled 26-12-02 27-01-02", "4900"},
		// Payments.
		{"a cent", `11-01 up pro p1 > upgraded
			11-02 failed p1 > payment_failure_recorded
			11-03 paid p2 1 2026-11 > payment_recorded
			11-04 paid p3 4898 2026-11 > payment_recorded`, "pro past_due 26-11-01 26-12-01; payment_grace 26-11-09", "4900"},
		{"in parts", `11-01 up pro p1 > upgraded
			11-02 failed p1 > payment_failure_recorded
			11-03 paid p2 1 2026-11 > payment_recorded
			11-04 paid p3 4899 2026-11 > payment_recorded`, "pro active 26-11-01 26-12-01; renewal_grace 26-12-04", "4900"},
		{"the attempt that succeeds", `11-01 up pro > upgraded
			11-02 failed p1 > payment_failure_recorded
			11-03 paid p1 4900 > payment_recorded`, "pro active 26-11-01 26-12-01; renewal_grace 26-12-04", "4900"},
		{"an id that has failed names something else", `11-01 up pro p1 > upgraded
			11-02 failed p1 > payment_failure_recorded
			11-10 up pro p1 > expiry_handled upgraded
			11-11 paid p1 4900 > payment_recorded`, "pro active 26-11-10 26-12-10; renewal_grace 26-12-13", "4900 4900"},
		{"a failure of a superseded attempt", `11-01 up pro p1 > upgraded
			11-02 failed p1 > payment_failure_recorded
			11-03 paid p2 4900 2026-11 > payment_recorded
			11-04 failed p1 > payment_failure_recorded
			11-05 failed p9 > payment_failure_recorded`, "pro active 26-11-01 26-12-01; renewal_grace 26-12-04", "4900"},
		{"money of a period that was not named", `11-01 up pro p1 > upgraded
			11-02 failed p1 > payment_failure_recorded
			11-03 paid p2 4900 2026-10 > payment_recorded
			11-04 paid p3 4900 > payment_recorded`, "pro past_due 26-11-01 26-12-01; payment_grace 26-11-09", "4900"},
		{"money that came before its period", `11-01 up pro > upgraded
			11-28 paid p2 4900 2026-12 > payment_recorded
			12-01 renew 12-01 27-01-01 > renewal_recorded
			12-02 failed p3 > payment_failure_recorded`, "pro active 26-12-01 27-01-01; renewal_grace 27-01-04", "4900 4900"},
		{"the grace period goes over the period's end", `11-01 up pro > upgraded
			11-29 failed p1 > payment_failure_recorded
			12-05 paid p1 4900 > payment_recorded`, "pro active 26-11-01 26-12-01; renewal_grace 26-12-08", "4900"},
		{"a payment of within the grace that comes late", `11-01 up pro p1 > upgraded
			11-02 failed p1 > payment_failure_recorded
			11-10 cancel > expiry_handled invalid_downgrade_path
			11-08 paid p1 4900 > payment_recorded`, "pro active 26-11-01 26-12-01; renewal_grace 26-12-04", "4900"},
		{"a part of it that comes late", `11-01 up pro p1 > upgraded
			11-02 failed p1 > payment_failure_recorded
			11-10 clock > expiry_handled
			11-08 paid p1 4899 > payment_recorded`, "free expired 26-11-09 26-12-09", "4900"},
		{"a cancellation survives a reinstatement", `11-01 up pro p1 > upgraded
			11-02 cancel > cancellation_scheduled
			11-02 failed p1 > payment_failure_recorded
			11-10 clock > expiry_handled
			11-08 paid p1 4900 > payment_recorded`, "pro active 26-11-01 26-12-01, free at 26-12-01; period_end 26-12-01", "4900"},
		{"a failure before the period begins", `11-01 up pro > upgraded
			11-20 renew 12-01 27-01-01 p1 > renewal_recorded
			11-28 failed p1 > payment_failure_recorded
			12-01 clock > renewal_recorded`, "pro past_due 26-12-01 27-01-01; payment_grace 26-12-08", "4900 4900"},
		{"the same, and it is paid in the grace period", `11-01 up pro > upgraded
			11-20 renew 12-01 27-01-01 p1 > renewal_recorded
			11-28 failed p1 > payment_failure_recorded
			12-01 clock > renewal_recorded
			12-02 failed p9 > payment_failure_recorded
			12-03 paid p1 4900 > payment_recorded`, "pro active 26-12-01 27-01-01; renewal_grace 27-01-04", "4900 4900"},
		{"the same, and it is paid before", `11-01 up pro > upgraded
			11-20 renew 12-01 27-01-01 p1 > renewal_recorded
			11-28 failed p1 > payment_failure_recorded
			11-29 paid p1 4900 > payment_recorded
			12-01 clock > renewal_recorded`, "pro active 26-12-01 27-01-01; renewal_grace 27-01-04", "4900 4900"},
		{"the same, and another payment came for the month", `11-01 up pro > upgraded
			11-20 renew 12-01 27-01-01 p1 > renewal_recorded
			11-28 failed p1 > payment_failure_recorded
			11-29 paid p2 4900 2026-12 > payment_recorded
			12-01 clock > renewal_recorded`, "pro active 26-12-01 27-01-01; renewal_grace 27-01-04", "4900 4900"},
		{"the same, and another payment came that is too little", `11-01 up pro > upgraded
			11-20 renew 12-01 27-01-01 p1 > renewal_recorded
			11-28 failed p1 > payment_failure_recorded
			11-29 paid p2 4899 2026-12 > payment_recorded
			12-01 clock > renewal_recorded`, "pro past_due 26-12-01 27-01-01; payment_grace 26-12-08", "4900 4900"},
		{"the same, and it is tried again", `11-01 up pro > upgraded
			11-20 renew 12-01 27-01-01 p1 > renewal_recorded
			11-28 failed p1 > payment_failure_recorded
			11-29 renew 12-01 27-01-01 p1 > renewal_recorded
			12-01 clock > renewal_recorded`, "pro active 26-12-01 27-01-01; renewal_grace 27-01-04", "4900 4900"},
		{"the same, and another payment is named", `11-01 up pro > upgraded
			11-20 renew 12-01 27-01-01 p1 > renewal_recorded
			11-28 failed p1 > payment_failure_recorded
			11-29 renew 12-01 27-01-01 p2 > renewal_recorded
			12-01 clock > renewal_recorded
			12-02 paid p2 4900 > payment_recorded`, "pro active 26-12-01 27-01-01; renewal_grace 27-01-04", "4900 4900"},
		{"the same, and another payment is awaited", `11-01 up pro > upgraded
			11-20 renew 12-01 27-01-01 p1 > renewal_recorded
			11-28 failed p1 > payment_failure_recorded
			11-29 renew 12-01 27-01-01 p2 > renewal_recorded
			12-01 clock > renewal_recorded`, "pro past_due 26-12-01 27-01-01; payment_grace 26-12-08", "4900 4900"},
		{"a downgrade, an early renewal and a cancellation", `11-01 up enterprise > upgraded
			11-02 down pro > downgrade_scheduled
			11-20 renew 12-01 27-01-01 > renewal_recorded
			11-25 cancel > cancellation_scheduled
			11-26 renew 12-01 27-01-01 > nothing_to_renew
			12-01 clock > downgraded renewal_recorded`, "pro active 26-12-01 27-01-01, free at 27-01-01; period_end 27-01-01", "4900 49900"},
		{"the same to its end", `11-01 up enterprise > upgraded
			11-02 down pro > downgrade_scheduled
			11-20 renew 12-01 27-01-01 > renewal_recorded
			11-25 cancel > cancellation_scheduled
			27-01-01 clock > cancelled downgraded renewal_recorded`, "free cancelled 27-01-01 27-02-01", "4900 49900"},
		{"the same, and the cancellation is withdrawn", `11-01 up enterprise > upgraded
			11-02 down pro > downgrade_scheduled
			11-20 renew 12-01 27-01-01 > renewal_recorded
			11-25 cancel > cancellation_scheduled
			11-26 withdraw > change_withdrawn
			11-27 renew 12-01 27-01-01 > renewal_recorded`, "enterprise active 26-11-01 26-12-01, pro at 26-12-01, then to 27-01-01; period_end 26-12-01", "49900"},
		{"the same, and both are withdrawn", `11-01 up enterprise > upgraded
			11-02 down pro > downgrade_scheduled
			11-20 renew 12-01 27-01-01 > renewal_recorded
			11-25 cancel > cancellation_scheduled
			11-26 withdraw > change_withdrawn
			11-27 withdraw > change_withdrawn
			11-28 withdraw > nothing_scheduled
			12-01 clock > renewal_recorded`, "enterprise active 26-12-01 27-01-01; renewal_grace 27-01-04", "49900 49900"},
		{"a second downgrade after an early renewal", `11-01 up enterprise > upgraded
			11-02 down pro > downgrade_scheduled
			11-20 renew 12-01 27-01-01 > renewal_recorded
			11-25 down pro > invalid_downgrade_path
			11-26 down free > downgrade_scheduled
			11-27 cancel > cancellation_scheduled
			12-01 clock > downgraded renewal_recorded`, "pro active 26-12-01 27-01-01, free at 27-01-01; period_end 27-01-01", "4900 49900"},
		{"a downgrade at once instead", `11-01 up enterprise > upgraded
			11-02 down pro > downgrade_scheduled
			11-20 renew 12-01 27-01-01 > renewal_recorded
			11-25 cancel > cancellation_scheduled
			11-26 down pro now > downgraded
			12-01 clock > renewal_recorded`, "pro active 26-12-01 27-01-01; renewal_grace 27-01-04", "4900 49900"},
		{"two payments of a renewal that is dropped", `11-01 up pro > upgraded
			11-10 renew 12-01 27-01-01 p1 > renewal_recorded
			11-11 renew 12-01 27-01-01 p2 > renewal_recorded
			11-12 paid p1 4900 > payment_recorded
			11-13 cancel now > cancelled change_withdrawn
			11-14 up pro p1 > upgraded
			11-15 cancel now > cancelled
			11-16 up pro p2 > upgraded`, "pro active 26-11-16 26-12-16; renewal_grace 26-12-19", "4900 4900 4900"},
		{"a cancellation for the end of a renewal that was dropped", `11-01 up pro p1 > upgraded
			11-02 renew 12-01 27-01-01 > renewal_recorded
			11-03 cancel > cancellation_scheduled
			11-04 failed p1 > payment_failure_recorded
			11-11 clock > change_withdrawn expiry_handled
			11-10T23:00 paid p1 4900 > payment_recorded`, "pro active 26-11-01 26-12-01, free at 26-12-01; period_end 26-12-01", "4900"},
		{"the same for a downgrade, by a renewal", `11-01 up enterprise p1 > upgraded
			11-02 renew 12-01 27-01-01 > renewal_recorded
			11-03 down pro > downgrade_scheduled
			11-04 failed p1 > payment_failure_recorded
			11-11 clock > change_withdrawn expiry_handled
			11-12 renew 11-01 12-01 > renewal_recorded`, "enterprise active 26-11-01 26-12-01, pro at 26-12-01; period_end 26-12-01", "49900"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := newStory(t, tenant.New(tenant.Config{Catalogue: tier.Default()}))
			for line := range strings.Lines(c.lines) {
				said, want, _ := strings.Cut(strings.TrimSpace(line), ">")
				if got := s.tell(said); got != strings.TrimSpace(want) {
					t.Errorf("%s leads to %q, want %q", said, got, strings.TrimSpace(want))
				}
			}
			if got := s.is(); got != c.is {
				t.Errorf("%s, want %s", got, c.is)
			}
			if got := s.charged(); got != c.charged {
				t.Errorf("charged %s, want %s", got, c.charged)
			}
		})
	}
}
