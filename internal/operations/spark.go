package operations

import (
	"fmt"
	"strings"
	"time"
)

// A spark is a small line of values over time.
type spark struct {
	Width      int
	Line, Area string // SVG paths; empty: there is nothing to show
	Label      string // the same in words
}

const (
	sparkWidth, sparkHeight = 84, 22.0
	sparkPoints             = 84 // more than pixels are not seen
)

// drawn makes a spark of values, of which a negative one is a gap. The scale ends at the largest, but not below floor: noise
// must not look like an event.
func drawn(values []float64, floor float64, label string) spark {
	s := spark{Width: sparkWidth, Label: label}
	values = thinned(values)
	if len(values) < 2 {
		return s
	}
	top := floor
	for _, v := range values {
		top = max(top, v)
	}
	step := float64(sparkWidth) / float64(len(values)-1)
	var line, area strings.Builder
	begun := -1.0 // where the stretch at hand began
	last := 0.0
	end := func() {
		if begun >= 0 {
			fmt.Fprintf(&area, "L%.1f 23L%.1f 23Z", last, begun)
			begun = -1
		}
	}
	for i, v := range values {
		if v < 0 {
			end()
			continue
		}
		x, y := float64(i)*step, 1+sparkHeight*(1-v/top)
		if begun < 0 {
			begun = x
			fmt.Fprintf(&line, "M%.1f %.1f", x, y)
			fmt.Fprintf(&area, "M%.1f %.1f", x, y)
		} else {
			fmt.Fprintf(&line, "L%.1f %.1f", x, y)
			fmt.Fprintf(&area, "L%.1f %.1f", x, y)
		}
		last = x
	}
	end()
	s.Line, s.Area = line.String(), area.String()
	return s
}

// thinned keeps of many values the largest of each stretch, so that no peak is lost.
func thinned(values []float64) []float64 {
	if len(values) <= sparkPoints {
		return values
	}
	out := make([]float64, sparkPoints)
	for i := range out {
		from, to := i*len(values)/sparkPoints, (i+1)*len(values)/sparkPoints
		out[i] = values[from]
		for _, v := range values[from:to] {
			out[i] = max(out[i], v)
		}
	}
	return out
}

func lagSpark(l Lag) spark {
	most := 0.0
	for _, h := range l.History {
		most = max(most, h.Seconds)
	}
	return drawn(byTime(l.History), 10, fmt.Sprintf("Lag of %s in seconds over the last %s: at most %s", l.Consumer, span(l.History), age(most)))
}

// byTime places looks where they were in time: while there was no answer there are none, which is a gap. One that came a little late
// leaves none.
func byTime(looks []LagSample) []float64 {
	if len(looks) == 0 {
		return nil
	}
	const unseen = 3 // looks in a row that may be missing
	began := looks[0].At
	slot := func(at time.Time) int { return int(at.Sub(began).Round(lagEvery) / lagEvery) }
	last := slot(looks[len(looks)-1].At)
	values := make([]float64, last+1)
	for i := range values {
		values[i] = -1
	}
	for i, h := range looks {
		at := slot(h.At)
		values[at] = max(values[at], h.Seconds)
		if i > 0 {
			if before := slot(looks[i-1].At); at-before <= unseen {
				for n := before + 1; n < at; n++ {
					values[n] = looks[i-1].Seconds
				}
			}
		}
	}
	return values[max(0, len(values)-lagHistory):]
}

func latencySpark(s Store) spark {
	values := make([]float64, len(s.History))
	most, silent := 0.0, 0
	for i, v := range s.History {
		if v == nil {
			values[i] = -1
			silent++
			continue
		}
		values[i] = *v
		most = max(most, *v)
	}
	label := fmt.Sprintf("Answers of %s in the last 10 minutes: at most %s", s.Store, ms(&most))
	if silent > 0 {
		label += fmt.Sprintf(", %d without an answer", silent)
	}
	return drawn(values, 10, label)
}

// span is how long a history is.
func span(h []LagSample) string {
	if len(h) == 0 {
		return "0 s"
	}
	return age(h[len(h)-1].At.Sub(h[0].At).Seconds())
}
