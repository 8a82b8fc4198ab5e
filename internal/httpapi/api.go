package httpapi

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"tenantflow/events"
	"tenantflow/internal/directory"
	"tenantflow/internal/logs"
	"tenantflow/internal/tenant"
	"tenantflow/internal/token"
	"tenantflow/sinks/dragonfly"
	"tenantflow/sinks/postgres"
)

// What the /v1 interface takes of the process.
const (
	// requestTimeout is how long the stores may take for one request. The caller is serving a request too.
	requestTimeout = 2 * time.Second
	// maxTargetBytes bounds path and query. The longest valid ones have a fifth of it.
	maxTargetBytes = 1024
	// retryAfter is what a 503 or 429 advises, in seconds.
	retryAfter = "1"
)

const answered503 = "requests are answered 503"

// Subscriptions looks up users. *directory.Directory implements it.
type Subscriptions interface {
	// User returns a user's subscription, which is shared and must not be changed, or directory.ErrUnknown.
	User(ctx context.Context, id string) (*directory.Subscription, error)
	// UserIn is User for a caller who may know of the users of some companies only. All others are directory.ErrUnknown, in every way
	// alike.
	UserIn(ctx context.Context, id string, scope directory.Scope) (*directory.Subscription, error)
}

// Quotas reads what users have used. *dragonfly.Store implements it.
type Quotas interface {
	// Counters returns what a user has used on a UTC day.
	Counters(ctx context.Context, user string, day time.Time) (dragonfly.Counters, error)
	// Rebuilding reports whether the counters are being rebuilt, and are too low meanwhile.
	Rebuilding(ctx context.Context) (bool, error)
}

// Configs looks up companies' configurations. *directory.Directory implements it.
type Configs interface {
	// CompanyConfig returns a company's configuration, which is shared and must not be changed, or directory.ErrUnknown.
	CompanyConfig(ctx context.Context, company string) (*directory.CompanyConfig, error)
}

// Companies reads companies' subscriptions. *postgres.Store implements it.
type Companies interface {
	// Subscription returns a company's subscription, or directory.ErrUnknown.
	Subscription(ctx context.Context, company string) (postgres.CompanySubscription, error)
}

// Stores are what an API answers from. All but Analytics, Business and Samples are needed.
type Stores struct {
	Subscriptions Subscriptions
	Quotas        Quotas
	Reservations  Reservations
	Configs       Configs
	Companies     Companies
	// Analytics analyses what companies use. nil: this process has no address of ClickHouse, and such requests are answered 503.
	Analytics Analytics
	// Billing makes billing exports. nil where Analytics is.
	Billing Billing
	// Business computes the business metrics. nil as Analytics is.
	Business Business
	// Samples takes the queries of which the latency by tier is taken; nil: nothing does.
	Samples Sampler
	// Rules judge and price changes of tier: the same ones that carry them out.
	Rules *tenant.Rules
	// ReserveAnyway has reservations granted by what counters there are while they are being rebuilt, instead of refused.
	ReserveAnyway bool
}

// An API is the /v1 interface. It is made before the stores are open, and answers 503 until it is given them by Attach.
type API struct {
	tokens   *token.File
	log      *slog.Logger
	now      func() time.Time
	stores   atomic.Pointer[stores]
	inFlight *shares
	analyses *shares // the requests of inFlight that are analyses
	business singleflight.Group
	troubles *logs.Troubles

	reserved *prometheus.CounterVec // reservations by outcome

	operations atomic.Pointer[Operations] // nil: there is nothing to show yet
}

type stores struct {
	Stores
	gather *gatherer // nil: quotas are asked for one by one
}

// counters returns what a user has used on a day, and whether the counters are being rebuilt.
func (s *stores) counters(ctx context.Context, user string, day time.Time) (dragonfly.Counters, bool, error) {
	if s.gather != nil {
		return s.gather.read(ctx, user, day)
	}
	c, err := s.Quotas.Counters(ctx, user, day)
	if err != nil {
		return c, false, err
	}
	// After the counters, not before: a rebuild is announced first and takes the counters away then.
	rebuilding, err := s.Quotas.Rebuilding(ctx)
	return c, rebuilding, err
}

// NewAPI makes the /v1 interface. With tokens it answers callers that have one; nil: only peers on a loopback address.
func NewAPI(tokens *token.File, log *slog.Logger) *API {
	return &API{tokens: tokens, log: log, now: time.Now, inFlight: newShares(maxInFlight, maxShare, reserved), analyses: newShares(maxAnalyses, maxAnalysesShare, reservedAnalyses), troubles: logs.NewTroubles(log), reserved: newReservationMetric()}
}

// Attach gives it what it answers from, while it serves.
func (a *API) Attach(s Stores) {
	from := &stores{Stores: s}
	if r, ok := s.Quotas.(Reader); ok {
		from.gather = &gatherer{from: r}
	}
	a.stores.Store(from)
}

// Detach takes the stores away before they are closed; requests answer 503 from then on. Those under way still use
// them, for requestTimeout at most.
func (a *API) Detach() { a.stores.Store(nil) }

// An endpoint answers one request for the company-scoped resource with a valid id.
type endpoint func(ctx context.Context, w http.ResponseWriter, r *http.Request, q request) error

// A request is what every endpoint needs to know.
type request struct {
	id    string            // of the path
	query map[string]string // the parameters that are given, by name
	grant *token.Grant
	from  *stores

	company *string // that the answer is about, once it is known; empty: none
}

func (a *API) routes() []route {
	read := []string{http.MethodGet, http.MethodHead}
	return []route{
		{"/v1/users/{user_id}/subscription", read, a.handle("user_id", a.subscription)},
		{"/v1/users/{user_id}/quota", read, a.handle("user_id", a.quota)},
		{reservationsPath, []string{http.MethodPost}, a.reserveRoute()},
		{reservationsPath + "/{reservation_id}", []string{http.MethodDelete}, a.releaseRoute()},
		{"/v1/companies/{company_id}/config", read, a.handle("company_id", a.companyConfig)},
		{"/v1/companies/{company_id}/subscription", read, a.handle("company_id", a.companySubscription)},
		{"/v1/companies/{company_id}/subscription/preview", read, a.handle("company_id", a.preview, "new_tier", "at")},
		{"/v1/companies/{company_id}/revenue", read, a.handle("company_id", a.revenue, "months")},
		{"/v1/companies/{company_id}/upsell", read, a.handle("company_id", a.analyse(upsell))},
		{"/v1/companies/{company_id}/churn-risk", read, a.handle("company_id", a.analyse(churnRisk))},
		{"/v1/companies/{company_id}/billing/{billing_period}", read, a.handle("company_id", a.billingExport, "format")},
		{"/v1/business-metrics", read, a.admit(token.Read, a.businessMetrics)},
		{"/v1/operations", read, a.admit(token.Read, a.report)},
	}
}

// handle does for every endpoint what comes before and after its own work. What is wrong with a request is reported
// only to callers that may ask, and before any store is asked. The parameter is the one of the path; known are those a query may have.
func (a *API) handle(parameter string, answer endpoint, known ...string) http.HandlerFunc {
	return a.admit(token.Read, func(w http.ResponseWriter, r *http.Request, grant *token.Grant) {
		id := r.PathValue(parameter)
		problem := wrongWith(r, parameter, id)
		query, unreadable := readQuery(r.URL.RawQuery, known)
		if problem == "" {
			problem = unreadable
		}
		if problem != "" {
			WriteProblem(w, r, Problem{Status: http.StatusBadRequest, Detail: problem})
			return
		}
		company := ""
		if parameter == "company_id" && grant.Allows(id) {
			company = id
		}
		began := time.Now()
		a.answer(w, r, request{id: id, query: query, grant: grant, company: &company}, answer)
		a.sample(w, r, company, time.Since(began))
	})
}

// answer has an endpoint answer a request that is valid, within requestTimeout. It fills in what the endpoint answers from.
func (a *API) answer(w http.ResponseWriter, r *http.Request, q request, answer endpoint) {
	a.answerWithin(requestTimeout, w, r, q, answer)
}

func (a *API) answerWithin(timeout time.Duration, w http.ResponseWriter, r *http.Request, q request, answer endpoint) {
	if q.from = a.stores.Load(); q.from == nil {
		unavailable(w, r, "the service is starting or stopping")
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), timeout)
	defer cancel()
	err := answer(ctx, w, r, q)
	switch {
	case err == nil:
		a.troubles.Over(ctx, answered503, "")
	case r.Context().Err() != nil:
		// The client has gone and does not read this; it keeps the metrics from counting a failure of ours.
		w.WriteHeader(statusClientGone)
	default:
		a.troubles.Say(ctx, logs.Trouble{Level: slog.LevelWarn, Message: answered503, Err: err, Attrs: []slog.Attr{slog.String("route", r.Pattern)}})
		detail := "a store does not answer"
		if errors.Is(err, context.DeadlineExceeded) {
			detail = "a store did not answer within " + timeout.String()
		}
		unavailable(w, r, detail)
	}
}

// statusClientGone is what nginx logs for a client that did not wait. It never reaches one.
const statusClientGone = 499

// wrongWith says what a client has to change about a request, but for its query; nothing: it is valid.
func wrongWith(r *http.Request, parameter, id string) string {
	if wrong := unwantedBody(r); wrong != "" || events.ValidID(id) {
		return wrong
	}
	return wrongID(parameter)
}

func wrongID(parameter string) string {
	return parameter + " is not 1 to 50 letters, digits, '_' or '-' of ASCII"
}

// unwantedBody says that a request has a body where there is none to be; nothing: it has none.
func unwantedBody(r *http.Request) string {
	if r.ContentLength == 0 { // -1: of unknown length
		return ""
	}
	return "a " + r.Method + " request has no body here"
}

// readQuery reads a query string, or says what is wrong with it. What is in it is not repeated in the answer.
func readQuery(query string, known []string) (values map[string]string, problem string) {
	here := "there are none here"
	if len(known) > 0 {
		here = "there are " + strings.Join(known, " and ") + " here"
	}
	if query == "" {
		return nil, ""
	}
	values, stranger := map[string]string{}, false
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		name, wrongName := url.QueryUnescape(name)
		value, wrongValue := url.QueryUnescape(value)
		if wrongName != nil || wrongValue != nil {
			return nil, "a query parameter has a broken escape"
		}
		if _, repeated := values[name]; repeated {
			return nil, "a query parameter is repeated; " + here
		}
		values[name] = value
		stranger = stranger || !slices.Contains(known, name)
	}
	if stranger {
		return nil, "a query parameter is not known; " + here
	}
	return values, ""
}

func unavailable(w http.ResponseWriter, r *http.Request, detail string) {
	w.Header().Set("Retry-After", retryAfter)
	WriteProblem(w, r, Problem{Status: http.StatusServiceUnavailable, Detail: detail})
}

// metrics are those of the interface as a whole; each route has its own.
func (a *API) metrics() []prometheus.Collector {
	all := []prometheus.Collector{a.reserved, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "tenantflow_http_v1_in_flight", Help: "Requests of the /v1 interface that are being answered.",
	}, func() float64 { return float64(a.inFlight.count()) })}
	if a.tokens != nil {
		all = append(all, prometheus.NewGaugeFunc(prometheus.GaugeOpts{
			Name: "tenantflow_http_tokens_stale", Help: "1: the tokens file was changed into something that can't be used, and the tokens of before are in force.",
		}, func() float64 {
			if a.tokens.Stale() {
				return 1
			}
			return 0
		}))
	}
	return all
}
