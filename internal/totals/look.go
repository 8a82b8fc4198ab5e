package totals

import (
	"context"
	"fmt"
	"slices"
	"strings"
)

// A chunk is the part of an aggregate that is compared in one query.
type chunk struct {
	of    *aggregate
	month int // 202611; 0: everything
}

// A scope says which rows and which totals are compared.
type scope struct {
	rows, store        string // SQL conditions
	rowArgs, storeArgs []any
	positions          []Position // for what is under way; nil: not asked
	topic              string
}

// everything is all of a chunk that is not too old.
func (ch chunk) everything(border string) scope {
	s := scope{rows: "1", store: "1"}
	for _, k := range ch.of.keys {
		if k.time != "" {
			from := border
			if strings.HasPrefix(k.literal, "toDateTime") {
				from += " 00:00:00"
			}
			s.rows = "timestamp >= toDateTime64(?, 3, 'UTC') AND toYYYYMM(timestamp) = ?"
			s.store = k.name + " >= " + k.literal + " AND " + ch.of.month + " = ?"
			s.rowArgs, s.storeArgs = []any{border + " 00:00:00", ch.month}, []any{from, ch.month}
		}
	}
	return s
}

// these are some keys of a chunk.
func (ch chunk) these(keys [][]string) scope {
	list, args := ch.of.keyList(keys)
	s := scope{
		rows:    "(" + ch.of.rowKeys() + ") IN " + list,
		store:   "(" + ch.of.names() + ") IN " + list,
		rowArgs: args, storeArgs: args,
	}
	if ch.month != 0 {
		s.rows, s.rowArgs = s.rows+" AND toYYYYMM(timestamp) = ?", append(slices.Clone(args), ch.month)
		s.store, s.storeArgs = s.store+" AND "+ch.of.month+" = ?", s.rowArgs
	}
	return s
}

// comparison is the query that compares the rows of a scope with its totals. See comparison.sql.
func comparison(a *aggregate, s scope) (query string, args []any) {
	pending, beyond, underWayArgs := underWay(s.topic, s.positions)
	return statement("comparison", struct {
		Keys, Sums                           []column
		Last                                 bool
		Store, Pending, Beyond, Rows, Stored string
	}{a.keys, a.sums, a.last, a.store, pending, beyond, s.rows, s.store}), slices.Concat(underWayArgs, s.rowArgs, s.storeArgs)
}

// maxSuspects is how many differing keys of a chunk are listed.
const maxSuspects = 20_000

// firstLook compares a scope of a chunk at a glance: whatever differs is a suspect. It gives nil when nothing does, and
// how many keys it has compared.
func (c *Checker) firstLook(ctx context.Context, ch chunk, s scope) (*suspects, int64, error) {
	query, args := comparison(ch.of, s)
	var keys, differ uint64
	if err := c.conn.QueryRow(LongQuery(ctx, nil), "SELECT count(), countIf(differs) FROM ("+query+")", args...).Scan(&keys, &differ); err != nil {
		return nil, 0, fmt.Errorf("compare %s with the rows: %w", ch.of.view, err)
	}
	compared := int64(keys) // #nosec G115 -- a number of keys
	if differ == 0 {
		return nil, compared, nil
	}
	query = fmt.Sprintf("SELECT k FROM (%s) WHERE differs ORDER BY k LIMIT %d", query, maxSuspects)
	answer, err := Ask(LongQuery(ctx, nil), c.conn, query, End{Row: "CAST([], 'Array(String)')", Order: "k"}, args...)
	if err != nil {
		return nil, 0, fmt.Errorf("list what differs in %s: %w", ch.of.view, err)
	}
	found := &suspects{chunk: ch, cases: map[string]*suspicion{}}
	for {
		var key []string
		if !answer.Next(&key) {
			break
		}
		found.cases[strings.Join(key, "|")] = &suspicion{key: key}
	}
	if err := answer.Close(); err != nil {
		return nil, 0, fmt.Errorf("list what differs in %s: %w", ch.of.view, err)
	}
	if differ > maxSuspects {
		found.unlisted = int64(differ - maxSuspects) // #nosec G115 -- a number of keys
	}
	return found, compared, nil
}

// lookAt compares some keys of a chunk and returns those that differ, by name.
func (c *Checker) lookAt(ctx context.Context, ch chunk, keys [][]string, positions []Position) (map[string]*Total, error) {
	s := ch.these(keys)
	s.positions, s.topic = positions, c.cfg.Topic
	query, args := comparison(ch.of, s)
	const texts, partitions = "CAST([], 'Array(String)')", "CAST([], 'Array(UInt16)')"
	answer, err := Ask(LongQuery(ctx, nil), c.conn, "SELECT * EXCEPT (differs) FROM ("+query+") WHERE differs", End{
		Row: strings.Join([]string{texts, texts, texts, texts, "toInt64(0)", "toInt64(0)", partitions, partitions}, ", ")}, args...)
	if err != nil {
		return nil, fmt.Errorf("compare keys of %s with the rows: %w", ch.of.view, err)
	}
	found := map[string]*Total{}
	for {
		t := &Total{of: ch.of, month: ch.month}
		if !answer.Next(&t.key, &t.rows, &t.stored, &t.diff, &t.last[0], &t.last[1], &t.pending, &t.beyond) {
			break
		}
		found[t.Name()] = t
	}
	if err := answer.Close(); err != nil {
		return nil, fmt.Errorf("compare keys of %s with the rows: %w", ch.of.view, err)
	}
	return found, nil
}
