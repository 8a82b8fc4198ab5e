package yearmodel

import (
	"time"
)

// The tiers, as the contract's catalogue has them. The model has its own copy, because it judges the service's.
const (
	free       = "free"
	pro        = "pro"
	enterprise = "enterprise"
)

// A plan is what a tier costs and allows. 0 users or calls: there is no limit.
type plan struct {
	price    int64 // of a month, in minor units
	calls    int64 // a day and user
	users    int
	ladder   int // upgrades lead to a higher one
	goodwill int64
}

// plans are the tiers; goodwill is the points that the score of an opportunity has for them.
var plans = map[string]plan{
	free:       {price: 0, calls: 1000, users: 1, ladder: 0, goodwill: 30},
	pro:        {price: 4900, calls: 50_000, users: 25, ladder: 1, goodwill: 20},
	enterprise: {price: 49_900, ladder: 2},
}

// An Event is an event of a company.
type Event struct {
	Topic, Type, Company, ID string
	At                       time.Time
	Data                     map[string]any
}

// The topics of events.
const (
	companyEvents      = "company.events"
	subscriptionEvents = "subscription.events"
)

// A Step is one thing that happens to a company: an event, or time that has passed, so that everything due by then is done.
type Step struct {
	Event  *Event // nil: time has passed
	Passed time.Time
}

// A Company is a company and what became of it by the world's end.
type Company struct {
	ID    string
	Kind  string // what it was made for, in a word
	Steps []Step // in their order

	index      int
	registered time.Time
	closed     bool
	purged     bool
	charges    []charge
	levels     []level // of what it pays a month, by time
	held       []tierFrom
	tier       string
	limit      *int64 // of daily calls, its own; below 0: none
	users      []*user
	factor     float64        // of its usage
	silent     map[month]bool // months without use
	only       month          // 0, or the one month with use
	unused     bool           // there is no usage at all
}

// A charge is money for a period that began in a month.
type charge struct {
	month month
	tier  string
	minor int64
}

// A level is what the company pays a month from a time on.
type level struct {
	at    time.Time
	minor int64
}

// A tierFrom is the tier from a time on.
type tierFrom struct {
	at   time.Time
	tier string
}

// A user is one of a company, in the order in which they came.
type user struct {
	id      string
	index   int // over the whole world
	joined  time.Time
	left    time.Time // zero: still there
	habit   habit
	factor  float64
	planted map[day]int // calls of days that were chosen, in place of the habit's
}

// pays is what the company pays a month at the end.
func (c *Company) pays() int64 {
	if n := len(c.levels); n > 0 {
		return c.levels[n-1].minor
	}
	return 0
}

// tierAt is the tier that it had at a time.
func (c *Company) tierAt(at time.Time) string {
	tier := free
	for _, h := range c.held {
		if h.at.After(at) {
			break
		}
		tier = h.tier
	}
	return tier
}

// present are the users who are there at the end and have a place: the first ones, as far as the tier has places.
func (c *Company) present() map[int]bool {
	places, found := plans[c.tier].users, map[int]bool{}
	for _, u := range c.users {
		if !u.left.IsZero() {
			continue
		}
		if places > 0 && len(found) == places {
			break
		}
		found[u.index] = true
	}
	return found
}

// calls is the daily limit of each user; below 0: there is none.
func (c *Company) calls() int64 {
	switch {
	case c.limit != nil:
		return *c.limit
	case plans[c.tier].calls == 0:
		return -1
	}
	return plans[c.tier].calls
}
