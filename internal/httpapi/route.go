package httpapi

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"path"
	"strings"

	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// A route is one path and the methods it answers.
type route struct {
	path    string
	methods []string
	handler http.Handler
}

// Routes lists what Handler answers to programs: the pattern of every path, as http.ServeMux writes it, and its methods. The pages for
// people are not among it.
func Routes(o Options) map[string][]string {
	all := map[string][]string{}
	for _, r := range routes(o) {
		all[r.path] = r.methods
	}
	return all
}

func routes(o Options) []route {
	var all []route
	if o.Serves != OnlyAPI {
		all = adminRoutes(o)
	}
	if o.servesAPI() {
		all = append(all, o.API.routes()...)
	}
	return all
}

func (o *Options) servesAPI() bool { return o.API != nil && o.Serves != OnlyAdmin }

func adminRoutes(o Options) []route {
	read := []string{http.MethodGet, http.MethodHead}
	return []route{
		{"/livez", read, livez(o)},
		{"/readyz", read, readyz(o)},
		{"/version", read, version(o)},
		{"/metrics", read, promhttp.HandlerFor(o.Metrics, promhttp.HandlerOpts{
			ErrorLog: slog.NewLogLogger(o.Log.Handler(), slog.LevelWarn),
			Registry: o.Metrics,
		})},
	}
}

// Handler makes the handler of all routes. It registers the metrics of its requests; two handlers of one process share them.
func Handler(o Options) http.Handler {
	count := newRequestMetrics(o.Metrics)
	if o.AccessLog {
		count.log = o.Log
	}
	count.tracer = o.Tracer
	mux := http.NewServeMux()
	if o.servesAPI() {
		for _, c := range o.API.metrics() {
			register(o.Metrics, c)
		}
	} else {
		why := "/v1 is not served by this process"
		if o.API != nil {
			why = "/v1 has an address of its own"
		}
		notHere := count.observe(otherRoute, notFound(why))
		mux.Handle("/v1", notHere)
		mux.Handle("/v1/", notHere)
	}
	if o.Serves == OnlyAPI {
		for _, r := range adminRoutes(o) {
			mux.Handle(r.path, count.observe(otherRoute, notFound("probes, metrics and the version have an address of their own")))
		}
	}
	all := routes(o)
	if o.servesAPI() {
		all = append(all, o.API.pages()...)
	}
	for _, r := range all {
		handler := count.observe(r.path, r.handler)
		for _, method := range r.methods {
			mux.Handle(method+" "+r.path, handler)
		}
		// Any other method ends here instead of in the mux's own plain-text answer.
		mux.Handle(r.path, count.observe(r.path, methodNotAllowed(r.methods)))
	}
	nothing := count.observe(otherRoute, notFound(""))
	mux.Handle("/", nothing)
	return http.MaxBytesHandler(guard(count, mux, nothing), maxBodyBytes)
}

// guard sets the headers that every answer has, and keeps from the mux what no route can take.
func guard(count *requestMetrics, mux, nothing http.Handler) http.Handler {
	tooLong := count.observe(otherRoute, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		WriteProblem(w, r, Problem{Status: http.StatusRequestURITooLong, Detail: fmt.Sprintf("path and query may have %d bytes", maxTargetBytes)})
	}))
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("Cache-Control", "no-store")
		w.Header().Set(requestID, idOf(r))
		switch escaped := r.URL.EscapedPath(); {
		case len(escaped)+len(r.URL.RawQuery) > maxTargetBytes:
			tooLong.ServeHTTP(w, r)
		case escaped != path.Clean(escaped) && escaped != path.Clean(escaped)+"/" || escaped == "//" || escaped[0] != '/':
			// Empty, "*", or with "//" or "/../" in it: the mux would send a redirect, in HTML, to what it takes the path for.
			nothing.ServeHTTP(w, r)
		default:
			mux.ServeHTTP(w, r)
		}
	})
}

// notFound answers that there is nothing; why may say more.
func notFound(why string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		detail := why
		if detail == "" {
			detail = "there is nothing at " + r.URL.Path
		}
		WriteProblem(w, r, Problem{Status: http.StatusNotFound, Detail: detail})
	}
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

func version(o Options) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, http.StatusOK, o.Build) }
}

func healthStatus(good bool) int {
	if good {
		return http.StatusOK
	}
	return http.StatusServiceUnavailable
}

// writeJSON answers with a value that can always be encoded. After an error of the connection no client is left to report it to.
func writeJSON(w http.ResponseWriter, status int, value any) {
	if w.Header().Get("Content-Type") == "" {
		w.Header().Set("Content-Type", "application/json")
	}
	w.WriteHeader(status)
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	_ = encoder.Encode(value)
}
