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
		rows:    "(" + join(ch.of.rowKeys()) + ") IN " + list,
		store:   "(" + join(ch.of.names()) + ") IN " + list,
		rowArgs: args, storeArgs: args,
	}
	if ch.month != 0 {
		s.rows, s.rowArgs = s.rows+" AND toYYYYMM(timestamp) = ?", append(slices.Clone(args), ch.month)
		s.store, s.storeArgs = s.store+" AND "+ch.of.month+" = ?", s.rowArgs
	}
	return s
}

// comparison is the query that puts, key by key, what the rows add up to beside what the store holds. Its columns: the
// key as texts, the sums of the rows, of the store and their difference as texts, the largest timestamps of both, the
// partitions whose pending insert has a row in the key, those of which it has rows behind what is known, and whether
// anything differs.
func comparison(a *aggregate, s scope) (query string, args []any) {
	var rowSums, storeSums, noRows, noStore, outer, rowsOut, storedOut, diffOut, differs []string
	for i, c := range a.sums {
		r, st := fmt.Sprintf("r%d", i), fmt.Sprintf("s%d", i)
		rowSums = append(rowSums, c.row+" AS "+r)
		storeSums = append(storeSums, "sum("+c.name+") AS "+st)
		noStore = append(noStore, "0 AS "+st)
		noRows = append(noRows, "0 AS "+r)
		outer = append(outer, "sum("+r+") AS sum_"+r, "sum("+st+") AS sum_"+st)
		rowsOut = append(rowsOut, "toString(sum_"+r+")")
		storedOut = append(storedOut, "toString(sum_"+st+")")
		diffOut = append(diffOut, "toString(sum_"+r+" - sum_"+st+")")
		differs = append(differs, "sum_"+r+" != sum_"+st)
	}
	const epoch = "toDateTime64(0, 3, 'UTC')"
	storeLast := epoch
	if a.last {
		storeLast = "max(" + a.store + ".last_activity)"
		// A key without rows has no maximum; its sums say whether that is right.
		differs = append(differs, "sum_r0 != 0 AND last_rows != last_store")
	}
	pending, beyond, underWayArgs := underWay(s.topic, s.positions)
	names := a.names()
	query = "SELECT [" + join(a.keyTexts()) + "] AS k, [" + join(rowsOut) + "] AS r, [" + join(storedOut) + "] AS s, [" + join(diffOut) + "] AS d, " +
		"toUnixTimestamp64Milli(last_rows) AS l0, toUnixTimestamp64Milli(last_store) AS l1, pending, beyond, " +
		"(" + strings.Join(differs, " OR ") + ") AS differs FROM (" +
		"SELECT " + join(names, outer) + ", max(lr) AS last_rows, max(ls) AS last_store, groupUniqArrayArray(p) AS pending, groupUniqArrayArray(b) AS beyond FROM (" +
		"SELECT " + join(a.namedRowKeys(), rowSums, noStore) + ", max(timestamp) AS lr, " + epoch + " AS ls, " +
		"groupUniqArrayIf(_partition, " + pending + ") AS p, groupUniqArrayIf(_partition, " + beyond + ") AS b " +
		"FROM usage_tracking WHERE " + s.rows + " GROUP BY " + join(names) +
		" UNION ALL " +
		"SELECT " + join(names, noRows, storeSums) + ", " + epoch + " AS lr, " + storeLast + " AS ls, CAST([], 'Array(UInt16)') AS p, CAST([], 'Array(UInt16)') AS b " +
		"FROM " + a.store + " WHERE " + s.store + " GROUP BY " + join(names) +
		") GROUP BY " + join(names) + ")"
	return query, slices.Concat(underWayArgs, s.rowArgs, s.storeArgs)
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
		Row: join([]string{texts, texts, texts, texts, "toInt64(0)", "toInt64(0)", partitions, partitions})}, args...)
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
