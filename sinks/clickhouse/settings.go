package clickhouse

import (
	"context"
	"maps"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
)

// WholeAnswers are the settings that make every answer of the server whole or an error. A profile may say otherwise:
// with timeout_overflow_mode = break a query that takes too long ends quietly with what it has, and an insert with none
// of its rows; with limit = 10 every answer has at most ten rows. What a query says itself wins over the profile.
func WholeAnswers() chgo.Settings {
	return chgo.Settings{
		"timeout_overflow_mode":                     "throw",
		"timeout_overflow_mode_leaf":                "throw",
		"read_overflow_mode":                        "throw",
		"read_overflow_mode_leaf":                   "throw",
		"group_by_overflow_mode":                    "throw",
		"sort_overflow_mode":                        "throw",
		"result_overflow_mode":                      "throw",
		"set_overflow_mode":                         "throw",
		"join_overflow_mode":                        "throw",
		"transfer_overflow_mode":                    "throw",
		"distinct_overflow_mode":                    "throw",
		"limit":                                     0,
		"offset":                                    0,
		"send_progress_in_http_headers":             0, // it would send the status 200 before the outcome is known
		"transform_null_in":                         0,
		"join_default_strictness":                   "ALL",
		"join_use_nulls":                            0,
		"apply_deleted_mask":                        1,
		"select_sequential_consistency":             1,
		"additional_table_filters":                  "{}", // it would hide rows from look-ups, and from the views
		"additional_result_filter":                  "",
		"use_query_cache":                           0,
		"use_query_condition_cache":                 0,
		"empty_result_for_aggregation_by_empty_set": 0,
		"aggregate_functions_null_for_empty":        0,
		"partial_result_on_first_cancel":            0,
		"extremes":                                  0,
		"final":                                     0,
	}
}

// Beside gives options for work that may take its time beside live traffic: a statement has one thread of the server, and that one gives
// way to others where the server may say so to its operating system (CAP_SYS_NICE). Otherwise one look-up over a large table has all of
// the server's processors, and inserts wait for it. Settings that the options have stay as they are.
func Beside(options *chgo.Options) *chgo.Options {
	own := *options
	own.Settings = chgo.Settings{
		"max_threads": 1, "os_thread_priority": 10,
		"cancel_http_readonly_queries_on_client_close": 1, // what is given up must not go on beside what is asked next
	}
	maps.Copy(own.Settings, options.Settings)
	if own.ReadTimeout == 0 {
		own.ReadTimeout = time.Hour // an answer comes sorted, and so all at the end; the driver's own 300 s are for several threads
	}
	return &own
}

// oneBlock are the settings that make an insert one block in one part, written when it is answered, and known by its
// token in the table and in every table that a view feeds.
func oneBlock(token string, seconds int) chgo.Settings {
	const never = 1 << 40 // rows or bytes of a block: far more than any batch
	s := WholeAnswers()
	maps.Copy(s, chgo.Settings{
		// Written now, and not gathered with the rows of others.
		"async_insert":       0,
		"max_insert_threads": 1,
		// The token, and that it counts: 26.x switches deduplication of plain inserts by deduplicate_insert and
		// ignores insert_deduplicate where that is set.
		"insert_deduplicate":                                 1,
		"deduplicate_insert":                                 "enable",
		"insert_deduplication_token":                         token,
		"deduplicate_blocks_in_dependent_materialized_views": 1,
		// No border of a block within the rows: each block is a part of its own, with a token of its own.
		"use_strict_insert_block_limits":                     0,
		"max_insert_block_size_bytes":                        0,
		"max_insert_block_size":                              never,
		"min_insert_block_size_rows":                         never,
		"min_insert_block_size_bytes":                        never,
		"min_insert_block_size_rows_for_materialized_views":  never,
		"min_insert_block_size_bytes_for_materialized_views": never,
		// No view is fed before the part of the rows is in place. Settling rests on it: no rows, nothing in the views.
		"wait_for_part_commit_in_dependent_materialized_views": 1,
		"parallel_view_processing":                             0,
		"materialized_views_ignore_errors":                     0,
		"ignore_materialized_views_with_dropped_target_table":  0,
		"materialized_views_squash_parallel_inserts":           1,
		"optimize_on_insert":                                   1,
		"throw_on_max_partitions_per_insert_block":             1,
		"input_format_parallel_parsing":                        0,
		"max_execution_time":                                   max(1, seconds),
		"log_comment":                                          token,
	})
	return s
}

// wholeContext gives the queries of ctx the settings of WholeAnswers.
func wholeContext(ctx context.Context, options ...chgo.QueryOption) context.Context {
	return chgo.Context(ctx, append([]chgo.QueryOption{chgo.WithSettings(WholeAnswers())}, options...)...)
}
