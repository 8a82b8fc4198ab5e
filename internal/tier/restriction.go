package tier

import "slices"

// AllFeatures is the feature that stands for every other one.
const AllFeatures = "all_features"

// A Restriction is something that became less: what it was and what it is. The values are a Limit or a list of names.
type Restriction struct {
	Old any `json:"old"`
	New any `json:"new"`
	// Total is how many there are, where New lists only the first of them; 0: it lists all.
	Total int `json:"total,omitempty"`
}

// maxListed bounds how many users a result names. Their ids have up to 50 bytes, and a topic takes a message of 1 MiB: a larger one
// could never be published, and nothing behind it either.
const maxListed = 10_000

// Restrictions returns what a change of limits takes away, by name: daily_api_calls, daily_data_points,
// storage_mb, retention_days, features_enabled, and users_suspended for the users that the change has suspended. What stays or grows is not in it.
func Restrictions(before, after Limits, suspended []string) map[string]Restriction {
	restrictions := map[string]Restriction{}
	for _, l := range []struct {
		name     string
		old, new Limit
	}{{"daily_api_calls", before.DailyAPICalls, after.DailyAPICalls}, {"daily_data_points", before.DataPoints(), after.DataPoints()}, {"storage_mb", before.StorageMB, after.StorageMB}, {"retention_days", before.RetentionDays, after.RetentionDays}} {
		if l.new != Unlimited && (l.old == Unlimited || l.new < l.old) {
			restrictions[l.name] = Restriction{Old: l.old, New: l.new}
		}
	}
	if !slices.Contains(after.Features, AllFeatures) && slices.ContainsFunc(before.Features, func(f string) bool { return !slices.Contains(after.Features, f) }) {
		restrictions["features_enabled"] = Restriction{Old: before.Features, New: after.Features}
	}
	if len(suspended) > 0 {
		r := Restriction{Old: []string{}, New: suspended}
		if len(suspended) > maxListed {
			r.New, r.Total = suspended[:maxListed], len(suspended)
		}
		restrictions["users_suspended"] = r
	}
	return restrictions
}
