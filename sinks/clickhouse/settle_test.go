package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"tenantflow/internal/engine/enginetest"
)

// settle settles an intent that nothing can be under way of, and fails on an error.
func (s *Store) settle(t *testing.T, in *Intent) (settled Settled, recommitted int) {
	t.Helper()
	landed, err := s.Await(t.Context(), in, Settling{})
	if err != nil {
		t.Fatal(err)
	}
	if landed.Rows() > 0 {
		recommitted++
		if !in.ResendBy.After(in.InsertBy) || !in.Deadline().Equal(in.ResendBy) {
			t.Errorf("the resend's deadline %s is not later than the insert's, %s", in.ResendBy, in.InsertBy)
		}
	}
	if settled, err = s.Complete(t.Context(), in, landed); err != nil {
		t.Fatal(err)
	}
	return settled, recommitted
}

// settleNothing settles an intent that has not landed.
func (s *Store) settleNothing(ctx context.Context, t *testing.T, in *Intent) error {
	t.Helper()
	landed, err := s.Await(ctx, in, Settling{Wait: true})
	if err != nil {
		return err
	}
	if landed.Rows() > 0 {
		t.Errorf("%d rows have landed", landed.Rows())
	}
	_, err = s.Complete(ctx, in, landed)
	return err
}

func TestSettleOfAnInsertThatNeverLandedChangesNothing(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	before := plains(3)
	s.insert(t, blockOf(before...))
	next := plain(3)
	settled, recommitted := s.settle(t, s.intent(blockOf(next)))
	if settled != (Settled{}) || recommitted != 0 {
		t.Errorf("%+v, recommitted %d times", settled, recommitted)
	}
	if c := s.counts(t); c != (counts{3, 3, 3, 3}) {
		t.Errorf("stored %+v", c)
	}
}

func TestSettleOfAnInsertThatLandedChangesNothing(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	rows := plains(9)
	for i := range rows {
		rows[i] = rows[i].monthsAgo(i % 3)
	}
	in := s.insert(t, blockOf(rows...))
	for range 2 { // and again, as after a crash in between
		settled, recommitted := s.settle(t, in)
		if settled != (Settled{Rows: 9}) || recommitted != 1 {
			t.Errorf("%+v, recommitted %d times", settled, recommitted)
		}
		if c := s.counts(t); c != (counts{9, 9, 9, 9}) {
			t.Errorf("stored %+v", c)
		}
		same(t, s.rows(t, 0), rows)
	}
}

func TestSettleCompletesWhatLandedAndLeavesTheOtherMonths(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	rows := plains(6)
	for i := range rows {
		rows[i] = rows[i].monthsAgo(i % 2)
	}
	b := blockOf(rows...)
	in := s.intent(b)
	parts := b.parts(0, b.Len())
	if err := s.sendPart(t.Context(), in, in.InsertBy, b, parts[1]); err != nil {
		t.Fatal(err)
	}
	settled, recommitted := s.settle(t, in)
	if settled != (Settled{Rows: 3}) || recommitted != 1 {
		t.Errorf("%+v, recommitted %d times", settled, recommitted)
	}
	same(t, s.rows(t, 0), []row{rows[1], rows[3], rows[5]})
	if c := s.counts(t); c != (counts{3, 3, 3, 3}) {
		t.Errorf("stored %+v", c)
	}
}

func TestSettleCompletesViews(t *testing.T) {
	t.Parallel()
	feeds := []string{"usage_hourly_feed", "usage_daily_feed", "billing_monthly_feed"}
	for missing := 1; missing < 1<<len(feeds); missing++ {
		t.Run(fmt.Sprintf("%03b", missing), func(t *testing.T) {
			t.Parallel()
			s := openStore(t)
			s.insert(t, blockOf(plain(100), plain(101)))
			want := counts{7, 7, 7, 7}
			without := want
			for i, n := range []*int64{&without.hourly, &without.daily, &without.monthly} {
				if missing>>i&1 == 1 {
					s.exec(t, "DETACH TABLE "+feeds[i])
					*n = 2
				}
			}
			in := s.insert(t, blockOf(plains(5)...))
			for i := range feeds {
				if missing>>i&1 == 1 {
					s.exec(t, "ATTACH TABLE "+feeds[i])
				}
			}
			if c := s.counts(t); c != without {
				t.Fatalf("before: stored %+v, want %+v", c, without)
			}
			if settled, _ := s.settle(t, in); settled != (Settled{Rows: 5}) {
				t.Errorf("%+v", settled)
			}
			if c := s.counts(t); c != want {
				t.Errorf("stored %+v, want %+v", c, want)
			}
		})
	}
}

func TestSettleCompletesExtremeAmounts(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	big := plain(0)
	big.processing, big.revenue, big.points = maxDecimal18, maxDecimal18, maxPoints
	s.exec(t, "DETACH TABLE billing_monthly_feed")
	in := s.insert(t, blockOf(big))
	s.exec(t, "ATTACH TABLE billing_monthly_feed")
	if settled, _ := s.settle(t, in); settled != (Settled{Rows: 1}) {
		t.Errorf("%+v", settled)
	}
	same(t, s.rows(t, 0), []row{big})
	for _, c := range []struct{ column, view string }{
		{"total_revenue", "usage_analytics_hourly"}, {"revenue_attributed", "usage_daily"}, {"monthly_revenue_attributed", "billing_monthly"},
	} {
		var text string
		if err := s.conn.QueryRow(t.Context(), "SELECT toString(sum("+c.column+")) FROM "+c.view).Scan(&text); err != nil || digits(t, text, 6) != maxDecimal18 {
			t.Errorf("%s of %s is %s, %v", c.column, c.view, text, err)
		}
	}
}

func TestSettleTellsItsRowsFromOthersAtTheSamePlaces(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	rows := plains(6)
	s.insert(t, blockOf(rows[:4]...)) // an insert of [0, 4) that was settled before
	all := blockOf(rows...)
	for i := range 4 {
		all.Drop(i)
	}
	in := s.intent(all)
	in.InsertBy = in.InsertBy.Add(time.Millisecond)
	if settled, recommitted := s.settle(t, in); settled != (Settled{}) || recommitted != 0 {
		t.Errorf("nothing of it landed, and yet %+v", settled)
	}
	in.ResendBy = time.Time{}
	if err := s.Insert(t.Context(), in, all, 0, 6); err != nil {
		t.Fatal(err)
	}
	if settled, _ := s.settle(t, in); settled != (Settled{Rows: 2}) {
		t.Errorf("%+v", settled)
	}
	same(t, s.rows(t, 0), rows)
	if c := s.counts(t); c != (counts{6, 6, 6, 6}) {
		t.Errorf("stored %+v", c)
	}
}

func TestSettleRefusesRowsThatTheIntentDoesNotName(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	in := s.insert(t, blockOf(plains(2)...))
	in.Parts[0].Month--
	if _, err := s.Await(t.Context(), in, Settling{}); err == nil || !in.ResendBy.IsZero() {
		t.Errorf("error %v, and the intent has the deadline %s of a resend", err, in.ResendBy)
	}
}

func TestSettleDeletesTheCopiesALostLogLetIn(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	rows := plains(8)
	for i := range rows {
		rows[i] = rows[i].monthsAgo(i % 2)
	}
	s.insert(t, blockOf(plain(100)))
	in := s.insert(t, blockOf(rows...))
	first := s.number(t, "(SELECT max(toUnixTimestamp64Milli(_insert_by)) FROM usage_tracking WHERE _offset < 100)")
	for _, window := range []int{0, 10_000} {
		s.exec(t, fmt.Sprintf("ALTER TABLE usage_tracking MODIFY SETTING non_replicated_deduplication_window = %d", window))
	}
	if settled, _ := s.settle(t, in); settled != (Settled{Rows: 8, Doubled: 8}) {
		t.Errorf("%+v", settled)
	}
	if n := s.number(t, "(SELECT max(toUnixTimestamp64Milli(_insert_by)) FROM usage_tracking WHERE _offset < 100)"); n != first {
		t.Errorf("the first copies are gone, not the later ones: inserted by %d, not %d", n, first)
	}
	// The logs of the views are there.
	if c := s.counts(t); c != (counts{9, 9, 9, 9}) {
		t.Errorf("stored %+v", c)
	}
	// The log knows the token again.
	if settled, _ := s.settle(t, in); settled != (Settled{Rows: 8}) {
		t.Errorf("again: %+v", settled)
	}
}

func TestSettleSendsNothingBeforeItsDeadlineIsCommitted(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	s.exec(t, "DETACH TABLE usage_daily_feed")
	in := s.insert(t, blockOf(plains(5)...))
	s.exec(t, "ATTACH TABLE usage_daily_feed")
	if landed, err := s.Await(t.Context(), in, Settling{}); err != nil || landed.Rows() != 5 || in.ResendBy.IsZero() {
		t.Errorf("%d rows have landed, the resend's deadline is %s, error %v", landed.Rows(), in.ResendBy, err)
	}
	if c := s.counts(t); c != (counts{rows: 5, hourly: 5, monthly: 5}) {
		t.Errorf("stored %+v", c)
	}
}

func TestSettleWaitsUntilTheServerTakesNothingMore(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	t.Run("until the deadline has passed", func(t *testing.T) {
		t.Parallel()
		b := blockOf(plain(1))
		for name, set := range map[string]func(*Intent, time.Time){
			"of the insert": func(in *Intent, by time.Time) { in.InsertBy = by },
			"of a resend":   func(in *Intent, by time.Time) { in.InsertBy, in.ResendBy = by.Add(-time.Minute), by },
		} {
			in := s.intent(b)
			set(in, s.Now().Add(500*time.Millisecond))
			if err := s.settleNothing(t.Context(), t, in); err != nil {
				t.Fatal(err)
			}
			if n := s.number(t, "(SELECT toUnixTimestamp64Milli(now64(3)))"); n <= in.Deadline().UnixMilli() {
				t.Errorf("%s: settled at %d, before %d", name, n, in.Deadline().UnixMilli())
			}
		}
	})
	t.Run("until none of its queries runs", func(t *testing.T) {
		t.Parallel()
		b := blockOf(plain(200))
		in := s.intent(b)
		in.InsertBy = s.Now().Add(-time.Second)
		working, end := context.WithCancel(t.Context())
		defer end()
		ended := make(chan error, 1)
		go func() {
			ctx := chgo.Context(working, chgo.WithSettings(chgo.Settings{"log_comment": in.token(in.Parts[0])}))
			ended <- s.conn.Exec(ctx, "SELECT sleepEachRow(0.05) FROM numbers(100000) SETTINGS max_block_size = 1") // until it is ended
		}()
		running := func() int64 {
			return s.number(t, "(SELECT count() FROM system.processes WHERE Settings['log_comment'] = ?)", in.token(in.Parts[0]))
		}
		enginetest.Await(t, "the query to be seen", func() bool { return running() > 0 })
		settled := make(chan error, 1)
		go func() { settled <- s.settleNothing(t.Context(), t, in) }()
		select {
		case err := <-settled:
			t.Fatalf("settled while its query runs: %v", err)
		case <-time.After(time.Second):
		}
		end() // the server ends a query whose client leaves
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("the query ended with %v", err)
		}
		select {
		case err := <-settled:
			if n := running(); err != nil || n != 0 {
				t.Errorf("settled while %d of its queries ran: %v", n, err)
			}
		case <-time.After(enginetest.Patience):
			t.Fatal("not settled although its query has ended")
		}
	})
	t.Run("or its caller gives up", func(t *testing.T) {
		t.Parallel()
		in := s.intent(blockOf(plain(300)))
		in.InsertBy = s.Now().Add(time.Hour)
		ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
		defer cancel()
		if err := s.settleNothing(ctx, t, in); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v", err)
		}
	})
}
