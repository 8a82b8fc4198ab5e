package redrive

import (
	"context"
	"time"

	"tenantflow/events"
	"tenantflow/internal/replay"
	"tenantflow/sinks/clickhouse"
)

// usageEffects are those of usage events: each that was taken in has a row in the table.
type usageEffects struct {
	store   *clickhouse.Store
	decoder *events.UsageDecoder
	block   *clickhouse.Block
}

func newUsageEffects(store *clickhouse.Store, limits events.UsageLimits) *usageEffects {
	return &usageEffects{store: store, decoder: events.NewUsageDecoder(limits), block: clickhouse.NewBlock()}
}

func (u *usageEffects) decode(r *events.Record) (*event, error) {
	var one events.Usage
	if err := u.decoder.Decode(r, time.Now(), &one); err != nil {
		return nil, err
	}
	return &event{source: string(one.Source), id: string(one.ID), owner: replay.Owner{Company: string(one.CompanyID), User: string(one.UserID)}, usage: r}, nil
}

// look finds the rows of the events and, where a patch has made another event of one, of the original: both have one identity, and the
// row of either is the one that counts.
func (u *usageEffects) look(ctx context.Context, all, original []*event) ([]effect, error) {
	u.block.Reset()
	var of []int // the event of each row of the block; less than zero: -1-i for the original of event i
	add := func(e *event, at int) error {
		var one events.Usage
		if err := u.decoder.Decode(e.usage, time.Now(), &one); err != nil {
			return err // it has become too old just now: it is decided again
		}
		u.block.Append(&one, one.IdentityHash(), 0)
		of = append(of, at)
		return nil
	}
	for i, e := range all {
		if e == nil {
			continue
		}
		if err := add(e, i); err != nil {
			return nil, err
		}
		if original[i] != nil {
			if err := add(original[i], -1-i); err != nil {
				return nil, err
			}
		}
	}
	had := make([]effect, len(all))
	rows := make([]int, len(of))
	for i := range rows {
		rows[i] = i
	}
	matches, err := u.store.Find(ctx, u.block, rows)
	if err != nil {
		return nil, err
	}
	for _, m := range matches {
		at := of[m.Row]
		switch {
		case at >= 0 && m.Same:
			had[at] = there
		case at >= 0 && had[at] == missing:
			had[at] = otherData
		case at < 0 && had[-1-at] == missing:
			had[-1-at] = otherData
		}
	}
	return had, nil
}
