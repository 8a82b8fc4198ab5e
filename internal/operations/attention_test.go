package operations

import (
	"testing"
	"time"
)

// What is not known is not said to be well, and what was known is not said to be so now.
func TestBehind_SaysWhatIsKnown(t *testing.T) {
	t.Parallel()
	seconds := func(s float64) *float64 { return &s }
	fresh, old := noon.Add(-5*time.Second), noon.Add(-2*time.Hour)
	lag := func(of *float64, partitions ...PartitionLag) Lag {
		return Lag{Consumer: "usage", Group: "g", Seconds: of, Partitions: partitions}
	}
	for name, c := range map[string]struct {
		panel  Panel[Lag]
		silent bool
		want   string
	}{
		"caught up":       {Panel[Lag]{TakenAt: fresh, Data: lag(seconds(0), PartitionLag{Seconds: seconds(0)})}, false, ""},
		"a little behind": {Panel[Lag]{TakenAt: fresh, Data: lag(seconds(50), PartitionLag{Records: 1, Seconds: seconds(50)})}, false, ""},
		"behind":          {Panel[Lag]{TakenAt: fresh, Data: lag(seconds(70), PartitionLag{Records: 1, Seconds: seconds(70)})}, false, "Consumer usage is 70 s behind."},
		"behind, as far as it is known": {Panel[Lag]{TakenAt: fresh, Data: lag(nil, PartitionLag{Records: 1, Seconds: seconds(70)}, PartitionLag{Records: 9})}, false,
			"Consumer usage is 70 s behind."},
		"a partition whose records can't be read": {Panel[Lag]{TakenAt: fresh, Data: lag(nil, PartitionLag{Records: 1, Seconds: seconds(5)}, PartitionLag{Records: 9})}, false,
			"Consumer usage has records before it, and how long they have waited is not known."},
		"never asked":                      {Panel[Lag]{Data: lag(nil)}, false, ""},
		"never answered":                   {Panel[Lag]{Stale: true, Problem: "x", Data: lag(nil)}, false, "How far consumer usage is behind is not known."},
		"never answered, as Kafka is away": {Panel[Lag]{Stale: true, Problem: "x", Data: lag(nil)}, true, ""},
		"one look that failed":             {Panel[Lag]{TakenAt: fresh, Stale: true, Problem: "x", Data: lag(seconds(0))}, false, ""},
		"well two hours ago":               {Panel[Lag]{TakenAt: old, Stale: true, Problem: "x", Data: lag(seconds(0))}, false, "How far consumer usage is behind has not been known for 2 h."},
		"behind two hours ago":             {Panel[Lag]{TakenAt: old, Stale: true, Problem: "x", Data: lag(seconds(70))}, false, "How far consumer usage is behind has not been known for 2 h."},
		"two hours ago, and Kafka is away": {Panel[Lag]{TakenAt: old, Stale: true, Problem: "x", Data: lag(seconds(70))}, true, ""},
	} {
		if got := behind(&c.panel, noon, c.silent); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
