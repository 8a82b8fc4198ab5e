package tier_test

import (
	"math/big"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tenantflow/internal/tier"
)

// zones are those whose clocks change at other days and by unusual amounts, or not at all.
func zones(t *testing.T) []*time.Location {
	t.Helper()
	all := []*time.Location{time.UTC, time.FixedZone("", -12*3600), time.FixedZone("", 5*3600+45*60)}
	for _, name := range []string{"Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Pacific/Apia"} {
		if zone, err := time.LoadLocation(name); err == nil { // a machine without these files has the fixed ones
			all = append(all, zone)
		}
	}
	return all
}

// moment draws a time: any microsecond of a century, or one close to a month's end, a leap day or a change of clocks.
func moment(zones []*time.Location) *rapid.Generator[time.Time] {
	return rapid.Custom(func(t *rapid.T) time.Time {
		day := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 0, rapid.IntRange(0, 36524).Draw(t, "day"))
		switch rapid.IntRange(0, 4).Draw(t, "kind") {
		case 0: // the last days of a month
			day = time.Date(day.Year(), day.Month()+1, 1-rapid.IntRange(1, 4).Draw(t, "before"), 0, 0, 0, 0, time.UTC)
		case 1: // around a leap day
			day = time.Date(2000+4*rapid.IntRange(0, 24).Draw(t, "leap"), 2, rapid.IntRange(27, 31).Draw(t, "around"), 0, 0, 0, 0, time.UTC)
		case 2: // when Europe and America change their clocks
			month := rapid.SampledFrom([]time.Month{time.March, time.October, time.November}).Draw(t, "month")
			day = time.Date(day.Year(), month, rapid.IntRange(1, 31).Draw(t, "of"), 0, 0, 0, 0, time.UTC)
		}
		at := day.Add(time.Duration(rapid.Int64Range(0, 24*3600*1e6-1).Draw(t, "microsecond")) * time.Microsecond)
		return at.In(rapid.SampledFrom(zones).Draw(t, "zone"))
	})
}

// halfEven rounds an exact number as its definition says: to the nearest whole one, and from the middle to the even one.
func halfEven(exact *big.Rat) *big.Int {
	two := big.NewInt(2)
	floor := new(big.Int).Div(exact.Num(), exact.Denom()) // Euclid's, and the denominator is positive
	rest := new(big.Rat).Sub(exact, new(big.Rat).SetInt(floor))
	switch rest.Cmp(big.NewRat(1, 2)) {
	case -1:
		return floor
	case 0:
		if new(big.Int).Mod(floor, two).Sign() == 0 {
			return floor
		}
	}
	return floor.Add(floor, big.NewInt(1))
}

// left is the exact part of a period that is left at a time.
func left(start, end, at time.Time) *big.Rat {
	if at.Before(start) {
		at = start
	}
	if at.After(end) {
		at = end
	}
	return big.NewRat(end.UnixMicro()-at.UnixMicro(), end.UnixMicro()-start.UnixMicro())
}

func sum(lines []tier.Line) (total int64) {
	for _, l := range lines {
		total += l.AmountMinor
	}
	return total
}

// catalogueOf is a catalogue with a free tier and paid ones, dearer and dearer.
func catalogueOf(t *testing.T, prices []string) *tier.Catalogue {
	t.Helper()
	tiers := catalogue(t, nil)
	for i, price := range prices {
		tiers += ", " + catalogue(t, map[string]string{"name": `"` + string(rune('a'+i)) + `"`, "price_minor": price})
	}
	c, err := load(t, `{"tiers": [`+tiers+`]}`)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestNoCentIsLostOrInvented(t *testing.T) {
	t.Parallel()
	zones := zones(t)
	// Odd prices, tiny ones, and the largest that a catalogue takes: their product with a period does not fit 64 bits.
	c := catalogueOf(t, []string{"1", "2", "333", "4900", "49900", "999999999989", "1000000000000"})
	names := c.Names()
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.IntRange(1, len(names)-2).Draw(t, "from")
		to := rapid.IntRange(from+1, len(names)-1).Draw(t, "to")
		low, _ := c.Tier(names[from])
		high, _ := c.Tier(names[to])
		start := moment(zones).Draw(t, "start")
		anchor := rapid.IntRange(0, 31).Draw(t, "anchor")
		months := rapid.SampledFrom([]int{1, 1, 1, 2, 12, 36}).Draw(t, "months")
		end := tier.AddMonths(start, months, anchor)
		at := start.Add(time.Duration(rapid.Int64Range(-1e12, int64(end.Sub(start)/time.Microsecond)+1e12).Draw(t, "into")) * time.Microsecond)
		if rapid.Bool().Draw(t, "a simple part") { // so that exact halves of a unit come up
			whole := end.Sub(start) / time.Microsecond
			at = start.Add((whole - whole>>rapid.IntRange(0, 4).Draw(t, "halvings")) * time.Microsecond)
		}
		at = at.In(rapid.SampledFrom(zones).Draw(t, "zone of at"))

		cur := tier.Current{Tier: low.Name, PriceMinor: low.PriceMinor, PeriodStart: start, PeriodEnd: end, Months: months, AnchorDay: anchor}
		up, err := c.Upgrade(cur, high.Name, at)
		if err != nil {
			t.Fatal(err)
		}
		part := left(start, end, at)
		exact := func(price int64) *big.Int {
			return halfEven(new(big.Rat).Mul(new(big.Rat).SetInt64(price*int64(months)), part))
		}
		a := up.Adjustment
		if big.NewInt(a.AmountMinor).Cmp(exact(high.PriceMinor-low.PriceMinor)) != 0 {
			t.Fatalf("from %d to %d with %s left: %d, want %s", low.PriceMinor, high.PriceMinor, part, a.AmountMinor, exact(high.PriceMinor-low.PriceMinor))
		}
		if len(a.Lines) != 2 || a.Lines[0].Description != "credit" || a.Lines[1].Description != "charge" || sum(a.Lines) != a.AmountMinor {
			t.Fatalf("the lines %v do not sum to %d", a.Lines, a.AmountMinor)
		}
		if credit := exact(low.PriceMinor); big.NewInt(-a.Lines[0].AmountMinor).Cmp(credit) != 0 {
			t.Fatalf("a credit of %d, want -%s", a.Lines[0].AmountMinor, credit)
		}
		if a.AmountMinor < 0 || a.AmountMinor > (high.PriceMinor-low.PriceMinor)*int64(months) || !a.PeriodStart.Equal(start) || !a.PeriodEnd.Equal(end) || a.PeriodStart.Location() != time.UTC {
			t.Fatalf("%+v", a)
		}
		// Back at once: nothing is paid back, and the lines still say what it was worth.
		cur.Tier, cur.PriceMinor = high.Name, high.PriceMinor
		down, err := c.DowngradeNow(cur, low.Name, at)
		if err != nil {
			t.Fatal(err)
		}
		if d := down.Adjustment; d.AmountMinor != 0 || sum(d.Lines) != 0 || len(d.Lines) != 2 || big.NewInt(-d.Lines[0].AmountMinor).Cmp(exact(high.PriceMinor)) != 0 {
			t.Fatalf("there %v and back %v", a, d)
		}
		// And up again: this period was charged for the tier.
		cur.Tier, cur.PriceMinor, cur.Charged = low.Name, low.PriceMinor, []string{low.Name, high.Name}
		again, err := c.Upgrade(cur, high.Name, at)
		if err != nil || again.Adjustment.AmountMinor != 0 || sum(again.Adjustment.Lines) != 0 {
			t.Fatalf("up again: %+v, %v", again.Adjustment, err)
		}
	})
}

func TestUpgradesInStepsCostWhatTheTimeOnEachTierCosts(t *testing.T) {
	t.Parallel()
	zones := zones(t)
	c := catalogueOf(t, []string{"101", "4900", "4901", "49900", "7777777"})
	names := c.Names()
	rapid.Check(t, func(t *rapid.T) {
		start := moment(zones).Draw(t, "start")
		first, err := c.Upgrade(tier.Current{Tier: "free", PeriodStart: start.AddDate(0, -1, 0), PeriodEnd: start.AddDate(0, 0, 1)}, names[1], start)
		if err != nil {
			t.Fatal(err)
		}
		cur := tier.Current{Tier: names[1], PriceMinor: first.To.PriceMinor, PeriodStart: first.Adjustment.PeriodStart, PeriodEnd: first.Adjustment.PeriodEnd, AnchorDay: first.AnchorDay}
		if !cur.PeriodStart.Equal(start) || !cur.PeriodEnd.Equal(tier.NextPeriodEnd(start, start.UTC().Day())) || first.Adjustment.AmountMinor != first.To.PriceMinor || sum(first.Adjustment.Lines) != first.To.PriceMinor {
			t.Fatalf("the first: %+v", first)
		}
		paid, steps := big.NewRat(first.Adjustment.AmountMinor, 1), 0
		// What the time on each tier is worth, exactly.
		worth, since, whole := new(big.Rat), cur.PeriodStart, big.NewRat(1, cur.PeriodEnd.UnixMicro()-cur.PeriodStart.UnixMicro())
		spend := func(until time.Time) {
			part := new(big.Rat).Mul(big.NewRat(until.UnixMicro()-since.UnixMicro(), 1), whole)
			worth.Add(worth, part.Mul(part, big.NewRat(cur.PriceMinor, 1)))
			since = until
		}
		at := cur.PeriodStart
		for i := 2; i < len(names); i++ {
			if rapid.Bool().Draw(t, "skip") {
				continue
			}
			at = at.Add(time.Duration(rapid.Int64Range(0, cur.PeriodEnd.Sub(at).Microseconds()).Draw(t, "wait")) * time.Microsecond)
			change, err := c.Upgrade(cur, names[i], at.In(rapid.SampledFrom(zones).Draw(t, "zone")))
			if err != nil {
				t.Fatal(err)
			}
			spend(at)
			paid.Add(paid, big.NewRat(change.Adjustment.AmountMinor, 1))
			steps++
			cur = tier.Current{Tier: change.To.Name, PriceMinor: change.To.PriceMinor, PeriodStart: change.Adjustment.PeriodStart, PeriodEnd: change.Adjustment.PeriodEnd, AnchorDay: change.AnchorDay}
		}
		spend(cur.PeriodEnd)
		// Every step rounds by half a unit at most.
		if off := new(big.Rat).Sub(paid, worth); off.Abs(off).Cmp(big.NewRat(int64(steps), 2)) > 0 {
			t.Fatalf("%d upgrades cost %s, worth %s", steps, paid.FloatString(3), worth.FloatString(3))
		}
	})
}

func TestPeriodsFollowEachOtherOnTheirAnchorDay(t *testing.T) {
	t.Parallel()
	zones := zones(t)
	rapid.Check(t, func(t *rapid.T) {
		start := moment(zones).Draw(t, "start")
		anchor := start.UTC().Day()
		for range 30 {
			end := tier.NextPeriodEnd(start, anchor)
			year, month, day := end.Date()
			last := time.Date(year, month, 1, 0, 0, 0, 0, time.UTC).AddDate(0, 1, -1).Day()
			months := (year-start.UTC().Year())*12 + int(month) - int(start.UTC().Month())
			if end.Location() != time.UTC || months != 1 || day != min(anchor, last) {
				t.Fatalf("a period from %s on day %d ends at %s", start.UTC(), anchor, end)
			}
			if end.UnixMicro()%(24*3600*1e6) != start.UnixMicro()%(24*3600*1e6) {
				t.Fatalf("a period from %s ends at another time of day, %s", start.UTC(), end)
			}
			if length := end.Sub(start); length < 28*24*time.Hour || length > 31*24*time.Hour {
				t.Fatalf("a period from %s to %s has %s", start.UTC(), end, length)
			}
			// The zone of what is given changes nothing, and a later start on the same day ends later.
			if other := tier.NextPeriodEnd(start.In(rapid.SampledFrom(zones).Draw(t, "zone")), anchor); !other.Equal(end) {
				t.Fatalf("in another zone it ends at %s", other)
			}
			if later := tier.NextPeriodEnd(start.Add(time.Microsecond), anchor); !later.After(end) && start.Add(time.Microsecond).UTC().Day() == start.UTC().Day() {
				t.Fatalf("a microsecond later it ends at %s", later)
			}
			start = end.In(rapid.SampledFrom(zones).Draw(t, "zone of end"))
		}
	})
}
