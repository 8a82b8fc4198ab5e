package clickhouse

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"tenantflow/internal/engine"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/migrations"
)

// These tests ask what the server itself guarantees, without the service: where an insert can be interrupted, and what
// is left then. What they find is why the service does what it does; docs/reliability.md says so.

// tablesOfRows are the tables that an insert into usage_tracking writes to.
var tablesOfRows = []string{"usage_tracking", "usage_hourly_store", "usage_daily_store", "billing_monthly_store"} //nolint:gochecknoglobals // a constant table

// A bareServer is a ClickHouse with the tables of the service and nothing else, whose system calls can be broken.
type bareServer struct {
	*engine.ClickHouse
	*enginetest.Faults
}

func newBareServer(t *testing.T) bareServer {
	t.Helper()
	ch, faults := enginetest.FaultyClickHouse(t)
	o, err := chgo.ParseDSN(ch.DSN())
	if err != nil {
		t.Fatal(err)
	}
	m, err := migrations.OpenClickHouse(t.Context(), o, false)
	if err != nil {
		t.Fatal(err)
	}
	_, err = m.Up(t.Context())
	_ = m.Close()
	if err != nil {
		t.Fatal(err)
	}
	return bareServer{ch, faults}
}

// insert sends a block of n rows with a token, as the service does.
func (s bareServer) insert(t *testing.T, token string, n int) error {
	t.Helper()
	var b strings.Builder
	fmt.Fprintf(&b, "INSERT INTO tenantflow.usage_tracking (event_id, event_source, user_id, company_id, timestamp, subscription_tier, service_name, "+
		"api_endpoint, data_points_consumed, processing_time_ms, billing_period, revenue_attributed, _topic, _partition, _offset, _insert_by) "+
		"SETTINGS async_insert = 0, insert_deduplicate = 1, deduplicate_insert = 'enable', insert_deduplication_token = '%s', "+
		"deduplicate_blocks_in_dependent_materialized_views = 1, max_insert_threads = 1 FORMAT TSV\n", token)
	now := time.Now().UTC()
	for i := range n {
		fmt.Fprintf(&b, "%s-%d\t/tests\tuser\tacme\t%s\tpro\treporting\t/v1\t1\t1.5\t%s\t0.25\tusage\t0\t%d\t%s\n", token, i,
			now.Format("2006-01-02 15:04:05.000"), now.Format("2006-01"), i, now.Add(time.Hour).Format("2006-01-02 15:04:05.000"))
	}
	_, err := s.Query(t.Context(), b.String())
	return err
}

// rows are the rows in the table and the events counted in each store.
func (s bareServer) rows(t *testing.T) (c counts) {
	t.Helper()
	answer, err := s.Query(t.Context(), "SELECT (SELECT count() FROM tenantflow.usage_tracking), (SELECT sum(requests) FROM tenantflow.usage_hourly_store), "+
		"(SELECT sum(api_calls) FROM tenantflow.usage_daily_store), (SELECT sum(api_calls) FROM tenantflow.billing_monthly_store)")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Sscan(answer, &c.rows, &c.hourly, &c.daily, &c.monthly); err != nil {
		t.Fatalf("read %q: %v", answer, err)
	}
	return c
}

// left is what lies in a table's directory: tokens in the deduplication log, parts that count, parts that are not in
// their place yet.
type left struct{ tokens, parts, temporary int }

func (s bareServer) left(t *testing.T, dir string) (l left) {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, "deduplication_logs", "*.txt"))
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range logs {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		l.tokens += strings.Count(string(b), "\n")
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(dir, e.Name(), "checksums.txt")); err != nil {
			continue
		}
		if strings.HasPrefix(e.Name(), "tmp_") {
			l.temporary++
		} else {
			l.parts++
		}
	}
	return l
}

func (s bareServer) restart(t *testing.T) {
	t.Helper()
	if err := s.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
}

// dirs are the directories of the tables.
func (s bareServer) dirs(t *testing.T) map[string]string {
	t.Helper()
	dirs := map[string]string{}
	for _, table := range tablesOfRows {
		dirs[table] = enginetest.DataDir(t, s.ClickHouse, "tenantflow", table)
	}
	return dirs
}

// of is what c says about a table.
func (c counts) of(table string) int64 {
	return map[string]int64{"usage_tracking": c.rows, "usage_hourly_store": c.hourly, "usage_daily_store": c.daily, "billing_monthly_store": c.monthly}[table]
}

// without is counts of n everywhere but in one table, where there is less.
func without(table string, n, less int64) counts {
	c := counts{n, n, n, n}
	*map[string]*int64{"usage_tracking": &c.rows, "usage_hourly_store": &c.hourly, "usage_daily_store": &c.daily, "billing_monthly_store": &c.monthly}[table] = less
	return c
}

func (s bareServer) mustInsert(t *testing.T, token string, n int) {
	t.Helper()
	if err := s.insert(t, token, n); err != nil {
		t.Fatalf("insert with token %s: %v", token, err)
	}
}

func (s bareServer) want(t *testing.T, when string, want counts) {
	t.Helper()
	if got := s.rows(t); got != want {
		t.Errorf("%s: stored %+v, want %+v", when, got, want)
	}
}

// A token is in the log before its part is in its place. A kill between the two leaves the token alone, and so does a
// rename that fails; a restart changes nothing about it. From then on the same token is answered with success and
// stores nothing there, while every other table takes its share. Only another token is not taken for a repetition.
func TestServer_ATokenIsNoProofOfItsPart(t *testing.T) {
	t.Parallel()
	for _, broken := range []syscall.Errno{0, syscall.ENOSPC, syscall.EIO} {
		for _, table := range tablesOfRows {
			how := "refused: " + broken.Error()
			if broken == 0 {
				how = "killed"
			}
			t.Run(table+"/"+how, func(t *testing.T) {
				t.Parallel()
				s := newBareServer(t)
				dirs := s.dirs(t)
				s.Arm(t, enginetest.Fault{Call: enginetest.Rename, Path: dirs[table] + "tmp_insert_", Error: broken})
				if err := s.insert(t, "first", 7); err == nil || !s.Struck(t) {
					t.Fatalf("the insert ended with %v, the fault happened: %v", err, s.Struck(t))
				}
				if broken == 0 {
					<-s.Exited()
				}
				if l := s.left(t, dirs[table]); l != (left{tokens: 1, temporary: 1}) {
					t.Errorf("the fault left %+v of %s", l, table)
				}
				// Parts of views come after the part of the rows.
				landed := table != "usage_tracking"
				if l := s.left(t, dirs["usage_tracking"]); (l.parts == 1) != landed {
					t.Errorf("the fault left %+v of usage_tracking", l)
				}
				if broken == 0 {
					s.restart(t)
				}
				if got := s.rows(t); got.of(table) != 0 || (got.rows == 7) != landed {
					t.Errorf("after the fault: stored %+v", got)
				}
				s.mustInsert(t, "first", 7)
				s.want(t, "the same token again", without(table, 7, 0))
				s.restart(t)
				s.mustInsert(t, "first", 7)
				s.want(t, "the same token after a restart", without(table, 7, 0))
				s.mustInsert(t, "second", 7)
				s.want(t, "another token", without(table, 14, 7))
			})
		}
	}
}

// A server killed before it has written a table's token has nothing of the part: the same token stores it.
func TestServer_AKillBeforeTheTokenLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, table := range tablesOfRows {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			s := newBareServer(t)
			dirs := s.dirs(t)
			s.Arm(t, enginetest.Fault{Call: enginetest.Write, Path: dirs[table] + "deduplication_logs/"})
			if err := s.insert(t, "first", 7); err == nil {
				t.Fatal("the insert succeeded")
			}
			<-s.Exited()
			if l := s.left(t, dirs[table]); l != (left{temporary: 1}) {
				t.Errorf("the kill left %+v of %s", l, table)
			}
			s.restart(t)
			s.mustInsert(t, "first", 7)
			s.want(t, "the same token again", counts{7, 7, 7, 7})
		})
	}
}

// A part can also be there without its token: servers of later versions write the token after the part has been moved, and
// a loss of power takes a token with it, which no setting makes the server sync. Then the same token stores the block in
// that table a second time. This server gets there by a write that fails, which it does not notice until it is restarted.
func TestServer_APartIsNoProofOfItsToken(t *testing.T) {
	t.Parallel()
	for _, table := range tablesOfRows {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			s := newBareServer(t)
			dirs := s.dirs(t)
			s.Arm(t, enginetest.Fault{Call: enginetest.Write, Path: dirs[table] + "deduplication_logs/", Error: syscall.ENOSPC})
			s.mustInsert(t, "first", 7)
			if l := s.left(t, dirs[table]); !s.Struck(t) || l != (left{parts: 1}) {
				t.Errorf("the fault happened: %v; it left %+v of %s", s.Struck(t), l, table)
			}
			s.mustInsert(t, "first", 7)
			s.mustInsert(t, "second", 7)
			s.want(t, "the same token, and another", counts{14, 14, 14, 14})
			s.restart(t)
			s.mustInsert(t, "second", 7)
			s.want(t, "the token of another part", counts{14, 14, 14, 14})
			s.mustInsert(t, "first", 7)
			s.want(t, "the token that was not written", without(table, 14, 21))
		})
	}
}
