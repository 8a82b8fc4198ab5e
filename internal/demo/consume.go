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

// consume runs the service until its group has committed the end of every partition, and kills and restarts it when a
// quarter and when three fifths of the events are rows.
func (d *demo) consume(ctx context.Context) error {
	if err := d.service.start(); err != nil {
		return err
	}
	killAt := []int64{int64(d.Events) / 4, int64(d.Events) * 3 / 5}
	began := time.Now()
	var rows int64
	grew := began             // when rows were last seen to become more
	var firstGrowth time.Time // of this run of the service
	var atWork time.Duration  // of all runs: from a run's first new row to its last
	endRun := func() {
		if !firstGrowth.IsZero() {
			atWork += grew.Sub(firstGrowth)
		}
		firstGrowth = time.Time{}
	}
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
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
			grew = time.Now()
			if firstGrowth.IsZero() {
				firstGrowth = grew
			}
		}
		rows = now
		if len(killAt) > 0 && rows >= killAt[0] {
			if err := d.service.kill(); err != nil {
				return err
			}
			endRun()
			d.result.killedAt = append(d.result.killedAt, rows)
			d.say("service killed (SIGKILL) at %s rows, and started again", number(rows))
			killAt = killAt[1:]
			if err := d.service.start(); err != nil {
				return err
			}
			grew = time.Now()
			continue
		}
		lag, err := d.lag(ctx)
		if err != nil {
			return err
		}
		if lag == 0 {
			endRun()
			d.result.consuming, d.result.atWork = time.Since(began), atWork
			return nil
		}
		if time.Since(grew) > stalled {
			return fmt.Errorf("nothing was added for %s, at %d rows and a lag of %d; the service's log ends:\n%s", stalled, rows, lag, d.service.logTail())
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

// lag is how many messages of the log the group has not committed yet. It also notes how many the log has.
func (d *demo) lag(ctx context.Context) (int64, error) {
	topic := events.TopicUsage
	meta, err := d.client.Metadata(ctx, &kafka.MetadataRequest{Topics: []string{topic}})
	if err != nil {
		return 0, fmt.Errorf("find the partitions of %s: %w", topic, err)
	}
	var partitions []int
	var bounds []kafka.OffsetRequest
	for _, p := range meta.Topics[0].Partitions {
		partitions = append(partitions, p.ID)
		bounds = append(bounds, kafka.LastOffsetOf(p.ID))
	}
	ends, err := d.client.ListOffsets(ctx, &kafka.ListOffsetsRequest{Topics: map[string][]kafka.OffsetRequest{topic: bounds}})
	if err != nil {
		return 0, fmt.Errorf("find the end of %s: %w", topic, err)
	}
	commits, err := d.client.OffsetFetch(ctx, &kafka.OffsetFetchRequest{GroupID: group, Topics: map[string][]int{topic: partitions}})
	if err != nil {
		return 0, fmt.Errorf("find the offsets of %s: %w", group, err)
	}
	var log, done int64
	for _, p := range ends.Topics[topic] {
		log += p.LastOffset
	}
	for _, p := range commits.Topics[topic] {
		done += max(0, p.CommittedOffset) // -1: none yet
	}
	d.result.logged = log
	return log - done, nil
}
