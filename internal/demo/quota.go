package demo

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tenantflow/events"
	"tenantflow/internal/model"
	"tenantflow/internal/tier"
)

// lateness is how long after its UTC day a counter is kept.
const lateness = 48 * time.Hour

// Some companies are made known, the busiest of the day; the others stay unknown on purpose: what their users do is
// counted all the same, and no threshold event is published for it.
const knownCompanies = 40

// A userDay names a counter. The day is written 2026-11-23.
type userDay struct{ user, day string }

// A counter is what a user has used on a day.
type counter struct{ calls, points int64 }

// quotas is what must be counted, and reported, according to the model.
type quotas struct {
	today    string // the UTC day on which the users were made known
	tenants  []tenant
	company  map[string]string // of each user, known or not
	counters map[userDay]counter

	near, over string // users to ask about; empty: there is none
}

// A tenant is a company that is made known to the service.
type tenant struct {
	company string
	tier    string
	limit   int64 // of calls a day and user
	percent []int // the thresholds of its tier
	own     bool  // the limit is the company's own, not its tier's
	users   []string
}

// A threshold is a quota event that must be published.
type threshold struct {
	user    string
	percent int
}

// newQuotas adds up a user's calls of each day over the tiers, and picks whom to make known. The limits are those of the
// tiers, but for the busiest company: its own one is chosen so that there is always a user beyond it and one close to it,
// however many events there are.
func newQuotas(t model.Tables, now time.Time) *quotas {
	q := &quotas{today: now.UTC().Format(time.DateOnly), company: map[string]string{}, counters: map[userDay]counter{}}
	busy := map[string]int64{}
	users := map[string][]string{}
	for key, sums := range t.Daily {
		part := strings.Split(key, "|") // company, user, tier, day
		company, at := part[0], userDay{user: part[1], day: part[3]}
		if _, there := q.company[at.user]; !there {
			q.company[at.user] = company
			users[company] = append(users[company], at.user)
		}
		c := q.counters[at]
		c.calls += sums.Rows
		c.points += sums.DataPoints
		q.counters[at] = c
		if at.day == q.today {
			busy[company] += sums.Rows
		}
	}
	companies := slices.SortedFunc(maps.Keys(users), func(a, b string) int {
		return cmp.Or(cmp.Compare(busy[b], busy[a]), strings.Compare(a, b))
	})
	catalogue := tier.Default()
	for i, company := range companies[:min(knownCompanies, len(companies))] {
		name := "free"
		if i%3 == 0 {
			name = "pro"
		}
		limits, _ := catalogue.Tier(name)
		n := tenant{company: company, tier: name, limit: int64(limits.DailyAPICalls), percent: limits.Thresholds, users: slices.Sorted(slices.Values(users[company]))}
		if i == 0 {
			n.limit, n.own = q.fit(n.users), true
		}
		q.tenants = append(q.tenants, n)
	}
	// The busiest company always has both. The last ones found have a tier's limit, if there are such.
	for _, n := range q.tenants {
		for _, user := range n.users {
			switch q.reached(user, n.limit) {
			case 80:
				q.near = user
			case 100:
				q.over = user
			}
		}
	}
	return q
}

// fit finds a limit that one of the users has reached today, and another one nearly.
func (q *quotas) fit(users []string) int64 {
	var calls []int64
	for _, user := range users {
		calls = append(calls, q.counters[userDay{user, q.today}].calls)
	}
	slices.Sort(calls)
	slices.Reverse(calls)
	for i := range len(calls) - 1 {
		if limit, next := calls[i], calls[i+1]; next < limit && next >= least(limit, 80) {
			return limit
		}
	}
	return max(1, calls[0])
}

// least is the number of calls at which a percentage of a limit is reached.
func least(limit int64, percent int64) int64 { return max(1, (limit*percent+99)/100) }

// reached is the highest threshold, in percent, that a user has reached today; 0: none.
func (q *quotas) reached(user string, limit int64) int {
	calls := q.counters[userDay{user, q.today}].calls
	switch {
	case calls >= least(limit, 100):
		return 100
	case calls >= least(limit, 80):
		return 80
	}
	return 0
}

// thresholds are the events that must be published, by their ids.
func (q *quotas) thresholds() map[string]threshold {
	due := map[string]threshold{}
	for _, n := range q.tenants {
		for _, user := range n.users {
			for _, percent := range n.percent {
				if q.counters[userDay{user, q.today}].calls >= least(n.limit, int64(percent)) {
					due[events.QuotaEventID(user, q.today, percent, n.limit)] = threshold{user, percent}
				}
			}
		}
	}
	return due
}

// watched are the users to ask about while the service works.
func (q *quotas) watched() []string {
	watched := []string{q.near, q.over, q.tenants[0].users[0]}
	return slices.DeleteFunc(watched, func(user string) bool { return user == "" })
}

// limitOf is the limit of a user who is known.
func (q *quotas) limitOf(user string) int64 {
	for _, n := range q.tenants {
		if n.company == q.company[user] {
			return n.limit
		}
	}
	return 0
}

func (q *quotas) knownUsers() (n int) {
	for _, t := range q.tenants {
		n += len(t.users)
	}
	return n
}

// kept reports whether counters of a day are kept at a time.
func kept(day string, at time.Time) bool {
	begin, err := time.Parse(time.DateOnly, day)
	return err == nil && at.Before(begin.AddDate(0, 0, 1).Add(lateness))
}

// counted is what was found of quotas when everything had been consumed.
type counted struct {
	at       time.Time // when the last of it was read
	counters map[userDay]counter
	keys     int64                // of any kind
	immortal []string             // keys that never expire
	due      []userDay            // counters with events that were not published
	events   map[string]threshold // that were published, by id
	asked    int                  // requests while the service worked
	answered int                  // of these: with an answer, not in the second of a start
	wrong    []string             // what was wrong with answers
	near     reply
	over     reply

	reserving reserving
}

// totals adds up the counters of the days that are kept.
func totals(counters map[userDay]counter, at time.Time) (n int64, sum counter) {
	for key, c := range counters {
		if kept(key.day, at) {
			n++
			sum.calls += c.calls
			sum.points += c.points
		}
	}
	return n, sum
}

// newDay reports whether midnight UTC has passed since the users were made known. Then it is right that no threshold event is
// published for events of the day before that were counted after it had ended.
func (q *quotas) newDay(at time.Time) bool { return at.UTC().Format(time.DateOnly) != q.today }

// compare lists what is not as predicted.
func (q *quotas) compare(got *counted) []model.Difference {
	var found []model.Difference
	differ := func(where, got, want string) {
		found = append(found, model.Difference{Where: where, Got: got, Want: want})
	}
	text := func(c counter, there bool) string {
		if !there {
			return "nothing"
		}
		return fmt.Sprintf("calls %d, data points %d", c.calls, c.points)
	}
	for key, want := range q.counters {
		if c, there := got.counters[key]; kept(key.day, got.at) && c != want {
			differ("quota of "+key.user+" on "+key.day, text(c, there), text(want, true))
		}
	}
	for key, c := range got.counters {
		if _, there := q.counters[key]; !there {
			differ("quota of "+key.user+" on "+key.day, text(c, true), "nothing")
		}
	}
	for _, key := range got.immortal {
		differ("expiry of "+key, "none", "some")
	}
	for _, key := range got.due {
		differ("threshold events of "+key.user+" on "+key.day, "still to be published", "published")
	}
	due := q.thresholds()
	for id, want := range due {
		if _, there := got.events[id]; !there && !q.newDay(got.at) {
			differ(fmt.Sprintf("threshold event %s, %s %d %%", id, want.user, want.percent), "nothing", "published")
		}
	}
	for id, e := range got.events {
		if want, there := due[id]; !there || want != e {
			differ(fmt.Sprintf("threshold event %s, %s %d %%", id, e.user, e.percent), "published", "nothing")
		}
	}
	for _, wrong := range got.wrong {
		differ("GET quota", wrong, "an answer in line with the prediction")
	}
	if got.asked > 0 && got.answered == 0 {
		differ("GET quota", "no answer while the service worked", "answers")
	}
	slices.SortFunc(found, func(a, b model.Difference) int { return strings.Compare(a.Where, b.Where) })
	return found
}
