package clickhouse

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"time"
)

//go:embed queries/copies_late.sql
var copiesLateSQL string

// A reading is one look at the server's clock.
type reading struct {
	server time.Time
	ours   time.Time // with the monotonic clock: when that was, to half of the answer's time
	took   time.Duration
}

// A reopening is what a clock that was set back leads to: requests whose deadlines had passed, and which were settled as
// never to arrive, may be taken after all until the clock has come to where it was.
type reopening struct {
	from  time.Time // by the server's clock: the earliest deadline that is open again
	until time.Time // when the last of them has passed again
	swept time.Time // ours: when copies were looked for last
}

// SyncClock reads the server's clock.
func (s *Store) SyncClock(ctx context.Context) error {
	var server int64
	before := time.Now()
	if err := s.conn.QueryRow(wholeContext(ctx), "SELECT toUnixTimestamp64Milli(now64(3))").Scan(&server); err != nil {
		return fmt.Errorf("read ClickHouse's clock: %w", err)
	}
	s.observe(ctx, before, time.UnixMilli(server))
	return nil
}

// observe takes in a reading of the server's clock, made by a query that began at a time of ours and has just ended.
func (s *Store) observe(ctx context.Context, began, server time.Time) {
	// The server read its clock somewhere between the two readings of ours.
	took := time.Since(began)
	now := reading{server: server, ours: began.Add(took / 2), took: took}
	last := s.clock.Load()
	if last == nil {
		s.clock.Store(&now)
		return
	}
	before := s.Now()
	s.clock.Store(&now)
	step := s.Now().Sub(before)
	if step.Abs() <= clockMargin+(took+last.took)/2 { // either may be off by half of its answer's time
		return
	}
	s.log.WarnContext(ctx, "ClickHouse's clock was set", slog.Duration("by", step))
	s.steps.Add(1)
	if step < 0 {
		s.reopened.Store(&reopening{from: s.Now().Add(-clockMargin), until: before.Add(maxPatience*s.timeout + clockMargin)})
	}
}

// Now is the time by the server's clock, in whole milliseconds: what it was when it was read, and the time since then by
// our monotonic clock. So a step of this host's clock changes nothing.
func (s *Store) Now() time.Time {
	at := s.clock.Load()
	return at.server.Add(time.Since(at.ours)).Truncate(time.Millisecond)
}

// Deadline is the time, by the server's clock, until which an insert that begins now is accepted.
func (s *Store) Deadline() time.Time {
	return s.Now().Add(time.Duration(s.patience.Load()) * s.timeout)
}

// sweepEvery is how often copies are looked for while deadlines are open again.
const sweepEvery = 10 * time.Second

// sweepReopened looks, after the server's clock was set back, for rows that landed at a place which has one already, and
// deletes all but the latest by deadline. It does so until every deadline that was open again has passed.
func (s *Store) sweepReopened(ctx context.Context) error {
	open := s.reopened.Load()
	if open == nil || time.Since(open.swept) < sweepEvery {
		return nil
	}
	over := s.Now().After(open.until)
	rows, err := s.conn.Query(wholeContext(ctx), copiesLateSQL, open.from.UnixMilli())
	if err != nil {
		return fmt.Errorf("look for rows that came late after the clock was set back: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err below has said all there is
	type copies struct {
		topic     string
		partition uint16
		from, to  int64
		deadlines []int64
		places    uint64
	}
	var found []copies
	for rows.Next() {
		var c copies
		if err := rows.Scan(&c.topic, &c.partition, &c.from, &c.to, &c.deadlines, &c.places); err != nil {
			return fmt.Errorf("look for rows that came late after the clock was set back: %w", err)
		}
		found = append(found, c)
	}
	if err := rows.Err(); err != nil {
		return fmt.Errorf("look for rows that came late after the clock was set back: %w", err)
	}
	for _, c := range found {
		in := &Intent{Topic: c.topic, Partition: int(c.partition), From: c.from, To: c.to}
		s.log.ErrorContext(ctx, "ClickHouse's clock was set back, and an insert that had been given up landed: its rows are deleted, and their totals will be corrected",
			slog.String("range", in.Range()), slog.Uint64("rows", c.places))
		if err := s.deleteCopies(ctx, in, c.deadlines); err != nil {
			return err
		}
		if err := s.QueueRecheck(ctx, Recheck{Topic: in.Topic, Partition: in.Partition, From: c.from, To: c.to, NotBefore: s.Now(), Reason: RecheckDoubled}); err != nil {
			return err
		}
	}
	if over {
		s.reopened.CompareAndSwap(open, nil)
		return nil
	}
	again := *open
	again.swept = time.Now()
	s.reopened.CompareAndSwap(open, &again)
	return nil
}
