package clickhouse

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"tenantflow/internal/engine/enginetest"
)

// hostile are settings that an operator's profile may have and that make the server say yes to half of what it is asked.
// They were found by trying several values of each setting that the server knows. They stand in the DSN here: what a query
// says itself wins over them, as it does over a profile.
var hostile = []string{ //nolint:gochecknoglobals // a constant table
	// An insert that is cut into several parts, gathered with others, or not known by its token.
	"use_strict_insert_block_limits=1&max_insert_block_size=7",
	"use_strict_insert_block_limits=1&max_insert_block_size_bytes=7",
	"max_block_size=7&max_insert_block_size=5&min_insert_block_size_rows=1&min_insert_block_size_bytes=1",
	"min_insert_block_size_rows_for_materialized_views=1&min_insert_block_size_bytes_for_materialized_views=1",
	"async_insert=1&wait_for_async_insert=0",
	"insert_deduplicate=0",
	"deduplicate_insert=disable",
	"deduplicate_insert=backward_compatible_choice&insert_deduplicate=0",
	"deduplicate_blocks_in_dependent_materialized_views=0",
	"insert_deduplication_token=same",
	"max_insert_threads=4&max_threads=8&parallel_view_processing=1&use_async_executor_for_materialized_views=1",
	"optimize_on_insert=0",
	// Views that get a part of the rows.
	"limit=1",
	"additional_table_filters={'usage_tracking':'_offset % 2 = 0'}",
	"group_by_overflow_mode=any&max_rows_to_group_by=1",
	"materialized_views_ignore_errors=1&max_rows_to_group_by=1",
	// Answers that are cut off.
	"limit=3&max_block_size=2",
	"max_rows_in_set=1&set_overflow_mode=break",
	"max_bytes_in_set=1&set_overflow_mode=break",
	"max_rows_in_join=1&join_overflow_mode=break",
	"max_rows_to_read=5&read_overflow_mode=break&max_block_size=2",
	"max_rows_to_read_leaf=5&read_overflow_mode_leaf=break&max_block_size=2",
	"max_result_rows=2&result_overflow_mode=break&max_block_size=2",
	"max_rows_to_sort=2&sort_overflow_mode=break&max_block_size=2",
	"max_execution_time=1&timeout_overflow_mode=break&timeout_overflow_mode_leaf=break",
	"additional_result_filter=0",
	"send_progress_in_http_headers=1",
	"session_timezone=Asia/Kathmandu",
	"transform_null_in=1&join_use_nulls=1&any_join_distinct_right_table_keys=1",
	"use_query_cache=1&query_cache_nondeterministic_function_handling=save&query_cache_system_table_handling=save",
	"compatibility=22.8",
}

// Whatever a profile says, an insert lands whole or ends with an error, its token counts, a view is completed, rows that
// are late are refused, and a look-up answers with everything or with an error.
func TestStore_HostileProfilesChangeNothing(t *testing.T) {
	t.Parallel()
	s := newBareServer(t)
	s.exec(t, "SYSTEM STOP MERGES")
	for i, settings := range hostile {
		t.Run(settings, func(t *testing.T) {
			for _, table := range tablesOfRows {
				s.exec(t, "TRUNCATE TABLE tenantflow."+table)
			}
			rows := plains(profileRows)
			for n := range rows {
				rows[n].id = fmt.Sprintf("event-%d-%d", i, n)
				rows[n].offset = int64(i*profileRows + n)
			}
			b := blockOf(rows...)
			in := s.insertUnder(t, settings, b)
			s.lookUpUnder(t, settings, in, b, slices.Max(timesOf(rows)))
		})
	}
}

const profileRows = 40

func timesOf(rows []row) (times []int64) {
	for _, r := range rows {
		times = append(times, r.at)
	}
	return times
}

func (s bareServer) exec(t *testing.T, statement string) {
	t.Helper()
	if _, err := s.Query(t.Context(), statement); err != nil {
		t.Fatal(err)
	}
}

// under is a store whose DSN has settings.
func (s bareServer) under(t *testing.T, settings string) *Store {
	t.Helper()
	o, err := chgo.ParseDSN(s.DSN())
	if err != nil {
		t.Fatal(err)
	}
	o.Settings = chgo.Settings{}
	for pair := range strings.SplitSeq(settings, "&") {
		if name, value, ok := strings.Cut(pair, "="); ok {
			o.Settings[name] = value
		}
	}
	store, err := Open(t.Context(), Config{Options: o, InsertTimeout: enginetest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = store.Close() })
	return store
}

// insertUnder inserts b under the settings, or without them where they make the server refuse it, and returns the intent.
func (s bareServer) insertUnder(t *testing.T, settings string, b *Block) *Intent {
	t.Helper()
	store, whole := s.under(t, settings), counts{profileRows, profileRows, profileRows, profileRows}
	in := store.intent(b)
	if err := store.Insert(t.Context(), in, b, 0, b.Len()); err != nil {
		t.Logf("insert: %v", err)
		if err := s.under(t, "").Insert(t.Context(), in, b, 0, b.Len()); err != nil {
			t.Fatal(err)
		}
		s.want(t, "an insert that was repeated without the settings", whole)
		return in
	}
	s.want(t, "an insert", whole)
	parts, err := s.Query(t.Context(), "SELECT count() FROM system.parts WHERE active AND database = 'tenantflow' AND (table = 'usage_tracking' OR endsWith(table, '_store'))")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprint(len(tablesOfRows)); strings.TrimSpace(parts) != want {
		t.Errorf("an insert made %s parts in all tables, want %s", strings.TrimSpace(parts), want)
	}

	again := func(what string) {
		t.Helper()
		if err := store.send(t.Context(), in, store.Deadline(), b, b.parts(0, b.Len())); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		s.want(t, what, whole)
	}
	again("the same token again")
	s.exec(t, "TRUNCATE TABLE tenantflow.usage_daily_store")
	for _, window := range []int{0, 10_000} { // its tokens are forgotten
		s.exec(t, fmt.Sprintf("ALTER TABLE tenantflow.usage_daily_store MODIFY SETTING non_replicated_deduplication_window = %d", window))
	}
	again("a view that is completed")

	late := *in
	late.To++ // another token
	store.clock.Store(&reading{server: time.Now().Add(-time.Hour), ours: time.Now()})
	late.InsertBy = store.Deadline()
	if err := store.send(t.Context(), &late, late.InsertBy, b, b.parts(0, b.Len())); Classify(err) != Late {
		t.Errorf("a late insert: %v", err)
	}
	s.want(t, "a late insert", whole)
	return in
}

// lookUpUnder looks for b, which is stored, under the settings.
func (s bareServer) lookUpUnder(t *testing.T, settings string, in *Intent, b *Block, newest int64) {
	t.Helper()
	store, ctx := s.under(t, settings), t.Context()
	check := func(what string, n int, err error) {
		t.Helper()
		if err != nil {
			t.Logf("%s: %v", what, err)
		} else if n != profileRows {
			t.Errorf("%s: %d of %d, and no error", what, n, profileRows)
		}
	}
	same := func(m []Match) int {
		return len(slices.DeleteFunc(m, func(m Match) bool { return !m.Same }))
	}
	matches, err := store.Find(ctx, b, b.all())
	check("find", same(matches), err)
	matches, err = store.FindIdentity(ctx, in.Topic, in.Partition, in.From, b, b.all())
	check("find by identity", len(matches), err)
	places, err := store.Places(ctx, in.Topic, in.Partition, in.From, in.To)
	check("places", len(places), err)
	stored, err := store.stored(ctx, in)
	if err == nil {
		check("rows of the intent", stored.Len(), nil)
	}
	if at, err := store.Newest(ctx); err == nil && at != newest {
		t.Errorf("newest: %d, want %d", at, newest)
	}
}
