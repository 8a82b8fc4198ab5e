package totals

import (
	"fmt"
	"strings"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/ClickHouse/clickhouse-go/v2/lib/driver"
	"github.com/segmentio/kafka-go"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/migrations"
	"tenantflow/sinks/clickhouse"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// A fixture is a migrated database with a topic of one partition, for one test.
type fixture struct {
	topic   string
	client  *kafka.Client
	options *chgo.Options
	db      driver.Conn
	c       *Checker
}

func newFixture(t *testing.T) *fixture {
	t.Helper()
	f := &fixture{topic: enginetest.NewTopic(t, 1)}
	f.client = enginetest.KafkaClient(t, enginetest.SharedKafka(t).Addr())
	var err error
	if f.options, err = chgo.ParseDSN(enginetest.NewDatabase(t)); err != nil {
		t.Fatal(err)
	}
	tables, err := migrations.OpenClickHouse(t.Context(), f.options, true)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = tables.Close() }()
	if _, err := tables.Up(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f.db, err = chgo.Open(f.options); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.db.Close() })
	f.c = f.checker(t, f.options)
	return f
}

func (f *fixture) checker(t *testing.T, options *chgo.Options) *Checker {
	t.Helper()
	c, err := Open(Config{Client: f.client, ClickHouse: options, Topic: f.topic, Group: f.topic + ".usage", InsertTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (f *fixture) exec(t *testing.T, query string, args ...any) {
	t.Helper()
	if err := f.db.Exec(t.Context(), query, args...); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
}

func (f *fixture) number(t *testing.T, query string) int64 {
	t.Helper()
	var n int64
	if err := f.db.QueryRow(t.Context(), strings.Replace(query, "SELECT count()", "SELECT toInt64(count())", 1)).Scan(&n); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return n
}

// rows inserts the rows of the offsets [from, to), ten users in turn, and through the views their totals.
func (f *fixture) rows(t *testing.T, from, to int) {
	t.Helper()
	f.exec(t, fmt.Sprintf(`INSERT INTO usage_tracking (event_id, event_source, user_id, company_id, timestamp, subscription_tier, service_name, api_endpoint,
		data_points_consumed, processing_time_ms, billing_period, revenue_attributed, _topic, _partition, _offset, _insert_by) SELECT concat('e', toString(number)), '/s', concat('it\'s \\ u', toString(number %% 10)), 'acme',
		toDateTime64('2026-10-05 10:00:00', 3, 'UTC') + INTERVAL number SECOND, 'pro', 'svc', '/v1', number, '1.5', '2026-10', '0.25',
		'%s', 0, number, now64(3) + INTERVAL 10 SECOND FROM numbers(%d, %d)`, f.topic, from, to-from))
}

func (f *fixture) commit(t *testing.T, offset int64, metadata string) {
	t.Helper()
	kafkatest.CommitOutside(t, f.client, f.topic+".usage", f.topic, map[int]int64{0: offset}, metadata)
}

// wrong compares everything and returns what differs.
func (f *fixture) wrong(t *testing.T) []Total {
	t.Helper()
	r, err := f.c.Compare(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return r.Wrong
}

// right checks that all totals are what the rows add up to.
func (f *fixture) right(t *testing.T) {
	t.Helper()
	for _, w := range f.wrong(t) {
		t.Errorf("%s %s: %s", w.View(), w.Name(), &w)
	}
}

func (f *fixture) store(t *testing.T) *clickhouse.Store {
	t.Helper()
	s, err := clickhouse.Open(t.Context(), clickhouse.Config{Options: f.options, InsertTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}
