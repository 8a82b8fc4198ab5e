package yearmodel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"time"
)

// A habit is how a user's calls go over the year.
type habit int

const (
	steady   habit = iota
	noisy          // from day to day
	growing        // from month to month
	falling        // over the last three whole months: they are planted to be found
	stopping       // fell, and then had no call in the last whole month
	weekdays
	rare
	idle // never calls
)

// habits are how often each comes up, in 100.
var habits = []int{steady: 25, noisy: 20, growing: 12, falling: 16, stopping: 5, weekdays: 12, rare: 7, idle: 3}

// A Row is one row of usage. What it points to is used again for the next one.
type Row struct {
	Sign              int8 // -1: it takes the row of Number back
	Number            int64
	Company, User     string
	Tier              string
	At                int64 // milliseconds since the epoch
	Points            uint32
	ProcessingMicros  int64
	RevenueMillionths int64

	company, user int
}

// noise is a number from 0 to 1 that follows from the seed and two others.
func (w *World) noise(a, b int) float64 { return float64(w.hash(a, b)>>11) / (1 << 53) }

// hash mixes the seed and two numbers (the finalizer of SplitMix64).
func (w *World) hash(a, b int) uint64 {
	x := w.Seed*0x9e3779b97f4a7c15 + uint64(a)*0xbf58476d1ce4e5b9 + uint64(b)*0x94d049bb133111eb + 1 // #nosec G115 -- bits are mixed
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	return x ^ x>>31
}

// use decides how many calls each user makes on each day, so that all together are a little less than the rows that are wanted.
func (w *World) use() error {
	weights := make([][]float32, w.Users)
	sum, planted, cells := 0.0, 0, 0
	for _, c := range w.Companies {
		for _, u := range c.users {
			w.plant(c, u)
			weights[u.index] = make([]float32, w.days)
			for n := range w.days {
				if calls, chosen := u.planted[w.first+day(n)]; chosen {
					planted += calls
					continue
				}
				weight := w.weight(c, u, w.first+day(n))
				weights[u.index][n] = float32(weight)
				if weight > 0 {
					sum += weight
					cells++
				}
			}
		}
	}
	w.visit()
	// Each void is a row, too; what is rounded may come to more than its mean.
	calls := (float64(w.Rows)-2*math.Sqrt(float64(cells)))/(1+2*voidedShare) - float64(planted) - float64(20*len(w.guests))
	if calls <= 0 || sum == 0 {
		return fmt.Errorf("%d rows are fewer than the %d that are planted", w.Rows, planted)
	}
	scale := calls * 0.99 / sum
	w.calls = make([][]int32, w.Users)
	for _, c := range w.Companies {
		for _, u := range c.users {
			w.calls[u.index] = make([]int32, w.days)
			for n := range w.days {
				if calls, chosen := u.planted[w.first+day(n)]; chosen {
					w.calls[u.index][n] = int32(calls) // #nosec G115 -- tens of thousands at most
					continue
				}
				mean := float64(weights[u.index][n]) * scale
				w.calls[u.index][n] = int32(mean + w.noise(u.index, n)) // #nosec G115 -- as above
			}
		}
	}
	return nil
}

// plant gives a user days with a number of calls that was chosen.
func (w *World) plant(c *Company, u *user) {
	dice := w.noise(u.index, -1) * 100
	for h, share := range habits {
		if dice -= float64(share); dice < 0 {
			u.habit = habit(h)
			break
		}
	}
	u.factor = 0.2 + 3*math.Pow(w.noise(u.index, -2), 3)
	if u != c.users[0] {
		return
	}
	days := 1
	if w.Rows >= 2_000_000 {
		days = 28
	}
	chosen := func(days int, calls func(n int) int) {
		u.planted = map[day]int{}
		today := dayOf(w.Now)
		for n := range 31 { // so that no other day of the thirty changes the average
			u.planted[today-day(n)] = 0
		}
		for n := range days {
			u.planted[today-2-day(n)] = calls(n)
		}
	}
	switch {
	case c.Kind == kindHeavy, c.Kind == kindNoLimit:
		chosen(days, func(n int) int { return 801 + n*7%40 })
	case c.Kind == kindEdge:
		chosen(days, func(int) int { return 800 })
	case c.Kind == kindHeavyPro && w.Rows >= 2_000_000:
		chosen(2, func(n int) int { return 40_000 + n })
	}
}

// weight is how much a user calls on a day, beside others and other days.
func (w *World) weight(c *Company, u *user, d day) float64 {
	m := d.month()
	switch {
	case c.unused, c.silent[m], c.only != 0 && c.only != m, d < dayOf(u.joined), !u.left.IsZero() && d > dayOf(u.left):
		return 0
	case c.closed && !d.start().Before(c.levels[len(c.levels)-1].at):
		return 0
	}
	ago := int(monthOf(w.Now) - m)
	weight := c.factor * u.factor
	switch u.habit {
	case steady:
	case noisy:
		weight *= math.Exp(1.5*w.noise(u.index, int(d)) - 0.75)
	case growing:
		weight *= float64(usageMonths+1-ago) / 8
	case falling:
		weight *= []float64{0.15, 0.3, 0.6, 1}[min(ago, 3)]
	case stopping:
		weight *= []float64{0, 0, 0.5, 1}[min(ago, 3)]
	case weekdays:
		if day := d.start().Weekday(); day == time.Saturday || day == time.Sunday {
			return 0
		}
	case rare:
		if w.hash(u.index, int(d))%29 != 0 {
			return 0
		}
		weight *= 8
	case idle:
		return 0
	}
	if ago == 0 && d == dayOf(w.Now) {
		weight *= float64(w.Now.Sub(d.start())) / float64(24*time.Hour)
	}
	return weight
}

// visit has some users' calls recorded under another company than theirs.
func (w *World) visit() {
	for n := 9; n < len(w.Companies); n += 5 {
		other := w.Companies[n-1]
		if len(other.users) > 1 {
			w.guests = append(w.guests, guest{w.Companies[n], other.users[1]})
		}
	}
}

// voidedShare is how many of the rows are taken back, at most.
const voidedShare = 0.004

// Usage calls do for every row, in the order of its day: those that are late stand at the end. The same world gives the same rows. The
// row is used again for the next one.
func (w *World) Usage(do func(*Row) error) error {
	s := &stream{World: w, rng: rand.New(rand.NewPCG(w.Seed, math.MaxUint64)), do: do}
	for n := range w.days {
		if err := s.takeBack(); err != nil {
			return err
		}
		for _, c := range w.Companies {
			for _, u := range c.users {
				if err := s.calls(c, u, n, int(w.calls[u.index][n])); err != nil {
					return err
				}
			}
		}
		if n%30 != 20 {
			continue
		}
		for _, g := range w.guests {
			if err := s.calls(g.company, g.user, n, 1+n%3); err != nil {
				return err
			}
		}
	}
	if err := s.takeBack(); err != nil {
		return err
	}
	return s.fill()
}

// A stream is the rows under way.
type stream struct {
	*World
	rng    *rand.Rand
	do     func(*Row) error
	row    Row
	given  int
	number int64
	voided []Row // today
}

// calls gives the calls of a user on a day. Some days are taken back as a whole.
func (s *stream) calls(c *Company, u *user, n, calls int) error {
	if calls == 0 {
		return nil
	}
	whole := calls <= 60 && s.hash(u.index, n)%411 == 0
	for range calls {
		if err := s.call(c, u, s.first+day(n)); err != nil {
			return err
		}
		if whole || s.rng.Uint32()%300 == 0 && !u.chosen(s.first+day(n)) {
			s.voided = append(s.voided, s.row)
		}
	}
	return nil
}

// chosen reports whether the calls of a day were.
func (u *user) chosen(d day) bool { _, is := u.planted[d]; return is }

// call gives one call.
func (s *stream) call(c *Company, u *user, d day) error {
	begin := int64(d) * millisOfDay
	length := int64(millisOfDay)
	if end := s.Now.UnixMilli(); begin+length > end {
		length = max(1, end-begin)
	}
	s.number++
	at := begin + s.rng.Int64N(length)
	r := s.rng.Uint64()
	s.row = Row{Sign: 1, Number: s.number, Company: c.ID, User: u.id, At: at, Points: uint32(r % 5000), // #nosec G115 -- below 5000
		ProcessingMicros: int64(r >> 16 % 90_000), RevenueMillionths: int64(r >> 40 % 200_000), company: c.index, user: u.index} // #nosec G115 -- likewise
	switch r >> 32 % 64 {
	case 0:
		s.row.Points = uint32(4_000_000_000 + r%200_000_000) // #nosec G115 -- fits 32 bits
	case 1:
		s.row.Tier = "legacy" // a tier that the catalogue does not know
	case 2:
		s.row.Tier = free
	}
	if s.row.Tier == "" {
		s.row.Tier = c.tierAt(time.UnixMilli(at))
	}
	return s.give()
}

func (s *stream) give() error {
	s.given++
	return s.do(&s.row)
}

// takeBack gives the voids of the day before.
func (s *stream) takeBack() error {
	for _, s.row = range s.voided {
		s.row.Sign = -1
		if err := s.give(); err != nil {
			return err
		}
	}
	s.voided = s.voided[:0]
	return nil
}

// fill gives what is missing to the number of rows: late calls of the last company's first user, spread over the year.
func (s *stream) fill() error {
	missing := s.Rows - s.given
	if missing < 0 {
		return fmt.Errorf("the world has %d rows, more than %d", s.given, s.Rows)
	}
	c := s.Companies[len(s.Companies)-1]
	from := int(dayOf(c.users[0].joined) - s.first)
	from = max(from, 0)
	for n := range missing {
		if err := s.call(c, c.users[0], s.first+day(from+n*(s.days-from)/missing)); err != nil {
			return err
		}
	}
	return nil
}
