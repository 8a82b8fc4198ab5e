package business

import (
	"math/big"

	"tenantflow/internal/analytics"
)

// leastWeight is how much has to be measured for there to be a score: without a company a new installation would have the best one.
const leastWeight = 50

// healthOf makes one number of the metrics: the mean of its parts by their weights. What can't be measured is left out, weight and all.
func healthOf(r *Report, s *series) Health {
	h := Health{Parts: []HealthPart{
		isolationHealth(&r.Isolation),
		{Part: "retention", Weight: 20, Score: r.Retention.Percentage, Reason: r.Retention.Reason},
		churnHealth(&r.Churn.Paid),
		latencyHealth(r.Latency),
		conversionHealth(&r.Conversion),
		revenueHealth(s),
	}}
	sum, weights := int64(0), int64(0)
	for _, p := range h.Parts {
		if p.Score != nil {
			sum += int64(*p.Score) * int64(p.Weight)
			weights += int64(p.Weight)
		}
	}
	h.Measured = int(weights)
	if weights < leastWeight {
		h.Reason = "parts of a weight of 50 have to be measured"
		return h
	}
	score := analytics.Round(big.NewRat(sum, 100*weights))
	h.Score = &score
	return h
}

// isolationHealth is 100 without a leak, and 0 with one.
func isolationHealth(i *Isolation) HealthPart {
	score := analytics.Hundredths(0)
	if i.Met {
		score = whole
	}
	return HealthPart{Part: "isolation", Weight: 25, Score: &score}
}

// churnHealth is 100 up to the target, and falls to 0 at four times as much.
func churnHealth(c *ChurnRate) HealthPart {
	p := HealthPart{Part: "churn", Weight: 20, Reason: c.Reason}
	if c.Percentage != nil {
		p.Score = falling(int64(*c.Percentage), int64(churnTarget), 4*int64(churnTarget))
	}
	return p
}

// latencyHealth is the share of the tiers with enough samples that meet their target.
func latencyHealth(all []Latency) HealthPart {
	p := HealthPart{Part: "query_latency", Weight: 15, Reason: "no tier has enough samples"}
	met, n := int64(0), int64(0)
	for i := range all {
		if all[i].Met != nil {
			n++
			if *all[i].Met {
				met++
			}
		}
	}
	if p.Score = percent(met, n); p.Score != nil {
		p.Reason = ""
	}
	return p
}

// conversionHealth is the conversion as a part of its target, at most 100.
func conversionHealth(c *Conversion) HealthPart {
	p := HealthPart{Part: "conversion", Weight: 10, Reason: c.Reason}
	if c.Percentage != nil {
		p.Score = percent(min(int64(*c.Percentage), int64(c.Target)), int64(c.Target))
	}
	return p
}

// revenueHealth is 100 where the monthly recurring revenue has not fallen over the last whole month, and 0 where it has fallen by a fifth. The
// worst currency counts.
func revenueHealth(s *series) HealthPart {
	p := HealthPart{Part: "recurring_revenue", Weight: 10, Reason: "there was no recurring revenue when the month began"}
	for _, currency := range s.currencies {
		start, end := s.at(s.present-2, currency, "").mrr, s.at(s.present-1, currency, "").mrr
		if start <= 0 {
			continue
		}
		score := falling(max(0, int64(start-end))*100, 0, int64(start)*20)
		if p.Score == nil || *score < *p.Score {
			p.Score, p.Reason = score, ""
		}
	}
	return p
}

// falling is 100 up to one value and 0 from another one on, with a line between them.
func falling(value, full, none int64) *analytics.Hundredths {
	return percent(min(max(none-value, 0), none-full), none-full)
}
