package operations

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	kafkago "github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// a broker with topics of the test's own.
type logs struct {
	Config
	writer *kafkago.Writer
}

func setup(t *testing.T) *logs {
	t.Helper()
	broker := enginetest.SharedKafka(t)
	l := &logs{}
	input := enginetest.NewTopic(t, 1)
	enginetest.CreateTopic(t, broker, events.DeadLetterTopic(input), 2)
	l.Inputs, l.QuotaTopic, l.ResultTopics = []string{input, input + ".missing"}, enginetest.NewTopic(t, 2), []string{enginetest.NewTopic(t, 2)}
	l.Kafka = enginetest.KafkaClient(t, broker.Addr()) // when there are all topics
	l.writer = enginetest.Writer(l.Kafka)              // what is sent twice is counted twice
	l.writer.BatchTimeout = time.Millisecond
	t.Cleanup(func() { _ = l.writer.Close() })
	return l
}

func (l *logs) write(t *testing.T, topic string, messages ...kafkago.Message) {
	t.Helper()
	for i := range messages {
		messages[i].Topic = topic
	}
	ctx, cancel := context.WithTimeout(t.Context(), enginetest.Patience)
	defer cancel()
	if err := l.writer.WriteMessages(ctx, messages...); err != nil {
		t.Fatal(err)
	}
}

// whole looks until a look has come to the end of the log: one takes a few seconds at most, and leaves the rest to the next.
func whole[T any](t *testing.T, take func(context.Context) (T, error), complete func(T) bool) (got T) {
	t.Helper()
	enginetest.Await(t, "a look that comes to the end of the log", func() (done bool) {
		var err error
		if got, err = take(t.Context()); err != nil {
			t.Fatal(err)
		}
		return complete(got)
	})
	return got
}

func wholeLetters(l Letters) bool { return l.Complete }

func (l *logs) letter(offset int64, reason events.Reason, detail string, failed time.Time) kafkago.Message {
	rec := &events.Record{Topic: l.Inputs[0], Offset: offset, Key: []byte("k"), Value: []byte("v")}
	return kafkatest.Letter(rec, "g", events.Reject(reason, "%s", detail), failed)
}

func event(kind, data string) kafkago.Message {
	return kafkago.Message{Key: []byte(data), Value: []byte(data), Headers: []kafkago.Header{{Key: "ce_type", Value: []byte(kind)}}}
}

func TestLetters_AreCountedByReasonAsTheyCome(t *testing.T) {
	t.Parallel()
	f := setup(t)
	l := newLetters(f.Config)
	if got := whole(t, l.take, wholeLetters); got.Total != 0 {
		t.Fatalf("without letters: %+v", got)
	}
	now := time.Now().Truncate(time.Millisecond)
	f.write(t, events.DeadLetterTopic(f.Inputs[0]),
		f.letter(1, events.Conflict, "old", now.Add(-50*time.Hour)), f.letter(2, events.InvalidData, "an older one", now.Add(-time.Minute)),
		f.letter(3, events.InvalidData, "the newest", now), f.letter(4, "made_up", "no reason of the list", now), kafkago.Message{Value: []byte("no letter")})
	got := whole(t, l.take, wholeLetters)
	if got.Total != 3 || len(got.Reasons) != 2 {
		t.Fatalf("%+v", got)
	}
	want := LetterCount{Topic: f.Inputs[0], Reason: "invalid_data", Count: 2, LastDay: 2, Newest: now.UTC(), Error: "the newest",
		Command: "tenantflow dlq ls --topic " + f.Inputs[0] + " --reason invalid_data --state open"}
	if got.Reasons[0] != want {
		t.Errorf("got  %+v\nwant %+v", got.Reasons[0], want)
	}
	if c := got.Reasons[1]; c.Count != 1 || c.LastDay != 0 {
		t.Errorf("of one from the day before yesterday: %+v", c)
	}
	f.write(t, events.DeadLetterTopic(f.Inputs[0]), f.letter(5, events.Conflict, "again", now))
	if got = whole(t, l.take, wholeLetters); got.Total != 4 {
		t.Errorf("after one more: %+v", got)
	}
}

func TestQuotas_TheHighestThresholdOfTodayCounts(t *testing.T) {
	t.Parallel()
	f := setup(t)
	noonToday := time.Now().UTC().Truncate(24 * time.Hour).Add(12 * time.Hour)
	today, yesterday := noonToday.Format(time.DateOnly), noonToday.Add(-24*time.Hour).Format(time.DateOnly)
	of := func(user, date string, percent, usage int) kafkago.Message {
		kind := events.TypeQuotaThresholdReached
		if percent == 100 {
			kind = events.TypeQuotaExceeded
		}
		return event(kind, fmt.Sprintf(`{"company_id":"acme","user_id":%q,"date":%q,"threshold_percentage":%d,"current_usage":%d,"daily_limit":1000}`, user, date, percent, usage))
	}
	tomorrow := noonToday.Add(24 * time.Hour).Format(time.DateOnly)
	f.write(t, f.QuotaTopic, of("u-1", today, 80, 800), of("u-1", today, 100, 1001), of("u-2", today, 80, 810), of("u-3", yesterday, 100, 1000),
		of("u-4", tomorrow, 80, 800), of(strings.Repeat("u", 1000), today, 100, 1000), of("u-5", noonToday.Add(48*time.Hour).Format(time.DateOnly), 80, 800),
		of("u-6", today, 150, 1500), event("other.v1", "{}"), event(events.TypeQuotaExceeded, "no JSON"))
	q := newQuotas(f.Config)
	q.now = func() time.Time { return noonToday }
	got := whole(t, q.take, func(q Quotas) bool { return q.Complete })
	if got.Date != today || got.Exceeded != 2 || got.Near != 1 || len(got.Users) != 3 {
		t.Fatalf("%+v", got)
	}
	if u := got.Users[0]; u.UserID != "u-6" || u.Percentage != 150 {
		t.Errorf("the first is %+v", u)
	}
	if u := got.Users[1]; u.UserID != "u-1" || u.Percentage != 100 || u.Usage != 1001 || u.Limit != 1000 || u.Command != "tenantflow quota show u-1" {
		t.Errorf("the second is %+v", u)
	}
	// What was read before midnight counts behind it.
	q.now = func() time.Time { return noonToday.Add(24 * time.Hour) }
	got = whole(t, q.take, func(q Quotas) bool { return q.Complete })
	if got.Date != tomorrow || got.Exceeded != 0 || got.Near != 1 || len(got.Users) != 1 || got.Users[0].UserID != "u-4" {
		t.Errorf("the next day: %+v", got)
	}
	q.now = func() time.Time { return noonToday.Add(72 * time.Hour) }
	if got = whole(t, q.take, func(q Quotas) bool { return q.Complete }); len(got.Users) != 0 {
		t.Errorf("two days later: %+v", got)
	}
}

func TestDays_ATimeToComeIsNow(t *testing.T) {
	t.Parallel()
	d, now := days{}, time.Now()
	d.add(now.Add(1000 * time.Hour))
	d.add(now.Add(-time.Hour))
	d.add(now.Add(-30 * time.Hour))
	if n := d.since(time.Now()); n != 2 {
		t.Errorf("%d of the last day, want 2", n)
	}
	if n := d.since(now.Add(48 * time.Hour)); n != 0 || len(d) != 0 {
		t.Errorf("two days later: %d, and %v is kept", n, d)
	}
}

func TestRejections_TheNewestAreShown(t *testing.T) {
	t.Parallel()
	f := setup(t)
	var all []kafkago.Message
	for i := range rejectionsShown + 5 {
		m := event(events.TypeCompanyRejected, fmt.Sprintf(`{"company_id":"c-%d","request_type":"company.user_added.v1","request_id":"r","code":"user_exists","message":"m"}`, i))
		m.Time = time.Now().Add(time.Duration(i-60) * time.Minute)
		all = append(all, m)
	}
	all = append(all, event(events.TypeCompanyCreated, `{"code":"none"}`))
	f.write(t, f.ResultTopics[0], all...)
	got := whole(t, newRejections(f.Config).take, func(r Rejections) bool { return r.Complete })
	if got.LastDay != rejectionsShown+5 || got.Codes["user_exists"] != rejectionsShown+5 || len(got.Newest) != rejectionsShown {
		t.Fatalf("%+v", got)
	}
	for i, r := range got.Newest {
		if want := fmt.Sprintf("c-%d", rejectionsShown+4-i); r.CompanyID != want {
			t.Errorf("place %d has %s, want %s", i, r.CompanyID, want)
		}
	}
}

func TestTail_ALongLogTakesSeveralLooks(t *testing.T) {
	t.Parallel()
	f := setup(t)
	var all []kafkago.Message
	for i := range 50 {
		all = append(all, kafkago.Message{Value: fmt.Append(nil, i)})
	}
	f.write(t, f.QuotaTopic, all...)
	follow := &tail{client: f.Kafka, topics: []string{f.QuotaTopic}, depth: 1000}
	seen, looks := map[string]int{}, 0
	for complete := false; !complete; looks++ {
		var err error
		patience := time.Hour
		if looks < 3 {
			patience = -1 // over at once
		}
		if complete, err = follow.follow(t.Context(), patience, func(rec *events.Record) { seen[string(rec.Value)]++ }); err != nil {
			t.Fatal(err)
		}
	}
	if looks != 4 || len(seen) != 50 {
		t.Errorf("%d looks, %d records", looks, len(seen))
	}
	for value, n := range seen {
		if n != 1 {
			t.Errorf("record %s is shown %d times", value, n)
		}
	}
}
