package operations

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"time"

	"tenantflow/events"
)

const rejectionsShown = 10

// rejections follows the events that business rules refuse.
type rejections struct {
	tail   tail
	codes  map[string]days
	newest []Rejected
}

func newRejections(cfg Config) *rejections {
	return &rejections{codes: map[string]days{}, tail: tail{client: cfg.Kafka, topics: cfg.ResultTopics, depth: resultsDepth}}
}

func (r *rejections) take(ctx context.Context) (Rejections, error) {
	complete, err := r.tail.follow(ctx, tailPatience, r.add)
	if err != nil {
		return Rejections{}, err
	}
	out := Rejections{Codes: map[string]int64{}, Depth: resultsDepth, Complete: complete, Newest: slices.Clone(r.newest)}
	now := time.Now()
	for code, d := range r.codes {
		if n := d.since(now); n > 0 {
			out.Codes[code] = n
			out.LastDay += n
		}
	}
	maps.DeleteFunc(r.codes, func(_ string, d days) bool { return len(d) == 0 })
	return out, nil
}

func (r *rejections) add(rec *events.Record) {
	if t := string(events.LastHeader(rec.Headers, "ce_type")); t != events.TypeSubscriptionRejected && t != events.TypeCompanyRejected {
		return
	}
	var e struct {
		CompanyID   string `json:"company_id"`
		RequestType string `json:"request_type"`
		RequestID   string `json:"request_id"`
		Code        string `json:"code"`
		Message     string `json:"message"`
	}
	if json.Unmarshal(rec.Value, &e) != nil {
		return
	}
	code := shortened(e.Code)
	if r.codes[code] == nil {
		const most = 100 // the list of codes is closed
		if len(r.codes) >= most {
			return
		}
		r.codes[code] = days{}
	}
	r.codes[code].add(rec.Time)
	one := Rejected{At: rec.Time.UTC(), CompanyID: shortened(e.CompanyID), RequestType: shortened(e.RequestType), RequestID: shortened(e.RequestID), Code: code, Message: shortened(e.Message)}
	at, _ := slices.BinarySearchFunc(r.newest, one, func(a, b Rejected) int { return b.At.Compare(a.At) }) // the newest first
	r.newest = slices.Insert(r.newest, at, one)
	r.newest = r.newest[:min(len(r.newest), rejectionsShown)]
}
