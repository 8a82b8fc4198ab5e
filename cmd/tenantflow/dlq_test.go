package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka/kafkatest"
	"tenantflow/internal/model"
)

// writeLetters writes dead letters of usage events: of the offsets 0, 1, ... of partition 1, each with the value of its place.
func writeLetters(t *testing.T, environ []string, reasons []events.Reason, values ...string) (origins []string) {
	t.Helper()
	_, broker, _ := strings.Cut(environ[0], "=")
	topic := t.Name() + "." + events.TopicUsage
	// A transport of its own: the one that all share may not know the topic yet.
	w := enginetest.Writer(enginetest.KafkaClient(t, broker))
	w.Topic, w.Balancer, w.BatchTimeout = events.DeadLetterTopic(topic), &kafka.Hash{}, time.Millisecond
	defer func() { _ = w.Close() }()
	for i, value := range values {
		e := &events.Envelope{ID: fmt.Sprint("e-", i), Source: "/app", Type: events.TypeUsageRecorded, Time: time.Now().Add(-time.Minute), Data: []byte(value)}
		data, headers := e.EncodeBinary()
		rec := &events.Record{Topic: topic, Partition: 1, Offset: int64(i), Key: []byte("acme"), Value: data, Headers: headers}
		if err := w.WriteMessages(t.Context(), kafkatest.Letter(rec, "tenantflow.usage", events.Reject(reasons[i], "at \x1b[31m /user_id: letter %d", i), time.Now())); err != nil {
			t.Fatal(err)
		}
		origins = append(origins, fmt.Sprintf("tenantflow.usage/%s/1/%d", topic, i))
	}
	return origins
}

const goodUsage = `{"company_id":"acme","user_id":"u-1","subscription_tier":"pro","service_name":"s","api_endpoint":"/a","data_points_consumed":1,"processing_time_ms":1}`

func TestDLQ_ListShowDropRedrive(t *testing.T) {
	t.Parallel()
	environ := ownStores(t)
	if out, errOut, code := tenantflow(t, environ, "migrate"); code != exitDone {
		t.Fatal(out, errOut)
	}
	binary := "\xff\x00\x1b"
	bad := strings.Replace(goodUsage, `"u-1"`, `7`, 1)
	reasons := []events.Reason{events.InvalidData, events.MalformedEnvelope, events.TooLarge, events.RejectedByStore}
	origins := writeLetters(t, environ, reasons, bad, binary, "large", goodUsage)
	run := func(want int, args ...string) (string, string) {
		t.Helper()
		var out, errOut string
		var code int
		// A list and a letter wait two seconds for the states, and a Postgres that is busy may take longer.
		enginetest.Await(t, "the states of letters", func() bool {
			out, errOut, code = tenantflow(t, environ, append([]string{"dlq"}, args...)...)
			return !strings.Contains(out, `"states_unknown"`) && !strings.Contains(out, " unknown: ") && !strings.Contains(errOut, "--state needs Postgres")
		})
		if code != want {
			t.Fatalf("dlq %v: exit code %d, want %d: %s%s", args, code, want, out, errOut)
		}
		return out, errOut
	}
	list := func(args ...string) (l letterList) {
		t.Helper()
		out, _ := run(exitDone, append([]string{"ls", "-o", "json"}, args...)...)
		if err := json.Unmarshal([]byte(out), &l); err != nil {
			t.Fatal(err, out)
		}
		return l
	}
	if l := list(); len(l.Letters) != 4 || l.LookedAt != 4 || l.Records != 4 || l.Letters[0].State != "open" || l.Letters[3].Company != "acme" || l.Next != "" {
		t.Errorf("%+v", l)
	}
	if l := list("--topic", "usage.events", "--reason", "invalid_data,too_large", "--limit", "1", "--oldest"); len(l.Letters) != 1 || l.Letters[0].Origin != origins[0] || l.Next == "" {
		t.Errorf("%+v", l)
	} else if l = list("--reason", "invalid_data,too_large", "--limit", "1", "--oldest", "--cursor", l.Next); len(l.Letters) != 1 || l.Letters[0].Origin != origins[2] {
		t.Errorf("%+v", l)
	}
	out, _ := run(exitDone, "ls")
	if !strings.Contains(out, origins[1]) || !strings.Contains(out, "looked at offsets 0-") || !strings.Contains(out, "looked at 4 of 4 offsets") || strings.Contains(out, "\x1b") {
		t.Error(out)
	}

	// Without Postgres both say once that states are unknown.
	down := append(environ[:4:4], "TENANTFLOW_POSTGRES_DSN=postgres://tenantflow@127.0.0.1:1/tenantflow")
	out, errOut, code := tenantflow(t, down, "dlq", "ls")
	if code != exitDone || strings.Count(out, "the states are unknown: ") != 1 || strings.Count(out, " unknown ") != 4 {
		t.Errorf("exit code %d: %s%s", code, out, errOut)
	}
	if out, _, code = tenantflow(t, down, "dlq", "show", origins[0]); code != exitDone || !strings.Contains(out, "unknown: ") || !strings.Contains(out, bad) {
		t.Errorf("exit code %d: %s", code, out)
	}
	if _, errOut, code = tenantflow(t, down, "dlq", "ls", "--state", "open"); code != exitFailed || !strings.Contains(errOut, "--state needs Postgres") {
		t.Errorf("exit code %d: %s", code, errOut)
	}

	// The bytes.
	if out, _ = run(exitDone, "show", origins[1]); !strings.Contains(out, "ff 00 1b") || strings.Contains(out, "\x1b") {
		t.Error(out)
	}
	if out, _ = run(exitDone, "show", origins[1], "--raw"); out != binary {
		t.Errorf("%q", out)
	}
	if out, _ = run(exitDone, "show", origins[0], "--hex", "-o", "json"); !strings.Contains(out, `"hex": "7b22`) || !strings.Contains(out, `"header`) {
		t.Error(out)
	}
	if out, _ = run(exitDone, "show", origins[2]); !strings.Contains(out, "not here: ") {
		t.Error(out)
	}
	run(exitFailed, "show", origins[2], "--raw")
	run(exitFailed, "show", "tenantflow.usage/"+t.Name()+".usage.events/1/99")
	run(exitInvalid, "show", "usage.events/1")

	// Dropping.
	for _, args := range [][]string{{"drop", origins[1]}, {"drop", "--reason", "w", "--yes"}, {"drop", "--reason", "w", "--yes", "--all", "--id", "e-1"}, {"drop", "--reason", "w", "--dlq-reason", "nosuch"}} {
		run(exitInvalid, args...)
	}
	if _, errOut = run(exitFailed, "drop", origins[1], "--reason", "no use"); !strings.Contains(errOut, "Drop 1 dead letters (1 malformed_envelope)?") || !strings.Contains(errOut, "nothing was done") {
		t.Error(errOut)
	}
	if l := list("--state", "dropped"); len(l.Letters) != 0 {
		t.Errorf("%+v", l)
	}
	if out, _ = run(exitDone, "drop", "--dlq-reason", "malformed_envelope", "--reason", "no use", "--by", "ann", "--yes", "-o", "json"); !strings.Contains(out, `"dropped": 1`) {
		t.Error(out)
	}
	if l := list("--state", "dropped"); len(l.Letters) != 1 || l.Letters[0].Origin != origins[1] {
		t.Errorf("%+v", l)
	}
	if out, _ = run(exitDone, "show", origins[1]); !strings.Contains(out, "by ann: no use") {
		t.Error(out)
	}

	// Redriving.
	run(exitInvalid, "redrive", origins[0], "--yes", "--fix", `[{"op":"replace","path":"/id","value":"x"}]`)
	run(exitInvalid, "redrive", origins[0])
	run(exitInvalid, "redrive", "--yes")
	run(exitFailed, "redrive", "--yes", "tenantflow.usage/"+t.Name()+".usage.events/1/99")
	out, errOut = run(exitDone, "redrive", "--all", "--dry-run", "-o", "json")
	var dry redriveReport
	if err := json.Unmarshal([]byte(out), &dry); err != nil {
		t.Fatal(err, out)
	}
	if dry.Chosen != 4 || dry.Counts["published"] != 1 || dry.Counts["invalid"] != 1 || dry.Counts["not_open"] != 1 || dry.Counts["too_large"] != 1 || !strings.Contains(errOut, origins[0]+": invalid: invalid_data: ") {
		t.Errorf("%+v\n%s", dry, errOut)
	}
	fix := filepath.Join(t.TempDir(), "fix.json")
	if err := os.WriteFile(fix, []byte(`[{"op":"replace","path":"/user_id","value":"u-7"}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	for round, want := range []string{`"published": 1`, `"not_open": 1`} {
		if out, _ = run(exitDone, "redrive", origins[0], "--fix", fix, "--yes", "-o", "json"); !strings.Contains(out, want) || !strings.Contains(out, `"state": "done"`) {
			t.Errorf("round %d: %s", round, out)
		}
	}
	if out, _ = run(exitDone, "redrive", "--reason", "rejected_by_store", "--yes", "--detach"); !strings.Contains(out, "running") {
		t.Error(out)
	}
	_, broker, _ := strings.Cut(environ[0], "=")
	var read [][]byte
	if err := model.ReadTopic(t.Context(), enginetest.KafkaClient(t, broker), t.Name()+".usage.events", func(r *events.Record) error {
		read = append(read, bytes.Clone(r.Value))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if want := strings.Replace(goodUsage, "u-1", "u-7", 1); len(read) != 1 || string(read[0]) != want {
		t.Errorf("%q, want %s", read, want)
	}
}
