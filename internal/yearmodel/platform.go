package yearmodel

import (
	"math/big"
	"strings"
	"time"
)

// The business metrics of all companies, as far as they follow from what companies paid, held and used. Lists are by their keys, because
// the order of a list is not what is judged here.
type (
	platformAnswer struct {
		Month      string                    `json:"month"`
		Present    string                    `json:"present_month"`
		Tiers      map[string]tierNow        `json:"tiers"`
		ARPU       map[string]arpu           `json:"arpu"`
		Conversion conversion                `json:"conversion"`
		Lifetime   map[string]lifetime       `json:"lifetime_value"`
		Churn      platformChurn             `json:"churn"`
		Months     map[string]*platformMonth `json:"months"`
	}
	tierNow struct {
		Tier      string `json:"subscription_tier"`
		Companies int    `json:"companies"`
		Known     bool   `json:"in_catalogue"`
	}
	arpu struct {
		Month    string `json:"month"`
		Complete bool   `json:"complete"`
		Tier     string `json:"subscription_tier"`
		Currency string `json:"currency"`
		average
	}
	average struct {
		Revenue    decimal  `json:"revenue"`
		Users      int64    `json:"active_users"`
		ARPU       *decimal `json:"arpu"`
		Attributed decimal  `json:"attributed_revenue"`
	}
	conversion struct {
		Window     int      `json:"window_days"`
		From       string   `json:"registered_from"`
		Before     string   `json:"registered_before"`
		To         string   `json:"to_tier"`
		Companies  int64    `json:"companies"`
		Converted  int64    `json:"converted"`
		Paid       int64    `json:"converted_to_paid"`
		Percentage *decimal `json:"percentage"`
		Target     decimal  `json:"target"`
		Met        *bool    `json:"met"`
	}
	lifetime struct {
		Tier      string   `json:"subscription_tier"`
		Currency  string   `json:"currency"`
		Months    int      `json:"months"`
		Revenue   decimal  `json:"revenue"`
		Company   int64    `json:"company_months"`
		Churned   int64    `json:"churned"`
		Monthly   *decimal `json:"revenue_per_company_month"`
		ChurnRate *decimal `json:"churn_percentage"`
		Value     *decimal `json:"value"`
	}
	platformChurn struct {
		Month string               `json:"month"`
		Paid  churnRate            `json:"paid"`
		Tiers map[string]tierChurn `json:"tiers"`
	}
	tierChurn struct {
		Tier string `json:"subscription_tier"`
		churnRate
	}
	churnRate struct {
		AtStart    int64    `json:"companies_at_start"`
		Churned    int64    `json:"churned"`
		Percentage *decimal `json:"percentage"`
		Target     *decimal `json:"target"`
		Met        *bool    `json:"met"`
	}
	platformMonth struct {
		Month    string  `json:"month"`
		Complete bool    `json:"complete"`
		Currency string  `json:"currency"`
		MRR      decimal `json:"mrr"`
		average
		Churn churnRate            `json:"churn"`
		Tiers map[string]monthTier `json:"tiers"`
	}
	monthTier struct {
		Tier      string  `json:"subscription_tier"`
		Companies int     `json:"companies"`
		MRR       decimal `json:"mrr"`
		average
		Churn churnRate `json:"churn"`
	}
)

// otherTier is all tiers together that usage names and no company ever had.
const otherTier = "other"

// quotient is one number by another, rounded; nil: by nothing.
func quotient(above, below int64) *decimal {
	if below == 0 {
		return nil
	}
	text := decimal(rounded(big.NewRat(above, below), 2))
	return &text
}

// holds is the tier of a company just before a moment, and what it pays; false: it is not there.
func (c *Company) holds(before time.Time) (tier string, minor int64, there bool) {
	if !c.registered.Before(before) || c.closed && c.levels[len(c.levels)-1].at.Before(before) {
		return "", 0, false
	}
	tier = c.tierAt(before.Add(-time.Nanosecond))
	for _, l := range c.levels {
		if l.at.Before(before) {
			minor = l.minor
		}
	}
	return tier, minor, true
}

// left counts the companies that had a tier when a month began, and those of them that have left by its end. Empty: all tiers with a price.
func (w *World) left(tier string, m month) (had, left int64) {
	for _, c := range w.Companies {
		before, paid, there := c.holds(m.start())
		if !there || tier == "" && paid == 0 || tier != "" && before != tier {
			continue
		}
		had++
		if _, pays, stays := c.holds((m + 1).start()); !stays || paid > 0 && pays == 0 {
			left++
		}
	}
	return had, left
}

func (w *World) churnOf(tier string, m month) churnRate {
	r := churnRate{}
	r.AtStart, r.Churned = w.left(tier, m)
	r.Percentage = quotient(100*r.Churned, r.AtStart)
	if tier == "" || plans[tier].price > 0 {
		target := decimal("5.00")
		r.Target = &target
		if r.Percentage != nil {
			written, _ := new(big.Rat).SetString(string(*r.Percentage))
			met := written.Cmp(big.NewRat(5, 1)) < 0
			r.Met = &met
		}
	}
	return r
}

// platform answers about all companies together.
func (m *Model) platform(at time.Time) *platformAnswer {
	w, present := m.world, monthOf(at)
	p := &platformAnswer{Month: (present - 1).String(), Present: present.String(), Tiers: map[string]tierNow{}, ARPU: map[string]arpu{}, Lifetime: map[string]lifetime{},
		Churn: platformChurn{Month: (present - 1).String(), Paid: w.churnOf("", present-1), Tiers: map[string]tierChurn{}}, Months: map[string]*platformMonth{}}
	p.Conversion = w.conversion(at)
	for tier := range plans {
		now := tierNow{Tier: tier, Known: true}
		for _, c := range w.Companies {
			if !c.closed && c.tier == tier {
				now.Companies++
			}
		}
		p.Tiers[tier] = now
		p.Churn.Tiers[tier] = tierChurn{tier, w.churnOf(tier, present-1)}
		p.Lifetime[tier+" USD"] = m.lifetime(tier, present)
	}
	for month := present - 12; month <= present; month++ {
		one := m.month(month, present)
		p.Months[one.Month+" USD"] = one
		if month < present-1 {
			continue
		}
		for tier, of := range one.Tiers {
			p.ARPU[one.Month+" "+tier+" USD"] = arpu{one.Month, one.Complete, tier, "USD", of.average}
		}
	}
	return p
}

// month is one month of all companies.
func (m *Model) month(month, present month) *platformMonth {
	w := m.world
	p := &platformMonth{Month: month.String(), Complete: month < present, Currency: "USD", Churn: w.churnOf("", month), Tiers: map[string]monthTier{}}
	used := m.usedBy(month)
	all, mrr := int64(0), int64(0)
	for _, tier := range []string{free, pro, enterprise, otherTier} {
		t, revenue, pays := monthTier{Tier: tier}, int64(0), int64(0)
		for _, c := range w.Companies {
			if held, minor, there := c.holds((month + 1).start()); there && held == tier {
				t.Companies++
				pays += minor
			}
			for _, ch := range c.charges {
				if ch.month == month && ch.tier == tier {
					revenue += ch.minor
				}
			}
		}
		t.average, t.MRR = used[tier].average(revenue), decimal(units(pays))
		if tier != otherTier {
			t.Churn = w.churnOf(tier, month)
		} else if used[tier] == nil {
			continue
		}
		all, mrr = all+revenue, mrr+pays
		p.Tiers[tier] = t
	}
	p.average, p.MRR = used[""].average(all), decimal(units(mrr))
	return p
}

// usedBy is what was used in a month by tier, and under the empty one in all.
func (m *Model) usedBy(month month) map[string]*use {
	type userTier struct {
		company, user int
		tier          string
	}
	sums := map[userTier]*amount{}
	for company := range m.used {
		for key, a := range m.used[company] {
			if key.day.month() != month {
				continue
			}
			tier := key.tier
			if _, held := plans[tier]; !held {
				tier = otherTier
			}
			for _, k := range []userTier{{company, key.user, tier}, {company, key.user, ""}} {
				if sums[k] == nil {
					sums[k] = &amount{}
				}
				sums[k].add(a)
			}
		}
	}
	used := map[string]*use{}
	for k, a := range sums {
		if used[k.tier] == nil {
			used[k.tier] = &use{users: map[int]bool{}}
		}
		used[k.tier].add(a)
		if a.calls > 0 {
			used[k.tier].active++
		}
	}
	return used
}

func (u *use) average(minor int64) average {
	if u == nil {
		return average{Revenue: decimal(units(minor)), Attributed: "0.000000"}
	}
	a := average{Revenue: decimal(units(minor)), Users: u.active, Attributed: millionths(u.millionths)}
	if u.active > 0 {
		a.ARPU = quotient(minor, 100*u.active)
	}
	return a
}

// lifetime is what companies of a tier bring in until they leave, by the twelve whole months.
func (m *Model) lifetime(tier string, present month) lifetime {
	l, revenue := lifetime{Tier: tier, Currency: "USD", Months: 12}, int64(0)
	for month := present - 12; month < present; month++ {
		had, left := m.world.left(tier, month)
		l.Company += had
		l.Churned += left
		for _, c := range m.world.Companies {
			for _, ch := range c.charges {
				if ch.month == month && ch.tier == tier {
					revenue += ch.minor
				}
			}
		}
	}
	l.Revenue = decimal(units(revenue))
	l.Monthly, l.ChurnRate = quotient(revenue, 100*l.Company), quotient(100*l.Churned, l.Company)
	l.Value = quotient(revenue, 100*l.Churned)
	return l
}

// conversion is how many of the companies that were registered in a year, which ended 90 days ago, came to pay within 90 days.
func (w *World) conversion(at time.Time) conversion {
	before := dayOf(at) - 90
	from := before - 365
	r := conversion{Window: 90, From: from.start().Format(time.DateOnly), Before: before.start().Format(time.DateOnly), To: pro, Target: "15.00"}
	for _, c := range w.Companies {
		if c.registered.Before(from.start()) || !c.registered.Before(before.start()) {
			continue
		}
		r.Companies++
		for _, h := range c.held {
			if plans[h.tier].price == 0 || h.at.After(c.registered.AddDate(0, 0, 90)) {
				continue
			}
			r.Paid++
			if h.tier == pro {
				r.Converted++
			}
			break
		}
	}
	if r.Percentage = quotient(100*r.Converted, r.Companies); r.Percentage != nil {
		written, _ := new(big.Rat).SetString(string(*r.Percentage))
		met := written.Cmp(big.NewRat(15, 1)) >= 0
		r.Met = &met
	}
	return r
}

// keyOf is what an object of a list is found by; empty: it is by its place.
func keyOf(object map[string]any) string {
	var parts []string
	for _, name := range []string{"month", "subscription_tier", "currency"} {
		if text, is := object[name].(string); is {
			parts = append(parts, text)
		}
	}
	return strings.Join(parts, " ")
}
