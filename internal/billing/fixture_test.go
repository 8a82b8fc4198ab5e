package billing

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"tenantflow/internal/analytics"
	"tenantflow/internal/analytics/analyticstest"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/sinks/postgres"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

const usageTopic = "usage.events"

// A fixture is an Exporter over stores of the test's own. How far usage is stored is what the test says.
type fixture struct {
	*Exporter
	*analyticstest.World
	sql   *pgx.Conn
	store *postgres.Store
	log   *reached
}

// reached is a log of two partitions: all up to the given offsets is stored.
type reached struct {
	mu      sync.Mutex
	offsets [2]int64
	until   [2]time.Time
	end     int64 // of both partitions; 0: there is no row beyond it
}

func (s *reached) Look(context.Context, time.Time) (AsOf, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	at := AsOf{Usage: TopicPosition{Topic: usageTopic}, Subscriptions: TopicPosition{Topic: "subscription.events"}}
	for i, offset := range s.offsets {
		at.Usage.Partitions = append(at.Usage.Partitions, PartitionPosition{Partition: i, Offset: offset, until: s.until[i], end: cmp.Or(s.end, math.MaxInt64)})
		at.Subscriptions.Partitions = append(at.Subscriptions.Partitions, PartitionPosition{Partition: i, Offset: 7, until: time.Now()})
	}
	complete := s.until[0].UTC()
	at.Usage.Complete, at.Subscriptions.Complete = &complete, &complete
	return at, nil
}

// reach says that everything before the offsets is stored.
func (s *reached) reach(first, second int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offsets, s.until = [2]int64{first, second}, [2]time.Time{time.Now(), time.Now()}
}

func setup(t testing.TB) *fixture {
	t.Helper()
	f := &fixture{World: analyticstest.New(t), log: &reached{}}
	f.log.reach(1_000_000, 1_000_000)
	f.store, f.sql = analyticstest.Books(t)
	rows, err := OpenRows(f.Options)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rows.Close() })
	f.Exporter = New(Config{Books: f.store, Rows: rows, Log: f.log, Grace: 24 * time.Hour})
	f.settle = time.Millisecond
	f.exec(t, `INSERT INTO companies (company_id, name, billing_email, created_at) VALUES ('acme', 'A', 'a@x', '2020-01-01'), ('globex', 'G', 'g@x', '2020-01-01')`)
	return f
}

func (f *fixture) exec(t testing.TB, statements ...string) {
	t.Helper()
	analyticstest.Exec(t, f.sql, statements...)
}

// ago is the month some months before the present one.
func ago(months int) analytics.Month { return analytics.MonthOf(time.Now()) - analytics.Month(months) }

// A row is a usage row of a test.
type row struct {
	id, company, user, tier, service string
	at                               time.Time
	period                           string // default: that of at
	points                           int
	revenue                          string // default 0
	void                             bool
	partition                        int
	offset                           int64
}

// put inserts rows; the views add them up.
func (f *fixture) put(t testing.TB, rows ...row) {
	t.Helper()
	batch, err := f.Conn.PrepareBatch(t.Context(), `INSERT INTO usage_tracking (event_id, event_source, sign, user_id, company_id, timestamp, subscription_tier, service_name, api_endpoint,
		data_points_consumed, processing_time_ms, billing_period, revenue_attributed, _topic, _partition, _offset, _insert_by)`)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		sign := int8(1)
		if r.void {
			sign = -1
		}
		or := func(text, otherwise string) string {
			if text == "" {
				return otherwise
			}
			return text
		}
		err := batch.Append(or(r.id, fmt.Sprint(r.partition, "-", r.offset)), "/test", sign, r.user, or(r.company, "acme"), r.at, or(r.tier, "pro"), or(r.service, "api"), "/v1", uint32(r.points),
			amountIn("1.5"), or(r.period, analytics.MonthOf(r.at).String()), amountIn(or(r.revenue, "0")), usageTopic, uint16(r.partition), r.offset, time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := batch.Send(); err != nil {
		t.Fatal(err)
	}
}

// lose deletes the rows at an offset.
func (f *fixture) lose(t testing.TB, company string, partition int, offset int64) {
	t.Helper()
	if err := f.Conn.Exec(t.Context(), "ALTER TABLE usage_tracking DELETE WHERE company_id = ? AND _partition = ? AND _offset = ? SETTINGS mutations_sync = 1", company, partition, offset); err != nil {
		t.Fatal(err)
	}
}

// transaction books a charge of the company acme.
func (f *fixture) transaction(t testing.TB, id string, amount int64, start time.Time, lines string) {
	t.Helper()
	if _, err := f.sql.Exec(t.Context(), `INSERT INTO billing_transactions (transaction_id, company_id, transaction_type, old_tier, new_tier, amount_minor, currency, lines, period_start, period_end, created_at)
		VALUES ($1, 'acme', 'upgrade', 'free', 'pro', $2, 'USD', $3, $4, $5, $4)`, id, amount, lines, start, start.AddDate(0, 1, 0)); err != nil {
		t.Fatal(err)
	}
}

func (f *fixture) payment(t testing.TB, id, status string, amount int64, at time.Time) {
	t.Helper()
	if _, err := f.sql.Exec(t.Context(), `INSERT INTO payments (payment_id, company_id, amount_minor, currency, paid_at, method, status) VALUES ($1, 'acme', $2, 'USD', $3, 'card', $4)
		ON CONFLICT (payment_id) DO UPDATE SET status = excluded.status, paid_at = excluded.paid_at`, id, amount, at, status); err != nil {
		t.Fatal(err)
	}
}

// closed closes a period.
func (f *fixture) closed(t testing.TB, company string, period analytics.Month) *Export {
	t.Helper()
	x, err := f.Exporter.Close(t.Context(), company, period)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

func (x *Export) document(t testing.TB) *Document {
	t.Helper()
	var d Document
	if err := json.Unmarshal(x.JSON, &d); err != nil {
		t.Fatalf("%v in %s", err, x.JSON)
	}
	return &d
}

// lines are the corrections of a document as texts.
func (d *Document) lines() string {
	all := make([]string, len(d.Corrections))
	for i, c := range d.Corrections {
		all[i] = fmt.Sprintf("%s %s %v: %d events, %d calls, %d points, %s", c.Period, c.Cause, c.Mismatched, c.Identities, c.Calls, c.DataPoints, c.Attributed)
	}
	return strings.Join(all, "\n")
}
