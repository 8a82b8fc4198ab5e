package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/internal/topic"
)

// How tenants are measured.
const (
	aloneCompanies = 50     // registered one by one, at the start and at the end
	simpleEvents   = 20_000 // payments recorded
	tierCompanies  = 5      // whose tier changes
	manyUsers      = 10_000 // of a large company
)

// A TenantCost is what companies cost, measured from publishing an event to its result in its topic, through the running
// service. Times are in milliseconds.
type TenantCost struct {
	Companies        int     `json:"companies"`
	First            float64 `json:"one_registration_first_ms"` // median of some, one by one, the first of all
	Last             float64 `json:"one_registration_last_ms"`  // the same, the last of all
	Registrations    float64 `json:"registrations_per_second"`  // of a backlog in between
	RegistrationsEnd float64 `json:"registrations_per_second_last_tenth"`
	RegistrationsNew float64 `json:"registrations_per_second_first_tenth"`
	Payments         float64 `json:"payments_per_second"`
	UpgradeOne       float64 `json:"upgrade_one_user_ms"`     // medians
	UpgradeMany      float64 `json:"upgrade_many_users_ms"`   // seats all users
	DowngradeMany    float64 `json:"downgrade_many_users_ms"` // suspends all but one
	Migration        float64 `json:"migration_seconds"`       // of all companies, both runs
	MigratedFirst    int     `json:"companies_migrated_before_kill"`
	BackendMB        float64 `json:"backend_mb_largest"` // memory of its own of the largest server process of the service
	BackendsMB       float64 `json:"backends_mb"`        // of all of them
	Backends         int     `json:"backends"`
	ServiceMB        float64 `json:"service_peak_rss_mb"`
	DatabaseMB       float64 `json:"database_mb"`
}

// A tenantBench is companies, and the service that keeps them.
type tenantBench struct {
	*world
	prefix    string
	writer    *kafkago.Writer
	conn      *pgx.Conn // outside of the service
	published int       // events, for their ids
	running   *running
	stopped   bool // the service
}

// tenants measures companies: registering, payments, changes of tier, migrations.
func (w *world) tenants(ctx context.Context) (*TenantCost, error) {
	c := &TenantCost{Companies: w.Companies}
	return c, w.withTenants(ctx, Tenants, func(ctx context.Context, b *tenantBench) (err error) {
		for _, step := range []func(context.Context, *TenantCost) error{b.register, b.pay, b.changeTiers, b.weigh} {
			if err := step(ctx, c); err != nil {
				return err
			}
		}
		if c.ServiceMB, err = memory(b.running.pid(), "VmHWM"); err != nil {
			return err
		}
		if err := b.stop(); err != nil {
			return err
		}
		return b.migrate(ctx, c)
	})
}

// stop stops the service, unless it was stopped before.
func (b *tenantBench) stop() error {
	if b.stopped {
		return nil
	}
	b.stopped = true
	return b.running.stop()
}

// withTenants makes the topics of a measurement and starts the service, for as long as do runs.
func (w *world) withTenants(ctx context.Context, name string, do func(context.Context, *tenantBench) error) (err error) {
	b := &tenantBench{world: w, prefix: name + "."}
	if _, err := topic.Ensure(ctx, w.client, topic.All(topic.Settings{Prefix: b.prefix, Partitions: w.Partitions})); err != nil {
		return err
	}
	for _, name := range []string{events.TopicCompany, events.TopicSubscription, events.TopicCompanyResults, events.TopicSubscriptionResults} {
		if err := w.await(ctx, name+" to have leaders", time.Minute, 50*time.Millisecond, func() (bool, error) {
			_, err := b.end(ctx, name)
			return err == nil, nil
		}); err != nil {
			return err
		}
	}
	if b.conn, err = pgx.Connect(ctx, w.postgres.DSN()); err != nil {
		return err
	}
	defer func() { _ = b.conn.Close(context.WithoutCancel(ctx)) }()
	prefix := "bench-" + name
	if b.running, err = w.countingService("company,subscription")(ctx, dataset{prefix: b.prefix}, "", prefix); err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, b.stop()); err != nil {
			err = fmt.Errorf("%w\n%s", err, b.running.logTail())
		}
	}()
	for _, group := range []string{".company", ".subscription"} {
		if err := w.awaitGroup(ctx, b.running, prefix+group, 1); err != nil {
			return err
		}
	}
	b.writer = &kafkago.Writer{Addr: w.client.Addr, Transport: w.client.Transport, Balancer: kafka.Partitioner{},
		RequiredAcks: kafkago.RequireAll, BatchTimeout: time.Millisecond, BatchSize: 1000}
	defer func() { err = errors.Join(err, b.writer.Close()) }()
	return do(ctx, b)
}

// register registers all companies: some alone, then a backlog, then some alone again.
func (b *tenantBench) register(ctx context.Context, c *TenantCost) error {
	alone := func(from int) (float64, error) {
		var took []time.Duration
		for n := from; n < from+aloneCompanies; n++ {
			one, err := b.one(ctx, events.TopicCompany, events.TopicCompanyResults, registered(n))
			if err != nil {
				return 0, fmt.Errorf("register a company: %w", err)
			}
			took = append(took, one)
		}
		return latencyOf(took).P50, nil
	}
	var err error
	if _, err = alone(0); err != nil { // to warm up
		return err
	}
	if c.First, err = alone(aloneCompanies); err != nil {
		return err
	}
	from, to := 2*aloneCompanies, b.Companies-aloneCompanies
	var backlog []event
	for n := from; n < to; n++ {
		backlog = append(backlog, registered(n))
	}
	marks, err := b.all(ctx, events.TopicCompany, events.TopicCompanyResults, backlog)
	if err != nil {
		return fmt.Errorf("register companies: %w", err)
	}
	c.RegistrationsNew, c.Registrations, c.RegistrationsEnd = marks.rate(0, 0.1), marks.rate(0, 1), marks.rate(0.9, 1)
	if c.Last, err = alone(to); err != nil {
		return err
	}
	b.say("%s: %d companies: %.0f registrations/s, first tenth %.0f, last tenth %.0f; one alone %.1f ms at first, %.1f ms at last",
		Tenants, b.Companies, c.Registrations, c.RegistrationsNew, c.RegistrationsEnd, c.First, c.Last)
	return nil
}

// pay records payments of all companies in turn.
func (b *tenantBench) pay(ctx context.Context, c *TenantCost) error {
	var backlog []event
	for n := range simpleEvents {
		backlog = append(backlog, event{company: companyID(n % b.Companies), kind: events.TypePaymentReceived, data: map[string]any{
			"payment_id": fmt.Sprintf("bench-%d", n), "amount_minor": 4900, "currency": "USD", "paid_at": time.Now().UTC().Format(time.RFC3339), "method": "card",
		}})
	}
	marks, err := b.all(ctx, events.TopicSubscription, events.TopicSubscriptionResults, backlog)
	if err != nil {
		return fmt.Errorf("record payments: %w", err)
	}
	c.Payments = marks.rate(0, 1)
	b.say("%s: %.0f payments/s, first tenth %.0f, last tenth %.0f", Tenants, c.Payments, marks.rate(0, 0.1), marks.rate(0.9, 1))
	return nil
}

// changeTiers changes tiers of companies with one user, and with many.
func (b *tenantBench) changeTiers(ctx context.Context, c *TenantCost) error {
	upgrade := func(n int, to string) (time.Duration, error) {
		return b.one(ctx, events.TopicSubscription, events.TopicSubscriptionResults, event{company: companyID(n), kind: events.TypeUpgradeRequested, data: map[string]any{
			"new_tier": to, "payment": map[string]any{"payment_id": fmt.Sprintf("upgrade-%d-%s", n, to)},
		}})
	}
	var one, many, down []time.Duration
	for n := range tierCompanies {
		if _, err := upgrade(n, "pro"); err != nil {
			return err
		}
		took, err := upgrade(n, "enterprise")
		if err != nil {
			return err
		}
		one = append(one, took)
	}
	for n := tierCompanies; n < 2*tierCompanies; n++ {
		if _, err := upgrade(n, "pro"); err != nil {
			return err
		}
		if _, err := b.conn.Exec(ctx, "SELECT public.tenant_user_put($1, $1 || '-' || i, 'u' || i || '@example.com', now()) FROM generate_series(1, $2) AS i",
			companyID(n), manyUsers-1); err != nil {
			return fmt.Errorf("add users: %w", err)
		}
		if _, err := b.conn.Exec(ctx, "SELECT public.seat_users($1, 'pro', now(), now(), '{}', 25, now())", companyID(n)); err != nil {
			return fmt.Errorf("suspend users: %w", err)
		}
		took, err := upgrade(n, "enterprise")
		if err != nil {
			return err
		}
		many = append(many, took)
		took, err = b.one(ctx, events.TopicSubscription, events.TopicSubscriptionResults, event{company: companyID(n), kind: events.TypeDowngradeRequested,
			data: map[string]any{"new_tier": "free", "effective": "immediate"}})
		if err != nil {
			return err
		}
		down = append(down, took)
	}
	c.UpgradeOne, c.UpgradeMany, c.DowngradeMany = latencyOf(one).P50, latencyOf(many).P50, latencyOf(down).P50
	var right int
	if err := b.conn.QueryRow(ctx, "SELECT count(*) FROM public.subscriptions WHERE company_id = ANY($1) AND tier = 'enterprise' OR company_id = ANY($2) AND tier = 'free'",
		companyIDs(0, tierCompanies), companyIDs(tierCompanies, 2*tierCompanies)).Scan(&right); err != nil {
		return err
	}
	if right != 2*tierCompanies {
		return fmt.Errorf("%d of %d companies have the tier they should have", right, 2*tierCompanies)
	}
	b.say("%s: an upgrade takes %.1f ms with 1 user, %.0f ms with %d; a downgrade with as many %.0f ms", Tenants, c.UpgradeOne, c.UpgradeMany, manyUsers, c.DowngradeMany)
	return nil
}

// weigh looks at the memory of the server's processes that work for the service.
func (b *tenantBench) weigh(ctx context.Context, c *TenantCost) error {
	rows, err := b.conn.Query(ctx, "SELECT pid FROM pg_stat_activity WHERE application_name = 'tenantflow' AND backend_type = 'client backend'")
	if err != nil {
		return err
	}
	pids, err := pgx.CollectRows(rows, pgx.RowTo[int32])
	if err != nil {
		return err
	}
	for _, pid := range pids {
		mb, err := ownMemory(int(pid))
		if err != nil {
			return err
		}
		c.Backends++
		c.BackendsMB += mb
		c.BackendMB = max(c.BackendMB, mb)
	}
	if err := b.conn.QueryRow(ctx, "SELECT pg_database_size(current_database()) / 1e6").Scan(&c.DatabaseMB); err != nil {
		return err
	}
	b.say("%s: %d server processes have %.0f MB of their own, the largest %.0f MB; the database has %.0f MB", Tenants, c.Backends, c.BackendsMB, c.BackendMB, c.DatabaseMB)
	return nil
}

// companyIDs are the ids of companies from one number to another.
func companyIDs(from, to int) []string {
	var all []string
	for n := from; n < to; n++ {
		all = append(all, companyID(n))
	}
	return slices.Clip(all)
}
