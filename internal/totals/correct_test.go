package totals

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"tenantflow/internal/engine/enginetest"
)

// tampered is a fixture of which two monthly totals are wrong: one sum, one largest timestamp.
func tampered(t *testing.T) (*fixture, []Total) {
	t.Helper()
	f := newFixture(t)
	f.rows(t, 0, 100)
	f.commit(t, 100, "")
	f.exec(t, `INSERT INTO billing_monthly_store VALUES ('acme', 'it\'s \\ u1', 'pro', '2026-10', -1, 7, '-0.5', toDateTime64(0, 3, 'UTC')),
		('acme', 'it\'s \\ u2', 'pro', '2026-10', 0, 0, '0', toDateTime64('2099-01-01 00:00:00', 3, 'UTC'))`)
	wrong := f.wrong(t)
	if len(wrong) != 2 {
		t.Fatalf("%d totals are wrong, want 2", len(wrong))
	}
	return f, wrong
}

const billed = "SELECT toInt64(sum(total_api_calls)) FROM billing_monthly"

func TestCorrect_OlderClaimIsRefused(t *testing.T) {
	t.Parallel()
	f, wrong := tampered(t)
	older, err := f.c.claim(t.Context(), wrong, "test")
	if err != nil {
		t.Fatal(err)
	}
	newer, err := f.c.claim(t.Context(), wrong, "test")
	if err != nil {
		t.Fatal(err)
	}
	f.c.cfg.InsertTimeout = enginetest.Patience // the claims decide here, not the deadlines
	const newest = "SELECT toInt64(max(toYear(last_activity))) FROM billing_monthly"
	for _, send := range []struct {
		claim        *claim
		billed, year int64
	}{{older, 99, 2099}, {newer, 100, 2026}, {older, 100, 2026}, {newer, 100, 2026}} {
		if err := errors.Join(f.c.insertDifferences(t.Context(), send.claim, wrong[:1]), f.c.lowerLast(t.Context(), send.claim, wrong[1:])); err != nil {
			t.Fatal(err)
		}
		if n, year := f.number(t, billed), f.number(t, newest); n != send.billed || year != send.year {
			t.Fatalf("%d calls billed, the last in %d; want %d, %d", n, year, send.billed, send.year)
		}
	}
}

func TestCorrect_StatementAfterItsDeadlineIsRefused(t *testing.T) {
	t.Parallel()
	f, wrong := tampered(t)
	late, err := f.c.claim(t.Context(), wrong, "test")
	if err != nil {
		t.Fatal(err)
	}
	// Each is held up until its deadline has passed. No newer claim refuses them.
	for statement, send := range map[string]func(c *Checker) error{
		"INSERT INTO billing_monthly_store": func(c *Checker) error { return c.insertDifferences(t.Context(), late, wrong[:1]) },
		"ALTER TABLE billing_monthly_store": func(c *Checker) error { return c.lowerLast(t.Context(), late, wrong[1:]) },
	} {
		proxy := enginetest.Proxy(t, f.options.Addr[0])
		options := *f.options
		options.Addr = []string{proxy.Addr()}
		c := f.checker(t, &options)
		held := proxy.HoldRequest(func(request []byte) bool { return strings.Contains(string(request), statement) })
		began := f.number(t, "SELECT toUnixTimestamp64Milli(now64(3))")
		ended := make(chan error, 1)
		go func() { ended <- send(c) }()
		select {
		case <-held.Caught():
		case err := <-ended:
			t.Fatalf("%s was not sent: %v", statement, err)
		}
		enginetest.Await(t, "the deadline to pass", func() bool { return f.number(t, "SELECT toUnixTimestamp64Milli(now64(3))") > began+6000 })
		held.Release()
		if err := <-ended; err != nil {
			t.Fatal(err)
		}
	}
	if n := len(f.wrong(t)); n != 2 {
		t.Errorf("%d totals are wrong, want 2", n)
	}
	if n := f.number(t, "SELECT count() FROM system.mutations WHERE database = currentDatabase() AND NOT is_done"); n != 0 {
		t.Errorf("%d mutations are stuck", n)
	}
}

// correct corrects all totals. A statement that a busy machine holds up for longer than it has has no effect, and the next one has.
func (f *fixture) correct(t *testing.T) {
	t.Helper()
	enginetest.Await(t, "the totals to be corrected", func() bool {
		if _, err := f.c.Correct(t.Context(), f.wrong(t), &Lowering{All: true}, "test"); err != nil {
			t.Fatal(err)
		}
		return len(f.wrong(t)) == 0
	})
}

// Whatever of a correction is held up on its way, it must not land beside the next one.
func TestCorrect_HeldStatementDoesNotCount(t *testing.T) {
	t.Parallel()
	for _, statement := range []string{"INSERT INTO billing_monthly_store", "ALTER TABLE billing_monthly_store", "INSERT INTO usage_corrections"} {
		t.Run(statement, func(t *testing.T) {
			t.Parallel()
			f, wrong := tampered(t)
			proxy := enginetest.Proxy(t, f.options.Addr[0])
			options := *f.options
			options.Addr = []string{proxy.Addr()}
			slow := f.checker(t, &options)
			held := proxy.HoldRequest(func(request []byte) bool { return strings.Contains(string(request), statement) })
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() {
				_, err := slow.Correct(ctx, wrong, &Lowering{All: true}, "test")
				ended <- err
			}()
			select {
			case <-held.Caught():
			case err := <-ended:
				t.Fatal("the correction ended:", err)
			}
			cancel()
			if err := <-ended; err == nil {
				t.Fatal("a correction that was given up says that it is done")
			}
			// The second one need not wait for the first one's deadline.
			f.correct(t)
			// More comes, and then the first one's statement.
			f.rows(t, 100, 110)
			f.commit(t, 110, "")
			held.Release()
			soon, end := context.WithTimeout(t.Context(), 2*time.Second)
			defer end()
			if enginetest.Eventually(soon, func() bool { return f.number(t, billed) != 110 }) == nil {
				t.Errorf("%d calls billed of 110", f.number(t, billed))
			}
			f.right(t)
		})
	}
}

func TestCorrect_ManyProcessesCorrectOnce(t *testing.T) {
	t.Parallel()
	f, _ := tampered(t)
	f.exec(t, "TRUNCATE TABLE usage_daily_store")
	wrong := f.wrong(t)
	ended := make(chan error, 4)
	for range cap(ended) {
		c := f.checker(t, f.options)
		go func() {
			_, err := c.Correct(t.Context(), wrong, &Lowering{All: true}, "test")
			ended <- err
		}()
	}
	for range cap(ended) {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	// Each may have refused the others' all the same: the last look of the next one decides.
	f.correct(t)
	if n := f.number(t, "SELECT count() FROM (SELECT store, key FROM usage_corrections WHERE step = 'applied' GROUP BY store, key)"); n != 12 {
		t.Errorf("usage_corrections tells of %d corrected keys, want 12", n)
	}
}

func TestCorrect_LooksAgainAfterTheClaim(t *testing.T) {
	t.Parallel()
	f, wrong := tampered(t)
	// What was found is history by the time it is to be corrected.
	f.exec(t, `INSERT INTO billing_monthly_store VALUES ('acme', 'it\'s \\ u1', 'pro', '2026-10', 1, -7, '0.5', toDateTime64(0, 3, 'UTC'))`)
	done, err := f.c.Correct(t.Context(), wrong, &Lowering{All: true}, "test")
	if err != nil || done != (Corrected{Lowered: 1, Open: 1}) {
		t.Errorf("%+v, %v", done, err)
	}
	f.right(t)
}

func TestAsk_CutAnswerIsAnError(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	rows, err := f.db.Query(t.Context(), "SELECT toInt64(number), toUInt8(0) FROM numbers(3)")
	if err != nil {
		t.Fatal(err)
	}
	cut, n := &Answer{rows: rows}, int64(0)
	for cut.Next(&n) {
	}
	if err := cut.Close(); !errors.Is(err, ErrCut) {
		t.Errorf("an answer without its end row: %v", err)
	}
	for _, count := range []int{0, 3} {
		whole, err := Ask(t.Context(), f.db, "SELECT toInt64(number) AS n FROM numbers(?)", End{Row: "toInt64(0)", Order: "n DESC"}, count)
		if err != nil {
			t.Fatal(err)
		}
		got := 0
		for whole.Next(&n) {
			got++
		}
		if err := whole.Close(); err != nil || got != count {
			t.Errorf("%d rows of %d: %v", got, count, err)
		}
	}
}

func TestPinned_ALimitOfAProfileIsAnError(t *testing.T) {
	t.Parallel()
	f := newFixture(t)
	f.rows(t, 0, 10)
	options := *f.options
	options.Settings = map[string]any{"limit": 1, "max_rows_to_read": 5, "read_overflow_mode": "break", "max_rows_to_group_by": 1, "group_by_overflow_mode": "any"}
	c := f.checker(t, &options)
	if _, err := c.Compare(t.Context()); err == nil {
		t.Error("a comparison that may read 5 of 10 rows passes")
	}
}
