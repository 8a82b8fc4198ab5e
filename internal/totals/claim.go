package totals

import (
	"context"
	"fmt"
	"strings"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"
	"github.com/google/uuid"

	"tenantflow/internal/retry"
)

// A claim announces corrections in usage_corrections, before anything else is done about them. It is what keeps a
// correction that is held up on its way from landing beside a later one:
//
//   - The server itself compares, when the correction's statement arrives, whether its claim is still the newest of the
//     key. A process that corrects the key after us has claimed it first, so what we sent and what arrives later is refused.
//   - What has arrived before that is running. The newer claim waits until nothing runs, and only then has its last
//     look: it sees what the older one has done.
//
// Newest is by a number, the highest one there was and one more; of equal numbers, made at the same moment, the larger id.
// So no clock is asked, nothing has to be waited for after a crash, and of any number of repairs at the same time the
// last one to claim a key corrects it. Each statement has a deadline besides, by the server's clock: that holds even if
// the claims were removed.
type claim struct {
	id      string
	of      *aggregate
	totals  []Total
	numbers map[string]uint32 // by name
}

// mark begins the log_comments of the statements that correct a store.
func (a *aggregate) mark() string { return "tenantflow:usage_corrections:" + a.store + ":" }

// claim claims the keys of totals, all of one aggregate and month, and waits until no older correction runs.
func (c *Checker) claim(ctx context.Context, totals []Total, reason string) (*claim, error) {
	cl := &claim{id: uuid.NewString(), of: totals[0].of, totals: totals}
	var err error
	if cl.numbers, err = c.numbers(ctx, cl); err != nil {
		return nil, err
	}
	for i := range totals {
		cl.numbers[totals[i].Name()]++
	}
	if err := c.record(ctx, cl, totals, "claimed", reason); err != nil {
		return nil, err
	}
	for {
		var running uint64
		if err := c.conn.QueryRow(ctx, "SELECT count() FROM system.processes WHERE current_database = currentDatabase() AND startsWith(Settings['log_comment'], ?)",
			cl.of.mark()).Scan(&running); err != nil {
			return nil, fmt.Errorf("wait for corrections of %s to end: %w", cl.of.view, err)
		}
		if running == 0 {
			return cl, nil
		}
		if err := retry.Pause(ctx, 20*time.Millisecond); err != nil {
			return nil, err
		}
	}
}

// keysOf are keys as a list of arrays, for IN.
func keysOf(totals []Total) chgo.GroupSet {
	keys := make([]any, len(totals))
	for i := range totals {
		keys[i] = totals[i].key
	}
	return chgo.GroupSet{Value: keys}
}

// numbers reads the highest number of a claim of each key.
func (c *Checker) numbers(ctx context.Context, cl *claim) (map[string]uint32, error) {
	answer, err := Ask(LongQuery(ctx, nil), c.conn, "SELECT key AS k, max(number) AS n FROM usage_corrections WHERE store = ? AND key IN ? GROUP BY key",
		End{Row: "CAST([], 'Array(String)'), toUInt32(0)"}, cl.of.store, keysOf(cl.totals))
	if err != nil {
		return nil, fmt.Errorf("read the claims of %s: %w", cl.of.view, err)
	}
	numbers := map[string]uint32{}
	for {
		var key []string
		var n uint32
		if !answer.Next(&key, &n) {
			break
		}
		numbers[strings.Join(key, "|")] = n
	}
	if err := answer.Close(); err != nil {
		return nil, fmt.Errorf("read the claims of %s: %w", cl.of.view, err)
	}
	return numbers, nil
}

// record writes a step of a claim for some of its totals: claimed, then applied or dropped.
func (c *Checker) record(ctx context.Context, cl *claim, totals []Total, step, reason string) error {
	if len(totals) == 0 {
		return nil
	}
	values, args := make([]string, len(totals)), []any{}
	for i := range totals {
		t := &totals[i]
		last := int64(0)
		if t.of.last {
			last = t.last[0]
		}
		values[i] = "(?, ?, ?, ?, ?, ?, fromUnixTimestamp64Milli(toInt64(?), 'UTC'), ?, ?)"
		args = append(args, cl.id, step, cl.of.store, t.key, cl.numbers[t.Name()], t.diff, last, reason, c.cfg.By)
	}
	query := "INSERT INTO usage_corrections (claim, step, store, key, number, difference, last_activity, reason, written_by) VALUES " + strings.Join(values, ", ")
	if err := c.conn.Exec(LongQuery(ctx, nil), query, args...); err != nil {
		return fmt.Errorf("record %d corrections of %s as %s: %w", len(totals), cl.of.view, step, err)
	}
	return nil
}

// newest is the query of those of some claimed keys whose newest claim this one is, with what they claim; and of none after
// the deadline.
func (c *Checker) newest(ctx context.Context, cl *claim, totals []Total) (query string, args []any, err error) {
	inTime, deadline, err := c.inTime(ctx)
	if err != nil {
		return "", nil, err
	}
	return statement("newest_claims", inTime), append([]any{cl.of.store, keysOf(totals), cl.id}, deadline...), nil
}

// inTime is the SQL condition that a statement which is sent now has arrived before its deadline, with its arguments.
func (c *Checker) inTime(ctx context.Context) (condition string, args []any, err error) {
	// Less is too little for a server that is busy, and this is not what keeps corrections apart.
	const least = 5 * time.Second
	now, err := c.traffic(ctx)
	if err != nil {
		return "", nil, err
	}
	deadline := now.now.Add(max(least, c.cfg.InsertTimeout))
	return "now64(3) <= fromUnixTimestamp64Milli(toInt64(?), 'UTC')", []any{deadline.UnixMilli()}, nil
}
