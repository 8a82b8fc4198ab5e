package consumers_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/engine/enginetest/postgrestest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/tenant"
)

// messages reads a whole input topic.
func (f *tenantFixture) messages(t testing.TB, topic string) []tenantMessage {
	t.Helper()
	var all []tenantMessage
	ends, err := kafka.Ends(t.Context(), f.client, f.prefix+topic)
	if err != nil {
		t.Fatal(err)
	}
	for partition, bounds := range ends {
		err := kafka.ReadLog(t.Context(), f.client, f.prefix+topic, partition, bounds, func(r *events.Record) error {
			c := kafka.CopyRecord(r)
			all = append(all, tenantMessage{topic, string(c.Key), c.Value, c.Headers, 0})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// books are the rows that must not depend on how the log was handled, and the ids of the results.
func (f *tenantFixture) books(t testing.TB) []string {
	t.Helper()
	var all []string
	for _, name := range []string{"subscriptions", "transactions", "payments"} {
		for _, row := range f.query(t, tenantTables[name]) {
			all = append(all, name+" "+row)
		}
	}
	for id, r := range f.results(t) {
		if r.topic == events.TopicSubscriptionResults {
			all = append(all, "result "+id+" "+r.eventType+" of "+r.key)
		}
	}
	slices.Sort(all)
	return all
}

// What is due by the clock stands in the log. Live, event after event, with the clock past everything; as a backlog of what publishers
// have sent; and the whole log again into empty stores: the books are the same.
func TestBooks_LiveAndBacklogAreEqual(t *testing.T) {
	t.Parallel()
	live := newTenantFixture(t, enginetest.SharedKafka(t), "")
	id := unique()
	company := func(i int) string { return fmt.Sprintf("%s-%d", id, i) }
	due := time.Now().UTC().AddDate(0, 0, -10).Truncate(time.Second) // when the periods end
	began := due.AddDate(0, -1, 0)
	for began.AddDate(0, 1, 0) != due { // a month without its day
		due = due.AddDate(0, 0, -1)
		began = due.AddDate(0, -1, 0)
	}
	n := 0
	event := func(i int, eventType, data string, at time.Time) tenantMessage {
		n++
		return tenantEvent(fmt.Sprintf("%s-%d", id, n), eventType, company(i), data, at)
	}
	renewal := fmt.Sprintf(`"period_start":%q,"period_end":%q`, due.Format(time.RFC3339), due.AddDate(0, 1, 0).Format(time.RFC3339))
	pay := fmt.Sprintf(`"payment_id":"%s-p"`, id)
	ended := "SELECT count(*) FROM inbox WHERE source = '/tenantflow/schedule' AND state = 'done'"
	live.start(t, tenantService{})
	for i := range 5 {
		live.send(t, registration(company(i), began.Add(-time.Hour)))
	}
	live.send(t,
		event(0, events.TypeUpgradeRequested, `"new_tier":"pro"`, began),
		event(0, events.TypeCancelRequested, "", began.AddDate(0, 0, 5)),
		event(1, events.TypeUpgradeRequested, `"new_tier":"pro","payment":{`+pay+`}`, began),
		event(1, events.TypePaymentFailed, pay, began.AddDate(0, 0, 1)),
		event(2, events.TypeUpgradeRequested, `"new_tier":"enterprise"`, began),
		event(2, events.TypeDowngradeRequested, `"new_tier":"pro"`, began.AddDate(0, 0, 5)),
		event(4, events.TypeUpgradeRequested, `"new_tier":"pro"`, began.AddDate(0, 1, 5)))
	enginetest.Await(t, "what is due to be published and done", func() bool { return live.query(t, ended)[0] == "(3)" })
	third := time.Now().UTC().AddDate(0, 0, -1).Truncate(time.Second)
	live.send(t,
		event(0, events.TypeRenewed, renewal, due.AddDate(0, 0, 1)),
		event(1, events.TypePaymentReceived, pay+`,"amount_minor":4900,"currency":"USD","paid_at":"2026-01-01T00:00:00Z"`, began.AddDate(0, 0, 9)),
		event(2, events.TypeRenewed, renewal, due.AddDate(0, 0, 1)),
		event(3, events.TypeUpgradeRequested, `"new_tier":"pro"`, third.AddDate(0, 0, -3)),
		event(3, events.TypeConfigUpdated, `"config":{"a":1}`, third))
	live.awaitConsumed(t)
	live.send(t, event(3, events.TypeUpgradeRequested, `"new_tier":"enterprise"`, third.Add(-time.Hour)))
	live.send(t, event(4, events.TypeCompanyClosed, "", third))
	live.awaitConsumed(t)
	live.awaitPublished(t) // who reads that the company is closed is behind the end of its subscription
	live.send(t, event(4, events.TypeUpgradeRequested, `"new_tier":"enterprise"`, third.Add(-time.Minute)))
	live.awaitConsumed(t)
	live.awaitPublished(t)
	want := live.books(t)
	for i, held := range []string{"(free,cancelled,0)", "(free,expired,0)", "(pro,active,4900)", "(enterprise,active,49900)", "(pro,cancelled,4900)"} {
		if got := live.query(t, "SELECT tier, status, price_minor FROM subscriptions WHERE company_id = '"+company(i)+"'"); got[0] != held {
			t.Errorf("company %d: %v, want %s", i, got, held)
		}
	}
	if got := live.query(t, "SELECT company_id, sum(amount_minor) FILTER (WHERE transaction_type <> 'upgrade' OR old_tier = 'free') FROM billing_transactions GROUP BY 1 ORDER BY 1"); len(got) != 5 ||
		!strings.HasSuffix(got[0], ",4900)") || !strings.HasSuffix(got[1], ",4900)") || !strings.HasSuffix(got[2], ",54800)") || !strings.HasSuffix(got[3], ",4900)") || !strings.HasSuffix(got[4], ",4900)") {
		t.Errorf("charged: %v", got)
	}
	companyEvents := live.messages(t, events.TopicCompany)
	everything := live.messages(t, events.TopicSubscription)
	sent := slices.DeleteFunc(slices.Clone(everything), func(m tenantMessage) bool {
		return strings.Contains(string(m.Value), `"due_at"`) && !strings.Contains(string(m.Value), tenant.DueClosing)
	})
	if len(everything) == len(sent) {
		t.Fatal("nothing due is in the log")
	}
	for name, log := range map[string][]tenantMessage{"a backlog of what was sent": sent, "the whole log": everything} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			// A server of its own: the roles of companies belong to it.
			f := newTenantFixture(t, enginetest.SharedKafka(t), postgrestest.On(t, enginetest.Postgres(t).DSN()))
			f.send(t, slices.Concat(companyEvents, log)...)
			f.start(t, tenantService{})
			f.awaitConsumed(t)
			f.awaitPublished(t)
			if d := differ(f.books(t), want); len(d) > 0 {
				t.Errorf("differs from live:\n%s", strings.Join(d, "\n"))
			}
			f.checkAudit(t)
		})
	}
}

// The company's last event decides about the partition, and not its key: keys may lead elsewhere after partitions were added.
func TestDue_GoesToThePartitionOfTheLastEvent(t *testing.T) {
	t.Parallel()
	f := newTenantFixture(t, enginetest.SharedKafka(t), "")
	id, now := unique(), time.Now().UTC()
	stop := f.start(t, tenantService{})
	f.send(t, registration(id, now.AddDate(0, 0, -60)), tenantEvent(id+"-up", events.TypeUpgradeRequested, id, `"new_tier":"pro"`, now.AddDate(0, 0, -20)))
	f.awaitConsumed(t)
	f.awaitPublished(t) // the upgrade is set aside where the registration takes long
	if err := stop(); err != nil {
		t.Fatal(err)
	}
	f.exec(t, "UPDATE subscriptions SET event_partition = (event_partition + 1) % 3, renewal_until = now() - interval '1 hour'")
	partition := f.query(t, "SELECT event_partition FROM subscriptions")[0]
	f.start(t, tenantService{})
	enginetest.Await(t, "the expiry", func() bool { return f.query(t, "SELECT status FROM subscriptions")[0] == "(expired)" })
	ends, err := kafka.Ends(t.Context(), f.client, f.prefix+events.TopicSubscription)
	if err != nil {
		t.Fatal(err)
	}
	for n, bounds := range ends {
		err := kafka.ReadLog(t.Context(), f.client, f.prefix+events.TopicSubscription, n, bounds, func(r *events.Record) error {
			if at := fmt.Sprintf("(%d)", n); strings.Contains(string(r.Value), `"due_at"`) && at != partition {
				t.Errorf("published to partition %s, want %s", at, partition)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}
