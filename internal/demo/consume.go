package demo

import (
	"context"
	"fmt"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
)

// How long nothing at all may be added before the demo gives up. A killed member's session, a pending insert's
// deadline and the engines' own recovery lie within it.
const stalled = 90 * time.Second

// How long no row may be added before rows are not said to come in any more: more than an insert takes.
const idle = 3 * time.Second

// consume runs the service until its groups have committed the end of every partition, and kills and restarts it when a
// quarter and when three fifths of the events are rows or counted, whichever is first.
func (d *demo) consume(ctx context.Context) error {
	if err := d.service.start(); err != nil {
		return err
	}
	killAt := []int64{int64(d.Events) / 4, int64(d.Events) * 3 / 5}
	began := time.Now()
	var rows, counted int64
	moved := began           // when anything was last seen to be added
	var grew time.Time       // when rows were last seen to become more; zero: not since the service was started
	var atWork time.Duration // in which rows came in
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for round := 0; ; round++ {
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-tick.C:
		}
		if err := d.service.died(); err != nil {
			return err
		}
		now, err := d.count(ctx)
		if err != nil {
			return err
		}
		if now > rows {
			moved = time.Now()
			// What was under way at a kill may land after it, long before the next row comes.
			if pause := moved.Sub(grew); pause < idle {
				atWork += pause
			}
			grew = moved
		}
		rows = now
		p, err := d.progress(ctx)
		if err != nil {
			return err
		}
		if p.counted > counted {
			counted, moved = p.counted, time.Now()
		}
		if len(killAt) > 0 && max(rows, counted) >= killAt[0] {
			if err := d.service.kill(); err != nil {
				return err
			}
			d.result.killedAt = append(d.result.killedAt, kill{rows, counted})
			d.say("service killed (SIGKILL) at %s rows and %s events counted, and started again", number(rows), number(counted))
			killAt = killAt[1:]
			if err := d.service.start(); err != nil {
				return err
			}
			moved, grew = time.Now(), time.Time{}
			continue
		}
		if p.stored == p.log && p.counted == p.log {
			d.result.consuming, d.result.atWork = time.Since(began), atWork
			return nil
		}
		if time.Since(moved) > stalled {
			return fmt.Errorf("nothing was added for %s, at %d rows, and of %d messages %d stored and %d counted; the service's log ends:\n%s",
				stalled, rows, p.log, p.stored, p.counted, d.service.logTail())
		}
		if round%5 == 0 {
			d.askOnTheWay(ctx)
		}
	}
}

// count is the number of rows there are now.
func (d *demo) count(ctx context.Context) (int64, error) {
	var n int64
	if err := d.db.QueryRowContext(ctx, "SELECT toInt64(count()) FROM usage_tracking").Scan(&n); err != nil {
		return 0, fmt.Errorf("count rows: %w", err)
	}
	return n, nil
}

// progress is how many messages the log has, and how many of them the groups have committed.
type progress struct{ log, stored, counted int64 }

// A kill is where the service was when it was killed.
type kill struct{ rows, counted int64 }

// progress asks the broker. It also notes how many messages the log has.
func (d *demo) progress(ctx context.Context) (progress, error) {
	var p progress
	topic := events.TopicUsage
	meta, err := d.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return p, fmt.Errorf("find the partitions of %s: %w", topic, err)
	}
	var partitions []int
	var bounds []kafka.OffsetRequest
	for _, p := range meta.Topics[0].Partitions {
		partitions = append(partitions, p.ID)
		bounds = append(bounds, kafka.LastOffsetOf(p.ID))
	}
	ends, err := d.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: bounds}})
	if err != nil {
		return p, fmt.Errorf("find the end of %s: %w", topic, err)
	}
	for _, end := range ends.Topics[topic] {
		p.log += end.LastOffset
	}
	for group, done := range map[string]*int64{usageGroup: &p.stored, quotaGroup: &p.counted} {
		commits, err := d.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: partitions}})
		if err != nil {
			return p, fmt.Errorf("find the offsets of %s: %w", group, err)
		}
		for _, c := range commits.Topics[topic] {
			*done += max(0, c.CommittedOffset) // -1: none yet
		}
	}
	d.result.logged = p.log
	return p, nil
}
