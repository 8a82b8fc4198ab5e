package demo

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/internal/model"
)

// The company whose story is shown, and how many others do the same at the same time.
const (
	storyCompany   = "story-acme"
	storyCompanies = 100
)

// A chapter is one event of the story, and the results that must follow from it, by their types.
type chapter struct {
	eventType string
	at        time.Time
	data      string // without company_id; % stands for the company
	leadsTo   []string
}

// story is what happens to each company at first: it registers, and grows. Half of its first paid month is left when it goes from
// 49.00 to 499.00, so half of the difference is charged.
func story(begin time.Time) []chapter {
	at := func(d time.Duration) time.Time { return begin.Add(d) }
	half := begin.AddDate(0, 1, 0).Sub(begin) / 2
	return []chapter{
		{events.TypeUpgradeRequested, at(0), `"new_tier":"pro","payment":{"payment_id":"%-p1","method":"card"}`,
			[]string{events.TypeUpgraded, events.TypeConfigChanged}}, // on its topic before the company is known
		{events.TypeCompanyRegistered, at(-time.Hour), `"name":"%","billing_email":"billing@%.example","initial_user":{"user_id":"%-u1","email":"u1@%.example"}`,
			[]string{events.TypeCompanyCreated, events.TypeSubscriptionCreated, events.TypeConfigChanged}},
		{events.TypePaymentReceived, at(time.Hour), fmt.Sprintf(`"payment_id":"%%-p1","amount_minor":4900,"currency":"USD","paid_at":%q`, at(time.Hour).Format(time.RFC3339)),
			[]string{events.TypePaymentRecorded}},
		{events.TypeUpgradeRequested, at(half), `"new_tier":"enterprise","expected_tier":"pro"`, []string{events.TypeUpgraded, events.TypeConfigChanged}},
		{events.TypeUpgradeRequested, at(half + time.Hour), `"new_tier":"pro"`, []string{events.TypeSubscriptionRejected}},
	}
}

// comers are the users who come when the company has places for them. Then an operator gives the company a limit of its own for twelve hours:
// they are over, so it ends by itself.
func comers(begin time.Time) []chapter {
	var all []chapter
	for n := 2; n <= 3; n++ {
		all = append(all, chapter{events.TypeUserAdded, begin.AddDate(0, 0, 16).Add(time.Duration(n) * time.Hour),
			fmt.Sprintf(`"user_id":"%%-u%d","email":"u%d@%%.example"`, n, n), []string{events.TypeUserProvisioned}})
	}
	end := begin.AddDate(0, 0, 16).Add(16 * time.Hour)
	return append(all, chapter{events.TypeLimitsOverridden, end.Add(-12 * time.Hour),
		fmt.Sprintf(`"limits":{"daily_api_calls":250000},"reason":"a load test","expires_at":%q`, end.Format(time.RFC3339)), []string{events.TypeLimitsChanged, events.TypeLimitsChanged}})
}

// trouble is a payment that failed eight days ago. The grace period is over, so the expiry is due: the company falls to the free
// tier, two of its three users are suspended, and all three are notified.
func trouble(begin time.Time) []chapter {
	return []chapter{{events.TypePaymentFailed, begin.AddDate(0, 0, 18), `"payment_id":"%-p2","reason":"card declined"`, []string{
		events.TypePaymentFailureRecorded, events.TypeExpiryHandled,
		events.TypeNotificationRequested, events.TypeNotificationRequested, events.TypeNotificationRequested, events.TypeConfigChanged,
	}}}
}

// tenants is what was found of companies.
type tenants struct {
	results  map[string]*events.Envelope // by id
	order    []string                    // ids of the story's company in the order of their times
	expected map[string]int              // results by type
	books    string                      // of all companies together
	took     time.Duration
	quota    reply // of the story's first user, at the end
}

// runCompanies publishes the story of all companies, kills the service in the middle of it, and waits until all has happened.
func (d *demo) runCompanies(ctx context.Context) error {
	began := time.Now()
	first := began.UTC().Truncate(time.Second).AddDate(0, 0, -26)
	if first.Day() > 28 {
		first = first.AddDate(0, 0, 28-first.Day()) // so that the month that follows begins on the same day
	}
	got := &d.result.tenants
	got.expected = map[string]int{}
	if err := d.publishChapters(ctx, story(first)); err != nil {
		return err
	}
	if err := d.await(ctx, "companies to be upgraded", fmt.Sprintf("SELECT count(*) > %d FROM subscriptions WHERE company_id LIKE 'story-%%' AND tier <> 'free'", storyCompanies/4)); err != nil {
		return err
	}
	if err := d.service.kill(); err != nil {
		return err
	}
	d.say("service killed (SIGKILL) while companies register and upgrade, and started again")
	if err := d.service.start(); err != nil {
		return err
	}
	// Their users come when there are places for them. It is another topic, so the demo waits as a person would.
	if err := d.await(ctx, "all companies to be upgraded", fmt.Sprintf(
		"SELECT count(*) = %d FROM billing_transactions WHERE company_id LIKE 'story-%%' AND new_tier = 'enterprise'", storyCompanies)); err != nil {
		return err
	}
	if err := d.publishChapters(ctx, comers(first)); err != nil {
		return err
	}
	if err := d.await(ctx, "users to come", fmt.Sprintf("SELECT count(*) = %d FROM user_directory WHERE company_id LIKE 'story-%%'", 3*storyCompanies)); err != nil {
		return err
	}
	if err := d.await(ctx, "limits of their own to end", fmt.Sprintf("SELECT count(*) = %d FROM audit_log WHERE action = 'company.override_ended'", storyCompanies)); err != nil {
		return err
	}
	if err := d.publishChapters(ctx, trouble(first)); err != nil {
		return err
	}
	if err := d.await(ctx, "subscriptions to expire and all results to be published", fmt.Sprintf(
		`SELECT (SELECT count(*) FROM subscriptions WHERE company_id LIKE 'story-%%' AND status = 'expired') = %d
			AND NOT EXISTS (SELECT FROM inbox WHERE published_at IS NULL)`, storyCompanies)); err != nil {
		return err
	}
	got.took = time.Since(began)
	d.say("%d companies registered, upgraded twice, and fell to the free tier when a payment failed", storyCompanies)
	var err error
	got.quota, err = d.ask(ctx, storyCompany+"-u1")
	return err
}

// publishChapters publishes chapters of all companies, and some of them twice.
func (d *demo) publishChapters(ctx context.Context, chapters []chapter) error {
	var messages []kafkago.Message
	for i := range storyCompanies {
		company := storyCompany
		if i > 0 {
			company = fmt.Sprintf("story-%d", i)
		}
		for n, c := range chapters {
			topic, _ := events.TopicOf(c.eventType)
			e := &events.Envelope{ID: fmt.Sprintf("%s-%s-%d", company, c.at.Format("0102"), n), Source: "/demo", Type: c.eventType, Time: c.at,
				Data: fmt.Appendf(nil, `{"company_id":%q,%s}`, company, strings.ReplaceAll(c.data, "%", company))}
			m := message(topic, company, e)
			messages = append(messages, m)
			if (i+n)%10 == 0 {
				messages = append(messages, m) // a resend
			}
			for _, one := range c.leadsTo {
				d.result.tenants.expected[one]++
			}
		}
	}
	if err := d.publish(ctx, messages...); err != nil {
		return fmt.Errorf("publish events of companies: %w", err)
	}
	return nil
}

// message is an event's record.
func message(topic, key string, e *events.Envelope) kafkago.Message {
	value, headers := e.EncodeBinary()
	m := kafkago.Message{Topic: topic, Key: []byte(key), Value: value}
	for _, h := range headers {
		m.Headers = append(m.Headers, kafkago.Header{Key: h.Key, Value: h.Value})
	}
	return m
}

// publish returns when the broker has the messages.
func (d *demo) publish(ctx context.Context, messages ...kafkago.Message) error {
	w := &kafkago.Writer{Addr: d.client.Addr, Transport: d.client.Transport, Balancer: kafka.Partitioner{}, RequiredAcks: kafkago.RequireAll, BatchTimeout: 5 * time.Millisecond}
	defer func() { _ = w.Close() }() // WriteMessages has waited for all of it
	return w.WriteMessages(ctx, messages...)
}

// await asks Postgres until a query is true.
func (d *demo) await(ctx context.Context, what, query string) error {
	conn, err := pgx.Connect(ctx, d.stack.Postgres.DSN())
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }() // it was only asked
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for began := time.Now(); ; {
		var done bool
		if err := conn.QueryRow(ctx, query).Scan(&done); err != nil {
			return fmt.Errorf("wait for %s: %w", what, err)
		}
		if done {
			return nil
		}
		if err := d.service.died(); err != nil {
			return err
		}
		if time.Since(began) > stalled {
			return fmt.Errorf("waited for %s for %s; the service's log ends:\n%s", what, stalled, d.service.logTail())
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
	}
}

// lookAtCompanies reads the results as the billing service would: each id once.
func (d *demo) lookAtCompanies(ctx context.Context) error {
	got := &d.result.tenants
	got.results = map[string]*events.Envelope{}
	for _, topic := range []string{events.TopicCompanyResults, events.TopicSubscriptionResults, events.TopicNotifications, events.TopicCompanyConfig} {
		err := model.ReadTopic(ctx, d.client, topic, func(r *events.Record) error {
			e, err := events.ParseEnvelope(r)
			if err != nil {
				return fmt.Errorf("read a result: %w", err)
			}
			if _, there := got.results[e.ID]; !there && string(r.Key) == storyCompany {
				got.order = append(got.order, e.ID)
			}
			e.Data = slices.Clone(e.Data)
			got.results[e.ID] = e
			return nil
		})
		if err != nil {
			return err
		}
	}
	slices.SortStableFunc(got.order, func(a, b string) int { return got.results[a].Time.Compare(got.results[b].Time) })
	conn, err := pgx.Connect(ctx, d.stack.Postgres.DSN())
	if err != nil {
		return fmt.Errorf("connect to Postgres: %w", err)
	}
	defer func() { _ = conn.Close(ctx) }() // it was only asked
	err = conn.QueryRow(ctx, `SELECT string_agg(format('%s %s %s', n, transaction_type, amount_minor), ', ' ORDER BY amount_minor) FROM (
		SELECT count(*) AS n, transaction_type, amount_minor FROM billing_transactions WHERE company_id LIKE 'story-%' GROUP BY 2, 3) AS t`).Scan(&got.books)
	if err != nil {
		return fmt.Errorf("read the books: %w", err)
	}
	return nil
}

// books is what the billing transactions of all companies must be.
func books() string {
	return fmt.Sprintf("%d upgrade 4900, %d upgrade 22500", storyCompanies, storyCompanies)
}

// compare lists what is not as predicted.
func (t *tenants) compare() []model.Difference {
	var found []model.Difference
	types := map[string]int{}
	for _, e := range t.results {
		types[e.Type]++
	}
	for name, want := range t.expected {
		if types[name] != want {
			found = append(found, model.Difference{Where: "results " + name, Got: number(int64(types[name])), Want: number(int64(want))})
		}
		delete(types, name)
	}
	for name, n := range types {
		found = append(found, model.Difference{Where: "results " + name, Got: number(int64(n)), Want: "none"})
	}
	if t.books != books() {
		found = append(found, model.Difference{Where: "billing transactions", Got: t.books, Want: books()})
	}
	if t.quota.code != 200 || t.quota.Limit != 1000 || t.quota.Usage != 0 {
		found = append(found, model.Difference{Where: "GET " + t.quota.path, Got: t.quota.body, Want: "nothing used of 1,000 calls"})
	}
	return found
}

// lines are the results of the story's company as the billing service sees them, shortened.
func (t *tenants) lines() []string {
	var lines []string
	for _, id := range t.order {
		e := t.results[id]
		var data map[string]any
		if json.Unmarshal(e.Data, &data) != nil {
			continue // it was read before
		}
		var said []string
		for _, name := range []string{"database_schema", "tier", "upgraded_from", "upgraded_to", "billing_adjustment", "payment_id", "amount_minor", "code", "user_id", "template", "action", "expired_tier", "change"} {
			switch v := data[name].(type) {
			case nil:
			case map[string]any:
				said = append(said, fmt.Sprintf("amount %v %v to %v", v["amount_minor"], v["currency"], v["period_end"]))
			default:
				said = append(said, fmt.Sprintf("%s %v", name, v))
			}
		}
		if limits, ok := data["limits"].(map[string]any); ok && data["change"] != nil {
			said = append(said, fmt.Sprintf("daily_api_calls %v", limits["daily_api_calls"]))
		}
		if config, ok := data["config"].(map[string]any); ok {
			said = append(said, fmt.Sprintf("subscription_tier %v, max_users %v", config["subscription_tier"], config["max_users"]))
		}
		lines = append(lines, fmt.Sprintf("%s  %s  %-38s %s", e.Time.Format("01-02 15:04"), e.ID[:8], strings.TrimSuffix(e.Type, ".v1"), strings.Join(said, ", ")))
	}
	return lines
}
