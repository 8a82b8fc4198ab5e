package operations

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"tenantflow/events"
)

const (
	quotaShown = 10
	// quotaKept bounds the users that are remembered. More than so many at their limits is a problem of another kind.
	quotaKept = 100_000
	// longestID bounds what is remembered of one: the contract has no longer id of a user.
	longestID = 50
)

// quotas follows the thresholds that users reach.
type quotas struct {
	tail tail
	now  func() time.Time

	// An event of tomorrow may come before this process's midnight.
	today, tomorrow string
	by              map[string]map[string]QuotaUser // by date and user, of these two days
}

func newQuotas(cfg Config) *quotas {
	return &quotas{by: map[string]map[string]QuotaUser{}, now: time.Now, tail: tail{client: cfg.Kafka, topics: []string{cfg.QuotaTopic}, depth: quotasDepth}}
}

func (q *quotas) take(ctx context.Context) (Quotas, error) {
	now := q.now().UTC()
	q.today, q.tomorrow = now.Format(time.DateOnly), now.AddDate(0, 0, 1).Format(time.DateOnly)
	maps.DeleteFunc(q.by, func(date string, _ map[string]QuotaUser) bool { return date != q.today && date != q.tomorrow })
	complete, err := q.tail.follow(ctx, tailPatience, q.add)
	if err != nil {
		return Quotas{}, err
	}
	users := q.by[q.today]
	out := Quotas{Date: q.today, Complete: complete && len(users) < quotaKept, Users: make([]QuotaUser, 0, len(users))}
	for _, u := range users {
		if u.Percentage >= 100 {
			out.Exceeded++
		} else {
			out.Near++
		}
		out.Users = append(out.Users, u)
	}
	slices.SortFunc(out.Users, func(a, b QuotaUser) int {
		return cmp.Or(cmp.Compare(b.Percentage, a.Percentage), b.ReachedAt.Compare(a.ReachedAt), strings.Compare(a.UserID, b.UserID))
	})
	out.Users = slices.Clone(out.Users[:min(quotaShown, len(out.Users))])
	for i := range out.Users {
		out.Users[i].Command = fmt.Sprintf("tenantflow quota show %s", quoted(out.Users[i].UserID))
	}
	return out, nil
}

func (q *quotas) add(rec *events.Record) {
	if t := string(events.LastHeader(rec.Headers, "ce_type")); t != events.TypeQuotaThresholdReached && t != events.TypeQuotaExceeded {
		return
	}
	var e struct {
		CompanyID    string `json:"company_id"`
		UserID       string `json:"user_id"`
		Date         string `json:"date"`
		Percentage   int    `json:"threshold_percentage"`
		CurrentUsage int64  `json:"current_usage"`
		DailyLimit   int64  `json:"daily_limit"`
	}
	if json.Unmarshal(rec.Value, &e) != nil || len(e.UserID) > longestID || e.Date != q.today && e.Date != q.tomorrow {
		return
	}
	day := q.by[e.Date]
	if day == nil {
		day = map[string]QuotaUser{}
		q.by[e.Date] = day
	}
	before, known := day[e.UserID]
	if known && before.Percentage >= e.Percentage || !known && len(day) >= quotaKept {
		return
	}
	day[e.UserID] = QuotaUser{CompanyID: shortened(e.CompanyID), UserID: shortened(e.UserID), Percentage: e.Percentage, Usage: e.CurrentUsage, Limit: e.DailyLimit, ReachedAt: rec.Time.UTC()}
}
