package consumers

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"tenantflow/internal/directory"
	"tenantflow/sinks/postgres"
)

// A touchStub refuses statements about the companies that it has an error for.
type touchStub struct {
	fails   map[string]error
	calls   int
	touched []string
}

func (s *touchStub) Touch(ctx context.Context, seen []postgres.Activity) (int64, error) {
	s.calls++
	if ctx.Err() != nil {
		return 0, ctx.Err()
	}
	for _, a := range seen {
		if err := s.fails[a.CompanyID]; err != nil {
			return 0, fmt.Errorf("note when users were active: %w", err)
		}
	}
	for _, a := range seen {
		s.touched = append(s.touched, a.UserID)
	}
	return int64(len(seen)), nil
}

func newStubbed(users int) (*touchStub, *Activity) {
	s := &touchStub{fails: map[string]error{}}
	return s, NewActivity(ActivityConfig{Store: s, Users: users})
}

// see notes a user of each company.
func (a *Activity) see(n int, companies ...string) {
	for _, company := range companies {
		user := fmt.Sprintf("%s-%d", company, n)
		sub := &directory.Subscription{UserID: user, CompanyID: company}
		a.note([]quotaGroup{{user: user, company: company, newest: time.Now().UnixMilli()}}, []*directory.Subscription{sub})
	}
}

func sent(code string) error { return &pgconn.PgError{Code: code, Message: "no"} }

func TestActivity_ACompanyThatFailsCostsOnlyItsOwn(t *testing.T) {
	t.Parallel()
	s, a := newStubbed(0)
	s.fails["c007"] = sent("40P01")
	s.fails["c500"] = context.DeadlineExceeded
	var companies []string
	for i := range 900 {
		companies = append(companies, fmt.Sprintf("c%03d", i))
	}
	a.see(1, companies...)
	a.see(2, companies...)
	for pass := 0; len(s.touched) < 1796; pass++ {
		if err := a.flush(t.Context()); err == nil || pass == 5 {
			t.Fatalf("pass %d: %d users are written; error %v", pass, len(s.touched), err)
		}
	}
	if slices.Contains(s.touched, "c007-1") || testutil.ToFloat64(a.metrics.waiting) != 4 {
		t.Errorf("%v users wait, want the 4 of the two companies", testutil.ToFloat64(a.metrics.waiting))
	}
	// From then on, both are tried alone, and the others need one statement.
	s.calls = 0
	a.see(3, "c001", "c007", "c002")
	err := a.flush(t.Context())
	if err == nil || !errors.Is(err, s.fails["c007"]) && !errors.Is(err, s.fails["c500"]) || s.calls != 3 || len(s.touched) != 1798 {
		t.Errorf("%d statements, %d users are written; error %v", s.calls, len(s.touched), err)
	}
	s.fails = nil
	if err := a.flush(t.Context()); err != nil || len(s.touched) != 1803 {
		t.Errorf("after the trouble %d users are written: %v", len(s.touched), err)
	}
	s.calls = 0
	a.see(4, "c007", "c500", "c001")
	if err := a.flush(t.Context()); err != nil || s.calls != 1 {
		t.Errorf("after the trouble the companies need %d statements: %v", s.calls, err)
	}
}

func TestActivity_TroubleOfAllEndsTheFlush(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err   error
		calls int
	}{
		{errors.New("connection refused"), 1}, {sent("57P01"), 1}, {sent("53100"), 1}, {sent("28P01"), 1}, {sent("25006"), 1},
		{sent("42883"), activityFailures},
	} {
		s, a := newStubbed(0)
		for i := range 100 {
			company := fmt.Sprint("c", i)
			s.fails[company] = c.err
			a.see(1, company)
		}
		if err := a.flush(t.Context()); !errors.Is(err, c.err) || s.calls != c.calls {
			t.Errorf("%v: %d statements, want %d; error %v", c.err, s.calls, c.calls, err)
		}
		s.fails = nil
		if err := a.flush(t.Context()); err != nil || len(s.touched) != 100 {
			t.Errorf("%v: afterwards %d users are written: %v", c.err, len(s.touched), err)
		}
	}
}

func TestActivity_ACompanyThatFailsLeavesRoom(t *testing.T) {
	t.Parallel()
	s, a := newStubbed(10)
	s.fails["bad"] = sent("55P03")
	for i := range 12 {
		a.see(i, "bad")
	}
	_ = a.flush(t.Context())
	for i := range 6 {
		a.see(i, "good", "bad")
	}
	if err := a.flush(t.Context()); err == nil || len(s.touched) != 6 {
		t.Errorf("users written: %v, want the 6 of the other company; error %v", s.touched, err)
	}
}
