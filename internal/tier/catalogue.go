package tier

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"time"
)

// Free is the tier of whoever has no other.
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
	// Benefits are told to the customer as they stand; nothing here reads them. Treat them as read-only.
	Benefits     map[string]any
	SupportLevel string
	Backup       Backup
	// StatementTimeout is how long one query of a company may take in Postgres.
	StatementTimeout time.Duration
	// P95Target is what 95 % of a company's queries should stay below.
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

// Load reads a catalogue from a file in the form of catalogue.json. An empty path means the built-in one. The file
// replaces the built-in catalogue as a whole. The error names everything that is wrong with it.
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

// entry is a tier as it stands in a file.
type entry struct {
	Name       string `json:"name"`
	PriceMinor int64  `json:"price_minor"`
	Limits
	Benefits         map[string]any `json:"benefits"`
	SupportLevel     string         `json:"support_level"`
	Backup           Backup         `json:"backup"`
	StatementTimeout string         `json:"statement_timeout"`
	P95Target        string         `json:"p95_target"`
}

func parse(text []byte) (*Catalogue, error) {
	var file struct {
		Tiers []entry `json:"tiers"`
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.DisallowUnknownFields()
	if err := decoder.Decode(&file); err != nil {
		return nil, err
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the end of the catalogue")
	}
	c := &Catalogue{}
	var problems []error
	for _, e := range file.Tiers {
		t := Tier{Name: e.Name, PriceMinor: e.PriceMinor, Limits: e.Limits, Benefits: e.Benefits, SupportLevel: e.SupportLevel, Backup: e.Backup}
		var err error
		if t.StatementTimeout, err = time.ParseDuration(e.StatementTimeout); err != nil {
			problems = append(problems, fmt.Errorf("tier %q: %w", e.Name, err))
		}
		if t.P95Target, err = time.ParseDuration(e.P95Target); err != nil {
			problems = append(problems, fmt.Errorf("tier %q: %w", e.Name, err))
		}
		c.tiers = append(c.tiers, t)
	}
	return c, errors.Join(problems...)
}
