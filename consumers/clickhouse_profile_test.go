package consumers_test

import (
	"fmt"
	"strings"
	"testing"

	"tenantflow/internal/model"
)

// slowFeed makes the daily feed take so many seconds for a row.
func (f *fixture) slowFeed(t *testing.T, seconds float64) {
	t.Helper()
	var statement string
	if err := f.db.QueryRow(t.Context(), "SELECT as_select FROM system.tables WHERE database = currentDatabase() AND name = 'usage_daily_feed'").Scan(&statement); err != nil {
		t.Fatal(err)
	}
	head, tail, ok := strings.Cut(statement, " GROUP BY ")
	if !ok {
		t.Fatalf("no GROUP BY in the daily feed: %s", statement)
	}
	if err := f.db.Exec(t.Context(), fmt.Sprintf("ALTER TABLE usage_daily_feed MODIFY QUERY %s WHERE sleepEachRow(%g) = 0 GROUP BY %s", head, seconds, tail)); err != nil {
		t.Fatal(err)
	}
}

// The server is slower than an insert may take, and its profile says that a query that takes too long ends quietly.
func TestUsage_AServerThatGivesUpQuietlyLosesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{partitions: 1})
	messages, want := traffic(t, model.Config{Seed: 21, Count: 40})
	f.slowFeed(t, 0.05) // 2 s a batch
	c := faulty(1000)
	c.dsn = f.dsn + "?timeout_overflow_mode=break"
	f.publish(t, messages)
	f.finish(t, f.start(t, c))
	f.verify(t, want)
}

// Everything at once that a profile can have against whole inserts and whole answers, and that does not make the server
// refuse what it is asked.
func TestUsage_AHostileProfileChangesNothing(t *testing.T) {
	t.Parallel()
	f := newFixture(t, fixtureOptions{})
	messages, want := traffic(t, model.Config{Seed: 27, Count: 2000, Resends: 0.1, Conflicts: 0.01, Late: 0.05, Malformed: 0.01})
	c := faulty(300)
	c.dsn = f.dsn + "?limit=3&max_block_size=7&max_insert_block_size=5&max_insert_block_size_bytes=100&use_strict_insert_block_limits=1" +
		"&min_insert_block_size_rows=1&min_insert_block_size_bytes=1&min_insert_block_size_rows_for_materialized_views=1" +
		"&async_insert=1&wait_for_async_insert=0&insert_deduplicate=0&deduplicate_insert=disable" +
		"&deduplicate_blocks_in_dependent_materialized_views=0&max_insert_threads=4&max_threads=8&parallel_view_processing=1" +
		"&optimize_on_insert=0&materialized_views_ignore_errors=1&send_progress_in_http_headers=1&session_timezone=Asia/Kathmandu" +
		"&timeout_overflow_mode=break&read_overflow_mode=break&result_overflow_mode=break&set_overflow_mode=break&join_overflow_mode=break" +
		"&sort_overflow_mode=break&distinct_overflow_mode=break&group_by_overflow_mode=any&transform_null_in=1&join_use_nulls=1"
	f.publish(t, messages)
	f.finish(t, f.start(t, c))
	f.verify(t, want)
	// Another group looks everything up, and writes letters of its own.
	f.Group += ".again"
	c.rows = 170
	f.finish(t, f.start(t, c))
	for _, d := range f.differences(t, want) {
		if !strings.HasPrefix(d, "dead letters: ") {
			t.Error(d)
		}
	}
}
