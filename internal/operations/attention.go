package operations

import (
	"fmt"
	"math"
	"slices"
	"strings"

	"tenantflow/internal/health"
)

// attention lists in words what an operator should look at, the worst first.
func attention(r *Report) []string {
	var all []string
	say := func(format string, args ...any) { all = append(all, fmt.Sprintf(format, args...)) }
	for _, s := range r.Stores {
		if s.Data.State == Down || s.Data.State != Unset && s.Problem != "" {
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
	for _, l := range r.Lag {
		const late = 60.0 // seconds; what is less comes and goes
		switch {
		case l.Data.Seconds != nil && *l.Data.Seconds > late:
			say("Consumer %s is %s behind.", l.Data.Consumer, age(*l.Data.Seconds))
		case l.Stale && l.TakenAt.IsZero() && l.Problem != "" && !slices.Contains(all, "Kafka does not answer."):
			say("How far consumer %s is behind is not known.", l.Data.Consumer)
		}
	}
	if n := len(r.Drift.Data.Differences); n > 0 {
		say("The last verification found differences.")
	}
	for _, t := range r.Tasks.Data {
		if t.State == "failed" {
			say("A %s of %s has failed.", t.Kind, t.Topic)
		}
	}
	return all
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
