package verify_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/model"
	"tenantflow/internal/verify"
)

// append writes records to one partition and returns the offset of the first.
func (in *installation) append(t *testing.T, partition int, records ...*events.Record) int64 {
	t.Helper()
	first := int64(-1)
	// Not the client's transport: that remembers for seconds that it could not get the metadata on a busy machine.
	transport := &kafka.Transport{DialTimeout: enginetest.Patience}
	defer transport.CloseIdleConnections()
	w := enginetest.Writer(in.client)
	w.Transport, w.Topic, w.BatchTimeout = transport, in.topic, time.Millisecond
	w.Balancer = kafka.BalancerFunc(func(kafka.Message, ...int) int { return partition })
	defer func() { _ = w.Close() }()
	for _, r := range records {
		m := kafka.Message{Key: r.Key, Value: r.Value, Time: r.Time}
		for _, h := range r.Headers {
			m.Headers = append(m.Headers, kafka.Header{Key: h.Key, Value: h.Value})
		}
		if err := w.WriteMessages(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	in.read(t, partition, func(r *events.Record) { first = r.Offset })
	return first - int64(len(records)) + 1
}

// race makes what two owners make that take one event, published under two keys, at the same moment: two rows. It
// returns the place of the second one.
func (in *installation) race(t *testing.T, n int, other func(*events.Record), replace string) (partition int, offset int64) {
	t.Helper()
	firstPartition, firstOffset := in.aRow(t, n)
	r := in.record(t, firstPartition, firstOffset)
	r.Key = []byte("another key")
	if other != nil {
		other(r)
	}
	partition = 1 - firstPartition
	offset = in.append(t, partition, r)
	in.copyRow(t, firstPartition, firstOffset, fmt.Sprintf("%s %d AS _partition, toInt64(%d) AS _offset", replace, partition, offset))
	in.commit(t, partition, offset+1)
	return partition, offset
}

func TestAnEventStoredUnderTwoKeysIsFoundAndItsLaterRowRemoved(t *testing.T) {
	t.Parallel()
	in, g := consumed(t, 2, usual())
	partition, offset := in.race(t, 30, nil, "")
	in.awaitQuiet(t)

	r := in.verify(t, false)
	want(t, r, map[verify.Kind]int64{verify.DoubledEvent: 1})
	place := fmt.Sprintf("%s/%d/%d", in.topic, partition, offset)
	if f := r.Findings.Sorted()[0].Samples[0]; f.Where != place {
		t.Errorf("the later row is said to be %s, want %s", f.Where, place)
	}
	r = in.verify(t, true)
	expected := g.Expected()
	expected.Messages++
	expected.Duplicates++
	clean(t, r, expected)
	if r.Repairs != (verify.Repairs{RowsRemoved: 1, TotalsMended: 3}) {
		t.Errorf("repaired %+v", r.Repairs)
	}
	in.matchesModel(t, g)
}

func TestOneIdentityStoredWithOtherDataBecomesTheDeadLetterItShouldHaveBeen(t *testing.T) {
	t.Parallel()
	in, g := consumed(t, 2, usual())
	// A binary event, so that its company can be changed in the data alone.
	n := 0
	for {
		p, o := in.aRow(t, n)
		if r := in.record(t, p, o); strings.Contains(string(r.Value), `"data_points_consumed":`) && !strings.Contains(string(r.Value), "specversion") {
			break
		}
		n++
	}
	in.race(t, n, func(r *events.Record) {
		r.Value = []byte(strings.Replace(string(r.Value), `"data_points_consumed":`, `"data_points_consumed":1`, 1))
	}, "toUInt32(concat('1', toString(data_points_consumed))) AS data_points_consumed,")
	in.awaitQuiet(t)
	want(t, in.verify(t, false), map[verify.Kind]int64{verify.DoubledEvent: 1})

	r := in.verify(t, true)
	expected := g.Expected()
	expected.Messages++
	expected.DeadLetters[events.Conflict]++
	clean(t, r, expected)
	if r.Repairs.RowsRemoved != 1 || r.Repairs.DeadLetters != 1 {
		t.Errorf("repaired %+v", r.Repairs)
	}
	in.matchesModel(t, g)
}

func TestARowWithOtherDataWhoseEventHasLeftTheLogIsLeftForAPerson(t *testing.T) {
	t.Parallel()
	in, _ := consumed(t, 2, usual())
	partition, _ := in.race(t, 30, nil, "'another-company' AS company_id, timestamp + INTERVAL 1 DAY AS timestamp,")
	in.awaitQuiet(t)
	in.deleteRecords(t, partition, -1)
	r := in.verify(t, true)
	want(t, r, map[verify.Kind]int64{verify.DoubledEvent: 1})
	if r.Repairs != (verify.Repairs{}) {
		t.Errorf("repaired %+v", r.Repairs)
	}
}

func manyDoubles(t *testing.T, in *installation, g *model.Generator) {
	t.Helper()
	in.double(t, "_partition = 1")
	rows := in.number(t, "SELECT count() FROM usage_tracking WHERE _partition = 1") / 2
	in.awaitQuiet(t)
	want(t, in.verify(t, false), map[verify.Kind]int64{verify.DoubledRow: rows})
	r := in.verify(t, true)
	clean(t, r, g.Expected())
	if r.Repairs.RowsRemoved != rows {
		t.Errorf("%d of %d rows removed", r.Repairs.RowsRemoved, rows)
	}
	in.matchesModel(t, g)
}

func rowUnderWay(t *testing.T, in *installation, _ *model.Generator) {
	t.Helper()
	partition, offset := in.aRow(t, 30)
	in.exec(t, fmt.Sprintf("INSERT INTO usage_tracking SELECT * REPLACE (now64(3) + INTERVAL 1 HOUR AS _insert_by, toInt64(900000) AS _offset) FROM "+
		"(SELECT * FROM usage_tracking WHERE _partition = %d AND _offset = %d)", partition, offset))
	r := in.verify(t, true)
	if n := r.Findings.Count(verify.DoubledEvent); n != 0 || r.Repairs != (verify.Repairs{}) {
		t.Errorf("%d doubles, repaired %+v", n, r.Repairs)
	}
}

func TestTheRunningServiceMakesNoFalseFindings(t *testing.T) {
	t.Parallel()
	in := install(t, 3)
	c := usual()
	c.Count, c.Start, c.Step = 40_000, time.Now().Add(-30*time.Minute), 30*time.Millisecond
	g, err := model.New(c)
	if err != nil {
		t.Fatal(err)
	}
	in.publish(t, g, 2000)
	stop := in.consume(t, 300)
	in.awaitConsumed(t)
	published := make(chan struct{})
	go func() {
		defer close(published)
		for range 19 {
			in.publish(t, g, 2000)
		}
	}()
	// The service gives its inserts that much, and on a busy machine they take it.
	v, busy := in.verifier(t, func(c *verify.Config) { c.InsertTimeout = 3 * insertTimeout }), false
	for running, runs := true, 0; running; runs++ {
		select {
		case <-published:
			running = false
		default:
		}
		// With repair: a false finding would even do harm.
		r, err := v.Run(t.Context(), true)
		if err != nil {
			t.Fatal(err)
		}
		want(t, r, nil)
		if r.Repairs != (verify.Repairs{}) {
			t.Errorf("repaired %+v", r.Repairs)
		}
		busy = busy || r.Sum().NotConsumed > 0 || r.Sum().RowsAfter > 0
		t.Logf("run %d: %d offsets judged, %d not consumed", runs, r.Sum().Judged, r.Sum().NotConsumed)
	}
	if !busy {
		t.Error("no run met the service at work: the test proves nothing")
	}
	in.awaitConsumed(t)
	stop()
	in.awaitQuiet(t)
	clean(t, in.verify(t, false), g.Expected())
	in.matchesModel(t, g)
}
