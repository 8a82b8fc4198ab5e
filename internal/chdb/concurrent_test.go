package chdb_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
	"golang.org/x/sync/errgroup"

	"tenantflow/internal/chdb"
)

func TestQueriesAndInsertsRunSideBySide(t *testing.T) {
	t.Parallel()
	conn := database(t, func(o *clickhouse.Options) { o.MaxOpenConns, o.MaxIdleConns = 40, 40 })
	exec(t, conn, "CREATE TABLE t (a UInt64, s String) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 1000")
	const writers, batches, rows = 8, 10, 1000
	group, ctx := errgroup.WithContext(t.Context())
	for w := range writers {
		group.Go(func() error {
			for b := range batches {
				first := (w*batches + b) * rows
				block := nativeBlock(t, first, rows)
				insert := clickhouse.Context(ctx, clickhouse.WithSettings(insertSettings(fmt.Sprint(first))))
				for range 2 { // every block twice, as after an unknown outcome
					if err := conn.InsertFormat(insert, "Native", "INSERT INTO t (a, s)", bytes.NewReader(block)); err != nil {
						return err
					}
				}
			}
			return nil
		})
		group.Go(func() error {
			for range batches {
				var n, distinct uint64
				if err := conn.QueryRow(ctx, "SELECT count(), uniqExact(a) FROM t").Scan(&n, &distinct); err != nil {
					return err
				}
				if n != distinct || n%rows != 0 {
					return fmt.Errorf("a query saw %d rows, %d of them distinct: part of a block", n, distinct)
				}
				if err := conn.QueryRow(ctx, "SELECT nope FROM t").Err(); err == nil {
					return errors.New("no error")
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	if n := one[uint64](t, conn, "SELECT uniqExact(a) + 0 * count() FROM t WHERE s = concat('row ', toString(a))"); n != writers*batches*rows {
		t.Errorf("%d rows", n)
	}
}

// longQuery runs for a minute unless it is killed, and shows up in system.processes under its comment.
const longQuery = "SELECT sum(sleepEachRow(0.05)) FROM numbers(1200) SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0"

func running(t *testing.T, comment string) bool {
	t.Helper()
	return post(t, "SELECT count() FROM system.processes WHERE Settings['log_comment'] = '"+comment+"'", nil) != "0\n"
}

func TestARunningQueryIsSeenAndKilledByItsComment(t *testing.T) {
	t.Parallel()
	conn := database(t)
	ended := make(chan error, 1)
	ctx := clickhouse.Context(t.Context(), clickhouse.WithQueryID("victim"))
	go func() { ended <- conn.Exec(ctx, longQuery) }()
	eventually(t, func() bool { return running(t, "victim") })
	// A query that is listed may not have started to work yet, and then a kill is lost. So it is killed until it ends.
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		post(t, "KILL QUERY WHERE Settings['log_comment'] = 'victim' ASYNC", nil)
		select {
		case err := <-ended:
			wantCode(t, err, 394)
			return
		case <-tick.C:
		}
	}
}

func TestAQueryEndsWhenItsClientLeaves(t *testing.T) {
	t.Parallel()
	conn := database(t)
	ctx, cancel := context.WithCancel(clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"log_comment": "leaver"})))
	ended := make(chan error, 1)
	go func() { ended <- conn.Exec(ctx, longQuery) }()
	eventually(t, func() bool { return running(t, "leaver") })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the client got %v", err)
	}
	eventually(t, func() bool { return !running(t, "leaver") })
}

func TestAnInsertRunsToItsEndWhenItsClientLeaves(t *testing.T) {
	t.Parallel()
	conn := database(t)
	exec(t, conn, "CREATE TABLE t (a UInt64, s String) ENGINE = MergeTree ORDER BY a",
		"CREATE TABLE slow (a UInt64) ENGINE = MergeTree ORDER BY a",
		"CREATE MATERIALIZED VIEW feed TO slow AS SELECT a + sleepEachRow(1.5) AS a FROM t")
	ctx, cancel := context.WithCancel(clickhouse.Context(t.Context(), clickhouse.WithSettings(slowly(clickhouse.Settings{"log_comment": "inserter"}))))
	ended := make(chan error, 1)
	block := nativeBlock(t, 0, 10)
	go func() { ended <- conn.InsertFormat(ctx, "Native", "INSERT INTO t (a, s)", bytes.NewReader(block)) }()
	eventually(t, func() bool { return running(t, "inserter") })
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("the client got %v", err)
	}
	eventually(t, func() bool { return one[uint64](t, conn, "SELECT count() FROM slow") == 10 })
}

func TestRequestsBeyondTheSessionsWaitAndMayGiveUp(t *testing.T) {
	// Not parallel: it takes all the sessions there are.
	conn := database(t, func(o *clickhouse.Options) { o.MaxOpenConns, o.MaxIdleConns = 2*chdb.Sessions, 2*chdb.Sessions })
	hold, release := context.WithCancel(clickhouse.Context(t.Context(), clickhouse.WithSettings(clickhouse.Settings{"log_comment": "holder"})))
	defer release()
	var holders sync.WaitGroup
	for range chdb.Sessions {
		holders.Go(func() { _ = conn.Exec(hold, strings.Replace(longQuery, "0.05", "0.5", 1)) })
	}
	// The last of them can't be asked for: there is no session left to ask with. So ask until a question has to wait.
	eventually(t, func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		return errors.Is(conn.Exec(ctx, "SELECT 1"), context.DeadlineExceeded)
	})
	answer := make(chan string, 1)
	go func() { answer <- post(t, "SELECT 1", url.Values{}) }()
	release()
	if got := <-answer; got != "1\n" {
		t.Errorf("the request that waited got %q", got)
	}
	holders.Wait()
}
