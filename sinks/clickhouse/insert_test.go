package clickhouse

import (
	"errors"
	"testing"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
)

func TestAnInsertWhoseFirstMonthLandedIsNeverTakenForUnsent(t *testing.T) {
	t.Parallel()
	direct := openStore(t)
	var database string
	if err := direct.conn.QueryRow(t.Context(), "SELECT currentDatabase()").Scan(&database); err != nil {
		t.Fatal(err)
	}
	c := enginetest.SharedClickHouse(t)
	proxy, err := engine.NewProxy(c.Addr())
	if err != nil {
		t.Fatal(err)
	}
	options, err := chgo.ParseDSN("http://default@" + proxy.Addr() + "/" + database)
	if err != nil {
		t.Fatal(err)
	}
	// The way to the server is gone when the first month has landed.
	s, err := Open(t.Context(), Config{Options: options, InsertTimeout: enginetest.Patience, OnPart: func(int) { _ = proxy.Close() }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	b := blockOf(plain(0), plain(1).monthsAgo(1))
	in := s.intent(b)
	var failed *InsertError
	if err := s.Insert(t.Context(), in, b, 0, b.Len()); !errors.As(err, &failed) {
		t.Fatalf("an insert that could not be finished: %v", err)
	}
	if failed.Outcome == NotSent {
		t.Errorf("half of the insert landed, and it counts as not sent: %v", failed)
	}
	if n := direct.number(t, "(SELECT count() FROM usage_tracking)"); n != 1 {
		t.Errorf("%d rows landed, want the first month's one", n)
	}
}
