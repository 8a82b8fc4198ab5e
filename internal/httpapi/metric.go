package httpapi

import (
	"net/http"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// otherRoute is the label of requests that no route takes.
const otherRoute = "other"

// requestMetrics count requests by route. A label is a route's pattern, never a path: ids would be without bound, and
// metrics are read by more people than users are known to.
type requestMetrics struct {
	requests *prometheus.CounterVec
	seconds  *prometheus.HistogramVec
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
	registry.MustRegister(m.requests, m.seconds)
	return m
}

// observe wraps the handlers of one route.
func (m *requestMetrics) observe(route string, next http.Handler) http.Handler {
	seconds := m.seconds.WithLabelValues(route)
	// There from the start, so that a rate can be taken of the first one. No route redirects.
	classes := [6]prometheus.Counter{2: m.class(route, 2), 4: m.class(route, 4), 5: m.class(route, 5)}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		s := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		next.ServeHTTP(s, r)
		seconds.Observe(time.Since(start).Seconds())
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
}

func (w *statusWriter) WriteHeader(status int) {
	w.status = status
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the connection.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
