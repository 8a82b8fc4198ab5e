package consumers

import (
	"tenantflow/internal/directory"
	"tenantflow/internal/tier"
	"tenantflow/sinks/dragonfly"
)

// thresholdsOf are the thresholds of the tiers in a catalogue.
func thresholdsOf(catalogue *tier.Catalogue) map[string]*dragonfly.Thresholds {
	all := map[string]*dragonfly.Thresholds{}
	for _, name := range catalogue.Names() {
		t, _ := catalogue.Tier(name)
		all[name] = dragonfly.NewThresholds(t.Thresholds)
	}
	return all
}

// limit is the daily limit of a user's calls, tier.Unlimited if there is none or nothing is known of the user, and the thresholds at which
// events are published; nil: at none.
//
// The limit is the one that holds for the company, the thresholds are those that the user's tier has in this process's catalogue now: they decide who
// is told, not what is allowed. A tier that is missing there counts as the free one.
func (q *Quota) limit(sub *directory.Subscription) (int64, *dragonfly.Thresholds) {
	if sub == nil || sub.Tier == "" || sub.Limits.DailyAPICalls == tier.Unlimited {
		return int64(tier.Unlimited), nil
	}
	thresholds, known := q.tiers[sub.Tier]
	if !known {
		thresholds = q.tiers[tier.Free]
	}
	return int64(sub.Limits.DailyAPICalls), thresholds
}
