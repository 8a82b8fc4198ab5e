package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/model"
)

func TestGenerateDependsOnNothingButItsFlags(t *testing.T) {
	t.Parallel()
	args := []string{"generate", "usage", "--count", "500", "--seed", "4", "--start", "2026-11-01T00:00:00Z"}
	first, errOut, code := tenantflow(t, nil, args...)
	if code != exitDone || strings.Count(first, "\n") != 500 || errOut != "" {
		t.Fatalf("exit code %d, %d lines, %s", code, strings.Count(first, "\n"), errOut)
	}
	second, _, _ := tenantflow(t, nil, args...)
	if first != second {
		t.Error("the same flags give other events")
	}
	other, _, _ := tenantflow(t, nil, append(args, "--seed", "5")...)
	if first == other {
		t.Error("another seed gives the same events")
	}
	if _, errOut, code := tenantflow(t, nil, append(args, "--resends", "2")...); code != exitInvalid || !strings.Contains(errOut, "resends 2") {
		t.Errorf("--resends 2: exit code %d, %s", code, errOut)
	}
	if _, errOut, code := tenantflow(t, nil, append(args, "--start", "today")...); code != exitInvalid || !strings.Contains(errOut, "--start today") {
		t.Errorf("--start today: exit code %d, %s", code, errOut)
	}
}

// traffic is a stream of the model as lines of JSON, with malformed ones or without. The reasons are those of the malformed lines.
func traffic(t *testing.T, malformed float64) (lines []string, reasons map[events.Reason]int, want model.Expected) {
	t.Helper()
	g, err := model.New(model.Config{Count: 3000, Seed: 1, Resends: 0.1, Conflicts: 0.02, Late: 0.01, Malformed: malformed, Structured: 1,
		Start: time.Now().Add(-time.Hour).Truncate(time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	reasons = map[events.Reason]int{}
	var m model.Message
	for g.Next(&m) {
		if m.Mode != model.Structured {
			continue // what is wrong with it can't be said in a line
		}
		line := string(m.Value)
		if m.Key != nil {
			line = strings.Replace(line, `"data":`, fmt.Sprintf(`"partitionkey":%q,"data":`, m.Key), 1)
		}
		lines = append(lines, line+"\n")
		if m.Kind == model.Malformed {
			reasons[m.Reason]++
		}
	}
	return lines, reasons, g.Expected()
}

// So what the model expects of a stream can be held against what the service made of the command's lines.
func TestGenerate_UsageIsWhatTheModelPredicts(t *testing.T) {
	t.Parallel()
	all, _, _ := traffic(t, 0)
	lines := strings.Join(all, "")
	var first struct {
		Time time.Time
	}
	if err := json.Unmarshal([]byte(all[0]), &first); err != nil {
		t.Fatal(err)
	}
	got, errOut, code := tenantflow(t, nil, "generate", "usage", "--count", "3000", "--resends", "0.1", "--conflicts", "0.02", "--start", first.Time.Format(time.RFC3339))
	if code != exitDone || got != lines {
		t.Errorf("exit code %d, %d bytes that are not the %d of the model: %s", code, len(got), len(lines), errOut)
	}
}

// TestProduce_PublishesWhatTheServiceTakes goes the whole way twice, once in each content mode.
func TestProduce_PublishesWhatTheServiceTakes(t *testing.T) {
	t.Parallel()
	environ := ownStores(t)
	if out, errOut, code := tenantflow(t, environ, "migrate"); code != exitDone {
		t.Fatal(out, errOut)
	}
	lines := filepath.Join(t.TempDir(), "events.jsonl")
	text, reasons, want := traffic(t, 0.05)
	write(t, lines, strings.Join(text, ""))
	invalid := 0
	for _, n := range reasons {
		invalid += n
	}

	for _, mode := range []string{modeBinary, modeStructured} {
		out, errOut, code := tenantflow(t, environ, "produce", "--topic", "usage.events", "--file", lines, "--mode", mode, "--skip-invalid", "-o", "json")
		var result produced
		if err := json.Unmarshal([]byte(out), &result); err != nil {
			t.Fatal(err, out, errOut)
		}
		if code != exitFailed || result.Topic != t.Name()+".usage.events" || result.Lines != len(text) || result.Published != int64(len(text)-invalid) || !maps.Equal(result.Reasons, reasons) {
			t.Errorf("%s: exit code %d: %+v", mode, code, result)
		}
		if !strings.Contains(errOut, fmt.Sprintf("%s:%d: ", lines, result.Listed[0].Line)) {
			t.Errorf("%s: the first invalid line is not told:\n%s", mode, errOut)
		}

		var read []published
		for _, p := range readUsage(t, environ) {
			if p.mode == mode {
				read = append(read, p)
			}
		}
		if rows := distinct(read); int64(len(read)) != result.Published || rows != want.Tables.Rows {
			t.Errorf("%s: %d messages with %d identities, want %d with %d", mode, len(read), rows, result.Published, want.Tables.Rows)
		}
	}
}

func TestProduceStopsAtAnInvalidLineAndSaysWhatIsPublished(t *testing.T) {
	t.Parallel()
	environ := ownStores(t)
	if out, errOut, code := tenantflow(t, environ, "migrate"); code != exitDone {
		t.Fatal(out, errOut)
	}
	good, _, _ := tenantflow(t, nil, "generate", "usage", "--count", "3", "--resends", "0", "--start", time.Now().UTC().Format(time.RFC3339))
	odd := strings.Replace(strings.SplitAfter(good, "\n")[0], `"specversion"`, `"region":"eu-1","shard":7,"specversion"`, 1)
	large := strings.Replace(strings.SplitAfter(good, "\n")[0], `"data":{`, `"data":{"padding":"`+strings.Repeat("x", 1<<20)+`",`, 1)
	file := filepath.Join(t.TempDir(), "events.jsonl")
	write(t, file, odd+"\n"+good+"this is not JSON\n"+good)

	_, errOut, code := tenantflow(t, environ, "produce", "--topic", "usage.events", "--file", file)
	if code != exitFailed || !strings.Contains(errOut, file+":6: malformed_envelope: ") || !strings.Contains(errOut, "4 events of 5 lines are published") {
		t.Errorf("exit code %d:\n%s", code, errOut)
	}
	read := readUsage(t, environ)
	if len(read) != 4 {
		t.Fatalf("%d messages in the topic, want 4", len(read))
	}
	extensions := 0
	for _, u := range read {
		if u.headers["ce_region"] == "eu-1" && u.headers["ce_shard"] == "7" {
			extensions++
		}
		if u.headers["ce_partitionkey"] != "" {
			t.Error("the key is in a header too")
		}
	}
	if extensions != 1 {
		t.Errorf("%d messages have the unknown extensions, want 1", extensions)
	}

	out, errOut, code := tenantflow(t, nil, "produce", "--topic", "usage.events", "--file", file, "--check", "-o", "json")
	if code != exitFailed || !strings.Contains(out, `"lines": 8`) || !strings.Contains(errOut, "1 of 8 lines are invalid") {
		t.Errorf("--check: exit code %d\n%s%s", code, out, errOut)
	}
	write(t, file, large)
	_, errOut, code = tenantflow(t, environ, "produce", "--topic", "usage.events", "--file", file)
	if code != exitFailed || !strings.Contains(errOut, file+":1: too_large: ") {
		t.Errorf("a line of 1 MiB: exit code %d\n%.300s", code, errOut)
	}
}

func TestTheEventInTheDocumentationIsValid(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, _ := strings.Cut(string(text), "```json\n")
	line, _, _ := strings.Cut(block, "```")
	line = strings.Replace(line, "2026-11-23T12:00:00Z", time.Now().UTC().Format(time.RFC3339), 1)
	file := filepath.Join(t.TempDir(), "event.json")
	write(t, file, line)
	if out, errOut, code := tenantflow(t, nil, "produce", "--topic", "usage.events", "--file", file, "--check"); code != exitDone || !strings.Contains(out, "lines      1\n") {
		t.Errorf("exit code %d\n%s%s", code, out, errOut)
	}
}

func TestAFutureToleranceOfZeroIsNone(t *testing.T) {
	t.Parallel()
	ahead := time.Now().UTC().Add(30 * time.Minute).Format(time.RFC3339)
	line, _, _ := tenantflow(t, nil, "generate", "usage", "--count", "1", "--start", ahead)
	file := filepath.Join(t.TempDir(), "event.json")
	write(t, file, line)
	for tolerance, want := range map[string]int{"1h": exitDone, "0s": exitFailed} {
		_, errOut, code := tenantflow(t, []string{"TENANTFLOW_FUTURE_TOLERANCE=" + tolerance}, "produce", "--topic", "usage.events", "--file", file, "--check")
		if code != want || want == exitFailed && !strings.Contains(errOut, "timestamp_in_future") {
			t.Errorf("%s: exit code %d\n%s", tolerance, code, errOut)
		}
	}
}

func TestProduceReadsStandardInput(t *testing.T) {
	t.Parallel()
	lines, _, _ := tenantflow(t, nil, "generate", "usage", "--count", "5")
	cmd := command(t, "tenantflow", nil, "produce", "--topic", "usage.events", "--file", "-", "--check")
	cmd.Stdin = strings.NewReader(lines)
	if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("lines      5")) {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestProduceSaysWhatIsWrongWithItsFlags(t *testing.T) {
	t.Parallel()
	environ := []string{"TENANTFLOW_KAFKA_BROKERS=127.0.0.1:1"}
	for _, wrong := range []struct {
		args []string
		word string
		code int
	}{
		{[]string{"--topic", "usage.event", "--file", "-"}, "no such topic", exitInvalid},
		{[]string{"--file", "-"}, "--topic is missing", exitInvalid},
		{[]string{"--topic", "usage.events"}, "--file is missing", exitInvalid},
		{[]string{"--topic", "usage.events", "--file", "/nowhere"}, "/nowhere", exitInvalid},
		{[]string{"--topic", "usage.events", "--file", "-", "--mode", "xml"}, "--mode xml", exitInvalid},
		{[]string{"--topic", "usage.events", "--file", "-"}, "reach Kafka at 127.0.0.1:1", exitFailed},
	} {
		_, errOut, code := tenantflow(t, environ, append([]string{"produce"}, wrong.args...)...)
		if code != wrong.code || !strings.Contains(errOut, wrong.word) {
			t.Errorf("produce %v: exit code %d, want %d and %q:\n%s", wrong.args, code, wrong.code, wrong.word, errOut)
		}
	}
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// published is a message of usage.events as a consumer sees it.
type published struct {
	identity, mode string
	headers        map[string]string
}

func readUsage(t *testing.T, environ []string) []published {
	t.Helper()
	_, broker, _ := strings.Cut(environ[0], "=")
	client := enginetest.KafkaClient(t, broker)
	decoder := events.NewUsageDecoder(events.UsageLimits{})
	var all []published
	err := model.ReadTopic(t.Context(), client, t.Name()+".usage.events", func(r *events.Record) error {
		var u events.Usage
		if err := decoder.Decode(r, time.Now(), &u); err != nil {
			return errors.Join(err, fmt.Errorf("%s", r.Value))
		}
		p := published{identity: string(u.Source) + "\n" + string(u.ID), mode: modeBinary, headers: map[string]string{}}
		for _, h := range r.Headers {
			p.headers[h.Key] = string(h.Value)
		}
		if len(r.Headers) == 1 {
			p.mode = modeStructured
		}
		all = append(all, p)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func distinct(all []published) int64 {
	identities := map[string]bool{}
	for _, p := range all {
		identities[p.identity] = true
	}
	return int64(len(identities))
}

func TestACompanyEventOfTheFutureIsNotPublished(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "events.jsonl")
	write(t, file, fmt.Sprintf(`{"specversion":"1.0","id":"1","source":"/test","type":"company.closed.v1","time":%q,"partitionkey":"acme","data":{"company_id":"acme"}}`,
		time.Now().UTC().Add(2*time.Hour).Format(time.RFC3339)))
	check := []string{"produce", "--topic", "company.events", "--file", file, "--check"}
	if _, errOut, code := tenantflow(t, nil, check...); code != exitFailed || !strings.Contains(errOut, "timestamp_in_future: time ") {
		t.Errorf("exit code %d, %s", code, errOut)
	}
	if _, errOut, code := tenantflow(t, []string{"TENANTFLOW_FUTURE_TOLERANCE=3h"}, check...); code != exitDone {
		t.Errorf("within the tolerance: exit code %d, %s", code, errOut)
	}
}
