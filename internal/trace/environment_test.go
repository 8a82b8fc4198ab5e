package trace_test

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/trace"
	"tenantflow/internal/trace/tracetest"
)

func TestFromEnvironment_IsOffUnlessAskedFor(t *testing.T) {
	for _, c := range []struct {
		name    string
		environ []string
		on      bool
		says    string // the error, or the log
	}{
		{"nothing", nil, false, ""},
		{"a name alone", []string{"OTEL_SERVICE_NAME=x"}, false, ""},
		{"an endpoint", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318"}, true, ""},
		{"an endpoint of traces", []string{"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=https://127.0.0.1:4318/v1/traces"}, true, ""},
		{"the exporter", []string{"OTEL_TRACES_EXPORTER=otlp"}, true, ""},
		{"none", []string{"OTEL_TRACES_EXPORTER=none", "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:4318"}, false, ""},
		{"disabled", []string{"OTEL_SDK_DISABLED=True", "OTEL_TRACES_EXPORTER=otlp"}, false, ""},
		{"another exporter", []string{"OTEL_TRACES_EXPORTER=zipkin"}, false, "tracing is off: there is no such exporter here"},
		{"no URL", []string{"OTEL_EXPORTER_OTLP_ENDPOINT=collector:4318"}, false, "OTEL_EXPORTER_OTLP_ENDPOINT: it is not a URL"},
		{"gRPC", []string{"OTEL_TRACES_EXPORTER=otlp", "OTEL_EXPORTER_OTLP_PROTOCOL=grpc"}, false, "http/protobuf only"},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, pair := range c.environ {
				name, value, _ := strings.Cut(pair, "=")
				t.Setenv(name, value)
			}
			var out bytes.Buffer
			tracer, err := trace.FromEnvironment(t.Context(), slog.New(slog.NewTextHandler(&out, nil)), "")
			said := out.String()
			if err != nil {
				said += err.Error()
			}
			if (tracer != nil) != c.on || !strings.Contains(said, c.says) || c.says == "" && said != "" {
				t.Errorf("on: %v; said %q", tracer != nil, said)
			}
			_ = tracer.Close(t.Context())
		})
	}
}

func TestFromEnvironment_SendsAndSaysWhoItIs(t *testing.T) {
	receiver := tracetest.NewReceiver(t)
	t.Setenv("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.URL)
	t.Setenv("OTEL_SERVICE_NAME", "tenantflow-eu")
	t.Setenv("OTEL_TRACES_SAMPLER", "parentbased_traceidratio")
	t.Setenv("OTEL_TRACES_SAMPLER_ARG", "0")
	tracer, err := trace.FromEnvironment(t.Context(), slog.New(slog.DiscardHandler), "1.2.3")
	if err != nil {
		t.Fatal(err)
	}
	for _, header := range []string{parent, ""} {
		_, span := tracer.Apply(t.Context(), "x", record("traceparent", header))
		span.End(nil)
	}
	if err := tracer.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := receiver.Named("apply x"); len(got) != 1 || got[0].Trace != parentID {
		t.Errorf("got %v", got)
	}
	if !receiver.Resource("service.name=tenantflow-eu") || !receiver.Resource("service.version=1.2.3") {
		t.Error("it says another name or version")
	}
	if value(t, tracer, "ended") != 1 || value(t, tracer, "sent") != 1 {
		t.Errorf("%v ended, %v sent", value(t, tracer, "ended"), value(t, tracer, "sent"))
	}
}

// value is how many spans a tracer has counted.
func value(t *testing.T, tracer *trace.Tracer, state string) float64 {
	t.Helper()
	registry := prometheus.NewRegistry()
	registry.MustRegister(tracer.Collector())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range families[0].GetMetric() {
		if m.GetLabel()[0].GetValue() == state {
			return m.GetCounter().GetValue()
		}
	}
	return 0
}
