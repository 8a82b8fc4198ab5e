package model_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"tenantflow/events"
	"tenantflow/internal/model"
)

var start = time.Date(2026, 11, 20, 22, 0, 0, 0, time.UTC)

// now is the clock of the service in these tests: shortly after the last event.
var now = start.Add(100 * time.Hour)

var limits = events.UsageLimits{FutureTolerance: time.Hour, MaxAge: 2 * 365 * 24 * time.Hour}

func everything(seed uint64, count int) model.Config {
	return model.Config{
		Seed: seed, Count: count, Companies: 7, UsersPerCompany: 5, Start: start, Step: time.Second,
		Resends: 0.1, Conflicts: 0.05, Late: 0.1, Malformed: 0.1, Structured: 0.3,
	}
}

func newGenerator(t interface{ Fatal(...any) }, config model.Config) *model.Generator {
	g, err := model.New(config)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func all(g *model.Generator) []model.Message {
	var messages []model.Message
	var m model.Message
	for g.Next(&m) {
		messages = append(messages, m)
	}
	return messages
}

func record(m *model.Message) *events.Record {
	return &events.Record{Topic: "usage.events", Key: m.Key, Headers: m.Headers, Value: m.Value}
}

func TestTheSameConfigGivesTheSameMessages(t *testing.T) {
	t.Parallel()
	a, b := newGenerator(t, everything(3, 2000)), newGenerator(t, everything(3, 2000))
	if x, y := fmt.Sprint(all(a)), fmt.Sprint(all(b)); x != y {
		t.Error("two generators with one config differ")
	}
	if d := model.Compare(a.Expected().Tables, b.Expected().Tables); len(d) > 0 {
		t.Error(model.Describe(d))
	}
	c := newGenerator(t, everything(4, 2000))
	all(c)
	if len(model.Compare(a.Expected().Tables, c.Expected().Tables)) == 0 {
		t.Error("another seed makes no difference")
	}
}

// The model packs keys and never looks at the bytes it sent. This adds the bytes up, in the most obvious way.
func TestTheModelIsTheSumOfWhatTheDecoderReads(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		config := everything(rapid.Uint64().Draw(t, "seed"), rapid.IntRange(0, 400).Draw(t, "count"))
		config.Companies = rapid.IntRange(1, 300).Draw(t, "companies")
		config.UsersPerCompany = rapid.IntRange(1, 40).Draw(t, "users")
		config.Step = time.Duration(rapid.IntRange(1, 800).Draw(t, "step")) * time.Second
		g := newGenerator(t, config)

		want := g.Expected()
		want.Tables.Identities, want.Tables.Contents = 0, 0
		decoder := events.NewUsageDecoder(limits)
		seen := map[string]string{}
		var m model.Message
		for g.Next(&m) {
			want.Messages++
			var u events.Usage
			err := decoder.Decode(record(&m), now, &u)
			var rejection *events.Rejection
			if errors.As(err, &rejection) {
				want.DeadLetters[rejection.Reason]++
				continue
			}
			if err != nil {
				t.Fatal(err)
			}
			identity := string(u.Source) + "\n" + string(u.ID)
			content := fmt.Sprintf("%s %s %s %d %s %s %s %d %d %s %d", m.Key, u.CompanyID, u.UserID, u.Timestamp, u.Tier, u.Service,
				u.Endpoint, u.DataPoints, u.ProcessingTime, u.BillingPeriod, u.Revenue)
			switch before, known := seen[identity]; {
			case known && before == content:
				want.Duplicates++
				continue
			case known:
				want.DeadLetters[events.Conflict]++
				continue
			}
			seen[identity] = content
			add(&want.Tables, &u)
		}

		got := g.Expected()
		got.Tables.Identities, got.Tables.Contents = 0, 0
		if got.Messages != want.Messages || got.Duplicates != want.Duplicates {
			t.Fatalf("messages %d, duplicates %d; want %d and %d", got.Messages, got.Duplicates, want.Messages, want.Duplicates)
		}
		differences := append(model.Compare(got.Tables, want.Tables), model.CompareDeadLetters(got.DeadLetters, want.DeadLetters)...)
		if len(differences) > 0 {
			t.Fatal(model.Describe(differences))
		}
	})
}

func add(tables *model.Tables, u *events.Usage) {
	at := time.UnixMilli(u.Timestamp).UTC()
	sums := model.Sums{Rows: 1, DataPoints: int64(u.DataPoints), Processing: u.ProcessingTime, Revenue: u.Revenue, Last: u.Timestamp}
	plus := func(a, b model.Sums) model.Sums {
		return model.Sums{Rows: a.Rows + b.Rows, DataPoints: a.DataPoints + b.DataPoints, Processing: a.Processing + b.Processing,
			Revenue: a.Revenue + b.Revenue, Last: max(a.Last, b.Last)}
	}
	tables.Rows++
	tables.Total = plus(tables.Total, sums)
	hour := sums
	hour.Last = 0
	sums.Processing = 0
	key := fmt.Sprintf("%s|%s|%s|%s", u.CompanyID, u.Tier, u.Service, at.Format("2006-01-02T15"))
	tables.Hourly[key] = plus(tables.Hourly[key], hour)
	key = fmt.Sprintf("%s|%s|%s|%s", u.CompanyID, u.UserID, u.Tier, at.Format(time.DateOnly))
	tables.Daily[key] = plus(tables.Daily[key], sums)
	key = fmt.Sprintf("%s|%s|%s|%s", u.CompanyID, u.UserID, u.Tier, u.BillingPeriod)
	tables.Monthly[key] = plus(tables.Monthly[key], sums)
}

func TestEveryMessageIsTakenForWhatItIs(t *testing.T) {
	t.Parallel()
	config := everything(1, 20_000)
	config.Structured = 0.5
	decoder := events.NewUsageDecoder(limits)
	flaws := map[string]int{}
	for _, m := range all(newGenerator(t, config)) {
		var u events.Usage
		err := decoder.Decode(record(&m), now, &u)
		var rejection *events.Rejection
		switch {
		case m.Kind != model.Malformed && err != nil:
			t.Errorf("message %d (%s, %s) is refused: %v\n%s", m.Number, m.Kind, m.Mode, err, m.Value)
		case m.Kind == model.Malformed && !errors.As(err, &rejection):
			t.Errorf("%s (%s): accepted, want %s\n%s", m.Flaw, m.Mode, m.Reason, m.Value)
		case m.Kind == model.Malformed && rejection.Reason != m.Reason:
			t.Errorf("%s (%s): %v, want %s", m.Flaw, m.Mode, rejection, m.Reason)
		}
		if m.Kind == model.Malformed {
			flaws[m.Flaw]++
		}
	}
	if len(flaws) < 40 {
		t.Errorf("only %d kinds of flaws occur", len(flaws))
	}
}

func TestAResendRepeatsAnEarlierMessageByteForByte(t *testing.T) {
	t.Parallel()
	config := everything(8, 20_000)
	originals := map[int]model.Message{}
	distances := []int{}
	kinds := map[model.Kind]int{}
	for i, m := range all(newGenerator(t, config)) {
		kinds[m.Kind]++
		original := originals[m.Number]
		switch m.Kind {
		case model.Fresh:
			originals[m.Number] = m
		case model.Resend:
			distances = append(distances, i-m.Number)
			original.Kind = model.Resend
			if fmt.Sprint(original) != fmt.Sprint(m) {
				t.Fatalf("message %d is no copy of %d", i, m.Number)
			}
		case model.Conflict:
			if !bytes.Equal(original.Key, m.Key) || bytes.Equal(original.Value, m.Value) {
				t.Fatalf("message %d is no conflict with %d", i, m.Number)
			}
		case model.Malformed:
		}
	}
	if n := kinds[model.Resend]; n < 1900 || n > 2100 {
		t.Errorf("%d resends of 20000 messages, want 10 %%", n)
	}
	slices.Sort(distances)
	if near, far := distances[0], distances[len(distances)-1]; near > 5 || far < 10_000 {
		t.Errorf("resends come %d to %d messages after their original, want near and far", near, far)
	}
}

func TestTheShapeOfTheTrafficIsThatOfRealTraffic(t *testing.T) {
	t.Parallel()
	config := model.Config{Seed: 5, Count: 50_000, Start: start, Late: 0.01}
	size, late := 0, 0
	var last, oldest int64 = 0, start.UnixMilli()
	decoder := events.NewUsageDecoder(limits)
	for _, m := range all(newGenerator(t, config)) {
		size += len(m.Key) + len(m.Value)
		for _, h := range m.Headers {
			size += len(h.Key) + len(h.Value)
		}
		var u events.Usage
		if err := decoder.Decode(record(&m), now, &u); err != nil {
			t.Fatal(err)
		}
		oldest = min(oldest, u.Timestamp)
		if u.Timestamp < last-5000 {
			late++
		}
		last = max(last, u.Timestamp)
	}
	if mean := size / config.Count; mean < 300 || mean > 550 {
		t.Errorf("a binary event takes %d bytes", mean)
	}
	if late < 400 || late > 600 {
		t.Errorf("%d late events of 50000, want 1 %%", late)
	}
	if span := start.Sub(time.UnixMilli(oldest)); span < 80*24*time.Hour || span > 91*24*time.Hour {
		t.Errorf("late events reach %s back, want 90 days", span)
	}
}

func TestExpectationsSurviveJSON(t *testing.T) {
	t.Parallel()
	g := newGenerator(t, everything(2, 3000))
	all(g)
	want := g.Expected()
	text, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	var got model.Expected
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if d := model.Compare(got.Tables, want.Tables); len(d) > 0 {
		t.Error(model.Describe(d))
	}
	if got.Messages != want.Messages || got.Duplicates != want.Duplicates || got.DeadLetterTotal() != want.DeadLetterTotal() {
		t.Errorf("got %d/%d/%d, want %d/%d/%d", got.Messages, got.Duplicates, got.DeadLetterTotal(), want.Messages, want.Duplicates, want.DeadLetterTotal())
	}
}

func TestCompareNamesWhatIsWrong(t *testing.T) {
	t.Parallel()
	g := newGenerator(t, everything(2, 100))
	all(g)
	got, want := g.Expected().Tables, g.Expected().Tables
	for key, sums := range got.Daily {
		sums.Revenue++
		got.Daily[key] = sums
		break
	}
	got.Hourly["ghost"] = model.Sums{Rows: 1}
	got.Identities++
	d := model.Compare(got, want)
	if len(d) != 3 || d[0].Where != "identities" || d[1].Where != "hourly ghost" || d[1].Want != "nothing" {
		t.Errorf("differences: %v", d)
	}
}

func TestABadConfigIsRefusedWithEverythingThatIsWrong(t *testing.T) {
	t.Parallel()
	_, err := model.New(model.Config{Count: -1, Resends: 0.7, Malformed: 0.7, Late: 2})
	if err == nil {
		t.Fatal("accepted")
	}
	for _, word := range []string{"count", "late", "start", "more than all"} {
		if !bytes.Contains([]byte(err.Error()), []byte(word)) {
			t.Errorf("%q does not name %s", err, word)
		}
	}
}

func BenchmarkGenerator(b *testing.B) {
	config := model.Config{Seed: 1, Start: start, Resends: 0.01, Late: 0.01, Malformed: 0.001, Count: b.N}
	g := newGenerator(b, config)
	var m model.Message
	b.ReportAllocs()
	b.ResetTimer()
	for g.Next(&m) {
	}
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "events/s")
}
