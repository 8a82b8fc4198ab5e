package httpapi

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// A route is one path and the methods it answers.
type route struct {
	path    string
	methods []string
	handler http.Handler
}

// Handler makes the handler of all routes.
func Handler(o Options) http.Handler {
	read := []string{http.MethodGet, http.MethodHead}
	routes := []route{
		{"/livez", read, livez(o)},
		{"/readyz", read, readyz(o)},
		{"/version", read, version(o)},
		{"/metrics", read, promhttp.HandlerFor(o.Metrics, promhttp.HandlerOpts{
			ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
			Registry: o.Metrics,
		})},
	}
	mux := http.NewServeMux()
	for _, r := range routes {
		for _, method := range r.methods {
			mux.Handle(method+" "+r.path, r.handler)
		}
		// Any other method ends here instead of in the mux's own plain-text answer.
		mux.Handle(r.path, methodNotAllowed(r.methods))
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		WriteProblem(w, r, Problem{Status: http.StatusNotFound, Detail: "there is nothing at " + r.URL.Path})
	})
	return http.MaxBytesHandler(guard(mux), maxBodyBytes)
}

// guard sets the headers that every answer has.
func guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		next.ServeHTTP(w, r)
	})
}

func methodNotAllowed(methods []string) http.HandlerFunc {
	allow := strings.Join(methods, ", ")
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Allow", allow)
		WriteProblem(w, r, Problem{Status: http.StatusMethodNotAllowed, Detail: r.URL.Path + " answers " + allow + ", not " + r.Method})
	}
}

func livez(o Options) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		l := o.Health.Liveness()
		writeJSON(w, healthStatus(l.Alive), l)
	}
}

func readyz(o Options) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		r := o.Health.Readiness()
		writeJSON(w, healthStatus(r.Ready), r)
	}
}

func version(o Options) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, o.Build) }
}

func healthStatus(good bool) int {
	if good {
		return http.StatusOK
	}
	return http.StatusServiceUnavailable
}

// writeJSON answers with a value that can always be encoded. An error of the connection has nobody left to be told.
func writeJSON(w http.ResponseWriter, status int, value any) {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(value)
}
