package dragonfly

import (
	"slices"
	"strconv"
	"strings"

	"tenantflow/internal/tier"
)

// Thresholds are the percentages of a limit at which an event is due. Make one for each list and use it for many calls: what a call says
// of a limit is kept by the pointer.
type Thresholds struct {
	percents []int
	name     string // two digits in base 36 for each: no other list has it
}

// NewThresholds makes thresholds of percentages from 1 to tier.MaxThreshold. nil, which is as good: there are none.
func NewThresholds(percents []int) *Thresholds {
	if len(percents) == 0 {
		return nil
	}
	t := &Thresholds{percents: slices.Compact(slices.Sorted(slices.Values(percents)))}
	var name strings.Builder
	for _, percent := range t.percents {
		digits := strconv.FormatInt(int64(percent), 36)
		name.WriteString("00"[min(2, len(digits)):] + digits)
	}
	t.name = name.String()
	return t
}

// limitWords are what a call says of a limit and its thresholds.
type limitWords struct {
	limit any
	least any    // calls that reach the lowest threshold
	note  any    // in front of the calls that reach the next threshold, in the field marks
	list  string // '<percent>:<calls>' separated by spaces, ascending; empty: none can be reached
}

// limited is what limitWords are made of.
type limited struct {
	limit      int64
	thresholds *Thresholds
}

// words gives the words of a limit: there are a few limits and lists, and many calls.
func (s *Session) words(of limited) limitWords {
	if l, ok := s.limits[of]; ok {
		return l
	}
	const most = 1000
	if s.limits == nil || len(s.limits) >= most {
		s.limits = map[limited]limitWords{}
	}
	l := newLimitWords(of)
	s.limits[of] = l
	return l
}

// newLimitWords writes at how many calls each threshold of a limit is reached. Those beyond 2^53, where counters stop, can't be.
func newLimitWords(of limited) limitWords {
	const most = 1 << 53
	l := limitWords{limit: of.limit, note: " " + strconv.FormatInt(of.limit, 10) + "/" + of.thresholds.name + "/"}
	var list strings.Builder
	for _, percent := range of.thresholds.percents {
		calls := tier.Limit(of.limit).Threshold(percent)
		if calls > most {
			break
		}
		if l.least == nil {
			l.least = calls
		} else {
			list.WriteByte(' ')
		}
		list.WriteString(strconv.Itoa(percent) + ":" + strconv.FormatInt(calls, 10))
	}
	l.list = list.String()
	return l
}
