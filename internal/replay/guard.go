package replay

import (
	"context"

	"tenantflow/events"
	"tenantflow/sinks/postgres"
)

// An Owner is the company of an event, and its user; empty: it is about none.
type Owner struct{ Company, User string }

// A ForgottenStore knows who is forgotten: *postgres.Store.
type ForgottenStore interface {
	LeftOut(ctx context.Context, companies []string) (*postgres.LeftOut, error)
}

// Forgotten asks who of some owners must not come back. The answer says Purged or Erased of those, and Published of the others.
func Forgotten(ctx context.Context, store ForgottenStore, owners []Owner) (func(Owner) Outcome, error) {
	var companies []string
	seen := map[string]bool{}
	for _, o := range owners {
		if !seen[o.Company] {
			seen[o.Company] = true
			companies = append(companies, o.Company)
		}
	}
	if len(companies) == 0 {
		return func(Owner) Outcome { return Published }, nil
	}
	out, err := store.LeftOut(ctx, companies)
	if err != nil {
		return nil, err
	}
	return func(o Owner) Outcome {
		switch {
		case out.Purged(o.Company):
			return Purged
		case o.User != "" && out.Erased(o.Company, o.User):
			return Erased
		}
		return Published
	}, nil
}

// Forgets reports whether an event of a type has its owner forgotten: the user, or the company where it names none.
func Forgets(eventType string) bool {
	return eventType == events.TypeUserErasureRequested || eventType == events.TypeCompanyClosed
}

// A Guard withholds messages whose company or user was forgotten since it was decided to publish them. Its Keep is that of a Publisher.
type Guard struct {
	Store ForgottenStore
	// Withheld is called for each message that is withheld.
	Withheld func(m *Message, why Outcome)

	own map[Owner]bool
}

// Begin begins a chunk. Own are those who are forgotten by an event of the chunk itself: that it has had its effect, in a try before, is no
// reason to withhold it or another one, for all of them were decided together.
func (g *Guard) Begin(own map[Owner]bool) { g.own = own }

// Keep implements PublisherConfig.Keep.
func (g *Guard) Keep(ctx context.Context, some []Message) ([]Message, error) {
	owners := make([]Owner, len(some))
	for i := range some {
		owners[i] = some[i].Owner
	}
	forgotten, err := Forgotten(ctx, g.Store, owners)
	if err != nil {
		return nil, err
	}
	kept := some[:0]
	for _, m := range some {
		if why := forgotten(m.Owner); why != Published && !g.own[m.Owner] && !g.own[Owner{Company: m.Owner.Company}] {
			g.Withheld(&m, why)
			continue
		}
		kept = append(kept, m)
	}
	return kept, nil
}
