package analytics

import (
	"fmt"
	"strconv"
)

// findings says of each measure whether it is better than its baselines.
func findings(r *AccuracyReport) []string {
	f := &finder{all: []string{}}
	c := &r.Churn
	if c.Users == 0 {
		f.say("churn scores: no month is over of which users were judged")
	} else {
		const of = "churn scores"
		f.compare(of, "AUC", c.Score.AUC, "no call for 14 days", c.ByIdle.AUC, true)
		f.compare(of, "AUC", c.Score.AUC, "the base rate", c.ByBaseRate.AUC, true)
		if low, high := c.Score.AUCLow, c.Score.AUCHigh; low != nil && *low <= 0.5 && *high >= 0.5 {
			f.say("%s: an AUC of %s can't be told from chance: 0.5 is in its interval, %s to %s", of, number(c.Score.AUC), number(low), number(high))
		}
		const still = "churn scores of users with a call in the last month"
		f.compare(still, "AUC", c.Active.AUC, "no call for 14 days", c.Active.IdleAUC, true)
		if low, high := c.Active.AUCLow, c.Active.AUCHigh; low != nil && *low <= 0.5 && *high >= 0.5 {
			f.say("%s: an AUC of %s can't be told from chance: 0.5 is in its interval, %s to %s", still, number(c.Active.AUC), number(low), number(high))
		}
		f.compare(of, "precision", c.Score.Precision, "no call for 14 days", c.ByIdle.Precision, true)
		f.compare(of, "precision", c.Score.Precision, "the base rate", c.ByBaseRate.Precision, true)
		f.compare(of, "recall", c.Score.Recall, "no call for 14 days", c.ByIdle.Recall, true)
		f.compare(of, "lift at 10 %", c.Score.Lift, "no call for 14 days", c.ByIdle.Lift, true)
		if c.Score.Brier == nil {
			f.say("%s: no Brier score, as there are too few earlier months to calibrate on", of)
		} else {
			f.compare(of, "Brier score", c.Score.Brier, "no call for 14 days", c.ByIdle.Brier, false)
			f.compare(of, "Brier score", c.Score.Brier, "the base rate", c.ByBaseRate.Brier, false)
		}
		if c.Late > 0 {
			f.say("%s: %d of %d users were judged when more than three days were over of the month that was to be predicted, and only those who had not left their company by then", of, c.Late, c.Users)
		}
	}
	if u := &r.Upsell; u.Companies == 0 {
		f.say("upsell: no month is over in which a larger tier was recommended")
	} else {
		f.compare("upsell", "success rate", u.Success, "companies without a recommendation", u.OtherRate, true)
	}
	if n := &r.Forecast; n.N == 0 {
		f.say("forecasts: no month is over for which there was one")
	} else {
		f.compare("forecasts", "MASE", n.MASE, "naive", n.NaiveMASE, false)
		f.compare("forecasts", "sMAPE", n.SMAPE, "naive", n.NaiveSMAPE, false)
		if n.Coverage != nil && (*n.Coverage < 0.7 || *n.Coverage > 0.9) {
			f.say("forecasts: the 80 %% interval held %s of the values, which is not near 0.8", number(n.Coverage))
		}
	}
	return f.all
}

type finder struct{ all []string }

func (f *finder) say(format string, args ...any) { f.all = append(f.all, fmt.Sprintf(format, args...)) }

// compare says whether a measure is better than a baseline's: higher, or lower. Where the baseline has none there is nothing to say.
func (f *finder) compare(of, measure string, own *float64, baseline string, other *float64, higher bool) {
	switch {
	case other == nil:
		return
	case own == nil:
		f.say("%s: there is no %s, where %s has %s", of, measure, baseline, number(other))
		return
	}
	verdict := "not better than"
	if higher && *own > *other || !higher && *own < *other {
		verdict = "better than"
	}
	f.say("%s: %s %s is %s that of %s, %s", of, measure, number(own), verdict, baseline, number(other))
}

// number is a measure as text.
func number(x *float64) string { return strconv.FormatFloat(*x, 'f', -1, 64) }
