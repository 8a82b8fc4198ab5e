package tenantmodel

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"tenantflow/events"
)

// A judge knows what every event must do. It is asked in an order of its own: phase by phase, in a phase company by company, and of
// a company the events of company.events before those of subscription.events.
type judge struct {
	world     *World
	plans     map[string]plan
	companies map[string]*company
	userOf    map[string]string // company of every user there is
	// logged: the events of the schedule are in the log that is judged. Else the judge makes those that must come.
	logged bool
}

// A company holds the judge's state of a company.
type company struct {
	id, status string
	email      string
	config     map[string]any // what it has set itself
	last       time.Time      // of its last effect by subscription.events
	own        time.Time      // of its last effect by company.events
	overrides  map[string]override
	shut       bool         // its subscription is, at least for events of some partitions
	final      bool         // for those of all
	shutIn     map[int]bool // else: for those of these
	known      bool         // an event of it was read, from partition home
	home       int
	users      []member // in the order in which they came
	sub        subscription
}

type member struct{ id, email string }

// A subscription is a tier held for a period, and what is to come.
type subscription struct {
	plan       plan
	status     string
	start, end time.Time
	months     int
	day        int // periods begin on
	pending    string
	pendingAt  time.Time // zero: nothing is pending
	cancelling bool
	failed     bool      // a payment of the period, and not all has come since
	grace      time.Time // of a failed payment
	patience   time.Time // until which a renewal is waited for; zero: it is not
	ahead      *renewal
	ended      *subscription // by an expiry
}

// A renewal is a period that is recorded and has not started.
type renewal struct {
	start, end time.Time
	months     int
	payment    string
	lower      string // the plan it starts with, if something else is pending for its end
}

const (
	active   = "active"
	pastDue  = "past_due"
	grace    = 7 * 24 * time.Hour
	patience = 3 * 24 * time.Hour
	currency = "USD"
)

func newJudge() *judge {
	return &judge{world: NewWorld(), plans: plans(), companies: map[string]*company{}, userOf: map[string]string{}}
}

// apply does what an event must do, and says with which code it is refused; empty: it is not.
func (j *judge) apply(e *Event) (code string) {
	c := j.companies[e.Company]
	if e.Topic == events.TopicCompany && e.Type != events.TypeCompanyRegistered && e.Type != events.TypeCompanyDue && c != nil {
		j.lapse(c, later(e.Time, c.own), e)
	}
	if e.Type == events.TypeUserErasureRequested && c != nil && c.status == active {
		j.world.Inbox[identity(e)] = "held"
		return ""
	}
	switch {
	case e.Type == events.TypeSubscriptionDue:
		if c != nil && (!c.shut || text(e, "kind") == "closing") {
			j.due(c, e)
		}
		return ""
	case e.Type == events.TypeCompanyDue:
		if c != nil && c.status == active {
			j.overrideDue(c, e)
		}
		return ""
	case e.Type == events.TypeCompanyRegistered:
		code = j.register(e, c)
	case c == nil:
		code = "unknown_company"
	case e.Topic == events.TopicCompany && c.status != active && !purges(e, c), e.Topic == events.TopicSubscription && c.refuses(e):
		code = "company_closed"
	case e.Topic == events.TopicCompany:
		if code = j.company(e, c); code == "" {
			c.own = later(e.Time, c.own)
		}
	default:
		j.settle(c, later(e.Time, c.last), e)
		code = j.subscription(e, c)
	}
	j.world.Inbox[identity(e)] = "done"
	if code != "" {
		j.world.Inbox[identity(e)] = "rejected"
		j.reject(e, code)
	}
	return code
}

func (j *judge) reject(e *Event, code string) {
	topic, kind := events.TopicCompanyResults, events.TypeCompanyRejected
	if e.Topic == events.TopicSubscription {
		topic, kind = events.TopicSubscriptionResults, events.TypeSubscriptionRejected
	}
	j.result(e, topic, kind, 0, map[string]any{"request_type": e.Type, "request_id": e.ID, "code": code})
}

// result expects a result.
func (j *judge) result(e *Event, topic, kind string, n int, data map[string]any) {
	data["company_id"] = e.Company
	j.world.Results[result(e, kind, n)] = Result{Topic: topic, Type: kind, CompanyID: e.Company, Data: data, Phase: e.Phase}
}

// now is when an event of subscription.events takes effect. From then on none does earlier.
func (c *company) now(at time.Time) time.Time {
	c.last = later(at, c.last)
	return c.last
}

func later(a, b time.Time) time.Time {
	if a.Before(b) {
		return b
	}
	return a
}

func (j *judge) register(e *Event, known *company) string {
	first, _ := e.Data["initial_user"].(map[string]any)
	user, _ := first["user_id"].(string)
	email, _ := first["email"].(string)
	settings, _ := e.Data["config"].(map[string]any)
	switch {
	case known != nil:
		return "company_exists"
	case text(e, "currency") != "" && text(e, "currency") != currency:
		return "unsupported_currency"
	case j.userOf[user] != "":
		return "user_exists"
	case !patchable(settings):
		return "invalid_config"
	}
	c := &company{id: e.Company, status: active, email: text(e, "billing_email"), config: map[string]any{}, own: e.Time, overrides: map[string]override{}}
	patch(c.config, settings)
	c.users = []member{{user, email}}
	j.userOf[user] = c.id
	j.companies[c.id] = c
	c.free(j.plans["free"], e.Time, active)
	j.result(e, events.TopicCompanyResults, events.TypeCompanyCreated, 0, map[string]any{"initial_user_id": user, "subscription_tier": "free",
		"database_schema": "tenant_" + c.id, "created_at": stamp(e.Time)})
	j.result(e, events.TopicSubscriptionResults, events.TypeSubscriptionCreated, 0, map[string]any{"tier": "free",
		"period_start": stamp(c.sub.start), "period_end": stamp(c.sub.end)})
	j.configured(e)
	return ""
}

func (j *judge) configured(e *Event) {
	j.result(e, events.TopicCompanyConfig, events.TypeConfigChanged, 0, map[string]any{})
}

// company judges an event of company.events.
func (j *judge) company(e *Event, c *company) string {
	user := text(e, "user_id")
	switch e.Type {
	case events.TypeConfigUpdated:
		changes, _ := e.Data["config"].(map[string]any)
		if !patchable(changes) {
			return "invalid_config"
		}
		email, given := changes["billing_email"]
		if given {
			c.email, _ = email.(string)
		}
		patch(c.config, changes)
		delete(c.config, "billing_email")
		j.configured(e)
	case events.TypeUserAdded:
		switch {
		case j.userOf[user] != "":
			return "user_exists"
		case c.room() >= 0 && len(c.users) >= c.room():
			return "user_limit_reached"
		}
		c.users = append(c.users, member{user, text(e, "email")})
		j.userOf[user] = c.id
		j.result(e, events.TopicCompanyResults, events.TypeUserProvisioned, 0, map[string]any{"user_id": user})
	case events.TypeUserRemoved:
		if j.userOf[user] != c.id {
			return "unknown_user"
		}
		c.users = slices.DeleteFunc(c.users, func(m member) bool { return m.id == user })
		delete(j.userOf, user)
		j.result(e, events.TopicCompanyResults, events.TypeUserDeprovisioned, 0, map[string]any{"user_id": user})
	case events.TypeLimitsOverridden:
		return j.overridden(e, c)
	case events.TypeSchemaUpgradeRequested:
		j.result(e, events.TopicCompanyResults, events.TypeSchemaUpgraded, 0, map[string]any{})
	case events.TypeCompanyClosed:
		purge, _ := e.Data["purge"].(bool)
		c.status = "closed"
		if purge {
			c.status, c.overrides = "purged", nil
			for _, m := range c.users {
				delete(j.userOf, m.id)
			}
		}
		j.result(e, events.TopicCompanyResults, events.TypeCompanyArchived, 0, map[string]any{"purged": purge})
		if !j.logged && !c.shut {
			c.final = true
			j.meet(c, deadline{"closing", later(e.Time, c.own)}, e)
		}
	}
	return ""
}

// purges reports whether an event purges a company that was archived before.
func purges(e *Event, c *company) bool {
	purge, _ := e.Data["purge"].(bool)
	return e.Type == events.TypeCompanyClosed && purge && c.status == "closed"
}

// patchable reports whether a company may set what it wants to. Only what the generator makes is recognised.
func patchable(changes map[string]any) bool {
	for _, name := range []string{"company_id", "subscription_tier", "max_users", "features_enabled", "support_level"} {
		if _, there := changes[name]; there {
			return false
		}
	}
	email, there := changes["billing_email"]
	_, isText := email.(string)
	return !there || isText
}

// patch is a JSON merge patch.
func patch(target, changes map[string]any) {
	for name, value := range changes {
		inner, isObject := value.(map[string]any)
		switch {
		case value == nil:
			delete(target, name)
		case isObject:
			into, ok := target[name].(map[string]any)
			if !ok {
				into = map[string]any{}
			}
			into = maps.Clone(into)
			patch(into, inner)
			target[name] = into
		default:
			target[name] = value
		}
	}
}

// suspended are the users for whom there is no place: those who came last.
func (c *company) suspended() []string {
	room := c.room()
	if room < 0 || room >= len(c.users) {
		return nil
	}
	var ids []string
	for _, m := range c.users[room:] {
		ids = append(ids, m.id)
	}
	slices.Sort(ids)
	return ids
}

// finish writes the companies into the world.
func (j *judge) finish() {
	w := j.world
	for id, c := range j.companies {
		if c.status == "purged" {
			w.Companies[id] = Company{Status: c.status, Currency: currency}
			continue
		}
		w.Companies[id] = Company{Status: c.status, Currency: currency, BillingEmail: c.email}
		suspended := c.suspended()
		for _, m := range c.users {
			status := active
			if slices.Contains(suspended, m.id) {
				status = "suspended"
			}
			w.Users[m.id] = User{CompanyID: id, Email: m.email, Status: status}
		}
		w.Subscriptions[id] = c.sub.expected()
		for name, o := range c.overrides {
			w.Overrides[id+" "+name] = Override{Value: o.value, Reason: o.reason, SetAt: o.set, ExpiresAt: o.ends}
		}
		s := c.sub
		config := maps.Clone(c.config)
		patch(config, map[string]any{"company_id": id, "subscription_tier": s.plan.name, "max_users": c.roomJSON(), "billing_email": c.email,
			"features_enabled": s.plan.features, "support_level": s.plan.support})
		text, err := json.Marshal(config)
		if err != nil { // can't be: it was made of JSON
			text = []byte(err.Error())
		}
		w.Configs[id] = text
	}
}
