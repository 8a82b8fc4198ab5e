package verify_test

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
	"tenantflow/internal/verify"
)

func TestRepair_TotalsOfADeletedRowStay(t *testing.T) {
	t.Parallel()
	in, g := consumed(t, 2, usual())
	partition, offset := in.aRow(t, 17)
	// A resend of the event, if there is one, has lost what it is a duplicate of, too.
	lost := 1 + in.resends(t, partition, offset)
	in.exec(t, fmt.Sprintf("ALTER TABLE usage_tracking DELETE WHERE _partition = %d AND _offset = %d SETTINGS mutations_sync = 2", partition, offset))

	r := in.verify(t, false)
	want(t, r, map[verify.Kind]int64{verify.Missing: lost, verify.WrongTotal: 3})
	place := fmt.Sprintf("%s/%d/%d", in.topic, partition, offset)
	if !slices.ContainsFunc(r.Findings.Sorted()[0].Samples, func(f verify.Finding) bool { return f.Where == place && f.Event != "" }) {
		t.Errorf("no finding names %s: %+v", place, r.Findings)
	}
	if rows := g.Expected().Tables.Rows; r.Sum().Rows != rows-1 {
		t.Errorf("%d rows counted of %d", r.Sum().Rows, rows)
	}

	// The totals are right and the row is missing: they must not be made what the rows say.
	r = in.verify(t, true)
	want(t, r, map[verify.Kind]int64{verify.Missing: lost, verify.WrongTotal: 3})
	if r.Repairs != (verify.Repairs{}) {
		t.Errorf("repaired %+v", r.Repairs)
	}
	for _, f := range r.Findings {
		if f.Kind == verify.WrongTotal && !strings.Contains(f.Samples[0].Detail, "not lowered, because rows may be missing") {
			t.Errorf("the finding says %q", f.Samples[0].Detail)
		}
	}

	// Published again, the event is counted again. Now no row is missing, and the log holds all there ever was.
	in.append(t, partition, in.record(t, partition, offset))
	stop := in.consume(t, 2000)
	in.awaitConsumed(t)
	stop()
	in.awaitQuiet(t)
	want(t, in.verify(t, false), map[verify.Kind]int64{verify.WrongTotal: 3})
	r = in.verify(t, true)
	want(t, r, nil)
	if r.Repairs.TotalsMended != 3 {
		t.Errorf("repaired %+v", r.Repairs)
	}
	in.matchesModel(t, g)
}

func TestRepair_LowersOnlyWhatTheLogHolds(t *testing.T) {
	t.Parallel()
	in, g := consumed(t, 1, model.Config{Seed: 3, Count: 500, Companies: 3, UsersPerCompany: 3})
	in.exec(t, "ALTER TABLE usage_tracking DELETE WHERE _offset < 20 SETTINGS mutations_sync = 2")
	in.deleteRecords(t, 0, 20)
	before := in.number(t, "SELECT toInt64(sum(total_api_calls)) FROM billing_monthly")
	r := in.verify(t, true)
	if r.Findings.Count(verify.Missing) != 0 || r.Findings.Count(verify.WrongTotal) == 0 {
		t.Fatalf("%d missing, %d wrong totals", r.Findings.Count(verify.Missing), r.Findings.Count(verify.WrongTotal))
	}
	if after := in.number(t, "SELECT toInt64(sum(total_api_calls)) FROM billing_monthly"); after != before {
		t.Errorf("billed %d calls, before the repair %d", after, before)
	}
	// An operator who knows that the rows are right says so.
	r = in.verify(t, true, func(c *verify.Config) { c.Lower = true })
	want(t, r, nil)
	rows := in.number(t, "SELECT count() FROM usage_tracking")
	if after := in.number(t, "SELECT toInt64(sum(total_api_calls)) FROM billing_monthly"); after != rows || rows >= g.Expected().Tables.Rows {
		t.Errorf("billed %d calls for %d rows", after, rows)
	}
}

// resends counts the other records with the identity of the one at a place.
func (in *installation) resends(t *testing.T, partition int, offset int64) int64 {
	t.Helper()
	identity := func(r *events.Record) string {
		e, err := events.ParseEnvelope(r)
		if err != nil {
			return ""
		}
		return e.Source + "\n" + e.ID
	}
	wanted := identity(in.record(t, partition, offset))
	n := int64(0)
	for p := range in.partitions {
		in.read(t, p, func(r *events.Record) {
			if identity(r) == wanted && (r.Partition != partition || r.Offset != offset) {
				n++
			}
		})
	}
	return n
}

func (in *installation) read(t *testing.T, partition int, each func(*events.Record)) {
	t.Helper()
	all := kafka.Range{To: 1 << 60}
	if err := kafka.ReadLog(t.Context(), in.client, in.topic, partition, all, func(r *events.Record) error { each(r); return nil }); err != nil {
		t.Fatal(err)
	}
}

func (in *installation) record(t *testing.T, partition int, offset int64) *events.Record {
	t.Helper()
	var found *events.Record
	in.read(t, partition, func(r *events.Record) {
		if r.Offset == offset {
			c := kafka.CopyRecord(r)
			found = &c
		}
	})
	if found == nil {
		t.Fatalf("no record at %d/%d", partition, offset)
	}
	return found
}

func copiedRow(t *testing.T, in *installation, g *model.Generator) {
	t.Helper()
	partition, offset := in.aRow(t, 4)
	in.copyRow(t, partition, offset, "")
	in.awaitQuiet(t)
	want(t, in.verify(t, false), map[verify.Kind]int64{verify.DoubledRow: 1})

	r := in.verify(t, true)
	clean(t, r, g.Expected())
	if r.Repairs.RowsRemoved != 1 || r.Repairs.TotalsMended != 3 {
		t.Errorf("repaired %+v", r.Repairs)
	}
	in.matchesModel(t, g)
}

func equalCopies(t *testing.T, in *installation, g *model.Generator) {
	t.Helper()
	in.attachCopies(t, 1)
	want(t, in.verify(t, false), map[verify.Kind]int64{verify.DoubledRow: 1, verify.WrongTotal: 3})
	r := in.verify(t, true)
	clean(t, r, g.Expected())
	if r.Repairs.RowsRemoved != 1 {
		t.Errorf("repaired %+v", r.Repairs)
	}
	in.matchesModel(t, g)
}

// equalCopiesFewer has another repair remove one of three copies when this one has counted them: the last one stays.
func equalCopiesFewer(t *testing.T, in *installation, g *model.Generator) {
	t.Helper()
	in.attachCopies(t, 2)
	in.verify(t, true, func(c *verify.Config) {
		var once sync.Once
		c.Approve = func(verify.Plan) (bool, error) {
			once.Do(func() {
				const copies = "(_partition, _offset, _insert_by) IN (SELECT _partition, _offset, _insert_by FROM twin)"
				var part string
				if err := in.db.QueryRow(t.Context(), "SELECT max(_part) FROM usage_tracking WHERE "+copies).Scan(&part); err != nil {
					t.Fatal(err)
				}
				in.exec(t, "ALTER TABLE usage_tracking DELETE WHERE "+copies+" AND _part = '"+part+"' SETTINGS mutations_sync = 2")
				if n := in.number(t, "SELECT count() FROM usage_tracking WHERE "+copies); n != 2 {
					t.Fatalf("%d copies are left, want 2", n)
				}
			})
			return true, nil
		}
	})
	// The mutation has given the rows other parts, so the repair has found none of those that it had named. The next one does.
	clean(t, in.verify(t, true), g.Expected())
	in.matchesModel(t, g)
}

// attachCopies attaches a partition that holds a row once more. That makes copies equal in everything, without the views taking notice.
func (in *installation) attachCopies(t *testing.T, copies int) {
	t.Helper()
	partition, offset := in.aRow(t, 4)
	in.exec(t, "CREATE TABLE twin AS usage_tracking")
	in.exec(t, "ALTER TABLE twin DROP CONSTRAINT in_time")
	in.exec(t, fmt.Sprintf("INSERT INTO twin SELECT * FROM usage_tracking WHERE _partition = %d AND _offset = %d", partition, offset))
	in.exec(t, "ALTER TABLE usage_tracking DROP CONSTRAINT in_time")
	for range copies {
		in.exec(t, "ALTER TABLE usage_tracking ATTACH PARTITION ALL FROM twin")
	}
}

func foreignRow(t *testing.T, in *installation, _ *model.Generator) {
	t.Helper()
	_, offset := in.aRow(t, 9)
	in.copyRow(t, 0, offset, "'stranger' AS event_id")
	// Another one at a place where a dead letter is: the log has no usage event there.
	letter := in.aLetter(t)
	in.copyRow(t, 0, offset, fmt.Sprintf("'stranger too' AS event_id, %d AS _partition, toInt64(%d) AS _offset", letter.Partition, letter.Offset))
	in.awaitQuiet(t)
	r := in.verify(t, false)
	want(t, r, map[verify.Kind]int64{verify.ForeignRow: 2})
	if f := r.Findings.Sorted()[0]; f.Kind != verify.ForeignRow || !slices.ContainsFunc(f.Samples, func(f verify.Finding) bool { return f.Event != "" }) {
		t.Errorf("the event of the row is not named: %+v", f)
	}
}

// aLetter is the first dead letter of the topic that is not a conflict.
func (in *installation) aLetter(t *testing.T) *events.DeadLetter {
	t.Helper()
	var found *events.DeadLetter
	for p := range 2 {
		all := kafka.Range{To: 1 << 60}
		err := kafka.ReadLog(t.Context(), in.client, events.DeadLetterTopic(in.topic), p, all, func(r *events.Record) error {
			c := kafka.CopyRecord(r)
			d, err := events.ParseDeadLetter(&c)
			if err == nil && d.Reason != events.Conflict && found == nil {
				found = d
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if found == nil {
		t.Fatal("the traffic made no dead letters")
	}
	return found
}

func alteredRow(t *testing.T, in *installation, g *model.Generator) {
	t.Helper()
	for n, change := range []string{"data_points_consumed = data_points_consumed + 1", "processing_time_ms = processing_time_ms + 1",
		"revenue_attributed = revenue_attributed + 1", "api_endpoint = '/other'", "service_name = 'other'", "subscription_tier = 'other'",
		"billing_period = '1999-01'"} {
		partition, offset := in.aRow(t, 100+n)
		in.exec(t, fmt.Sprintf("ALTER TABLE usage_tracking UPDATE %s WHERE _partition = %d AND _offset = %d SETTINGS mutations_sync = 2", change, partition, offset))
	}
	r := in.verify(t, false)
	if n := r.Findings.Count(verify.AlteredRow); n != 7 {
		t.Errorf("%d of 7 altered rows found: %+v", n, r.Findings)
	}
	if s := r.Sum(); s.Rows != g.Expected().Tables.Rows {
		t.Errorf("%d rows counted of %d", s.Rows, g.Expected().Tables.Rows)
	}
}

// letter publishes a dead letter.
func (in *installation) letter(t *testing.T, r *events.Record, group string, reason events.Reason) {
	t.Helper()
	m := kafkatest.Letter(r, group, events.Reject(reason, "because"), time.Now())
	m.Topic = events.DeadLetterTopic(in.topic)
	w := enginetest.Writer(in.client)
	w.BatchTimeout = time.Millisecond
	defer func() { _ = w.Close() }()
	if err := w.WriteMessages(t.Context(), m); err != nil {
		t.Fatal(err)
	}
}

// withoutLetters recreates the dead letter topic, with all but some of its letters.
func (in *installation) withoutLetters(t *testing.T, dropped func(*events.DeadLetter) bool) (n int) {
	t.Helper()
	topic := events.DeadLetterTopic(in.topic)
	var kept []kafkago.Message
	for p := range 2 {
		all := kafka.Range{To: 1 << 60}
		err := kafka.ReadLog(t.Context(), in.client, topic, p, all, func(r *events.Record) error {
			c := kafka.CopyRecord(r)
			d, err := events.ParseDeadLetter(&c)
			if err != nil {
				return err
			}
			if dropped(d) {
				n++
				return nil
			}
			m := kafkago.Message{Topic: topic, Key: c.Key, Value: c.Value}
			for _, h := range c.Headers {
				m.Headers = append(m.Headers, kafkago.Header{Key: h.Key, Value: h.Value})
			}
			kept = append(kept, m)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	in.recreate(t, topic, 2)
	w := enginetest.Writer(in.client)
	w.BatchTimeout, w.Balancer = time.Millisecond, &kafkago.Hash{}
	defer func() { _ = w.Close() }()
	if err := w.WriteMessages(t.Context(), kept...); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestAnEventWithoutItsDeadLetterIsMissing(t *testing.T) {
	t.Parallel()
	in, _ := consumed(t, 2, usual())
	lost := map[events.Reason]int{}
	n := in.withoutLetters(t, func(d *events.DeadLetter) bool {
		// One of every reason.
		lost[d.Reason]++
		return lost[d.Reason] == 1
	})
	if lost[events.Conflict] == 0 || n < 5 {
		t.Fatalf("the traffic has only %v", lost)
	}
	want(t, in.verify(t, false), map[verify.Kind]int64{verify.Missing: int64(n)})
}

func TestADeadLetterCountsOnlyWithTheBytesOfItsOriginAndFromTheRightGroup(t *testing.T) {
	t.Parallel()
	in, _ := consumed(t, 2, usual())
	var letter *events.DeadLetter
	in.withoutLetters(t, func(d *events.DeadLetter) bool {
		if letter == nil && d.Reason == events.MalformedData {
			letter = d
			return true
		}
		return false
	})
	record := in.record(t, letter.Partition, letter.Offset)
	in.letter(t, record, in.topic+".quota", events.MalformedData)
	want(t, in.verify(t, false), map[verify.Kind]int64{verify.Missing: 1})

	other := *record
	other.Value = []byte("other bytes")
	in.letter(t, &other, in.group, events.MalformedData)
	want(t, in.verify(t, false), map[verify.Kind]int64{verify.Missing: 1, verify.ForeignLetter: 1})

	in.letter(t, record, in.group, events.MalformedData)
	in.letter(t, record, in.group, events.MalformedData) // twice, as after a crash
	want(t, in.verify(t, false), map[verify.Kind]int64{verify.ForeignLetter: 1})
}

func TestADeadLetterWhoseEventIsARowIsSettled(t *testing.T) {
	t.Parallel()
	in, g := consumed(t, 2, usual())
	partition, offset := in.aRow(t, 3)
	in.letter(t, in.record(t, partition, offset), in.group, events.TimestampInFuture)
	// And one of an event that is stored, with its data, from another place.
	in.duplicate(t, g)
	r := in.verify(t, false)
	want(t, r, map[verify.Kind]int64{verify.RowAndDeadLetter: 2})
}

// duplicate makes a dead letter of a record that repeats a stored event.
func (in *installation) duplicate(t *testing.T, _ *model.Generator) {
	t.Helper()
	seen := map[string]bool{}
	var repeated *events.Record
	for p := range in.partitions {
		in.read(t, p, func(r *events.Record) {
			e, err := events.ParseEnvelope(r)
			if err != nil || repeated != nil {
				return
			}
			text := e.Source + e.ID + string(r.Value)
			if seen[text] {
				c := kafka.CopyRecord(r)
				repeated = &c
			}
			seen[text] = true
		})
	}
	if repeated == nil {
		t.Fatal("the traffic repeats nothing")
	}
	in.letter(t, repeated, in.group, events.TimestampTooOld)
}

func TestTheQuotaConsumersRefusalIsNamedAndIsNoDifference(t *testing.T) {
	t.Parallel()
	in, _ := consumed(t, 2, usual())
	partition, offset := in.aRow(t, 3)
	in.letter(t, in.record(t, partition, offset), in.topic+".quota", events.TenantMismatch)
	r := in.verify(t, false)
	want(t, r, map[verify.Kind]int64{verify.TenantMismatch: 1})
	if n := r.Findings.Count(verify.RowAndDeadLetter); n != 0 {
		t.Errorf("%d letters settled, but the letter is of another group", n)
	}
}

func rowsBehind(t *testing.T, in *installation, _ *model.Generator) {
	t.Helper()
	partition, offset := in.aRow(t, 3)
	in.copyRow(t, partition, offset, "'behind' AS event_id, toInt64(1000000) AS _offset")
	in.copyRow(t, partition, offset, "'elsewhere' AS event_id, 77 AS _partition")
	in.awaitQuiet(t)
	want(t, in.verify(t, false), map[verify.Kind]int64{verify.BeyondLog: 2})
}

func TestATopicMadeAnewIsNotTakenForTheOldOne(t *testing.T) {
	t.Parallel()
	in, _ := consumed(t, 1, usual())
	in.recreate(t, in.topic, 1)
	want(t, in.verify(t, false), map[verify.Kind]int64{verify.BeyondLog: 1})
	in.commit(t, 0, 5000) // the broker has dropped that with the topic; others keep it
	want(t, in.verify(t, false), map[verify.Kind]int64{verify.BeyondLog: 2})
	// As long as before, and with other events.
	c := usual()
	c.Seed, c.Start = 99, time.Now().Add(-6*time.Hour)
	g, err := model.New(c)
	if err != nil {
		t.Fatal(err)
	}
	in.publish(t, g, 0)
	r := in.verify(t, false)
	if r.Findings.Count(verify.ForeignRow) < 4000 || r.Findings.Count(verify.Missing) < 4000 || r.Findings.Count(verify.ForeignLetter) < 10 {
		t.Errorf("%+v", r.Findings)
	}
}

// commit sets the group's offset, as Kafka's own tool would.
func (in *installation) commit(t *testing.T, partition int, offset int64) {
	t.Helper()
	in.commitWith(t, partition, offset, "")
}

func (in *installation) commitWith(t *testing.T, partition int, offset int64, metadata string) {
	t.Helper()
	kafkatest.CommitOutside(t, in.client, in.group, in.topic, map[int]int64{partition: offset}, metadata)
}

func nothingCommitted(t *testing.T, in *installation, _ *model.Generator) {
	t.Helper()
	want(t, in.verify(t, false, func(c *verify.Config) { c.Group = "another" }), map[verify.Kind]int64{verify.NotConsumed: 1})
}
