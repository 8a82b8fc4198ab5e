package httpapi

import (
	"errors"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/trace"
)

// otherRoute is the label of requests that no route takes.
const otherRoute = "other"

// requestMetrics count requests by route. A label is a route's pattern, never a path: ids would be without bound, and
// metrics are read by more people than users are known to.
type requestMetrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec

	log    *slog.Logger // of requests of /v1; nil: none
	tracer *trace.Tracer
}

func newRequestMetrics(registry *prometheus.Registry) *requestMetrics {
	m := &requestMetrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "tenantflow_http_requests_total",
			Help: "HTTP requests answered, by route and class of the status; 499, the client did not wait, is a 4xx.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "tenantflow_http_request_seconds",
			Help:    "How long requests took, from the end of their header to the end of the answer, by route.",
			Buckets: []float64{.0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5},
		}, []string{"route"}),
	}
	m.requests, m.seconds = register(registry, m.requests), register(registry, m.seconds)
	return m
}

// register registers a collector, and returns the one that is registered: another handler of the process may have been first.
func register[C prometheus.Collector](registry *prometheus.Registry, c C) C {
	var there prometheus.AlreadyRegisteredError
	if err := registry.Register(c); errors.As(err, &there) {
		if before, ok := there.ExistingCollector.(C); ok {
			return before
		}
	} else if err != nil {
		panic(err)
	}
	return c
}

// observe wraps the handlers of one route.
func (m *requestMetrics) observe(route string, next http.Handler) http.Handler {
	seconds := m.seconds.WithLabelValues(route)
	// There from the start, so that a rate can be taken of the first one. No route redirects.
	pattern := route
	if route == otherRoute {
		pattern = ""
	}
	classes := [6]prometheus.Counter{2: m.class(route, 2), 4: m.class(route, 4), 5: m.class(route, 5)}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		s := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		api := strings.HasPrefix(r.URL.Path, "/v1/") || r.URL.Path == "/v1"
		if m.tracer != nil && (api || trace.Names(r)) { // probes and scrapes would be most of the spans
			var span trace.Span
			r, span = m.tracer.Request(r, pattern)
			defer func() { span.Answered(s.status) }()
		}
		next.ServeHTTP(s, r)
		took := time.Since(start)
		seconds.Observe(took.Seconds())
		if m.log != nil && api {
			s.logTo(m.log, r, route, took)
		}
		class := s.status / 100
		if class < len(classes) && classes[class] != nil {
			classes[class].Inc()
		} else {
			m.class(route, class).Inc()
		}
	})
}

func (m *requestMetrics) class(route string, class int) prometheus.Counter {
	return m.requests.WithLabelValues(route, strconv.Itoa(class)+"xx")
}

// A statusWriter remembers the status that was sent.
type statusWriter struct {
	http.ResponseWriter
	status int
	bytes  int64
	token  string // the name of the caller's token
}

// logTo writes a line of the access log. It names the route and not the path, and the token's name and not the token: ids of users and
// secrets don't belong in a log.
func (w *statusWriter) logTo(log *slog.Logger, r *http.Request, route string, took time.Duration) {
	const longest = 16 // a client may send any word for a method
	log.LogAttrs(r.Context(), slog.LevelInfo, "request", slog.String("token", w.token), slog.String("method", r.Method[:min(len(r.Method), longest)]),
		slog.String("route", route), slog.Int("status", w.status), slog.Int64("bytes", w.bytes), slog.Duration("took", took),
		slog.String("request_id", w.Header().Get(requestID)))
}

func (w *statusWriter) Write(b []byte) (int, error) {
	n, err := w.ResponseWriter.Write(b)
	w.bytes += int64(n)
	return n, err
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
