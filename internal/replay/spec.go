package replay

import (
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"tenantflow/events"
	"tenantflow/internal/task"
)

// A Spec is what a replay is to do: the column spec of its task. It does not change while the task lasts.
type Spec struct {
	Source  SourceSpec `json:"source"`
	Ranges  []Range    `json:"ranges"`  // what is read, in this order
	Effects []string   `json:"effects"` // the consumers whose effects are brought back

	// The filters. Empty: all.
	Companies  []string `json:"companies,omitempty"`
	Types      []string `json:"types,omitempty"`
	Identities []string `json:"identities,omitempty"` // hexadecimal, see task.Identity

	Rate   float64  `json:"rate,omitempty"` // events a second; 0: no bound
	MaxLag Duration `json:"max_lag"`        // of the consumer group

	// AsOf is when the replay was asked for: how old an event is does not depend on how long the replay takes.
	AsOf time.Time `json:"as_of"`
}

// A Duration is written as people write it: "1s".
type Duration time.Duration

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	*d = Duration(v)
	return err
}

// Effects lists the consumers whose effects can be brought back from a topic, which is given without its prefix. None: the topic
// can't be replayed.
func Effects(topic string) []string {
	switch topic {
	case events.TopicUsage:
		return []string{"usage"}
	case events.TopicSubscription:
		return []string{"subscription"}
	case events.TopicCompany:
		return []string{"company"}
	}
	return nil
}

// CheckEffects says in words why effects can't be brought back from a topic.
func CheckEffects(topic string, effects []string) error {
	possible := Effects(topic)
	if len(possible) == 0 {
		return fmt.Errorf("%s is no topic of input events: there is nothing to replay", topic)
	}
	if len(effects) == 0 {
		return fmt.Errorf("no effect is named; from %s it can be %s", topic, possible[0])
	}
	for _, e := range effects {
		if e == "quota" {
			return fmt.Errorf("quota is never an effect of a replay: it would count events a second time. Counters are made right by a recount " +
				"from the log, which the service begins itself where it finds them lost, and `tenantflow verify --repair` where they are wrong")
		}
		if !slices.Contains(possible, e) {
			return fmt.Errorf("the effect %q can't be brought back from %s; it can be %s", e, topic, possible[0])
		}
	}
	return nil
}

// A filter is what the spec asks for.
type filter struct {
	companies, types, identities map[string]bool // nil: all
}

func (s *Spec) filter() (*filter, error) {
	f := &filter{companies: set(s.Companies), types: set(s.Types)}
	for _, text := range s.Identities {
		raw, err := hex.DecodeString(text)
		if err != nil {
			return nil, task.Fatalf("read the identities of a replay: %w", err)
		}
		if f.identities == nil {
			f.identities = make(map[string]bool, len(s.Identities))
		}
		f.identities[string(raw)] = true
	}
	return f, nil
}

func set(all []string) map[string]bool {
	if len(all) == 0 {
		return nil
	}
	m := make(map[string]bool, len(all))
	for _, one := range all {
		m[one] = true
	}
	return m
}

// all reports whether nothing is left out.
func (f *filter) all() bool { return f.companies == nil && f.types == nil && f.identities == nil }

// wants reports whether an event is asked for.
func (f *filter) wants(company, eventType, source, id string) bool {
	return (f.companies == nil || f.companies[company]) && (f.types == nil || f.types[eventType]) &&
		(f.identities == nil || f.identities[string(task.Identity(source, id))])
}

// position is the column position of the task: how far each range is read.
type position struct {
	At []int64 `json:"at"`
}
