package tenant

import (
	"encoding/json"
	"slices"

	"tenantflow/events"
	"tenantflow/internal/tier"
)

// Unlisted returns the tier of a company's subscription if it has left the catalogue, and so counts as free; else it is empty.
func (r *Rules) Unlisted(s *State) string {
	if s.Subscription == nil {
		return ""
	}
	if _, listed := r.catalogue.Tier(s.Subscription.Tier); listed {
		return ""
	}
	return s.Subscription.Tier
}

// register makes a company, with its first user and a free subscription.
func (r *Rules) register(d *Decision, s *State, p *events.CompanyRegistered) (*Decision, error) {
	switch {
	case s.Company != nil:
		return d.refuse(CompanyExists, "there is a company of this id already"), nil
	case p.Currency != tier.Currency:
		return d.refuse(UnsupportedCurrency, "prices are in %s; there are none in %q", tier.Currency, p.Currency), nil
	case s.UserOf != "":
		return d.refuse(UserExists, "the user %s belongs to a company already", p.InitialUser.UserID), nil
	}
	free, _ := r.catalogue.Tier(tier.Free)
	config, err := newConfig(p.Config, s.CompanyID, p.BillingEmail, free.Name, free.Limits, free.SupportLevel)
	if err != nil {
		return d.refuse(InvalidConfig, "config: %v", err), nil
	}
	d.Create = &Company{Name: p.Name, BillingEmail: p.BillingEmail, Currency: p.Currency, Status: Active, CreatedAt: d.At}
	d.Subscription = &Subscription{Currency: tier.Currency}
	r.toFree(d.Subscription, d.At, StatusActive)
	d.Config = config
	d.Add = &User{p.InitialUser.UserID, p.InitialUser.Email}
	d.note("company.created", map[string]any{"tier": free.Name, "user": Pseudonym(s.CompanyID, p.InitialUser.UserID)})
	d.Outputs = func(w Written) []Output {
		return append([]Output{
			{Topic: events.TopicCompanyResults, Type: events.TypeCompanyCreated, Data: map[string]any{
				"company_id": s.CompanyID, "initial_user_id": p.InitialUser.UserID, "subscription_tier": free.Name,
				"database_schema": SchemaOf(s.CompanyID), "created_at": stamp(d.At), "schema_version": w.Schema,
			}},
			{Topic: events.TopicSubscriptionResults, Type: events.TypeSubscriptionCreated, Data: map[string]any{
				"company_id": s.CompanyID, "tier": free.Name, "period_start": stamp(d.Subscription.PeriodStart),
				"period_end": stamp(d.Subscription.PeriodEnd), "limits": free.Limits,
			}},
		}, s.configChanged(w)...)
	}
	return d, nil
}

// SchemaOf is the name of a company's schema in Postgres, and of its role.
func SchemaOf(company string) string { return "tenant_" + company }

// configChanged is the event of a changed configuration; none if it has not.
func (s *State) configChanged(w Written) []Output {
	if w.Config == nil {
		return nil
	}
	return []Output{{Topic: events.TopicCompanyConfig, Type: events.TypeConfigChanged, Data: map[string]any{
		"company_id": s.CompanyID, "version": w.ConfigVersion, "config": w.Config,
	}}}
}

// updateConfig applies a company's own changes of its configuration.
func (r *Rules) updateConfig(d *Decision, s *State, p *events.ConfigUpdated) (*Decision, error) {
	config, err := patchConfig(s.Config, p.Config)
	if err != nil {
		return d.refuse(InvalidConfig, "config: %v", err), nil
	}
	var read struct {
		BillingEmail string `json:"billing_email"`
	}
	if err := json.Unmarshal(config, &read); err != nil {
		return nil, err
	}
	if read.BillingEmail != s.Company.BillingEmail {
		d.BillingEmail = read.BillingEmail
	}
	d.Config = config
	names, err := object(p.Config)
	if err != nil {
		return nil, err
	}
	var changed []string
	for name := range names {
		changed = append(changed, name)
	}
	slices.Sort(changed)
	d.note("company.config_changed", map[string]any{"fields": changed})
	d.Outputs = s.configChanged
	return d, nil
}

// addUser gives a company a user, if its limits have a place for one.
func (r *Rules) addUser(d *Decision, s *State, p *events.UserAdded) *Decision {
	limits := tier.Limits{}
	if s.Subscription != nil {
		limits = s.limits(s.Subscription)
	}
	switch {
	case s.UserOf != "":
		return d.refuse(UserExists, "the user %s belongs to a company already", p.UserID)
	case s.EmailTaken:
		return d.refuse(UserExists, "another user of the company has this email")
	case limits.MaxUsers != tier.Unlimited && s.Users >= int64(limits.MaxUsers):
		return d.refuse(UserLimitReached, "the company has %d users, and its limit is %s", s.Users, limits.MaxUsers)
	}
	d.Add = &User{p.UserID, p.Email} // there is a place for all, so no other user changes
	d.note("company.user_added", map[string]any{"user": Pseudonym(s.CompanyID, p.UserID)})
	d.Outputs = func(Written) []Output {
		return []Output{{Topic: events.TopicCompanyResults, Type: events.TypeUserProvisioned, Data: map[string]any{
			"company_id": s.CompanyID, "user_id": p.UserID, "email": p.Email, "provisioned_at": stamp(d.At),
		}}}
	}
	return d
}

// removeUser takes a user away. If others are suspended, the oldest of them takes the place.
func (r *Rules) removeUser(d *Decision, s *State, p *events.UserRemoved) *Decision {
	if s.UserOf != s.CompanyID {
		return d.refuse(UnknownUser, "the company has no user %s", p.UserID)
	}
	d.Remove = p.UserID
	if sub := s.Subscription; sub != nil {
		places := s.limits(sub).MaxUsers
		d.Seat = places != tier.Unlimited && s.Users > int64(places) // else no user is suspended for want of a place
	}
	d.note("company.user_removed", map[string]any{"user": Pseudonym(s.CompanyID, p.UserID)})
	d.Outputs = func(w Written) []Output {
		reactivated := []string{}
		for _, seat := range w.Seats {
			if seat.Status == "active" {
				reactivated = append(reactivated, seat.UserID)
			}
		}
		return []Output{{Topic: events.TopicCompanyResults, Type: events.TypeUserDeprovisioned, Data: map[string]any{
			"company_id": s.CompanyID, "user_id": p.UserID, "users_reactivated": reactivated, "deprovisioned_at": stamp(d.At),
		}}}
	}
	return d
}

// upgradeSchema brings a company's tables to a version.
func (r *Rules) upgradeSchema(d *Decision, s *State, p *events.SchemaUpgradeRequested) *Decision {
	if p.TargetVersion < 0 || p.TargetVersion > s.NewestSchema {
		return d.refuse(InvalidVersion, "there is no version %d of the tables; the newest is %d", p.TargetVersion, s.NewestSchema)
	}
	target := p.TargetVersion
	if target != 0 && target < s.SchemaVersion {
		return d.refuse(InvalidVersion, "the tables have version %d, and don't go back to %d", s.SchemaVersion, target)
	}
	d.Migrate = &target
	d.note("company.schema_upgraded", map[string]any{"from": s.SchemaVersion})
	d.Outputs = func(w Written) []Output {
		return []Output{{Topic: events.TopicCompanyResults, Type: events.TypeSchemaUpgraded, Data: map[string]any{
			"company_id": s.CompanyID, "from_version": w.SchemaBefore, "to_version": w.Schema, "upgraded_at": stamp(d.At),
		}}}
	}
	return d
}
