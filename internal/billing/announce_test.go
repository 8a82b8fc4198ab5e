package billing

import (
	"context"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
	"tenantflow/internal/kafka/kafkatest"
)

// Wherever a process dies, the export is closed once and announced: by one event, however often that is published.
func TestClose_KilledAtAnyStep(t *testing.T) {
	t.Parallel()
	f := setup(t)
	log := kafkatest.NewLog(t, enginetest.SharedKafka(t), 1)
	results := kafka.NewResults(log.Client)
	defer func() { _ = results.Close() }()
	f.cfg.Results, f.cfg.Topic = results, log.Topic
	decoder, err := events.NewDecoder("")
	if err != nil {
		t.Fatal(err)
	}
	f.put(t, row{user: "u", at: ago(6).Start(), points: 1, offset: 1})
	for i, step := range []Step{StepRead, StepStored, StepPublished} {
		period := ago(6 - i)
		ctx, kill := context.WithCancel(t.Context())
		dying := New(f.cfg)
		dying.cfg.Step = func(s Step) {
			if s == step {
				kill()
			}
		}
		_, err := dying.Close(ctx, "acme", period)
		if (err != nil) != (step == StepRead) {
			t.Errorf("killed at %s: %v", step, err)
		}
		there, err := f.store.BillingExport(t.Context(), "acme", period.String())
		if err != nil || (there != nil) != (step != StepRead) || there != nil && there.PublishedAt != nil {
			t.Fatalf("killed at %s, there is %+v, %v", step, there, err)
		}
		// Another process.
		if n, err := f.Announce(t.Context()); err != nil || n != map[bool]int{true: 1}[step != StepRead] {
			t.Errorf("killed at %s: %d announced, %v", step, n, err)
		}
		again := f.closed(t, "acme", period)
		if there != nil && (again.Checksum != there.Checksum || string(again.JSON) != string(there.ContentJSON)) {
			t.Errorf("killed at %s: it was closed again", step)
		}
		ids := map[string]int{}
		log.ReadAll(t, log.Topic, func(r *events.Record) {
			e, err := events.ParseEnvelope(r)
			if err != nil {
				t.Fatal(err)
			}
			if err := decoder.CheckData(e.Type, e.Data); err != nil {
				t.Errorf("%v in %s", err, e.Data)
			}
			var data ready
			if err := json.Unmarshal(e.Data, &data); err != nil {
				t.Fatal(err)
			}
			if data.Period != period.String() {
				return
			}
			ids[e.ID]++
			if string(r.Key) != "acme" || e.Type != events.TypeBillingExportReady || e.CausationSource != "/tenantflow/schedule" || e.CausationID != "billing:acme:"+period.String() ||
				e.ID != events.ResultID(e.CausationSource, e.CausationID, e.Type, 0) || data.Checksum != again.Checksum || data.Location != "/v1/companies/acme/billing/"+period.String() || !strings.Contains(string(data.Totals), `"usage"`) {
				t.Errorf("%+v with %s", e, e.Data)
			}
		})
		if want := map[Step]int{StepRead: 1, StepStored: 1, StepPublished: 2}[step]; len(ids) != 1 || ids[again.eventID()] != want {
			t.Errorf("killed at %s: events %v, want one, %d times", step, ids, want)
		}
		if n, err := f.Announce(t.Context()); err != nil || n != 0 {
			t.Errorf("killed at %s, afterwards: %d announced, %v", step, n, err)
		}
	}
}

func (x *Export) eventID() string {
	return events.ResultID("/tenantflow/schedule", causeID(x.Company, x.Period), events.TypeBillingExportReady, 0)
}

func TestPositions_SayHowFarEventsAreStored(t *testing.T) {
	t.Parallel()
	broker := enginetest.SharedKafka(t)
	usage, subscriptions := kafkatest.NewLog(t, broker, 2), kafkatest.NewLog(t, broker, 1)
	p := NewPositions(enginetest.KafkaClient(t, broker.Addr()), Source{usage.Topic, usage.Group}, Source{subscriptions.Topic, subscriptions.Group}, Source{subscriptions.Topic, subscriptions.Group})
	defer p.Close()
	look := func() AsOf {
		t.Helper()
		at, err := p.Look(t.Context(), time.Now())
		if err != nil {
			t.Fatal(err)
		}
		return at
	}
	long := time.Now().Add(-time.Hour)
	at := look()
	if why := at.Usage.behind(long); why != "" || at.Usage.Complete == nil || len(at.Usage.Partitions) != 2 || at.Usage.Partitions[1].Offset != 0 || at.Subscriptions.Topic != subscriptions.Topic {
		t.Errorf("of empty logs: %q, %+v", why, at)
	}
	before := time.Now()
	usage.Produce(t, kafkatest.Values(1, "a", "b")...)
	at = look()
	if at.Usage.Partitions[1].Offset != 0 || at.Usage.behind(before) == "" {
		t.Errorf("nothing is stored: %+v", at)
	}
	if why := at.Usage.behind(long); !strings.Contains(why, "it is not known how far partition 1 is stored") || at.Usage.Complete != nil {
		t.Errorf("a group that is new, or whose offsets are gone: %q, %+v", why, at)
	}
	usage.CommitOutside(t, map[int]int64{1: 2})
	if at = look(); at.Usage.Partitions[1].Offset != 2 || at.Usage.behind(before.Add(-2*time.Second)) != "" {
		t.Errorf("all is stored: %+v", at)
	}
	known, err := p.Look(t.Context(), time.Time{})
	if err != nil || known.Usage.Complete != at.Usage.Complete {
		t.Errorf("a look a moment later is the same one: %+v, %v", known, err)
	}
	usage.CommitOutside(t, map[int]int64{1: 9})
	if at = look(); !strings.Contains(at.Usage.behind(long), "it is not known how far partition 1 is stored") || at.Usage.Complete != nil {
		t.Errorf("of another log: %+v", at)
	}
}
