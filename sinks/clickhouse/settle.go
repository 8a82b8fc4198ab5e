package clickhouse

import (
	"context"
	_ "embed"
	"fmt"
	"log/slog"
	"time"

	"tenantflow/events"
)

var (
	//go:embed queries/under_way.sql
	underWaySQL string
	//go:embed queries/stored.sql
	storedSQL string
	//go:embed queries/copies.sql
	copiesSQL string
	//go:embed queries/copies_delete.sql
	copiesDeleteSQL string
)

// Settling says how an intent is to be settled.
type Settling struct {
	// Wait says that a request of the intent may still be on its way: nothing has answered for it, or what answered
	// may have been a retry of something in between. Await then waits until the server refuses whatever comes late.
	// Without it, Await waits only until no query of the intent runs.
	Wait bool

	// Waiting, if set, receives about once a second what Await waits for.
	Waiting func(reason error)
}

// Landed is what an intent of unknown outcome has put into the table. The zero value is nothing.
type Landed struct {
	rows   *Block
	parts  []part // of rows, with the tokens they landed with
	waited bool
}

// Rows is how many rows that are.
func (l *Landed) Rows() int {
	if l.rows == nil {
		return 0
	}
	return l.rows.Len()
}

// Settled says how an intent whose outcome was unknown ended.
type Settled struct {
	Rows    int // rows of the intent that are in the table
	Doubled int // rows that stood there twice, the later ones deleted
}

// Await is the first half of settling an intent of unknown outcome: it waits until nothing of it can arrive any more, and finds
// what has landed. Where rows have, [Store.Complete] sends them once more, which is a new thing under way: the intent has
// that resend's deadline, ResendBy, when Await returns, and must be made as durable as it was before Complete is called.
func (s *Store) Await(ctx context.Context, in *Intent, how Settling) (*Landed, error) {
	// A wrong idea of the server's clock may be why the outcome is unknown. It would make the resend late, too.
	if err := s.SyncClock(ctx); err != nil {
		return nil, fmt.Errorf("settle %s: %w", in.Range(), err)
	}
	if err := s.awaitQuiet(ctx, in, how); err != nil {
		return nil, fmt.Errorf("settle %s: %w", in.Range(), err)
	}
	rows, err := s.stored(ctx, in)
	if err != nil {
		return nil, err
	}
	landed := &Landed{rows: rows, waited: how.Wait}
	if rows.Len() == 0 {
		return landed, nil
	}
	if landed.parts, err = s.partsOf(ctx, in, rows); err != nil {
		return nil, err
	}
	// Always another deadline than that of the rows, so that copies can be distinguished from the rows they copy.
	if in.ResendBy = s.Deadline(); in.ResendBy.Equal(in.InsertBy) {
		in.ResendBy = in.InsertBy.Add(time.Millisecond)
	}
	return landed, nil
}

// Complete brings an intent to a known state, with what [Store.Await] has found: when it returns without an error, each part of
// the intent is either in the table or nowhere, and nothing of it can arrive any more.
//
// The views are completed as far as ClickHouse's deduplication log allows: it may hold the token of a view's part that
// was never written. So before Complete returns, the range is queued for the check of totals ([Store.QueueRecheck]), which
// compares the totals that its rows are part of with the rows, and corrects them.
func (s *Store) Complete(ctx context.Context, in *Intent, landed *Landed) (Settled, error) {
	settled := Settled{Rows: landed.Rows()}
	if settled.Rows > 0 {
		if err := s.completeViews(ctx, in, landed); err != nil {
			return Settled{}, err
		}
		var err error
		if settled.Doubled, err = s.deleteLaterCopies(ctx, in); err != nil {
			return Settled{}, err
		}
	}
	if settled.Rows > 0 || landed.waited {
		if err := s.QueueRecheck(ctx, recheckOf(in, settled)); err != nil {
			return Settled{}, fmt.Errorf("settle %s: %w", in.Range(), err)
		}
	}
	return settled, nil
}

func recheckOf(in *Intent, settled Settled) Recheck {
	r := Recheck{Topic: in.Topic, Partition: in.Partition, From: in.From, To: in.To, NotBefore: in.Deadline(), Reason: RecheckUnknown}
	switch {
	case settled.Doubled > 0:
		r.Reason = RecheckDoubled
	case settled.Rows > 0:
		r.Reason = RecheckRowsFound
	}
	return r
}

// clockMargin is by how much the server's clock must be past a deadline before nothing can arrive any more: a clock that
// is set back by less does not reopen it.
const clockMargin = time.Second

// awaitQuiet waits until nothing of the intent can arrive any more: its deadline has passed by the server's clock,
// and no query of it runs. The second matters because the server compares the deadline with the time at which the
// query began.
func (s *Store) awaitQuiet(ctx context.Context, in *Intent, how Settling) error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	over := in.Deadline().Add(clockMargin)
	var said time.Time
	for {
		// Clocks drift: the one reading that counts is the server's, now. Ours only says when it is worth asking.
		waits := fmt.Errorf("until %s by its clock ClickHouse may still take the rows of an insert that is given up; it is %s",
			over.UTC().Format(timeFormat), s.Now().UTC().Format(timeFormat))
		if !how.Wait || s.Now().After(over) {
			passed, running, err := s.underWay(ctx, in, over)
			switch {
			case err != nil:
				return err
			case running > 0:
				waits = fmt.Errorf("%d queries of an insert that is given up still run in ClickHouse", running)
			case passed || !how.Wait:
				return nil
			}
		}
		if how.Waiting != nil && time.Since(said) >= time.Second {
			how.Waiting(fmt.Errorf("settle %s: %w", in.Range(), waits))
			said = time.Now()
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

const timeFormat = "2006-01-02T15:04:05.000Z07:00"

// underWay reads whether a time has passed by the server's clock, and how many queries of the intent run.
func (s *Store) underWay(ctx context.Context, in *Intent, over time.Time) (passed bool, running uint64, err error) {
	err = s.conn.QueryRow(wholeContext(ctx), underWaySQL, over.UnixMilli(), in.comment()).Scan(&passed, &running)
	if err != nil {
		return false, 0, fmt.Errorf("wait for its inserts to end: %w", err)
	}
	return passed, running, nil
}

// partsOf are the parts of rows of an intent that are in the table, with the tokens they landed with.
func (s *Store) partsOf(ctx context.Context, in *Intent, b *Block) ([]part, error) {
	parts := b.parts(0, b.Len())
	known := map[int]Part{}
	for _, p := range in.Parts {
		known[p.Month] = p
	}
	for i, p := range parts {
		want, ok := known[p.Month]
		if !ok {
			return nil, fmt.Errorf("settle %s: rows of month %d carry the deadline of an insert that had none there", in.Range(), p.Month)
		}
		if want.Hash != p.Hash {
			// Rows were deleted by hand or by the TTL since. The token still names the part they landed with.
			s.log.WarnContext(ctx, "rows of a pending insert are not the ones it was made of",
				slog.String("range", in.Range()), slog.Int("month", p.Month), slog.Int("rows", len(p.rows)))
		}
		parts[i].Part = want
	}
	return parts, nil
}

// completeViews sends the rows of an intent that are in the table once more, with the tokens they landed with. The rows
// of a part landed atomically, but the views are fed after it: a server killed in between has the rows and not their
// share of the sums. The same tokens again leave the rows alone and complete the views.
func (s *Store) completeViews(ctx context.Context, in *Intent, landed *Landed) error {
	err := s.send(ctx, in, in.ResendBy, landed.rows, landed.parts)
	if err != nil && Classify(err) == Poison {
		// A constraint or a view that came since refuses rows that are in the table. Sending them again can't help, and
		// the check of totals completes the views.
		s.log.WarnContext(ctx, "ClickHouse refuses rows that it holds already; their totals are left to the check of totals",
			slog.String("range", in.Range()), slog.Any("error", err))
		return nil
	}
	if err != nil {
		return fmt.Errorf("settle %s: %w", in.Range(), err)
	}
	return nil
}

// stored reads back the rows that an intent put into the table, each once and in the order of their offsets. They are
// known by their place and by the deadline they carry, which no other insert of the partition has: the place alone would
// also name rows of an earlier, settled insert of a range that was cut differently.
func (s *Store) stored(ctx context.Context, in *Intent) (*Block, error) {
	fail := func(err error) (*Block, error) { return nil, fmt.Errorf("read back rows of %s: %w", in.Range(), err) }
	rows, err := s.conn.Query(wholeContext(ctx), storedSQL, in.Topic, in.Partition, in.From, in.To, in.InsertBy.UnixMilli())
	if err != nil {
		return fail(err)
	}
	defer func() { _ = rows.Close() }() // Err below has said all there is
	b, whole := NewBlock(), false
	for rows.Next() {
		var id, source, user, company, tier, service, endpoint, period, voidsSource, voidsID string
		var sign int8
		var offset int64
		var end bool
		var u events.Usage
		if err := rows.Scan(&id, &source, &user, &company, &u.Timestamp, &tier, &service, &endpoint, &u.DataPoints,
			&u.ProcessingTime, &period, &u.Revenue, &sign, &voidsSource, &voidsID, &offset, &end); err != nil {
			return fail(err)
		}
		if end {
			whole = true
			continue
		}
		u.ID, u.Source, u.UserID, u.CompanyID = []byte(id), []byte(source), []byte(user), []byte(company)
		u.Tier, u.Service, u.Endpoint, u.BillingPeriod = []byte(tier), []byte(service), []byte(endpoint), []byte(period)
		if sign < 0 {
			u.Voids = &events.Voids{Source: []byte(voidsSource), ID: []byte(voidsID)}
		}
		b.Append(&u, u.IdentityHash(), offset)
	}
	if err := rows.Err(); err != nil {
		return fail(err)
	}
	if !whole {
		return fail(errCutOff)
	}
	return b, nil
}

// deleteLaterCopies takes out rows that a resend put beside the ones it was to complete, which happens when the
// server has lost its deduplication log. The views have counted them twice then; the check of totals corrects that.
func (s *Store) deleteLaterCopies(ctx context.Context, in *Intent) (int, error) {
	copies, doubled, err := s.laterCopies(ctx, in)
	if err != nil || doubled == 0 {
		return 0, err
	}
	s.log.ErrorContext(ctx, "ClickHouse has lost its deduplication log: rows landed twice, the later ones are deleted, and their totals will be corrected",
		slog.String("range", in.Range()), slog.Int("rows", doubled))
	if err := s.deleteCopies(ctx, in, copies); err != nil {
		return 0, err
	}
	return doubled, nil
}

// deleteCopies deletes the rows of a range that carry one of some deadlines. The deadlines name the copies and nothing
// else: no other insert of the partition carries them. So a DELETE that is held up on its way, and comes when the next
// owner has stored other offsets of the range, finds none of its rows.
func (s *Store) deleteCopies(ctx context.Context, in *Intent, deadlines []int64) error {
	err := s.conn.Exec(wholeContext(ctx), copiesDeleteSQL, in.Topic, in.Partition, in.From, in.To, deadlines)
	if err != nil {
		return fmt.Errorf("delete copies in %s: %w", in.Range(), err)
	}
	return nil
}

// laterCopies finds the deadlines of copies: rows that stand beside a row of the intent at the same place. It also counts
// the places.
func (s *Store) laterCopies(ctx context.Context, in *Intent) (deadlines []int64, places int, err error) {
	var n uint64
	err = s.conn.QueryRow(wholeContext(ctx), copiesSQL, in.Topic, in.Partition, in.From, in.To, in.InsertBy.UnixMilli()).Scan(&deadlines, &n)
	if err != nil {
		return nil, 0, fmt.Errorf("look for copies in %s: %w", in.Range(), err)
	}
	return deadlines, int(n), nil // #nosec G115 -- bounded by the rows of one batch
}
