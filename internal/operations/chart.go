package operations

import (
	"fmt"
	"math"
	"strings"
)

// The measures of a chart, in its own units. It is as wide as there is room for.
const (
	chartWidth  = 320.0
	chartTop    = 16.0 // below the label of the highest value
	chartBottom = 104.0
)

// A chart is values by month, drawn as SVG. It says the same in words.
type chart struct {
	ID, Title, Desc string
	Bars            []bar
	Lines           []line
	Target          *rule
	Ticks           []tick
	Top             string // the highest value
	Empty           string // why there is nothing to see

	top float64 // where the scale ends
}

type bar struct {
	X, Y, Width, Height string
	Class               string // of the month that is not over it is another one
}

type line struct {
	Name, Class, Path string
	Dots              []dot
}

type dot struct{ X, Y string }

type tick struct{ X, Anchor, Text string }

type rule struct{ Y, Words string }

// A series is the values of a line; nil: there is none.
type series struct {
	name   string
	values []*float64
}

// lineStyles is how many lines can be told from each other.
const lineStyles = 4

// barChart draws one value a month.
func barChart(id, title string, months []string, values []*float64, words func(float64) string) chart {
	c := newChart(id, title, months, []series{{"", values}}, words)
	slot := chartWidth / math.Max(1, float64(len(values)))
	for i, v := range values {
		if v == nil || *v <= 0 {
			continue
		}
		class := "bar"
		if i == len(values)-1 {
			class = "bar unfinished"
		}
		y := height(*v, c.top)
		c.Bars = append(c.Bars, bar{unit(float64(i)*slot + slot*0.12), unit(y), unit(slot * 0.76), unit(chartBottom - y), class})
	}
	return c
}

// lineChart draws one line for each of several series.
func lineChart(id, title string, months []string, all []series, words func(float64) string) chart {
	c := newChart(id, title, months, all, words)
	slot := chartWidth / math.Max(1, float64(len(months)))
	for n, s := range all {
		l := line{Name: s.name, Class: fmt.Sprintf("l%d", n%lineStyles)}
		var path strings.Builder
		draws := "M"
		for i, v := range s.values {
			if v == nil {
				draws = "M" // a gap
				continue
			}
			x, y := unit((float64(i)+0.5)*slot), unit(height(*v, c.top))
			fmt.Fprintf(&path, "%s%s %s", draws, x, y)
			l.Dots = append(l.Dots, dot{x, y})
			draws = "L"
		}
		l.Path = path.String()
		c.Lines = append(c.Lines, l)
	}
	return c
}

// newChart makes a chart without its values.
func newChart(id, title string, months []string, all []series, words func(float64) string) chart {
	c := chart{ID: id, Title: title}
	top := 0.0
	for _, s := range all {
		for _, v := range s.values {
			if v != nil {
				top = math.Max(top, *v)
			}
		}
	}
	if len(months) > 0 {
		slot := chartWidth / float64(len(months))
		c.Ticks = []tick{{"0", "start", months[0]}, {unit(chartWidth), "end", months[len(months)-1]}}
		if n := len(months); n >= 9 {
			c.Ticks = append(c.Ticks, tick{unit((float64(n/2) + 0.5) * slot), "middle", months[n/2]})
		}
	}
	if top <= 0 {
		c.Empty = "nothing yet"
	} else {
		c.Top = words(top)
	}
	c.Desc = described(months, all, words)
	c.top = math.Max(top, math.SmallestNonzeroFloat64)
	return c
}

// described says in words what a chart shows: the last whole month and the present one.
func described(months []string, all []series, words func(float64) string) string {
	if len(months) == 0 {
		return "There is no month yet."
	}
	var said []string
	for i := max(0, len(months)-2); i < len(months); i++ {
		when := months[i]
		if i == len(months)-1 {
			when += ", which is not over"
		}
		for _, s := range all {
			what := "not known"
			if s.values[i] != nil {
				what = words(*s.values[i])
			}
			if s.name != "" {
				what = s.name + " " + what
			}
			said = append(said, when+": "+what)
		}
	}
	if len(said) == 0 {
		return "There is nothing yet."
	}
	return fmt.Sprintf("By month from %s to %s. %s.", months[0], months[len(months)-1], strings.Join(said, "; "))
}

// withTarget draws a line at a value, if the scale reaches it.
func (c chart) withTarget(value float64, words string) chart {
	if c.top >= value {
		c.Target = &rule{unit(height(value, c.top)), words}
	}
	return c
}

// height is where a value stands on a scale that ends at top.
func height(value, top float64) float64 {
	return chartBottom - (chartBottom-chartTop)*math.Min(1, math.Max(0, value/top))
}

// unit is a coordinate.
func unit(v float64) string { return fmt.Sprintf("%.1f", v) }

// round is a number as a chart says it: with two decimals if it has any.
func round(v float64) string {
	if v == math.Trunc(v) && math.Abs(v) < 1e15 {
		return number(int64(v))
	}
	return fmt.Sprintf("%.2f", v)
}
