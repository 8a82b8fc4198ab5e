package main

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"

	"tenantflow/events"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/trace/tracetest"
)

// The whole service, switched on by nothing but the standard variables: one trace leads from a publisher's span to the result, and a request
// is in its caller's.
func TestRun_TracesByTheStandardVariables(t *testing.T) {
	t.Parallel()
	receiver := tracetest.NewReceiver(t)
	producer := receiver.NewProducer(t)
	environ := append(ownStores(t), "TENANTFLOW_DRAGONFLY_URL="+enginetest.Redis(t).URL(), "TENANTFLOW_HTTP_ADDR=127.0.0.1:0")
	if out, errOut, code := tenantflow(t, environ, "migrate"); code != exitDone {
		t.Fatal(out, errOut)
	}
	p := start(t, "tenantflow", append(environ, "OTEL_EXPORTER_OTLP_ENDPOINT="+receiver.URL, "OTEL_SERVICE_NAME=here", "OTEL_BSP_SCHEDULE_DELAY=100"), "run")
	_, broker, _ := strings.Cut(environ[0], "=")
	client := enginetest.KafkaClient(t, broker)
	publish := func(eventType, data string) (trace string) {
		header, trace, _ := producer.Publish(t)
		topic, _ := events.TopicOf(eventType)
		value, head := (&events.Envelope{ID: eventType, Source: "/test", Type: eventType, Time: time.Now().Add(-time.Minute), Data: []byte(data)}).EncodeBinary()
		m := kafka.Message{Topic: t.Name() + "." + topic, Key: []byte("acme"), Value: value, Headers: []kafka.Header{{Key: "traceparent", Value: []byte(header)}}}
		for _, h := range head {
			m.Headers = append(m.Headers, kafka.Header{Key: h.Key, Value: h.Value})
		}
		w := enginetest.Writer(client) // an event sent twice would be two links
		w.Balancer, w.BatchTimeout = &kafka.Hash{}, time.Millisecond
		defer func() { _ = w.Close() }()
		if err := w.WriteMessages(t.Context(), m); err != nil {
			t.Fatal(err)
		}
		return trace
	}
	registered := publish(events.TypeCompanyRegistered, `{"company_id":"acme","name":"A","billing_email":"pay@acme.example","initial_user":{"user_id":"ada","email":"ada@acme.example"}}`)
	used := publish(events.TypeUsageRecorded, `{"company_id":"acme","user_id":"ada","subscription_tier":"free","service_name":"s","api_endpoint":"/e","data_points_consumed":1,"processing_time_ms":1}`)
	in := func(trace string) func(tracetest.Span) bool {
		return func(s tracetest.Span) bool { return s.Trace == trace }
	}
	has := func(spans []tracetest.Span, name string) bool {
		return slices.ContainsFunc(spans, func(s tracetest.Span) bool { return s.GetName() == name })
	}
	eventually(t, func() bool {
		all := receiver.Spans(in(registered))
		return has(all, "a publisher") && has(all, "apply "+events.TypeCompanyRegistered) && has(all, "publish "+t.Name()+"."+events.TopicCompanyResults)
	})
	eventually(t, func() bool {
		return len(receiver.Spans(func(s tracetest.Span) bool { // by both consumers of usage
			return s.GetName() == "process "+t.Name()+"."+events.TopicUsage && len(s.GetLinks()) == 1 && fmt.Sprintf("%x", s.GetLinks()[0].GetTraceId()) == used
		})) == 2 && len(receiver.Named("INSERT usage_tracking")) == 1 && len(receiver.Named("count quota")) == 1
	})
	header, asked, _ := producer.Publish(t)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, p.url+"/v1/users/ada/subscription", nil)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Traceparent", header)
	response, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	// A service that stops gives its last spans two seconds, which a busy machine may need for something else.
	eventually(t, func() bool { return has(receiver.Spans(in(asked)), "GET /v1/users/{user_id}/subscription") })
	if _, body := get(t, p.url+"/metrics"); !strings.Contains(body, `tenantflow_trace_spans_total{state="sent"}`) {
		t.Error("the metrics say nothing of spans")
	}
	p.signal(t, syscall.SIGTERM)
	if log, code := p.wait(t); code != exitDone || strings.Contains(log, `"level":"WARN","msg":"the last spans`) {
		t.Errorf("exit code %d; log:\n%s", code, log)
	}
	if all := receiver.Spans(func(s tracetest.Span) bool {
		return strings.Contains(s.GetName(), "/metrics") || strings.Contains(s.GetName(), "ada")
	}); len(all) > 0 {
		t.Errorf("spans of a scrape, or with a user in their name: %v", all)
	}
	if !receiver.Resource("service.name=here") {
		t.Error("the service has another name")
	}
}

func TestRun_ATraceSettingThatCannotBeMeantIsRefused(t *testing.T) {
	t.Parallel()
	_, errOut, code := tenantflow(t, append(deadStores(), "OTEL_EXPORTER_OTLP_ENDPOINT=collector:4318"), "run")
	if code != exitInvalid || !strings.Contains(errOut, "OTEL_EXPORTER_OTLP_ENDPOINT: it is not a URL") {
		t.Errorf("exit code %d: %s", code, errOut)
	}
}
