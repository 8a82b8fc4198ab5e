package clickhouse

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"tenantflow/events"
)

// Settled says how an intent whose outcome was unknown ended.
type Settled struct {
	Rows    int // rows of the intent that are in the table
	Doubled int // rows that stood there twice, the later ones deleted
}

// Settle brings an intent of unknown outcome to a known state: when it returns without an error, each part of the
// intent is either in the table and in every view it feeds, or nowhere, and nothing of it can arrive any more.
//
// With wait, it first waits until the server refuses whatever may still be under way. That is unnecessary only if the
// server itself answered the insert.
//
// Completing a view means sending the rows once more. That is a new thing under way, so before it, recommit is called
// with the intent and its new deadline; it must make that as durable as the intent was.
func (s *Store) Settle(ctx context.Context, in *Intent, wait bool, recommit func(context.Context, *Intent) error) (Settled, error) {
	// A wrong idea of the server's clock may be why the outcome is unknown. It would make the resend late, too.
	if err := s.SyncClock(ctx); err != nil {
		return Settled{}, fmt.Errorf("settle %s: %w", in.Range(), err)
	}
	if wait {
		if err := s.awaitQuiet(ctx, in); err != nil {
			return Settled{}, err
		}
	}
	b, err := s.stored(ctx, in)
	if err != nil {
		return Settled{}, err
	}
	if b.Len() == 0 {
		return Settled{}, nil
	}
	// The rows of a part landed atomically, but the views are fed after it: a server killed in between has the rows
	// and not their share of the sums. The same tokens again leave the rows alone and complete the views.
	parts := b.parts(0, b.Len())
	known := map[int]Part{}
	for _, p := range in.Parts {
		known[p.Month] = p
	}
	for i, p := range parts {
		want, ok := known[p.Month]
		if !ok {
			return Settled{}, fmt.Errorf("settle %s: rows of month %d carry the deadline of an insert that had none there", in.Range(), p.Month)
		}
		if want.Hash != p.Hash {
			// Rows were deleted by hand or by the TTL since. The token still names the part they landed with.
			s.log.WarnContext(ctx, "rows of a pending insert are not the ones it was made of",
				slog.String("range", in.Range()), slog.Int("month", p.Month), slog.Int("rows", len(p.rows)))
		}
		parts[i].Part = want
	}
	last := in.Deadline()
	if in.ResendBy = s.Deadline(); !in.ResendBy.After(last) {
		in.ResendBy = last.Add(time.Millisecond) // so that copies can be told from the rows they copy
	}
	if err := recommit(ctx, in); err != nil {
		return Settled{}, fmt.Errorf("settle %s: %w", in.Range(), err)
	}
	if err := s.send(ctx, in, in.ResendBy, b, parts); err != nil {
		return Settled{}, fmt.Errorf("settle %s: %w", in.Range(), err)
	}
	doubled, err := s.deleteLaterCopies(ctx, in)
	if err != nil {
		return Settled{}, err
	}
	return Settled{Rows: b.Len(), Doubled: doubled}, nil
}

// awaitQuiet waits until nothing of the intent can arrive any more: its deadline has passed by the server's clock,
// and no query of it runs. The second matters because the server compares the deadline with the time at which the
// query began.
func (s *Store) awaitQuiet(ctx context.Context, in *Intent) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		if s.Now().After(in.Deadline()) {
			break
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	// Clocks drift: the one reading that counts is the server's, now.
	for {
		var passed bool
		var running uint64
		err := s.conn.QueryRow(ctx, "SELECT now64(3) > fromUnixTimestamp64Milli(toInt64(?), 'UTC'), "+
			"(SELECT count() FROM system.processes WHERE startsWith(Settings['log_comment'], ?))",
			in.Deadline().UnixMilli(), in.comment()).Scan(&passed, &running)
		if err != nil {
			return fmt.Errorf("wait for inserts of %s to end: %w", in.Range(), err)
		}
		if passed && running == 0 {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// stored reads back the rows that an intent put into the table, each once and in the order of their offsets. They are
// known by their place and by the deadline they carry, which no other insert of the partition has: the place alone would
// also name rows of an earlier, settled insert of a range that was cut differently.
func (s *Store) stored(ctx context.Context, in *Intent) (*Block, error) {
	rows, err := s.conn.Query(ctx, `
SELECT event_id, toString(event_source), user_id, company_id, toUnixTimestamp64Milli(timestamp), toString(subscription_tier),
       toString(service_name), toString(api_endpoint), data_points_consumed, reinterpretAsInt64(processing_time_ms),
       toString(billing_period), reinterpretAsInt64(revenue_attributed), _offset
FROM usage_tracking
WHERE _topic = ? AND _partition = ? AND _offset >= ? AND _offset < ? AND toUnixTimestamp64Milli(_insert_by) = ?
ORDER BY _offset`, in.Topic, in.Partition, in.From, in.To, in.InsertBy.UnixMilli())
	if err != nil {
		return nil, fmt.Errorf("read back rows of %s: %w", in.Range(), err)
	}
	defer func() { _ = rows.Close() }() // Err below has said all there is
	b := NewBlock()
	for rows.Next() {
		var id, source, user, company, tier, service, endpoint, period string
		var offset int64
		var u events.Usage
		if err := rows.Scan(&id, &source, &user, &company, &u.Timestamp, &tier, &service, &endpoint, &u.DataPoints,
			&u.ProcessingTime, &period, &u.Revenue, &offset); err != nil {
			return nil, fmt.Errorf("read back rows of %s: %w", in.Range(), err)
		}
		u.ID, u.Source, u.UserID, u.CompanyID = []byte(id), []byte(source), []byte(user), []byte(company)
		u.Tier, u.Service, u.Endpoint, u.BillingPeriod = []byte(tier), []byte(service), []byte(endpoint), []byte(period)
		b.Append(&u, u.IdentityHash(), offset)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read back rows of %s: %w", in.Range(), err)
	}
	return b, nil
}

// deleteLaterCopies takes out rows that a resend put beside the ones it was to complete, which happens when the
// server has lost its deduplication log. The views have counted them twice then; verify --repair corrects that.
func (s *Store) deleteLaterCopies(ctx context.Context, in *Intent) (int, error) {
	const place = "_topic = ? AND _partition = ? AND _offset >= ? AND _offset < ?"
	var doubled uint64
	err := s.conn.QueryRow(ctx, "SELECT count() FROM (SELECT _offset FROM usage_tracking WHERE "+place+
		" GROUP BY _offset HAVING count() > 1)", in.Topic, in.Partition, in.From, in.To).Scan(&doubled)
	if err != nil {
		return 0, fmt.Errorf("count copies in %s: %w", in.Range(), err)
	}
	if doubled == 0 {
		return 0, nil
	}
	s.log.ErrorContext(ctx, "ClickHouse has lost its deduplication log: rows landed twice, the later ones are deleted; "+
		"run `tenantflow verify --repair` to correct the aggregates",
		slog.String("range", in.Range()), slog.Uint64("rows", doubled))
	err = s.conn.Exec(ctx, "ALTER TABLE usage_tracking DELETE WHERE "+place+
		" AND toUnixTimestamp64Milli(_insert_by) > ? SETTINGS mutations_sync = 2",
		in.Topic, in.Partition, in.From, in.To, in.InsertBy.UnixMilli())
	if err != nil {
		return 0, fmt.Errorf("delete later copies in %s: %w", in.Range(), err)
	}
	return int(doubled), nil // #nosec G115 -- bounded by the rows of one batch
}

// Places reads which events the table holds at the offsets [from, to) of a partition.
func (s *Store) Places(ctx context.Context, topic string, partition int, from, to int64) ([]Place, error) {
	rows, err := s.conn.Query(ctx, "SELECT event_id, toString(event_source), _offset FROM usage_tracking "+
		"WHERE _topic = ? AND _partition = ? AND _offset >= ? AND _offset < ? ORDER BY _offset", topic, partition, from, to)
	if err != nil {
		return nil, fmt.Errorf("read events stored from %s/%d [%d, %d): %w", topic, partition, from, to, err)
	}
	defer func() { _ = rows.Close() }() // Err below has said all there is
	var places []Place
	for rows.Next() {
		var id, source string
		var p Place
		if err := rows.Scan(&id, &source, &p.Offset); err != nil {
			return nil, fmt.Errorf("read events stored from %s/%d [%d, %d): %w", topic, partition, from, to, err)
		}
		p.Identity = events.IdentityHash([]byte(source), []byte(id))
		places = append(places, p)
	}
	return places, rows.Err()
}
