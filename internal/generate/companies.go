package generate

import (
	"errors"
	"fmt"
	"regexp"
	"time"
)

// Companies describes a stream of company and subscription events. Shares are 0 to 1.
type Companies struct {
	// Seed picks the stream. Any value, also 0.
	Seed uint64
	// Companies is how many companies register. Default 20.
	Companies int
	// Events is about how many messages there are, resends included; at least one for each company. Default 20 for each company.
	Events int
	// Phases is how many times the caller waits, and one. Default 1.
	Phases int
	// Prefix begins every company, user and payment id: up to 30 of A-Z, a-z, 0-9, _ and -. Tests on one Postgres need different
	// ones, because the roles of companies are the server's.
	Prefix string
	// Now is when the stream ends: no event is later. Required.
	Now time.Time

	// Rejected is the share of events that a rule must refuse. Default 0.2; below 0: none.
	Rejected float64
	// Resends is the share of messages that repeat an earlier one. Default 0.05; below 0: none.
	Resends float64
	// Conflicts is the share of messages that repeat an identity with other data, which makes them dead letters. Default 0.
	Conflicts float64
	// Lapsed is the share of companies whose period ends before Now. Default 0.
	Lapsed float64
	// Soon is how long after Now something falls due for most lapsed companies, instead of before: a scheduled downgrade or
	// cancellation, an expiry, the end of the grace. It must leave the time to publish and handle everything. Default 0: for none.
	Soon time.Duration
	// Unknown is how many companies more have events and never register. Default 0.
	Unknown int
	// Held lets users ask for the erasure of their data, which is kept for later. Default: none do.
	Held bool
}

// Bounds of Companies.
const (
	maxRegistered = 1_000_000
	maxEvents     = 20_000_000
	maxPhases     = 50
)

var prefixPattern = regexp.MustCompile(`^[A-Za-z0-9_-]{0,30}$`)

// withDefaults returns the config with its zero values filled in, or all that is wrong with it.
func (c Companies) withDefaults() (Companies, error) {
	if c.Companies == 0 {
		c.Companies = 20
	}
	if c.Events == 0 {
		c.Events = 20 * c.Companies
	}
	if c.Phases == 0 {
		c.Phases = 1
	}
	if c.Rejected == 0 {
		c.Rejected = 0.2
	}
	if c.Resends == 0 {
		c.Resends = 0.05
	}
	c.Rejected, c.Resends = max(c.Rejected, 0), max(c.Resends, 0)
	c.Now = c.Now.UTC().Truncate(time.Second)

	var problems []error
	bad := func(format string, args ...any) { problems = append(problems, fmt.Errorf(format, args...)) }
	if c.Companies < 1 || c.Companies > maxRegistered {
		bad("companies %d is not between 1 and %d", c.Companies, maxRegistered)
	}
	if c.Events < max(1, c.Companies) || c.Events > maxEvents {
		bad("events %d is not between the number of companies, %d, and %d", c.Events, c.Companies, maxEvents)
	}
	if c.Phases < 1 || c.Phases > maxPhases {
		bad("phases %d is not between 1 and %d", c.Phases, maxPhases)
	}
	if !prefixPattern.MatchString(c.Prefix) {
		bad("prefix %q is not up to 30 letters, digits, '_' or '-'", c.Prefix)
	}
	if c.Unknown < 0 || c.Unknown > maxRegistered {
		bad("unknown %d is not between 0 and %d", c.Unknown, maxRegistered)
	}
	if c.Soon < 0 || c.Soon > 24*time.Hour || c.Soon != c.Soon.Truncate(time.Second) {
		bad("soon %s is not between 0 and a day, in whole seconds", c.Soon)
	}
	if c.Now.Year() < 1971 || c.Now.Year() > 9000 {
		bad("now is missing, or in no year that makes sense")
	}
	for _, share := range []struct {
		name  string
		value float64
	}{{"rejected", c.Rejected}, {"resends", c.Resends}, {"conflicts", c.Conflicts}, {"lapsed", c.Lapsed}} {
		if !(share.value >= 0 && share.value <= 1) { // catches NaN
			bad("%s %v is not between 0 and 1", share.name, share.value)
		}
	}
	if len(problems) > 0 {
		return c, fmt.Errorf("generate companies: %w", errors.Join(problems...))
	}
	return c, nil
}
