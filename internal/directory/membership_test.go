package directory_test

import (
	"errors"
	"testing"
	"time"

	"tenantflow/internal/directory"
)

func TestBelongedTo_IsAMatterOfTheTime(t *testing.T) {
	t.Parallel()
	at := func(hour int) time.Time { return time.Date(2026, 11, 23, hour, 0, 0, 0, time.UTC) }
	s := &directory.Subscription{Memberships: []directory.Membership{
		{CompanyID: "b", Since: at(11)}, // before a learned of the move
		{CompanyID: "a", Since: at(8), Until: at(12)},
	}}
	for _, c := range []struct {
		company string
		hour    int
		want    directory.Belonging
	}{
		{"a", 7, directory.BelongsToNone}, {"a", 8, directory.Belongs}, {"b", 10, directory.BelongsElsewhere},
		{"a", 11, directory.Belongs}, {"b", 11, directory.Belongs}, {"c", 11, directory.BelongsElsewhere},
		{"a", 12, directory.BelongsElsewhere}, {"b", 23, directory.Belongs},
	} {
		if got := s.BelongedTo(c.company, at(c.hour), at(c.hour)); got != c.want {
			t.Errorf("to %s at %d: %v, want %v", c.company, c.hour, got, c.want)
		}
	}
	if got := (*directory.Subscription)(nil).BelongedTo("a", at(9), at(9)); got != directory.BelongsToNone {
		t.Errorf("an unknown user: %v", got)
	}
}

func TestBelongedTo_TakesNothingOnLaterWord(t *testing.T) {
	t.Parallel()
	at := func(hour int) time.Time { return time.Date(2026, 11, 23, hour, 0, 0, 0, time.UTC) }
	// The move of ten o'clock was applied at twelve and at one.
	s := &directory.Subscription{CompanyID: "b", Memberships: []directory.Membership{
		{CompanyID: "b", Since: at(10), RecordedAt: at(13)},
		{CompanyID: "a", Since: at(8), Until: at(10), RecordedAt: at(8), EndedAt: at(12)},
	}}
	for _, c := range []struct {
		company     string
		hour, known int
		want        directory.Belonging
	}{
		{"a", 11, 11, directory.Belongs},          // the end was not known
		{"a", 11, 12, directory.BelongsToNone},    // it was, and the other company was not
		{"a", 11, 13, directory.BelongsElsewhere}, // all was
		{"a", 7, 11, directory.BelongsToNone}, {"a", 9, 23, directory.Belongs},
		{"b", 11, 11, directory.Belongs}, // what gives, gives whenever it was recorded
		{"b", 9, 7, directory.BelongsToNone}, {"b", 9, 9, directory.BelongsElsewhere},
		{"c", 11, 7, directory.BelongsToNone},     // the user was not known
		{"c", 11, 11, directory.BelongsElsewhere}, // it was a's by what was known then, and is b's by what is known now
		{"c", 11, 12, directory.BelongsToNone},    // it had left a
		{"c", 11, 13, directory.BelongsElsewhere},
	} {
		if got := s.BelongedTo(c.company, at(c.hour), at(c.known)); got != c.want {
			t.Errorf("to %s at %d as known at %d: %v, want %v", c.company, c.hour, c.known, got, c.want)
		}
	}
	for company, want := range map[string]int{"a": 0, "b": 10, "c": 0} { // 0: at no hour
		for hour := range 24 {
			if got := s.BelongsSince(company, at(hour)); got != (want > 0 && hour >= want) {
				t.Errorf("to %s since %d: %v", company, hour, got)
			}
		}
	}
}

func TestResolveMembers_KnowsThoseWhoHaveLeft(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.register(1, "free", 1, 3)
	w.register(2, "free", 4, 4)
	n, other := w.start(), w.start()
	morning := time.Now()
	users := []string{w.user(1), w.user(2), w.user(3), w.user(9)}
	belonging := func(n *node, user int, company int, at time.Time) directory.Belonging {
		t.Helper()
		out := make([]*directory.Subscription, len(users))
		if err := n.ResolveMembers(t.Context(), users, out); err != nil {
			t.Fatal(err)
		}
		return out[user-1].BelongedTo(w.company(company), at, time.Now().Add(time.Hour))
	}
	for _, n := range []*node{n, other} {
		if got := belonging(n, 1, 1, morning); got != directory.Belongs {
			t.Errorf("in the morning: %v", got)
		}
	}
	w.exec(`UPDATE user_directory SET company_id = $2 WHERE user_id = $1`, w.user(1), w.company(2))
	w.exec(`DELETE FROM user_directory WHERE user_id = $1`, w.user(2))
	for _, n := range []*node{n, other, w.start()} {
		w.eventually("the move is seen", func() bool { return belonging(n, 1, 2, time.Now()) == directory.Belongs })
		w.eventually("the removal is seen", func() bool { return belonging(n, 2, 1, time.Now()) == directory.BelongsToNone })
		for user := 1; user <= 2; user++ {
			if got := belonging(n, user, 1, morning); got != directory.Belongs {
				t.Errorf("user %d, of the morning in the evening: %v", user, got)
			}
			if got := belonging(n, user, 2, morning); got != directory.BelongsElsewhere {
				t.Errorf("user %d, another company's claim of the morning: %v", user, got)
			}
		}
		if _, err := n.User(t.Context(), w.user(2)); !errors.Is(err, directory.ErrUnknown) {
			t.Errorf("one who has left is looked up with %v", err)
		}
		queries := n.queries.Load()
		for range 100 {
			belonging(n, 3, 1, morning)
		}
		if more := n.queries.Load() - queries; more > 5 { // for the one who was never there
			t.Errorf("a hundred look-ups made %d queries", more)
		}
	}
	// A process sees the removal before it has deleted the entry.
	w.eventually("one who has left is not in Dragonfly any more", func() bool {
		there, err := w.redis.Exists(t.Context(), "subscription:{"+w.user(2)+"}").Result()
		return err == nil && there == 0
	})
	w.exec(`INSERT INTO user_directory (user_id, company_id) VALUES ($1, $2)`, w.user(2), w.company(2))
	w.eventually("the return is seen", func() bool { return n.tierOf(t.Context(), w.user(2)) == "free" })
}
