package httpapi

import (
	"net/http"
	"strings"

	"tenantflow/internal/health"
)

// readyz answers whether every part is ready. Reasons name addresses, users and databases, so only callers who may know of the whole
// installation read them: those with a token for all companies; without a tokens file, those on this machine.
func readyz(o Options) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		readiness := o.Health.Readiness()
		if !o.API.mayKnow(r) {
			inWords(readiness.Failing)
			inWords(readiness.Parts)
		}
		writeJSON(w, healthStatus(readiness.Ready), readiness)
	}
}

// mayKnow reports whether the sender of a request may know of the whole installation. A nil API has no tokens.
func (a *API) mayKnow(r *http.Request) bool {
	if a == nil || a.tokens == nil {
		return notLocal(r) == ""
	}
	bearer, given := bearerOf(r.Header["Authorization"])
	if !given {
		return false
	}
	grant, ok := a.tokens.Find(bearer)
	return ok && grant.Everything()
}

// inWords replaces reasons by what their state means, and the stores that they are about.
func inWords(parts []health.PartReport) {
	for i := range parts {
		p := &parts[i]
		if p.Note != "" {
			p.Note = "some companies need a look; the log says which, and so does this page to a token for all companies"
		}
		if p.Reason == "" || p.State == health.Stopping {
			continue
		}
		text := "it starts"
		switch p.State {
		case health.Failing:
			text = "it waits and tries again"
		case health.Stopped:
			text = "it is stopped until an operator acts"
		case health.Starting, health.Ready, health.Stopping:
		}
		if about := storesIn(p.Reason); len(about) > 0 {
			text += "; it needs " + strings.Join(about, " and ")
		}
		p.Reason = text + "; the log says why, and so does this page to a token for all companies"
	}
}

// storeWords are the stores by the words that reasons have for them.
var storeWords = []struct{ store, words string }{ //nolint:gochecknoglobals // a constant table
	{"Postgres", "postgres"}, {"ClickHouse", "clickhouse"}, {"Dragonfly", "dragonfly|redis|counter store"}, {"Kafka", "kafka|broker|consumer group|topic"},
}

// storesIn lists the stores that a reason is about.
func storesIn(reason string) []string {
	reason = strings.ToLower(reason)
	var all []string
	for _, s := range storeWords {
		for word := range strings.SplitSeq(s.words, "|") {
			if strings.Contains(reason, word) {
				all = append(all, s.store)
				break
			}
		}
	}
	return all
}
