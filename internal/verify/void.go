package verify

import (
	"context"
	"fmt"

	"tenantflow/internal/totals"
)

// checkVoids looks for voids that take back what is not there. The service stores a void only behind its usage, so the usage was deleted
// since, or changed, or the void was put in by hand: more is taken off the totals than was added. Where the log still holds the
// usage it is found to be missing, too.
func (v *Verifier) checkVoids(ctx context.Context, at *positions, report *Report) error {
	recent, args := v.recentIdentities(at)
	answer, err := totals.Ask(totals.LongQuery(ctx, nil), v.conn, statement("voids", struct {
		Quiet  int64
		Recent string
	}{at.now.Add(-margin).UnixMilli(), recent}), totals.End{
		Row:   "'', toUInt16(0), toInt64(0), '', '', '', ''",
		Order: "topic, partition, offset",
	}, args...)
	if err != nil {
		return fmt.Errorf("look for voids without their usage: %w", err)
	}
	for {
		var topic, source, id, usageSource, usageID string
		var partition uint16
		var offset int64
		if !answer.Next(&topic, &partition, &offset, &source, &id, &usageSource, &usageID) {
			break
		}
		detail := "it takes back " + usageSource + " " + usageID + ", and no usage of that identity with the data that it repeats is stored"
		if usageID == "" {
			detail = "its sign is not that of usage, and it names no usage that it takes back"
		}
		report.Findings.add(Finding{Kind: VoidWithoutUsage, Where: where(topic, int(partition), offset), Event: source + " " + id, Detail: detail})
	}
	if err := answer.Close(); err != nil {
		return fmt.Errorf("look for voids without their usage: %w", err)
	}
	return nil
}
