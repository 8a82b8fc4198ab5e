package tenant_test

import (
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/tenant"
)

func TestNext_SaysWhatComesFirst(t *testing.T) {
	t.Parallel()
	due := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	registration, upgrade, config := &events.CompanyRegistered{}, &events.UpgradeRequested{}, &events.ConfigUpdated{}
	named := &events.SubscriptionDue{Kind: tenant.DuePeriodEnd, DueAt: due}
	none, ahead := tenant.Queue{}, tenant.Queue{Head: 7}
	for _, c := range []struct {
		name       string
		registered bool
		queue      tenant.Queue
		payload    any
		after      time.Duration // the event's time, and the broker's, after what is due
		want       tenant.Step
	}{
		{"a registration", false, none, registration, 0, tenant.Apply},
		{"no company", false, none, upgrade, 0, tenant.Enqueue},
		{"no company, and the event waits", false, tenant.Queue{Head: 7, Own: 7}, upgrade, 0, tenant.Enqueue},
		{"a registration, for which others wait", false, ahead, registration, 0, tenant.Apply},
		{"a registration, behind one that can't be applied", false, tenant.Queue{Head: 7, Blocked: true}, registration, 0, tenant.Enqueue},
		{"another waits", true, ahead, upgrade, time.Hour, tenant.HeadFirst},
		{"another waits for a company event", true, ahead, config, time.Hour, tenant.HeadFirst},
		{"another can't be applied", true, tenant.Queue{Head: 7, Blocked: true}, upgrade, time.Hour, tenant.Enqueue},
		{"another can't be applied, and something is due", true, tenant.Queue{Head: 7, Blocked: true}, named, time.Hour, tenant.Enqueue},
		{"it waits itself, second", true, tenant.Queue{Head: 7, Own: 9}, upgrade, time.Hour, tenant.HeadFirst},
		{"it is the first that waits", true, tenant.Queue{Head: 7, Own: 7}, upgrade, -time.Second, tenant.Apply},
		{"its own turn was tried", true, tenant.Queue{Head: 7, Own: 7, Blocked: true}, upgrade, -time.Second, tenant.Apply},
		{"before what is due", true, none, upgrade, -time.Microsecond, tenant.Apply},
		{"when it is due", true, none, upgrade, 0, tenant.DueFirst},
		{"a renewal", true, none, &events.Renewed{}, time.Hour, tenant.DueFirst},
		{"a payment", true, none, &events.PaymentReceived{}, time.Hour, tenant.DueFirst},
		{"an expiry", true, none, &events.Expired{}, time.Hour, tenant.DueFirst},
		{"a company event", true, none, config, 1e6 * time.Hour, tenant.Apply},
		{"what is due", true, none, named, 0, tenant.DueFirst},
		{"what is due, taken too early", true, none, named, -time.Microsecond, tenant.Drop},
		{"what is due, taken too early, of no company", false, none, named, -time.Microsecond, tenant.Drop},
		{"what is due, of no company", false, none, named, 0, tenant.Enqueue},
		{"what is not due any more", true, none, &events.SubscriptionDue{Kind: tenant.DueRenewal, DueAt: due}, 0, tenant.Drop},
		{"what is due at another time", true, none, &events.SubscriptionDue{Kind: tenant.DuePeriodEnd, DueAt: due.Add(-time.Hour)}, 0, tenant.Drop},
	} {
		s := &tenant.State{CompanyID: "acme", Queue: c.queue}
		if c.registered {
			s.Company = &tenant.Company{Status: tenant.Active}
			s.Subscription = &tenant.Subscription{Term: tenant.Term{PendingAt: &due}, Status: tenant.StatusActive}
		}
		at := due.Add(c.after)
		if got := tenant.Next(s, &tenant.Cause{Event: &events.Event{Envelope: events.Envelope{Time: at}}, Payload: c.payload, Appended: at}); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	// A closed subscription has nothing due. It is not closed before its own topic says so.
	closing := &events.SubscriptionDue{Kind: tenant.DueClosing, DueAt: due}
	for _, c := range []struct {
		name    string
		closed  *time.Time
		status  string
		payload *events.SubscriptionDue
		after   time.Duration
		want    tenant.Step
	}{
		{"closed", &due, tenant.Closed, named, 0, tenant.Drop},
		{"closed again", &due, tenant.Closed, closing, 0, tenant.Drop},
		{"of a closed company", nil, tenant.Closed, named, 0, tenant.DueFirst},
		{"the closing, with something due before", nil, tenant.Closed, closing, 0, tenant.DueFirst},
		{"the closing, before what is due", nil, tenant.Closed, closing, -time.Second, tenant.Apply},
		{"the closing, of a company that is not closed yet", nil, tenant.Active, closing, -time.Second, tenant.Apply},
	} {
		s := &tenant.State{Company: &tenant.Company{Status: c.status}, Subscription: &tenant.Subscription{ClosedAt: c.closed, Term: tenant.Term{PendingAt: &due}}}
		at := due.Add(c.after)
		if got := tenant.Next(s, &tenant.Cause{Event: &events.Event{Envelope: events.Envelope{Time: at}}, Payload: c.payload, Appended: due}); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
	purged := &tenant.State{Company: &tenant.Company{Status: tenant.Purged}}
	if got := tenant.Next(purged, &tenant.Cause{Event: &events.Event{Envelope: events.Envelope{Time: due}}, Payload: closing, Appended: due}); got != tenant.Drop {
		t.Errorf("of a purged company: %d", got)
	}
}

func TestDue_IsInTheOrderOfTimeAndThenOfKind(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)
	before := at.Add(-time.Second)
	s := &tenant.State{Company: &tenant.Company{Status: tenant.Active}, Subscription: &tenant.Subscription{Status: tenant.StatusPastDue,
		Term: tenant.Term{PendingAt: &at, GraceUntil: &at}, RenewalUntil: &before, Renewal: &tenant.Renewal{Start: at}}}
	var kinds []string
	for _, due := range s.Due() {
		kinds = append(kinds, due.Kind)
	}
	want := []string{tenant.DueRenewalGrace, tenant.DuePeriodEnd, tenant.DueRenewal, tenant.DuePaymentGrace}
	if len(kinds) != 4 || kinds[0] != want[0] || kinds[1] != want[1] || kinds[2] != want[2] || kinds[3] != want[3] {
		t.Errorf("due %q, want %q", kinds, want)
	}
}
