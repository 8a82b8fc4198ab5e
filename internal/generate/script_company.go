package generate

import (
	"fmt"
	"time"

	"tenantflow/events"
)

// register makes the company, sometimes after an attempt that is refused.
func (sc *scene) register() {
	r := &sc.g.random
	at := sc.start
	if sc.lapsed {
		at = sc.g.config.Now.AddDate(0, 0, -50)
	}
	if r.chance(sc.g.config.Rejected) {
		data := sc.registration()
		switch n := r.below(3); {
		case n == 0:
			data["currency"] = "EUR"
		case n == 1 || sc.phase == 0:
			data["config"] = map[string]any{"max_users": 1000}
		default:
			data["initial_user"] = map[string]any{"user_id": sc.g.firstUser(), "email": "x@" + sc.id}
		}
		sc.addAt(events.TopicCompany, events.TypeCompanyRegistered, data, at)
	}
	sc.addAt(events.TopicCompany, events.TypeCompanyRegistered, sc.registration(), at.Add(time.Second))
}

func (sc *scene) registration() map[string]any {
	r := &sc.g.random
	user := sc.newUser()
	data := map[string]any{"name": "Company " + sc.id, "billing_email": "billing@" + sc.id,
		"initial_user": map[string]any{"user_id": user, "email": user + "@" + sc.id}}
	if r.chance(0.5) {
		data["currency"] = currency
	}
	if r.chance(0.5) {
		data["config"] = map[string]any{"theme": map[string]any{"dark": r.chance(0.5), "accent": "größe"}, "retries": 3}
	}
	return data
}

// newUser is an id that comes after all earlier ones of the company.
func (s *script) newUser() string {
	s.users++
	return fmt.Sprintf("%s-u%06d", s.id, s.users)
}

// firstUser is a user of the first company who never leaves.
func (g *CompanyStream) firstUser() string {
	return g.books.Tenant(g.config.Prefix + "c00000").Users[0]
}

// companyEvent makes one event of company.events for a company that is there.
func (sc *scene) companyEvent() {
	if sc.g.random.chance(sc.g.config.Rejected) && sc.refusedCompanyEvent() {
		return
	}
	r, c := &sc.g.random, sc.state()
	max := c.MaxUsers
	add := func(kind string, data map[string]any) { sc.add(events.TopicCompany, kind, data) }
	switch n := r.below(12); {
	case sc.quiet && n < 5 && (max == 0 || len(c.Users) < max):
		user := sc.newUser()
		add(events.TypeUserAdded, map[string]any{"user_id": user, "email": user + "@" + sc.id})
	case sc.quiet && n < 7 && len(c.Users) > 1:
		// Not the first user, who stays in the first company; in the others it makes no difference.
		add(events.TypeUserRemoved, map[string]any{"user_id": c.Users[1+r.below(len(c.Users)-1)]})
	case n == 7 && len(c.Users) == 1 && sc.index > 0 && !sc.lapsed:
		add(events.TypeUserRemoved, map[string]any{"user_id": c.Users[0]})
		user := sc.newUser()
		add(events.TypeUserAdded, map[string]any{"user_id": user, "email": user + "@" + sc.id})
		sc.swapped = true
	case n == 8:
		add(events.TypeSchemaUpgradeRequested, map[string]any{})
	case n == 9 && sc.g.config.Held:
		add(events.TypeUserErasureRequested, map[string]any{"user_id": c.Users[0]})
	case n >= 10:
		add(events.TypeLimitsOverridden, sc.override(sc.quiet && !sc.lapsed))
	default:
		add(events.TypeConfigUpdated, map[string]any{"config": sc.settings()})
	}
}

// settings is a patch that a company may make.
func (sc *scene) settings() map[string]any {
	r := &sc.g.random
	changes := map[string]any{fmt.Sprintf("setting_%d", r.below(5)): pick[any](r, 1, 2.5, "text", true, nil, []any{"a", 1}, map[string]any{"x": 1})}
	if r.chance(0.3) {
		changes["theme"] = map[string]any{"dark": r.chance(0.5), fmt.Sprintf("t%d", r.below(3)): pick[any](r, nil, "v")}
	}
	if r.chance(0.2) {
		changes["billing_email"] = fmt.Sprintf("billing%d@%s", r.below(9), sc.id)
	}
	return changes
}

// override sets limits of the company's own, and takes others back. None ends before Companies.Now. What the tier decides in another topic
// is left alone: how many users there may be is said only where it does not change meanwhile, and never as many as any tier has.
func (sc *scene) override(users bool) map[string]any {
	r := &sc.g.random
	limits := map[string]any{pick(r, "daily_api_calls", "storage_mb", "retention_days"): pick[any](r, nil, 0, 5000, "unlimited", 1_000_000_000)}
	if users && r.chance(0.5) {
		limits["max_users"] = pick[any](r, nil, 2, 3, 30)
	}
	data := map[string]any{"limits": limits, "reason": fmt.Sprintf("ticket %d", r.below(1000))}
	if r.chance(0.5) {
		data["expires_at"] = stamp(sc.g.config.Now.AddDate(0, 1+r.below(12), 0))
	}
	return data
}

// refusedCompanyEvent makes one that a rule refuses; false: this one can't be made now.
func (sc *scene) refusedCompanyEvent() bool {
	r, c := &sc.g.random, sc.state()
	add := func(kind string, data map[string]any) bool { return sc.add(events.TopicCompany, kind, data) }
	max := c.MaxUsers
	switch r.below(7) {
	case 6:
		data := sc.override(false)
		data["expires_at"] = stamp(sc.start)
		return add(events.TypeLimitsOverridden, data)
	case 0:
		return add(events.TypeConfigUpdated, map[string]any{"config": map[string]any{
			pick(r, "company_id", "subscription_tier", "max_users", "features_enabled", "support_level"): pick[any](r, "enterprise", 10, nil), "fine": 1}})
	case 1:
		return add(events.TypeConfigUpdated, map[string]any{"config": map[string]any{"billing_email": nil}})
	case 2:
		return add(events.TypeCompanyRegistered, sc.registration())
	case 3:
		user := c.Users[r.below(len(c.Users))]
		if sc.phase > 0 && r.chance(0.5) {
			user = sc.g.firstUser()
		}
		return add(events.TypeUserAdded, map[string]any{"user_id": user, "email": "again@" + sc.id})
	case 4:
		user := sc.id + "-stranger"
		if sc.phase > 0 && sc.index > 0 && r.chance(0.5) {
			user = sc.g.firstUser()
		}
		return add(events.TypeUserRemoved, map[string]any{"user_id": user})
	default:
		if !sc.quiet || max == 0 || len(c.Users) < max {
			return false
		}
		user := sc.newUser()
		return add(events.TypeUserAdded, map[string]any{"user_id": user, "email": user + "@" + sc.id})
	}
}

// closing is the data of the end of a company.
func (sc *scene) closing() map[string]any {
	r := &sc.g.random
	data := map[string]any{"reason": "moved away"}
	if r.chance(0.5) {
		data["purge"] = r.chance(0.6)
	}
	return data
}
