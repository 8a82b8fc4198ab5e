package trace

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
)

// FromEnvironment returns the tracer that the standard OTEL_* variables ask for. It is nil, and nothing is installed, unless one of
// OTEL_EXPORTER_OTLP_TRACES_ENDPOINT and OTEL_EXPORTER_OTLP_ENDPOINT is set or OTEL_TRACES_EXPORTER is otlp; and where OTEL_TRACES_EXPORTER
// is none or OTEL_SDK_DISABLED is true. Spans are sent as protobuf over HTTP. The error names a variable with a bad value.
func FromEnvironment(ctx context.Context, log *slog.Logger, version string) (*Tracer, error) {
	on, err := switchedOn(log)
	if !on || err != nil {
		return nil, err
	}
	// A collector that restarts is worth waiting for, one that is away is not: then the log says so after these ten seconds.
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithRetry(otlptracehttp.RetryConfig{
		Enabled: true, InitialInterval: time.Second, MaxInterval: 5 * time.Second, MaxElapsedTime: 10 * time.Second,
	}))
	if err != nil {
		return nil, fmt.Errorf("read OTEL_EXPORTER_OTLP_*: %w", err)
	}
	t, err := New(ctx, Config{Exporter: exporter, Version: version, Log: log})
	if err != nil {
		return nil, errors.Join(err, exporter.Shutdown(ctx))
	}
	return t, nil
}

// Names of variables.
const (
	envDisabled       = "OTEL_SDK_DISABLED"
	envExporter       = "OTEL_TRACES_EXPORTER"
	envEndpoint       = "OTEL_EXPORTER_OTLP_ENDPOINT"
	envTracesEndpoint = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
	envProtocol       = "OTEL_EXPORTER_OTLP_PROTOCOL"
	envTracesProtocol = "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL"
)

// switchedOn reports whether the environment asks for spans that can be sent.
func switchedOn(log *slog.Logger) (bool, error) {
	if strings.EqualFold(os.Getenv(envDisabled), "true") {
		return false, nil
	}
	endpoint := cmp.Or(os.Getenv(envTracesEndpoint), os.Getenv(envEndpoint))
	switch exporter := os.Getenv(envExporter); exporter {
	case "":
		if endpoint == "" {
			return false, nil
		}
	case "otlp":
	case "none":
		return false, nil
	default:
		log.Warn("tracing is off: there is no such exporter here", slog.String("exporter", exporter), slog.String("there_are", "otlp, none"))
		return false, nil
	}
	for _, name := range []string{envTracesEndpoint, envEndpoint} {
		if err := checkEndpoint(name, os.Getenv(name)); err != nil {
			return false, err
		}
	}
	if protocol := cmp.Or(os.Getenv(envTracesProtocol), os.Getenv(envProtocol)); protocol != "" && protocol != "http/protobuf" {
		return false, fmt.Errorf("%s: spans are sent by http/protobuf only (a collector's port for it is usually 4318)", envProtocol)
	}
	return true, nil
}

// checkEndpoint refuses what the exporter would replace by localhost. The value may hold a password.
func checkEndpoint(name, value string) error {
	if value == "" {
		return nil
	}
	if u, err := url.Parse(value); err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("%s: it is not a URL like http://collector:4318", name)
	}
	return nil
}
