package operations

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"tenantflow/internal/health"
)

// attention lists in words what an operator should look at, the worst first.
func attention(r *Report) []string {
	var all []string
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	silent := false // Kafka; then it says enough that nothing is known of it
	for _, s := range r.Stores {
		if s.Data.State != Down && (s.Data.State == Unset || s.Problem == "") {
			continue
		}
		silent = silent || s.Data.Store == "Kafka"
		if s.answered() {
			say("%s can't be used: %s.", s.Data.Store, strings.TrimSuffix(shortened(s.Problem), "."))
		} else {
			say("%s does not answer.", s.Data.Store)
		}
	}
	var stopped, failing []string
	for _, p := range r.Parts.Data {
		switch {
		case p.Stalled != "":
			say("Part %s is stalled.", p.Part)
		case p.State == string(health.Stopped):
			stopped = append(stopped, p.Part)
		case p.State == string(health.Failing):
			failing = append(failing, p.Part)
		}
	}
	if len(stopped) > 0 {
		say("Stopped until an operator acts: %s.", strings.Join(stopped, ", "))
	}
	if len(failing) > 0 {
		say("Waiting and trying again: %s.", strings.Join(failing, ", "))
	}
	for i := range r.Lag {
		if words := behind(&r.Lag[i], r.Time, silent); words != "" {
			say("%s", words)
		}
	}
	if n := len(r.Drift.Data.Differences); n > 0 {
		say("The last verification found differences.")
	}
	if r.Business.Data.Leaks > 0 {
		say("Rights in Postgres reach across companies.")
	}
	for _, t := range r.Tasks.Data {
		if t.State == "failed" {
			say("A %s of %s has failed.", t.Kind, t.Topic)
		}
	}
	return all
}

// behind says in words that a consumer is behind, or that it is not known whether it is; empty: it is not. silent: it is said already
// that Kafka does not answer, or can't be used.
func behind(l *Panel[Lag], now time.Time, silent bool) string {
	const late = time.Minute // what is less comes and goes
	most := l.Data.atLeast()
	unknown := slices.ContainsFunc(l.Data.Partitions, func(p PartitionLag) bool { return p.Seconds == nil && p.Records > 0 })
	old := now.Sub(l.TakenAt)
	switch {
	case l.Stale && l.Problem != "" && old > late:
		if silent {
			return ""
		}
		if l.TakenAt.IsZero() {
			return fmt.Sprintf("How far consumer %s is behind is not known.", l.Data.Consumer)
		}
		return fmt.Sprintf("How far consumer %s is behind has not been known for %s.", l.Data.Consumer, age(old.Seconds()))
	case most > late.Seconds():
		return fmt.Sprintf("Consumer %s is %s behind.", l.Data.Consumer, age(most))
	case unknown:
		return fmt.Sprintf("Consumer %s has records before it, and how long they have waited is not known.", l.Data.Consumer)
	}
	return ""
}

// age is a number of seconds as a person says it.
func age(seconds float64) string {
	switch {
	case seconds < 10 && seconds != math.Floor(seconds):
		return fmt.Sprintf("%.1f s", seconds)
	case seconds < 120:
		return fmt.Sprintf("%.0f s", seconds)
	case seconds < 2*3600:
		return fmt.Sprintf("%.0f min", seconds/60)
	case seconds < 48*3600:
		return fmt.Sprintf("%.0f h", seconds/3600)
	}
	return fmt.Sprintf("%.0f days", seconds/86400)
}
