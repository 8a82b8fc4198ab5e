package totals

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strings"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
)

// Corrected is what Correct has done.
type Corrected struct {
	Added   int64 // totals corrected by inserting the difference
	Lowered int64 // totals whose largest timestamp was too large, and lowered

	// Open is how many are as wrong as before, or may be: each was under way at the last look, or its correction was
	// refused.
	Open int64
}

// perClaim is how many keys are claimed and corrected together.
const perClaim = 500

// Correct makes totals what the rows add up to: those that are still as wrong as when they were compared, and as far as
// they may be lowered. A sum is corrected by inserting the difference into the store behind the view, a largest timestamp
// that is too small by the same row. One that is too large is lowered in the store. Any number of processes may
// correct at the same time. reason goes to usage_corrections with each.
func (c *Checker) Correct(ctx context.Context, wrong []Total, why *Lowering, reason string) (Corrected, error) {
	var done Corrected
	type group struct {
		view  string
		month int
	}
	groups := map[group][]Total{}
	for i := range wrong {
		if t := &wrong[i]; !t.irreparable && why.allows(t) {
			g := group{t.of.view, t.month}
			groups[g] = append(groups[g], *t)
		}
	}
	for _, g := range slices.SortedFunc(maps.Keys(groups), func(a, b group) int { return strings.Compare(fmt.Sprint(a), fmt.Sprint(b)) }) {
		for some := range slices.Chunk(groups[g], perClaim) {
			c.cfg.Progress("repair "+g.view, done.Added+done.Lowered, int64(len(wrong)))
			if err := c.correct(ctx, some, reason, &done); err != nil {
				return done, err
			}
		}
	}
	return done, nil
}

// correct corrects totals of one aggregate and month.
func (c *Checker) correct(ctx context.Context, totals []Total, reason string, done *Corrected) error {
	cl, err := c.claim(ctx, totals, reason)
	if err != nil {
		return err
	}
	// The last look: every older correction of these keys is in or refused by now.
	now, err := c.stillWrong(ctx, totals)
	if err != nil {
		return err
	}
	var add, lower, dropped []Total
	for _, t := range totals {
		n := now[t.Name()]
		if n == nil {
			dropped = append(dropped, t)
			done.Open++
			continue
		}
		if n.lowersLast() {
			lower = append(lower, *n)
		}
		if n.adds() {
			add = append(add, *n)
		}
	}
	if err := c.lowerLast(ctx, cl, lower); err != nil {
		return err
	}
	if err := c.insertDifferences(ctx, cl, add); err != nil {
		return err
	}
	left, err := c.stillWrong(ctx, slices.Concat(add, lower))
	if err != nil {
		return err
	}
	var applied []Total
	for _, t := range totals {
		switch n := now[t.Name()]; {
		case n == nil:
		case left[t.Name()] != nil:
			c.log.WarnContext(ctx, "a correction had no effect; another process may have corrected the total, or the deadline had passed",
				slog.String("total", t.View()+" "+t.Name()), slog.String("claim", cl.id))
			dropped = append(dropped, t)
			done.Open++
		default:
			applied = append(applied, *n)
			if n.lowersLast() {
				done.Lowered++
			} else {
				done.Added++
			}
		}
	}
	if err := c.record(ctx, cl, applied, "applied", reason); err != nil {
		return err
	}
	return c.record(ctx, cl, dropped, "dropped", reason)
}

// stillWrong looks at totals once more and returns those that differ as they did, by name. What was under way in every
// try is not among them.
func (c *Checker) stillWrong(ctx context.Context, totals []Total) (map[string]*Total, error) {
	if len(totals) == 0 {
		return nil, nil //nolint:nilnil // none of none differs
	}
	before := make(map[string]*Total, len(totals))
	var keys [][]string
	for i := range totals {
		name := totals[i].Name()
		if before[name] == nil {
			before[name], keys = &totals[i], append(keys, totals[i].key)
		}
	}
	still := map[string]*Total{}
	ch := chunk{of: totals[0].of, month: totals[0].month}
	err := c.observe(ctx, ch, keys, func(_ []string, o observation) bool {
		if o.counts && o.total != nil && before[o.total.Name()].sameAs(o.total) {
			still[o.total.Name()] = o.total
		}
		return o.counts
	})
	return still, err
}

// insertDifferences adds to keys what is missing; what is too much is a negative number. One statement takes the
// differences from the claims themselves, so what usage_corrections says is what was inserted.
func (c *Checker) insertDifferences(ctx context.Context, cl *claim, totals []Total) error {
	if len(totals) == 0 {
		return nil
	}
	var columns, values []string
	for i, k := range cl.of.keys {
		columns = append(columns, k.name)
		values = append(values, strings.Replace(k.literal, "?", fmt.Sprintf("key[%d]", i+1), 1))
	}
	for i, s := range cl.of.sums {
		columns = append(columns, s.name)
		values = append(values, strings.Replace(s.literal, "?", fmt.Sprintf("newest.2[%d]", i+1), 1))
	}
	if cl.of.last {
		columns, values = append(columns, "last_activity"), append(values, "newest.3")
	}
	newest, args, err := c.newest(ctx, cl, totals)
	if err != nil {
		return err
	}
	s := chgo.Settings{
		"log_comment":                cl.of.mark() + cl.id,
		"max_execution_time":         60, // it blocks other corrections while it runs
		"insert_deduplicate":         1,
		"deduplicate_insert":         "enable",
		"deduplicate_insert_select":  "enable_when_possible",
		"insert_deduplication_token": cl.of.mark() + cl.id, // for a proxy that sends it twice
		"max_insert_threads":         1,
		"max_threads":                1,
	}
	query := fmt.Sprintf("INSERT INTO %s (%s) SELECT %s FROM (%s) ORDER BY key", cl.of.store, strings.Join(columns, ", "), strings.Join(values, ", "), newest)
	if err := c.conn.Exec(LongQuery(ctx, s), query, args...); err != nil {
		return fmt.Errorf("correct %d totals of %s: %w", len(totals), cl.of.view, err)
	}
	return nil
}

// lowerLast lowers largest timestamps in the store, which an insert can't. The mutation changes nothing else: sums are
// corrected by inserts alone, so none is ever gone for a moment, or for good. The server decides when the statement
// arrives whether the claim still holds, and puts the answer in the mutation: it can't wait in a queue for another one.
func (c *Checker) lowerLast(ctx context.Context, cl *claim, totals []Total) error {
	const perMutation = 50 // names of keys are written out for each
	for some := range slices.Chunk(totals, perMutation) {
		names := "(" + cl.of.names() + ")"
		var cases []string
		var args []any
		keys := make([][]string, len(some))
		for i := range some {
			keys[i] = some[i].key
			tuple, key := cl.of.keyList(keys[i : i+1])
			cases = append(cases, names+" IN "+tuple+", fromUnixTimestamp64Milli(toInt64(?), 'UTC')")
			args = append(append(args, key...), some[i].last[0])
		}
		list, listArgs := cl.of.keyList(keys)
		newest, newestArgs, err := c.newest(ctx, cl, some)
		if err != nil {
			return err
		}
		query := fmt.Sprintf("ALTER TABLE %s UPDATE last_activity = least(last_activity, multiIf(%s, last_activity)) WHERE %s IN %s AND (SELECT count() FROM (%s)) = ?",
			cl.of.store, strings.Join(cases, ", "), names, list, newest)
		s := onArrival()
		s["log_comment"] = cl.of.mark() + cl.id
		if err := c.conn.Exec(LongQuery(ctx, s), query, slices.Concat(args, listArgs, newestArgs, []any{len(some)})...); err != nil {
			return fmt.Errorf("lower the largest timestamp of %d totals of %s: %w", len(some), cl.of.view, err)
		}
	}
	return nil
}

// onArrival are the settings by which the server answers the clock and the subqueries of a mutation when its statement
// arrives, and writes the answers into the mutation. Without them it would ask each time it rewrites a part, whenever that is.
func onArrival() chgo.Settings {
	return chgo.Settings{
		"mutations_sync":                                  2,
		"allow_nondeterministic_mutations":                1,
		"mutations_execute_nondeterministic_on_initiator": 1,
		"mutations_execute_subqueries_on_initiator":       1,
	}
}

// BeforeDeadline is what makes a mutation of usage_tracking harmless when it arrives late: a condition to be added to
// its own, true until the deadline by ClickHouse's clock, with its arguments, and the settings the statement must have.
func (c *Checker) BeforeDeadline(ctx context.Context) (condition string, args []any, settings chgo.Settings, err error) {
	condition, args, err = c.inTime(ctx)
	return condition, args, onArrival(), err
}
