package clickhouse

import (
	"context"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/migrations"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// openStore opens a store on a migrated database of the test's own.
func openStore(t *testing.T) *Store {
	t.Helper()
	dsn := enginetest.NewDatabase(t)
	options := func() *chgo.Options {
		o, err := chgo.ParseDSN(dsn)
		if err != nil {
			t.Fatal(err)
		}
		return o
	}
	m, err := migrations.OpenClickHouse(t.Context(), options(), false)
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.Up(t.Context())
	_ = m.Close()
	if err != nil {
		t.Fatal(err)
	}
	s, err := Open(t.Context(), Config{Options: options(), InsertTimeout: enginetest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// A row is a usage event and its place, as a test writes it down.
type row struct {
	id, source, user, company, tier, service, endpoint, period string
	at                                                         int64 // milliseconds since the epoch
	points                                                     uint32
	processing, revenue                                        int64
	offset                                                     int64
}

func (r *row) usage() *events.Usage {
	return &events.Usage{
		ID: []byte(r.id), Source: []byte(r.source), CompanyID: []byte(r.company), UserID: []byte(r.user), Tier: []byte(r.tier),
		Service: []byte(r.service), Endpoint: []byte(r.endpoint), Timestamp: r.at, DataPoints: r.points,
		ProcessingTime: r.processing, BillingPeriod: []byte(r.period), Revenue: r.revenue,
	}
}

// plain is row number n of many; its timestamp lies in this month.
func plain(n int) row {
	now := time.Now().UTC()
	return row{
		id: fmt.Sprintf("event-%d", n), source: "/tests", user: fmt.Sprintf("user-%d", n%3), company: "acme", tier: "pro", service: "reporting",
		endpoint: "/v1/ticks", period: now.Format("2006-01"), at: now.UnixMilli() - int64(n), points: uint32(n), processing: 1500, revenue: 250_000,
		offset: int64(n),
	}
}

func plains(n int) []row {
	rows := make([]row, n)
	for i := range rows {
		rows[i] = plain(i)
	}
	return rows
}

// monthsAgo moves a row into an earlier month.
func (r row) monthsAgo(n int) row {
	at := time.UnixMilli(r.at).UTC()
	r.at = time.Date(at.Year(), at.Month()-time.Month(n), 10, 12, 0, 0, 0, time.UTC).UnixMilli() + int64(r.points)
	return r
}

func blockOf(rows ...row) *Block {
	b := NewBlock()
	for i := range rows {
		u := rows[i].usage()
		b.Append(u, u.IdentityHash(), rows[i].offset)
	}
	return b
}

// all are the indexes of a block's rows.
func (b *Block) all() []int {
	rows := make([]int, b.Len())
	for i := range rows {
		rows[i] = i
	}
	return rows
}

// intent is what an insert of the whole block into partition 0 begins with. Its deadline is later than that of the one
// before it, as the consumer sees to.
func (s *Store) intent(b *Block) *Intent {
	in := b.Intent("usage", 0, b.Offset(0), b.Offset(b.Len()-1)+1, 0, b.Len())
	in.InsertBy = s.Deadline()
	return in
}

// insert puts a whole block into partition 0.
func (s *Store) insert(t *testing.T, b *Block) *Intent {
	t.Helper()
	in := s.intent(b)
	if err := s.Insert(t.Context(), in, b, 0, b.Len()); err != nil {
		t.Fatal(err)
	}
	return in
}

// number reads one number.
func (s *Store) number(t *testing.T, query string, args ...any) (n int64) {
	t.Helper()
	if err := s.conn.QueryRow(t.Context(), "SELECT toInt64("+query+")", args...).Scan(&n); err != nil {
		t.Fatal(err)
	}
	return n
}

func (s *Store) exec(t *testing.T, statement string) {
	t.Helper()
	if err := s.conn.Exec(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

// counts are the rows in the table and in each view.
type counts struct{ rows, hourly, daily, monthly int64 }

func (s *Store) counts(t *testing.T) (c counts) {
	t.Helper()
	c.rows = s.number(t, "(SELECT count() FROM usage_tracking)")
	c.hourly = s.number(t, "(SELECT sum(total_requests) FROM usage_analytics_hourly)")
	c.daily = s.number(t, "(SELECT sum(total_api_calls) FROM usage_daily)")
	c.monthly = s.number(t, "(SELECT sum(total_api_calls) FROM billing_monthly)")
	return c
}

func TestNewest_IsOfTheWholeTable(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	newest := func() int64 {
		ms, err := s.Newest(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return ms
	}
	if ms := newest(); ms != math.MinInt64 {
		t.Errorf("nothing stored: newest %d", ms)
	}
	rows := []row{plain(5).monthsAgo(2), plain(1), plain(4)}
	rows[2].at = rows[1].at - 3 // each was made at a moment of its own
	for i, place := range []struct {
		topic     string
		partition int
	}{{"usage", 0}, {"renamed", 3}, {"usage", 11}} {
		b := blockOf(rows[i])
		in := b.Intent(place.topic, place.partition, rows[i].offset, rows[i].offset+1, 0, 1)
		in.InsertBy = s.Deadline()
		if err := s.Insert(t.Context(), in, b, 0, 1); err != nil {
			t.Fatal(err)
		}
	}
	if ms := newest(); ms != rows[1].at {
		t.Errorf("newest %d, want %d", ms, rows[1].at)
	}
}

func TestPlacesAreTheStoredEventsOfARange(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	rows := plains(10)
	s.insert(t, blockOf(rows...))
	places, err := s.Places(t.Context(), "usage", 0, 3, 7)
	if err != nil {
		t.Fatal(err)
	}
	var want []Place
	for _, r := range rows[3:7] {
		want = append(want, Place{Offset: r.offset, Identity: r.usage().IdentityHash()})
	}
	if !slices.Equal(places, want) {
		t.Errorf("places %v, want %v", places, want)
	}
	for _, other := range []struct {
		topic     string
		partition int
		from, to  int64
	}{{"usage", 1, 0, 10}, {"other", 0, 0, 10}, {"usage", 0, 10, 20}, {"usage", 0, 5, 5}} {
		places, err := s.Places(t.Context(), other.topic, other.partition, other.from, other.to)
		if err != nil || len(places) != 0 {
			t.Errorf("places of %v: %v, %v", other, places, err)
		}
	}
}

func TestTheServersClockIsMeasured(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	s.clock.Store(&reading{server: time.Now().Add(-time.Hour), ours: time.Now()})
	b := blockOf(plains(3)...)
	in := s.intent(b)
	err := s.Insert(t.Context(), in, b, 0, b.Len())
	if got := asInsertError(t, err); got.Class != Late || got.Outcome != Answered {
		t.Errorf("insert with a deadline that has passed for the server: %+v", got)
	}
	began := time.Now()
	if err := s.SyncClock(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The server reads the clock of this machine, at some time while it was asked.
	if off := time.Until(s.Now()).Abs(); off > time.Since(began)+time.Second {
		t.Errorf("the server's clock is taken to be %s off", off)
	}
	s.insert(t, b)
	if c := s.counts(t); c != (counts{3, 3, 3, 3}) {
		t.Errorf("stored %+v", c)
	}
}

func TestAcquireWaitsForASlot(t *testing.T) {
	t.Parallel()
	s := &Store{slots: make(chan struct{}, 1)}
	release, err := s.Acquire(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Acquire(ctx); err == nil {
		t.Error("a second slot of one")
	}
	release()
	if release, err = s.Acquire(t.Context()); err != nil {
		t.Fatal(err)
	}
	release()
}
