package operations

import (
	"fmt"
	"strings"
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
	values := make([]float64, len(l.History))
	most := 0.0
	for i, h := range l.History {
		values[i] = h.Seconds
		most = max(most, h.Seconds)
	}
	return drawn(values, 10, fmt.Sprintf("Lag of %s in seconds over the last %s: at most %s", l.Consumer, span(l.History), age(most)))
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
