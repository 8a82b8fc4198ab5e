package replay

import (
	"cmp"
	"context"
	"errors"
	"slices"

	"tenantflow/internal/task"
)

// A DryReport is what a replay would do.
type DryReport struct {
	Topic   string      `json:"topic"`
	Counts  task.Counts `json:"counts"` // those of a replay; "published": what it would publish
	Missing []DayCount  `json:"missing"`
}

// A DayCount is how many events of a company and UTC day are missing.
type DayCount struct {
	Day     string `json:"day"`
	Company string `json:"company_id"`
	Events  int64  `json:"events"`
}

// Dry makes the same decisions as a replay, and publishes nothing. missing, if set, is called for each event that would be
// published. progress, if set, is called after each chunk, with offsets.
func (k *Kind) Dry(ctx context.Context, p *Plan, missing func(*Event) error, progress func(done, total int64, counts task.Counts)) (_ *DryReport, err error) {
	seen := map[[16]byte]struct{}{} // by identity: a copy of a missing event is published once. A hundred million are some 3 GB.
	known := func(_ context.Context, identities [][]byte) (map[string]bool, error) {
		before := map[string]bool{}
		for _, one := range identities {
			_, before[string(one)] = seen[[16]byte(one)]
		}
		return before, nil
	}
	j, err := k.judge(p.Topic, &p.Spec, known)
	if err != nil {
		return nil, err
	}
	source, err := k.source(ctx, p.Topic, p.Spec.Source)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, source.Close()) }()

	var counted tally
	var done, still int64
	days := map[DayCount]int64{}
	for _, r := range p.Spec.Ranges {
		for at := r.From; at < r.To; {
			to, verdicts, gone, err := read(ctx, source, j, Range{r.Partition, at, r.To}, k.cfg.ChunkRecords)
			if err != nil {
				return nil, err
			}
			counted[Failed] += gone
			var published []int
			for n, v := range verdicts {
				counted[v.outcome]++
				if v.outcome != Published {
					continue
				}
				published = append(published, n)
				seen[[16]byte(task.Identity(v.event.Source, v.event.ID))] = struct{}{}
				days[DayCount{Day: v.event.Day(), Company: v.event.Company}]++
				if missing != nil {
					if err := missing(v.event); err != nil {
						return nil, err
					}
				}
			}
			n, err := j.stillCounted(ctx, published)
			if err != nil {
				return nil, err
			}
			still += n
			done += to - at
			at = to
			if progress != nil {
				progress(done, p.Records, counted.counts())
			}
		}
	}
	report := &DryReport{Topic: p.Topic, Counts: counted.counts(), Missing: []DayCount{}}
	if still > 0 {
		report.Counts[StillCounted] = still
	}
	for key, n := range days {
		key.Events = n
		report.Missing = append(report.Missing, key)
	}
	slices.SortFunc(report.Missing, func(a, b DayCount) int {
		return cmp.Or(cmp.Compare(a.Day, b.Day), cmp.Compare(a.Company, b.Company))
	})
	return report, nil
}
