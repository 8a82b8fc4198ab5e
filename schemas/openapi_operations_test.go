package schemas_test

import (
	"log/slog"
	"testing"
	"time"

	"tenantflow/internal/health"
	"tenantflow/internal/httpapi"
	"tenantflow/internal/operations"
)

const (
	operationsPath = "/v1/operations"
	businessPath   = "/v1/business-metrics"
)

// shown is a report as it is.
type shown struct{ it *operations.Report }

func (s shown) Report(time.Time) *operations.Report { return s.it }

// boards are one that has gathered nothing and one with some of everything.
func boards(t *testing.T) []httpapi.Operations {
	t.Helper()
	h := health.New(time.Minute, slog.New(slog.DiscardHandler), "usage")
	empty := operations.New(operations.Config{Health: h, Parts: []string{"usage", "api"}, Groups: []operations.Group{{Part: "usage", Group: "g", Topic: "usage.events"}},
		Stores: []operations.Target{{Name: "Kafka"}}})
	now, three := time.Now().UTC(), 3.1
	full := empty.Report(now)
	full.Attention = []string{"Kafka does not answer."}
	full.Parts.Data = append(full.Parts.Data, operations.Part{Part: "quota", State: "failing", Words: "w", Reason: "r", Note: "n", Stalled: "s", Since: now, Partitions: 3})
	full.Lag[0].TakenAt, full.Lag[0].AgeSeconds, full.Lag[0].Problem = now, &three, "p"
	full.Lag[0].Data.Partitions = []operations.PartitionLag{{Partition: 1, Records: 2, Seconds: &three, Committed: -1, End: 2}}
	full.Lag[0].Data.History = []operations.LagSample{{At: now, Records: 2, Seconds: 3}}
	full.Stores[0].Data = operations.Store{Store: "Kafka", State: operations.Up, LatencyMS: &three, Since: now, History: []*float64{nil, &three}}
	full.DeadLetters.Data.Reasons = []operations.LetterCount{{Topic: "usage.events", Reason: "conflict", Count: 1, LastDay: 1, Newest: now, Error: "e", Command: "c"}}
	full.Tasks.Data = []operations.Task{{ID: "i", Kind: "replay", Topic: "t", State: "running", Counts: map[string]int64{"published": 1}, Message: "m", Owner: "o", CreatedAt: now, UpdatedAt: now, Command: "c"}}
	full.Quotas.Data.Users = []operations.QuotaUser{{CompanyID: "c", UserID: "u", Percentage: 80, Usage: 8, Limit: 10, ReachedAt: now, Command: "c"}}
	full.Drift.Data = operations.Drift{Interval: "15m0s", StartedAt: now, Seconds: 1.5, Offsets: 3, Differences: map[string]int64{"k": 1}, Unproven: []string{"u"}}
	full.Rejections.Data.Codes = map[string]int64{"user_exists": 1}
	full.Rejections.Data.Newest = []operations.Rejected{{At: now, CompanyID: "c", RequestType: "t", RequestID: "i", Code: "user_exists", Message: "m"}}
	metrics, err := newPlatform().Report(t.Context(), now)
	if err != nil {
		t.Fatal(err)
	}
	full.Business.Data = operations.Business{ReportedAt: now, Health: metrics.Health.Score, Leaks: 1, Months: metrics.Months}
	return []httpapi.Operations{empty, shown{full}}
}
