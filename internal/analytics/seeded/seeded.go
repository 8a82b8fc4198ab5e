// Package seeded makes worlds of users and companies whose future is known, by which churn scores and forecasts are judged. It knows nothing of
// either. The worlds and their seeds were committed before the measures that they are judged by, and are not to be changed to suit them: add another
// one instead.
package seeded

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// Seeds are those that a world is judged by.
func Seeds() []uint64 {
	all := make([]uint64, 20)
	for i := range all {
		all[i] = uint64(1601 + i)
	}
	return all
}

// Months is how many whole months the usage of a world covers.
const Months = 12

// Start is the first day of all worlds.
func Start() time.Time { return time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC) }

// A User is what a user does on each day from Start.
type User struct {
	ID    string
	Kind  string // steady, weekly, random or declining
	Calls []int64
}

func random(seed, world uint64) *rand.Rand { return rand.New(rand.NewPCG(seed, world)) } // #nosec G404 -- the same in every run

// days is how many days a world has.
func days() int { return int(Start().AddDate(0, Months, 0).Sub(Start()).Hours() / 24) }

// monthOf is which month a day is in, from 0.
func monthOf(day int) int { return int(Start().AddDate(0, 0, day).Month()) - 1 }

// Decliners are 500 users: 40 % steady ones with some 20 calls a day, 20 % who come on one day of the week, 20 % who come at random on a tenth to a half
// of the days, and 20 % who decline. Of the first three kinds 1 % leave in each month, on any day of it and without a sign. Those who decline make, from
// some month on, in each month 35 to 65 % of the calls of the month before, and leave at the end of the second such month.
func Decliners(seed uint64) []User {
	r := random(seed, 1)
	users := make([]User, 500)
	for i := range users {
		u := User{ID: fmt.Sprintf("u-%03d", i), Calls: make([]int64, days())}
		leaves := days()
		for month := range Months {
			if r.Float64() < 0.01 {
				leaves = int(Start().AddDate(0, month, r.IntN(28)).Sub(Start()).Hours() / 24)
				break
			}
		}
		level, weekday, often := 10+20*r.Float64(), r.IntN(7), 0.1+0.4*r.Float64()
		begins, factor := 1+r.IntN(Months-2), 0.35+0.3*r.Float64() // the first month with fewer calls
		switch {
		case i%5 < 2:
			u.Kind = "steady"
		case i%5 == 2:
			u.Kind = "weekly"
		case i%5 == 3:
			u.Kind = "random"
		default:
			u.Kind = "declining"
			leaves = days()
			if begins+2 < Months {
				leaves = int(Start().AddDate(0, begins+2, 0).Sub(Start()).Hours() / 24)
			}
		}
		for day := range min(leaves, days()) {
			switch u.Kind {
			case "steady":
				u.Calls[day] = poisson(r, level)
			case "weekly":
				if day%7 == weekday {
					u.Calls[day] = 1 + poisson(r, 2*level)
				}
			case "random":
				if r.Float64() < often {
					u.Calls[day] = 1 + poisson(r, level/2)
				}
			default:
				u.Calls[day] = poisson(r, level*math.Pow(factor, float64(max(0, monthOf(day)-begins+1))))
			}
		}
		users[i] = u
	}
	return users
}

// Random are 500 users who all make a call on any day with the same chance of 6 %, whatever they did before. Nothing foretells what they do: in about a month
// of six a user makes none.
func Random(seed uint64) []User {
	r := random(seed, 2)
	users := make([]User, 500)
	for i := range users {
		users[i] = User{ID: fmt.Sprintf("u-%03d", i), Kind: "random", Calls: make([]int64, days())}
		for day := range users[i].Calls {
			if r.Float64() < 0.06 {
				users[i].Calls[day] = 1
			}
		}
	}
	return users
}

// Revenue is the charged revenue of 200 companies in each of 30 months, in minor units. It grows or shrinks from month to month by -1 to 4 % of what it began with,
// and each month is off that by some 2 % of it.
func Revenue(seed uint64) [][]int64 {
	r := random(seed, 3)
	companies := make([][]int64, 200)
	for i := range companies {
		base := 20_000 + 480_000*r.Float64()
		growth := base * (-0.01 + 0.05*r.Float64())
		companies[i] = make([]int64, 30)
		for month := range companies[i] {
			companies[i][month] = int64(math.Round(math.Max(0, base+growth*float64(month)+0.02*base*r.NormFloat64())))
		}
	}
	return companies
}

// poisson draws by Knuth's method, which is fast enough for means below a hundred.
func poisson(r *rand.Rand, mean float64) int64 {
	limit, n, p := math.Exp(-mean), int64(0), r.Float64()
	for p > limit {
		n++
		p *= r.Float64()
	}
	return n
}
