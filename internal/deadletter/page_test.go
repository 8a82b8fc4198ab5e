package deadletter_test

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/deadletter"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
)

func TestMain(m *testing.M) { enginetest.Main(m) }

// A box is an input topic with its dead letters, for one test.
type box struct {
	topic  string
	client *kafka.Client
	reader *deadletter.Reader
}

func newBox(t testing.TB, partitions int) *box {
	t.Helper()
	broker := enginetest.SharedKafka(t)
	b := &box{topic: enginetest.NewTopic(t, 1)}
	enginetest.CreateTopic(t, broker, events.DeadLetterTopic(b.topic), partitions, kafka.ConfigEntry{ConfigName: "message.timestamp.type", ConfigValue: "LogAppendTime"})
	b.client = enginetest.KafkaClient(t, broker.Addr())
	b.reader = &deadletter.Reader{Client: b.client, Topics: []string{b.topic}}
	return b
}

// begun is when the n-th letter of write failed, less n seconds.
func begun() time.Time { return time.Date(2026, 11, 20, 0, 0, 0, 0, time.UTC) }

// letter makes the n-th letter: of the offset n, of 5 companies, and of one of three reasons.
func (b *box) letter(n int) kafka.Message {
	reasons := []events.Reason{events.InvalidData, events.MissingKey, events.TenantMismatch}
	company, id := fmt.Sprintf("c-%d", n%5), fmt.Sprintf("e-%d", n)
	rec := &events.Record{Topic: b.topic, Partition: 0, Offset: int64(n), Key: []byte(company),
		Value: fmt.Appendf(nil, `{"company_id":%q,"user_id":"u-%d","padding":"................................"}`, company, n%7),
		Headers: []events.Header{{Key: "ce_specversion", Value: []byte("1.0")}, {Key: "ce_id", Value: []byte(id)}, {Key: "ce_source", Value: []byte("/app")},
			{Key: "ce_type", Value: []byte(events.TypeUsageRecorded)}, {Key: "ce_time", Value: []byte("2026-11-20T00:00:00Z")}}}
	return kafkatest.Letter(rec, "g/x.usage", events.Reject(reasons[n%3], "number %d", n), begun().Add(time.Duration(n)*time.Second))
}

// write writes letters, each portion later than the one before.
func (b *box) write(t testing.TB, portions ...[]kafka.Message) {
	t.Helper()
	w := enginetest.Writer(b.client)
	w.Topic, w.Balancer, w.BatchTimeout, w.BatchSize = events.DeadLetterTopic(b.topic), &kafka.RoundRobin{}, time.Millisecond, 1000
	defer func() { _ = w.Close() }()
	for _, p := range portions {
		if err := w.WriteMessages(t.Context(), p...); err != nil {
			t.Fatal(err)
		}
	}
}

// letters makes the letters from..to-1, in portions.
func (b *box) letters(from, to, portion int) (all [][]kafka.Message) {
	for n := from; n < to; n += portion {
		var one []kafka.Message
		for i := n; i < min(n+portion, to); i++ {
			one = append(one, b.letter(i))
		}
		all = append(all, one)
	}
	return all
}

// pages reads page after page and returns the offsets of the origins.
func (b *box) pages(t testing.TB, q deadletter.Query) (offsets []int64, pages []*deadletter.Page) {
	t.Helper()
	for range 10_000 {
		page, err := b.reader.Page(t.Context(), q)
		if err != nil {
			t.Fatal(err)
		}
		pages = append(pages, page)
		for _, l := range page.Letters {
			offsets = append(offsets, l.Offset)
		}
		if q.Cursor = page.Next; page.Next == "" {
			return offsets, pages
		}
	}
	t.Fatal("the pages have no end")
	return nil, nil
}

func numbers(from, to int, takes func(int) bool) (all []int64) {
	for n := from; n < to; n++ {
		if takes == nil || takes(n) {
			all = append(all, int64(n))
		}
	}
	return all
}

func sorted(all []int64) []int64 { return slices.Sorted(slices.Values(all)) }

func TestPage_ShowsEachLetterOnceInOrder(t *testing.T) {
	t.Parallel()
	b := newBox(t, 3)
	const n = 700
	b.write(t, b.letters(0, n, 20)...)
	for _, oldest := range []bool{false, true} {
		got, pages := b.pages(t, deadletter.Query{Oldest: oldest, Limit: 33})
		if !slices.Equal(sorted(got), numbers(0, n, nil)) {
			t.Errorf("oldest %v: %d letters, want %d, each once", oldest, len(got), n)
		}
		var last time.Time
		for _, p := range pages {
			for _, l := range p.Letters {
				if !last.IsZero() && (oldest && l.Written.Before(last) || !oldest && l.Written.After(last)) {
					t.Fatalf("oldest %v: %s was written at %s and comes behind %s", oldest, l.Place, l.Written, last)
				}
				last = l.Written
			}
		}
		// What the pages looked at joins without a gap.
		looked := map[int]int64{}
		for _, p := range pages {
			for _, l := range p.Looked {
				looked[l.Partition] += l.To - l.From
			}
		}
		for id, sum := range looked {
			if l := pages[0].Looked[id]; sum != l.LogTo-l.LogFrom {
				t.Errorf("oldest %v: partition %d: looked at %d offsets of %d", oldest, id, sum, l.LogTo-l.LogFrom)
			}
		}
	}
}

func TestPage_Filters(t *testing.T) {
	t.Parallel()
	b := newBox(t, 2)
	const n = 500
	b.write(t, b.letters(0, n, 100)...)
	at := func(i int) time.Time { return begun().Add(time.Duration(i) * time.Second) }
	origin := func(i int) events.Origin { return events.Origin{Group: "g/x.usage", Topic: b.topic, Offset: int64(i)} }
	for name, c := range map[string]struct {
		filter deadletter.Filter
		takes  func(int) bool
	}{
		"all":        {deadletter.Filter{}, nil},
		"reasons":    {deadletter.Filter{Reasons: []events.Reason{events.InvalidData, events.MissingKey}}, func(i int) bool { return i%3 != 2 }},
		"company":    {deadletter.Filter{Companies: []string{"c-3"}}, func(i int) bool { return i%5 == 3 }},
		"user":       {deadletter.Filter{Users: []string{"u-6", "u-0"}}, func(i int) bool { return i%7 == 6 || i%7 == 0 }},
		"id":         {deadletter.Filter{IDs: []string{"e-42"}}, func(i int) bool { return i == 42 }},
		"since":      {deadletter.Filter{Since: at(400)}, func(i int) bool { return i >= 400 }},
		"until":      {deadletter.Filter{Until: at(10)}, func(i int) bool { return i < 10 }},
		"both":       {deadletter.Filter{Companies: []string{"c-1"}, Reasons: []events.Reason{events.TenantMismatch}}, func(i int) bool { return i%5 == 1 && i%3 == 2 }},
		"origins":    {deadletter.Filter{Origins: []events.Origin{origin(7), origin(300)}}, func(i int) bool { return i == 7 || i == 300 }},
		"a topic":    {deadletter.Filter{Topics: []string{"other"}}, func(int) bool { return false }},
		"no company": {deadletter.Filter{Companies: []string{"c-"}}, func(int) bool { return false }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, _ := b.pages(t, deadletter.Query{Filter: c.filter, Limit: 40})
			if want := numbers(0, n, c.takes); !slices.Equal(sorted(got), want) {
				t.Errorf("got %d letters, want %d", len(got), len(want))
			}
			bounds, err := b.reader.Bounds(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			var all []int64
			if err := b.reader.All(t.Context(), bounds, &c.filter, func(l *deadletter.Letter) error {
				all = append(all, l.Offset)
				return nil
			}); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(sorted(all), sorted(got)) {
				t.Errorf("All gives %d letters, the pages %d", len(all), len(got))
			}
		})
	}
}

// Data in base64 does not hold the names as they are.
func TestPage_FiltersLookIntoBase64(t *testing.T) {
	t.Parallel()
	b := newBox(t, 1)
	data := base64.StdEncoding.EncodeToString([]byte(`{"company_id":"acme","user_id":"u-1"}`))
	rec := &events.Record{Topic: b.topic, Key: []byte("any"), Value: fmt.Appendf(nil,
		`{"specversion":"1.0","id":"e-1","source":"/app","type":%q,"time":"2026-11-20T00:00:00Z","data_base64":%q}`, events.TypeUsageRecorded, data),
		Headers: []events.Header{{Key: "content-type", Value: []byte("application/cloudevents+json")}}}
	b.write(t, []kafka.Message{kafkatest.Letter(rec, "g/x.usage", events.Reject(events.TenantMismatch, "x"), begun())})
	for _, filter := range []deadletter.Filter{{}, {Companies: []string{"acme"}}, {Users: []string{"u-1"}}} {
		if got, _ := b.pages(t, deadletter.Query{Filter: filter, Limit: 40}); len(got) != 1 {
			t.Errorf("%+v: %d letters, want 1", filter, len(got))
		}
	}
	if got, _ := b.pages(t, deadletter.Query{Filter: deadletter.Filter{Companies: []string{"other"}}, Limit: 40}); len(got) != 0 {
		t.Errorf("another company has %d letters", len(got))
	}
}

func TestPage_ALetterWrittenTwiceCountsOnce(t *testing.T) {
	t.Parallel()
	b := newBox(t, 1)
	first, rest := b.letters(0, 100, 100), b.letters(100, 120, 20)
	b.write(t, append(append(first, first[0]), rest...)...)
	for _, q := range []deadletter.Query{{Limit: 0}, {Limit: 7}, {Limit: 7, Oldest: true}, {Limit: 95}} {
		if got, _ := b.pages(t, q); !slices.Equal(sorted(got), numbers(0, 120, nil)) {
			t.Errorf("%+v: %d letters, want 120", q, len(got))
		}
	}
}

// The first page reads no more than a few records of each partition, however many letters there are.
func TestPage_ReadsLittle(t *testing.T) {
	t.Parallel()
	b := newBox(t, 4)
	const n = 20_000
	b.write(t, b.letters(0, n, 5000)...)
	page, err := b.reader.Page(t.Context(), deadletter.Query{Limit: 50, Scan: 50_000})
	if err != nil {
		t.Fatal(err)
	}
	if len(page.Letters) != 50 || page.Records > 4*64*2 || page.Next == "" {
		t.Errorf("%d letters, %d records read, next %q; want 50 letters of at most 512 records and a next page", len(page.Letters), page.Records, page.Next)
	}
	// One that finds nothing stops where it was told to, and says how far it looked.
	q := deadletter.Query{Filter: deadletter.Filter{IDs: []string{"e-0"}}, Limit: 50, Scan: 3000}
	if page, err = b.reader.Page(t.Context(), q); err != nil {
		t.Fatal(err)
	}
	looked := int64(0)
	for _, l := range page.Looked {
		looked += l.To - l.From
		if l.LogTo != n/4 || l.LogFrom != 0 || l.To != l.LogTo {
			t.Errorf("%+v, want the end of 0-%d", l, n/4)
		}
	}
	if len(page.Letters) != 0 || looked != 3000 || page.Records != 3000 || page.Next == "" {
		t.Errorf("%d letters, looked at %d, read %d, next %q; want 0 letters and 3000 of each", len(page.Letters), looked, page.Records, page.Next)
	}
	q.Scan = 0
	if page, err = b.reader.Page(t.Context(), q); err != nil || len(page.Letters) != 1 || page.Next != "" {
		t.Errorf("%v, %+v, want the letter", err, page)
	}
}

func TestPage_RefusesACursorOfAnotherOrder(t *testing.T) {
	t.Parallel()
	b := newBox(t, 1)
	b.write(t, b.letters(0, 10, 10)...)
	page, err := b.reader.Page(t.Context(), deadletter.Query{Limit: 3})
	if err != nil {
		t.Fatal(err)
	}
	for _, cursor := range []string{page.Next, "???", "AAAA"} {
		var wrong *deadletter.CursorError
		if _, err := b.reader.Page(t.Context(), deadletter.Query{Limit: 3, Oldest: true, Cursor: cursor}); !errors.As(err, &wrong) {
			t.Errorf("cursor %q: %v, want a CursorError", cursor, err)
		}
	}
}

func TestFind(t *testing.T) {
	t.Parallel()
	b := newBox(t, 2)
	b.write(t, b.letters(0, 300, 50)...)
	want := events.Origin{Group: "g/x.usage", Topic: b.topic, Offset: 17}
	l, _, err := b.reader.Find(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	if l.Origin != want || l.ID != "e-17" || l.Company != "c-2" || len(l.Headers) != 5 || l.Detail != "number 17" {
		t.Errorf("got %+v", l)
	}
	want.Group = "another"
	if _, looked, err := b.reader.Find(t.Context(), want); !errors.Is(err, deadletter.ErrNoLetter) || len(looked) != 2 || looked[0].From != 0 {
		t.Errorf("%v, looked at %v; want ErrNoLetter after everything", err, looked)
	}
	want.Topic = "no.such.topic"
	if _, _, err := b.reader.Find(t.Context(), want); !errors.Is(err, deadletter.ErrNoLetter) {
		t.Errorf("%v, want ErrNoLetter", err)
	}
}

func TestParseOrigin(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"g.usage/usage.events/3/1042", "a/b/c/usage.events/0/0"} {
		o, err := deadletter.ParseOrigin(text)
		if err != nil || deadletter.FormatOrigin(o) != text {
			t.Errorf("%s: %+v, %v", text, o, err)
		}
	}
	for _, text := range []string{"", "usage.events/3/1042", "/t/1/2", "g//1/2", "g/t/-1/2", "g/t/1/-2", "g/t/x/2", "g/t/1/2/"} {
		if o, err := deadletter.ParseOrigin(text); err == nil {
			t.Errorf("%q: %+v, want an error", text, o)
		}
	}
}

// BenchmarkPage_First reads the first page over DLQ_LETTERS letters (default: 100,000).
func BenchmarkPage_First(b *testing.B) {
	n := enginetest.Number(b, "DLQ_LETTERS", 100_000)
	x := newBox(b, 8)
	for from := 0; from < n; from += 100_000 {
		x.write(b, x.letters(from, min(n, from+100_000), 100_000)...)
	}
	for name, q := range map[string]deadletter.Query{
		"first page":      {Limit: 50, Scan: 50_000},
		"filtered":        {Filter: deadletter.Filter{Companies: []string{"c-3"}, Reasons: []events.Reason{events.MissingKey}}, Limit: 50, Scan: 50_000},
		"nothing to find": {Filter: deadletter.Filter{Companies: []string{"nosuch"}}, Limit: 50, Scan: 50_000},
		"all, no letter":  {Filter: deadletter.Filter{Companies: []string{"nosuch"}}, Limit: 50},
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				page, err := x.reader.Page(context.Background(), q)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportMetric(float64(page.Records), "records")
			}
		})
	}
}
