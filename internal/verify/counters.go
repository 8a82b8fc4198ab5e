package verify

import (
	"context"
	"errors"
	"fmt"
	"time"

	"tenantflow/events"
	"tenantflow/internal/kafka"
	"tenantflow/internal/totals"
	"tenantflow/sinks/dragonfly"
)

// Counting says how usage is counted against quotas, by the service's own settings.
type Counting struct {
	Store dragonfly.Config // its Topic and Lateness, too
	Group string           // the consumer group that counts

	ResendWindow  time.Duration // default: as the consumer
	ResendRecords int           // likewise
	Limits        events.UsageLimits

	// ReplayKey checks the headers of replayed records, which the service does not count. nil: such records may be counted or not.
	ReplayKey events.ReplayKey
}

// Counters is what was compared of the counters. A share is what one partition has counted of a user's day.
type Counters struct {
	Shares    int64 `json:"shares"`
	Events    int64 `json:"events"`     // of the log, that the shares stand for
	NotInLog  int64 `json:"not_in_log"` // shares of days that the log does not hold as a whole: not judged
	Uncounted int64 `json:"uncounted"`  // offsets that are not counted yet: not judged
}

// wrongCounters is what of the counters is to be mended.
type wrongCounters struct {
	state *dragonfly.State // in which they were found to be wrong
	first time.Time        // the earliest day with a share that is wrong or left out; zero: none has one
	sums  []dragonfly.UserDay
}

func (w *wrongCounters) empty() bool { return w == nil || w.first.IsZero() && len(w.sums) == 0 }

// maxSums is how many sums one round mends.
const maxSums = 100_000

// errUnproven says why the counters could not be judged.
type errUnproven struct{ reason string }

func (e *errUnproven) Error() string { return e.reason }

func unproven(format string, args ...any) error {
	return &errUnproven{fmt.Sprintf(format, args...)}
}

// checkCounters compares the counters of all days that are kept with what the log says. The service may count meanwhile: each share
// says up to which offset it counts, and is compared with the events before that; an event before a partition's progress must be
// counted in any case.
func (v *Verifier) checkCounters(ctx context.Context, report *Report) (*wrongCounters, error) {
	if v.cfg.Counting == nil {
		report.note("the counters of quotas were not looked at: there is no address of Dragonfly")
		return nil, nil //nolint:nilnil // nothing is wrong that could be mended
	}
	wrong, err := v.compareCounters(ctx, report)
	var reason *errUnproven
	if errors.As(err, &reason) {
		report.Unproven = append(report.Unproven, "the counters of quotas could not be judged: "+reason.reason)
		return nil, nil //nolint:nilnil // as above
	}
	return wrong, err
}

func (v *Verifier) compareCounters(ctx context.Context, report *Report) (*wrongCounters, error) {
	ids, err := totals.PartitionsOf(ctx, v.cfg.Client, v.cfg.Topic)
	if err != nil {
		return nil, err
	}
	held := int64(0)
	for _, id := range ids {
		log, err := kafka.Bounds(ctx, v.cfg.Client, v.cfg.Topic, id)
		if err != nil {
			return nil, err
		}
		held += log.To - log.From
	}
	if held == 0 {
		return &wrongCounters{}, nil
	}
	store, err := dragonfly.Open(ctx, v.cfg.Counting.Store)
	if err != nil {
		return nil, unproven("%v", err)
	}
	defer func() { _ = store.Close() }()
	c := &counterCheck{v: v, store: store, shares: map[int]map[userDay]*tally{}, wrong: &wrongCounters{}}
	before, err := c.look(ctx, ids)
	if err != nil {
		return nil, err
	}
	// The oldest day whose counters live, and do so until this is done.
	const longest = 10 * time.Minute
	c.from = before[0].ServerTime().Add(longest - v.cfg.Counting.Store.Lateness).Truncate(day)
	if since := v.cfg.Since.UTC().Truncate(day); since.After(c.from) {
		c.from = since
	}
	if err := c.read(ctx); err != nil {
		return nil, err
	}
	letters, err := c.refused(ctx)
	if err != nil {
		return nil, err
	}
	for i, id := range ids {
		if err := c.partition(ctx, id, before[i], letters[id]); err != nil {
			return nil, err
		}
	}
	after, err := c.look(ctx, ids)
	if err != nil {
		return nil, err
	}
	for i := range ids {
		if !after[i].SameServer(before[i]) || !after[i].Covers(before[i].Epoch.Number, before[i].Lowest.Offset) {
			return nil, unproven("the store was restarted, or another recount was begun, while they were compared; run verify again")
		}
	}
	report.Counters = c.counted
	report.Findings.merge(c.findings)
	c.wrong.state = before[0]
	return c.wrong, nil
}

const day = 24 * time.Hour

// A counterCheck is the comparison of the counters under way.
type counterCheck struct {
	v     *Verifier
	store *dragonfly.Store
	from  time.Time                  // the first day that is compared
	now   map[int]dragonfly.Progress // of the partitions

	shares   map[int]map[userDay]*tally // by partition
	counted  Counters
	findings Findings
	wrong    *wrongCounters
}

type userDay struct {
	user string
	day  int64 // since the Unix epoch
}

// look reads the sentinels for every partition. Counters that can't be trusted, or are being rebuilt, can't be judged.
func (c *counterCheck) look(ctx context.Context, ids []int) ([]*dragonfly.State, error) {
	states := make([]*dragonfly.State, len(ids))
	c.now = map[int]dragonfly.Progress{}
	for i, id := range ids {
		s := c.store.Session(c.v.cfg.Topic, id)
		state, err := s.Look(ctx)
		s.Close()
		switch {
		case err != nil:
			return nil, unproven("%v", err)
		case state.Doubt != "":
			return nil, unproven("the service has not begun to count again after a loss (%s), or has not counted yet: is it running as group %s?", state.Doubt, c.v.cfg.Counting.Group)
		case state.Lowest.Epoch == 0, state.Restarted, state.Lowest.Until > state.Lowest.Offset:
			return nil, unproven("partition %d is being counted again; run verify again when tenantflow_quota_rebuilding is 0", id)
		case i > 0 && (!state.SameServer(states[0]) || state.Epoch.Number != states[0].Epoch.Number):
			return nil, unproven("another recount has begun; run verify again")
		}
		states[i] = state
		c.now[id] = state.Lowest
	}
	return states, nil
}

// read reads all counters, and looks whether the sums in them are those of their shares.
func (c *counterCheck) read(ctx context.Context) error {
	listed := map[userDay]struct{}{} // with sums that are wrong
	err := c.store.UserDays(ctx, c.from, func(u *dragonfly.UserDay) error {
		key := userDay{u.User, u.Day.Unix() / int64(day/time.Second)}
		for id, progress := range c.now {
			if share, found := u.Share(c.v.cfg.Topic, id, progress.Incarnation); found {
				c.of(id, key).share = &share
			}
		}
		sum := u.Sum()
		if u.Unreadable == "" && u.Counters == sum {
			return nil
		}
		if _, known := listed[key]; known {
			return nil
		}
		listed[key] = struct{}{}
		detail := fmt.Sprintf("it says %d calls and %d data points, and what the partitions have counted adds up to %d and %d",
			u.APICalls, u.DataPoints, sum.APICalls, sum.DataPoints)
		if u.Unreadable != "" {
			detail = u.Unreadable
		}
		c.findings.add(Finding{Kind: WrongCounter, Where: dragonfly.QuotaKey(u.User, u.Day), Detail: detail})
		if len(c.wrong.sums) < maxSums {
			c.wrong.sums = append(c.wrong.sums, dragonfly.UserDay{User: u.User, Day: u.Day})
		}
		return nil
	})
	if err != nil {
		return unproven("%v", err)
	}
	return nil
}

// of is the tally of a user's day in a partition.
func (c *counterCheck) of(partition int, key userDay) *tally {
	all := c.shares[partition]
	if all == nil {
		all = map[userDay]*tally{}
		c.shares[partition] = all
	}
	t := all[key]
	if t == nil {
		t = &tally{}
		all[key] = t
	}
	return t
}

// refused lists the offsets, by partition, of events that were not counted because their user belonged to another company. It comes after
// the counters are read: such an event is a dead letter before those behind it are counted.
func (c *counterCheck) refused(ctx context.Context) (map[int]map[int64]struct{}, error) {
	v := c.v
	found, n := map[int]map[int64]struct{}{}, 0
	topic := events.DeadLetterTopic(v.cfg.Topic)
	ids, err := totals.PartitionsOf(ctx, v.cfg.Client, topic)
	if errors.Is(err, ErrNotThere) {
		return found, nil
	}
	if err != nil {
		return nil, err
	}
	for _, id := range ids {
		log, err := kafka.Bounds(ctx, v.cfg.Client, topic, id)
		if err != nil {
			return nil, err
		}
		err = kafka.ReadLog(ctx, v.cfg.Client, topic, id, log, func(r *events.Record) error {
			if d, err := events.ParseDeadLetter(r); err == nil && d.Group == v.cfg.Counting.Group && d.Topic == v.cfg.Topic && d.Reason == events.TenantMismatch {
				if found[d.Partition] == nil {
					found[d.Partition] = map[int64]struct{}{}
				}
				found[d.Partition][d.Offset] = struct{}{}
				n++
			}
			if n > v.cfg.Letters {
				return unproven("more than %d events were refused because their users belong to other companies", v.cfg.Letters)
			}
			return nil
		})
		if err != nil {
			return nil, fmt.Errorf("read dead letters: %w", err)
		}
	}
	return found, nil
}

// repairCounters makes sums right, and begins an epoch if a share is wrong, unless another has been begun since: the service counts
// again from the first day with a wrong one. That is done once in a run.
func (v *Verifier) repairCounters(ctx context.Context, w *wrongCounters, mended *Repairs) error {
	if w.empty() {
		return nil
	}
	store, err := dragonfly.Open(ctx, v.cfg.Counting.Store)
	if err != nil {
		return err
	}
	defer func() { _ = store.Close() }()
	for i := range w.sums {
		changed, err := store.Resum(ctx, w.sums[i].User, w.sums[i].Day)
		if err != nil {
			return err
		}
		if changed {
			mended.Sums++
		}
	}
	if w.first.IsZero() || v.begun {
		return nil
	}
	ids, err := totals.PartitionsOf(ctx, v.cfg.Client, v.cfg.Topic)
	if err != nil {
		return err
	}
	s := store.Session(v.cfg.Topic, ids[0])
	defer s.Close()
	if err := s.Begin(ctx, w.state, 0, dragonfly.Epoch{Day: w.first, Partitions: len(ids)}); err != nil {
		return err
	}
	v.begun = true
	mended.Recounts++
	mended.RecountsFrom = w.first.Format(time.DateOnly)
	return nil
}
