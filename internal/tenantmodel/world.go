package tenantmodel

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"
)

// A World is the state of the stores and the published events, as far as it is judged: what must be, or what was found.
type World struct {
	Companies     map[string]Company         `json:"companies"` // by id
	Users         map[string]User            `json:"users"`     // of user_directory, by id; those who have left are not in it
	Subscriptions map[string]Subscription    `json:"subscriptions"`
	Overrides     map[string]Override        `json:"overrides"`    // of limit_overrides, by company and limit with a space between
	Configs       map[string]json.RawMessage `json:"configs"`      // company_config.config
	Transactions  map[string]Transaction     `json:"transactions"` // by transaction_id
	Payments      map[string]Payment         `json:"payments"`     // by payment_id
	Inbox         map[Identity]string        `json:"inbox"`        // the state of every event
	Results       map[string]Result          `json:"results"`      // by id, of all output topics, tombstones left out
	DeadLetters   map[string]int             `json:"dead_letters"` // by reason, of the topics of companies and subscriptions together
}

// NewWorld returns one in which nothing is.
func NewWorld() *World {
	return &World{Companies: map[string]Company{}, Users: map[string]User{}, Subscriptions: map[string]Subscription{}, Overrides: map[string]Override{}, Configs: map[string]json.RawMessage{},
		Transactions: map[string]Transaction{}, Payments: map[string]Payment{}, Inbox: map[Identity]string{}, Results: map[string]Result{}, DeadLetters: map[string]int{}}
}

// A Company is a row of companies.
type Company struct {
	Status       string `json:"status"` // active, closed or purged
	Currency     string `json:"currency"`
	BillingEmail string `json:"billing_email"`
}

// A User is a row of user_directory.
type User struct {
	CompanyID string `json:"company_id"`
	Email     string `json:"email"`
	Status    string `json:"status"` // active or suspended
}

// A Subscription is a row of subscriptions. Of a company that is closed only the tier is judged.
type Subscription struct {
	Tier              string    `json:"tier"`
	Status            string    `json:"status"`
	PeriodStart       time.Time `json:"period_start"`
	PeriodEnd         time.Time `json:"period_end"`
	Months            int       `json:"period_months"`
	PriceMinor        int64     `json:"price_minor"` // of a month
	Currency          string    `json:"currency"`
	PendingTier       string    `json:"pending_tier,omitempty"` // empty: null
	PendingAt         time.Time `json:"pending_at,omitzero"`    // zero: null
	CancelAtPeriodEnd bool      `json:"cancel_at_period_end"`
	GraceUntil        time.Time `json:"grace_until,omitzero"`       // zero: null
	RenewalUntil      time.Time `json:"renewal_until,omitzero"`     // zero: null
	NextStart         time.Time `json:"next_period_start,omitzero"` // zero: null
	NextEnd           time.Time `json:"next_period_end,omitzero"`   // zero: null
	PreviousTier      string    `json:"previous_tier,omitempty"`    // empty: null
}

// An Override is a row of limit_overrides.
type Override struct {
	Value     any       `json:"value"` // a number, or "unlimited"
	Reason    string    `json:"reason"`
	SetAt     time.Time `json:"set_at"`
	ExpiresAt time.Time `json:"expires_at,omitzero"` // zero: null
}

// A Transaction is a row of billing_transactions. Lines are the amounts of its lines, in their order.
type Transaction struct {
	CompanyID   string    `json:"company_id"`
	Type        string    `json:"transaction_type"`
	OldTier     string    `json:"old_tier"`
	NewTier     string    `json:"new_tier"`
	AmountMinor int64     `json:"amount_minor"`
	Currency    string    `json:"currency"`
	Lines       []int64   `json:"lines"`
	PeriodStart time.Time `json:"period_start"`
	PeriodEnd   time.Time `json:"period_end"`
	PaymentID   string    `json:"payment_id,omitempty"` // of payment_data; empty: none
}

// A Payment is a row of payments.
type Payment struct {
	CompanyID     string `json:"company_id"`
	Status        string `json:"status"`
	AmountMinor   int64  `json:"amount_minor"`             // judged when it is received
	Currency      string `json:"currency"`                 // likewise
	TransactionID string `json:"transaction_id,omitempty"` // empty: null
	// PeriodStart is that of the period that it belongs to; zero: null.
	PeriodStart time.Time `json:"period_start,omitzero"`
	month       string    // that it was received for. Not compared
}

// An Identity is that of an event.
type Identity struct{ Source, ID string }

// MarshalText writes the source, a space and the id.
func (i Identity) MarshalText() ([]byte, error) { return []byte(i.Source + " " + i.ID), nil }

// UnmarshalText reads what MarshalText wrote. No source has a space.
func (i *Identity) UnmarshalText(text []byte) error {
	var found bool
	if i.Source, i.ID, found = strings.Cut(string(text), " "); !found {
		return fmt.Errorf("read the identity %q: there is no space in it", text)
	}
	return nil
}

// A Result is a published event. Data need not be all of it: only members that are expected are compared.
type Result struct {
	Topic     string         `json:"topic"` // without prefix
	Type      string         `json:"type"`
	CompanyID string         `json:"company_id"` // the key
	Data      map[string]any `json:"data"`
	// Phase is that of the event which causes it. Not compared.
	Phase int `json:"phase"`
}

// Compare returns where what was found differs from w, which is what must be. Nothing: they are equal.
func (w *World) Compare(found *World) []string {
	var d differences
	compareMaps(&d, "company", w.Companies, found.Companies, nil)
	compareMaps(&d, "user", w.Users, found.Users, nil)
	compareMaps(&d, "subscription", w.Subscriptions, found.Subscriptions, func(id string, s *Subscription) {
		for _, at := range []*time.Time{&s.PeriodStart, &s.PeriodEnd, &s.PendingAt, &s.GraceUntil, &s.RenewalUntil, &s.NextStart, &s.NextEnd} {
			*at = at.UTC()
		}
		if w.Companies[id].Status == "closed" {
			*s = Subscription{Tier: s.Tier}
		}
	})
	compareMaps(&d, "override", w.Overrides, found.Overrides, func(_ string, o *Override) {
		o.Value, o.SetAt, o.ExpiresAt = string(canonicalValue(o.Value)), o.SetAt.UTC(), o.ExpiresAt.UTC()
	})
	compareMaps(&d, "configuration", w.Configs, found.Configs, func(_ string, c *json.RawMessage) { *c = canonical(*c) })
	compareMaps(&d, "transaction", w.Transactions, found.Transactions, func(_ string, t *Transaction) {
		t.PeriodStart, t.PeriodEnd = t.PeriodStart.UTC(), t.PeriodEnd.UTC()
		t.Lines = append([]int64{}, t.Lines...)
	})
	compareMaps(&d, "payment", w.Payments, found.Payments, func(_ string, p *Payment) {
		p.PeriodStart, p.month = p.PeriodStart.UTC(), ""
		if p.Status != "received" {
			p.AmountMinor, p.Currency = 0, ""
		}
	})
	compareMaps(&d, "event", w.Inbox, found.Inbox, nil)
	compareMaps(&d, "dead letters", w.DeadLetters, found.DeadLetters, nil)
	for _, id := range slices.Sorted(maps.Keys(w.Results)) {
		want := w.Results[id]
		got, ok := found.Results[id]
		if !ok {
			d.say("result %s: missing: %s %s of %s, %v", id, want.Topic, want.Type, want.CompanyID, want.Data)
			continue
		}
		if got.Topic != want.Topic || got.Type != want.Type || got.CompanyID != want.CompanyID {
			d.say("result %s: %s %s of %s, want %s %s of %s", id, got.Topic, got.Type, got.CompanyID, want.Topic, want.Type, want.CompanyID)
		}
		compareData(&d, "result "+id+" "+want.Type+" of "+want.CompanyID, got.Data, want.Data)
	}
	for _, id := range slices.Sorted(maps.Keys(found.Results)) {
		if _, ok := w.Results[id]; !ok {
			got := found.Results[id]
			d.say("result %s: unexpected: %s %s of %s, %v", id, got.Topic, got.Type, got.CompanyID, got.Data)
		}
	}
	return d
}

type differences []string

func (d *differences) say(format string, args ...any) { *d = append(*d, fmt.Sprintf(format, args...)) }

// compareMaps compares two maps in the order of their keys' texts. plain, if there is one, brings a value into the form that is
// compared.
func compareMaps[K comparable, V any](d *differences, what string, want, found map[K]V, plain func(K, *V)) {
	keys := map[string]K{}
	for _, m := range []map[K]V{want, found} {
		for k := range m {
			keys[fmt.Sprint(k)] = k
		}
	}
	for _, name := range slices.Sorted(maps.Keys(keys)) {
		w, expected := want[keys[name]]
		g, there := found[keys[name]]
		if plain != nil {
			plain(keys[name], &w)
			plain(keys[name], &g)
		}
		switch {
		case !there:
			d.say("%s %s: missing, want %s", what, name, shown(w))
		case !expected:
			d.say("%s %s: unexpected: %s", what, name, shown(g))
		case !reflect.DeepEqual(w, g):
			d.say("%s %s: %s\n\twant %s", what, name, shown(g), shown(w))
		}
	}
}

func shown(v any) string {
	if text, ok := v.(json.RawMessage); ok {
		return string(text)
	}
	return fmt.Sprintf("%+v", v)
}

// compareData compares those members of an object that are expected, at every depth.
func compareData(d *differences, where string, got, want map[string]any) {
	for _, name := range slices.Sorted(maps.Keys(want)) {
		g, there := got[name]
		place := where + ": " + name
		inner, isObject := want[name].(map[string]any)
		gotInner, gotObject := g.(map[string]any)
		switch {
		case !there:
			d.say("%s is missing, want %v", place, want[name])
		case isObject && gotObject:
			compareData(d, place, gotInner, inner)
		case !sameValue(g, want[name]):
			d.say("%s is %v, want %v", place, g, want[name])
		}
	}
}

// sameValue compares two values as their JSON, but times as moments.
func sameValue(got, want any) bool {
	g, w := canonicalValue(got), canonicalValue(want)
	if string(g) == string(w) {
		return true
	}
	var a, b time.Time
	return json.Unmarshal(g, &a) == nil && json.Unmarshal(w, &b) == nil && a.Equal(b)
}

func canonicalValue(v any) json.RawMessage {
	text, err := json.Marshal(v)
	if err != nil {
		return json.RawMessage(fmt.Sprintf("%q", fmt.Sprint(v)))
	}
	return canonical(text)
}

// canonical writes JSON with sorted names. What is no JSON stays as it is.
func canonical(text json.RawMessage) json.RawMessage {
	var v any
	if json.Unmarshal(text, &v) != nil {
		return text
	}
	sorted, err := json.Marshal(v)
	if err != nil {
		return text
	}
	return sorted
}
