package tier

import (
	_ "embed"
	"fmt"
	"os"
	"time"
)

// Free is the tier of a company that has no other.
const Free = "free"

// Currency is the currency of every price in a catalogue (ISO 4217).
const Currency = "USD"

//go:embed catalogue.json
var builtIn []byte

// A Tier is one entry of the catalogue.
type Tier struct {
	Name string
	// PriceMinor is the price of a month in minor units of Currency.
	PriceMinor int64
	Limits
	// Thresholds are the percentages of DailyAPICalls at which an event is published: distinct, ascending, each from 1 to MaxThreshold.
	// Unlike the limit, a subscription keeps no copy: those of the present catalogue hold. Treat them as read-only.
	Thresholds []int
	// Benefits are passed to the customer unchanged; nothing here reads them. Treat them as read-only.
	Benefits     map[string]any
	SupportLevel string
	Backup       Backup
	// StatementTimeout is how long one query of a company may take in Postgres.
	StatementTimeout time.Duration
	// P95Target is the time below which 95 % of a company's queries should stay.
	P95Target time.Duration
}

// Backup says how often a company is backed up and how many of its backups are kept.
type Backup struct {
	Every string `json:"every"` // hourly, daily or weekly
	Keep  int    `json:"keep"`
}

// A Catalogue is a set of tiers, the free one among them. It does not change.
type Catalogue struct {
	tiers []Tier // in the order of the file
}

// Default returns the catalogue that is built in.
func Default() *Catalogue {
	c, err := parse(builtIn)
	if err != nil {
		panic("the built-in catalogue of tiers: " + err.Error())
	}
	return c
}

// Load reads a catalogue from a file in the form of catalogue.json, where only benefits, daily_data_points and thresholds may be left out. An empty path
// means the built-in catalogue; a file replaces it as a whole. The error names everything that is wrong with the file.
func Load(path string) (*Catalogue, error) {
	if path == "" {
		return Default(), nil
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("read the catalogue of tiers: %w", err)
	}
	c, err := parse(text)
	if err != nil {
		return nil, fmt.Errorf("read the catalogue of tiers from %s: %w", path, err)
	}
	return c, nil
}

// Tier returns the tier with the given name. If there is none, it returns the free tier and false.
func (c *Catalogue) Tier(name string) (Tier, bool) {
	var free Tier
	for _, t := range c.tiers {
		if t.Name == name {
			return t, true
		}
		if t.Name == Free {
			free = t
		}
	}
	return free, false
}

// Names returns the names of all tiers, in the catalogue's order.
func (c *Catalogue) Names() []string {
	names := make([]string, len(c.tiers))
	for i, t := range c.tiers {
		names[i] = t.Name
	}
	return names
}
