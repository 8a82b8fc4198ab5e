package yearmodel

import (
	"strconv"
	"time"
)

// A Model adds up the rows of a world, and answers from the sums and from what the lives have written down.
type Model struct {
	world *World
	used  []map[cell]*amount // by company
	names map[int]string     // of users
	last  struct {           // what the row before was added to: the next one is often of the same day
		company int
		cell    cell
		amount  *amount
	}
}

// A cell is what a user has used on a day in a tier.
type cell struct {
	user int
	day  day
	tier string
}

// An amount is net of what was taken back.
type amount struct {
	calls, points, millionths int64
}

func (a *amount) add(b *amount) {
	a.calls += b.calls
	a.points += b.points
	a.millionths += b.millionths
}

// NewModel makes a model that has seen no row.
func NewModel(w *World) *Model {
	m := &Model{world: w, names: map[int]string{}, used: make([]map[cell]*amount, len(w.Companies))}
	for i, c := range w.Companies {
		m.used[i] = map[cell]*amount{}
		for _, u := range c.users {
			m.names[u.index] = u.id
		}
	}
	return m
}

// Add takes a row in.
func (m *Model) Add(r *Row) {
	key := cell{r.user, day(r.At / millisOfDay), r.Tier}
	a := m.last.amount
	if a == nil || m.last.company != r.company || m.last.cell != key {
		if a = m.used[r.company][key]; a == nil {
			a = &amount{}
			m.used[r.company][key] = a
		}
		m.last.company, m.last.cell, m.last.amount = r.company, key, a
	}
	sign := int64(r.Sign)
	a.calls += sign
	a.points += sign * int64(r.Points)
	a.millionths += sign * r.RevenueMillionths
}

// An Analysis is one question about a company.
type Analysis struct {
	Name   string // for people
	Path   string // of GET /v1/companies/{company_id}/...
	answer func(*Model, *Company, time.Time) any
}

// Revenue asks what a company was charged in a number of months.
func Revenue(months int) Analysis {
	return Analysis{Name: "revenue", Path: "revenue?months=" + strconv.Itoa(months),
		answer: func(m *Model, c *Company, at time.Time) any { return m.revenue(c, months, at) }}
}

// Upsell asks who needs a larger tier.
func Upsell() Analysis {
	return Analysis{Name: "upsell", Path: "upsell", answer: func(m *Model, c *Company, at time.Time) any { return m.upsell(c, at) }}
}

// ChurnRisk asks who may leave.
func ChurnRisk() Analysis {
	return Analysis{Name: "churn-risk", Path: "churn-risk", answer: func(m *Model, c *Company, at time.Time) any { return m.churn(c, at) }}
}

// Analyses are all of them, with the default number of months.
func Analyses() []Analysis { return []Analysis{Revenue(12), Upsell(), ChurnRisk()} }

// Unknown reports whether the service must know nothing of a company: it was purged.
func (c *Company) Unknown() bool { return c.purged }

// decimal is a number as the service writes it, with all its decimals.
type decimal string

// MarshalJSON writes the digits as they are.
func (d decimal) MarshalJSON() ([]byte, error) { return []byte(d), nil }
