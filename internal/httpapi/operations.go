package httpapi

import (
	"bytes"
	"cmp"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"time"

	"tenantflow/internal/operations"
	"tenantflow/internal/token"
)

// Operations are what the operations page shows. *operations.Board implements it.
type Operations interface {
	// Report returns what is known. It asks no store.
	Report(now time.Time) *operations.Report
}

// Show gives the API what its operations page shows.
func (a *API) Show(o Operations) { a.operations.Store(&o) }

// sessionCookie holds the session of a browser that has signed in. It is taken for the page only: /v1 takes no cookies.
const sessionCookie = "tenantflow_operations"

// sessionAge is how long a browser is signed in.
const sessionAge = 12 * time.Hour

// What the page says to a token that may not see it.
const narrowScope = "the token's scope is not all companies"

// report answers with the JSON of what the page shows.
func (a *API) report(w http.ResponseWriter, r *http.Request, grant *token.Grant) {
	if !aboutAll(w, r, grant) {
		return
	}
	o := a.operations.Load()
	if o == nil {
		unavailable(w, r, "the service is starting or stopping")
		return
	}
	writeJSON(w, http.StatusOK, (*o).Report(a.now()))
}

// aboutAll reports whether a request for what is about all companies may be answered: one without parameters or a body, with a token for all of them. Any other
// gets its answer here.
func aboutAll(w http.ResponseWriter, r *http.Request, grant *token.Grant) bool {
	_, wrong := readQuery(r.URL.RawQuery, nil)
	if wrong = cmp.Or(wrong, unwantedBody(r)); wrong != "" {
		WriteProblem(w, r, Problem{Status: http.StatusBadRequest, Detail: wrong})
		return false
	}
	if !grant.Everything() {
		WriteProblem(w, r, Problem{Status: http.StatusForbidden, Detail: narrowScope})
		return false
	}
	return true
}

// admit answers those requests that may be answered: of a token that is known and has the right to ask, and not of too many at once.
func (a *API) admit(right token.Right, answer func(http.ResponseWriter, *http.Request, *token.Grant)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		grant := a.authorize(w, r)
		if grant == nil || !a.enter(w, r, grant) {
			return
		}
		defer a.inFlight.leave(grant.Name)
		if !grant.May(right) {
			WriteProblem(w, r, Problem{Status: http.StatusForbidden, Detail: "the token has no right to " + string(right) + "; rights in the tokens file names those it has"})
			return
		}
		answer(w, r, grant)
	}
}

// enter names the token in the access log, and counts the request among those under way. It answers where there are too many.
func (a *API) enter(w http.ResponseWriter, r *http.Request, grant *token.Grant) bool {
	if s, ok := w.(*statusWriter); ok {
		s.token = grant.Name
	}
	if a.inFlight.enter(grant.Name) {
		return true
	}
	w.Header().Set("Retry-After", retryAfter)
	WriteProblem(w, r, Problem{Status: http.StatusTooManyRequests, Detail: "too many requests of this token are under way"})
	return false
}

// pages are the routes for a person's browser.
func (a *API) pages() []route {
	read, post := []string{http.MethodGet, http.MethodHead}, []string{http.MethodPost}
	return []route{
		{"/{$}", read, http.HandlerFunc(a.page)},
		{"/sign-in", post, a.sameOrigin(a.signIn)},
		{"/sign-out", post, a.sameOrigin(a.signOut)},
	}
}

// page answers with the operations page, or asks for a token.
func (a *API) page(w http.ResponseWriter, r *http.Request) {
	view, wrong := viewOf(r)
	if wrong != "" {
		WriteProblem(w, r, Problem{Status: http.StatusBadRequest, Detail: wrong})
		return
	}
	grant := local
	if a.tokens == nil {
		if why := notLocal(r); why != "" {
			WriteProblem(w, r, Problem{Status: http.StatusForbidden, Detail: strings.ReplaceAll(why, "/v1 answers", "the page answers")})
			return
		}
	} else {
		var ok bool
		if grant, view.SignedIn, ok = a.reader(r); !ok {
			refused := ""
			if view.SignedIn {
				refused = "That token is not valid any more."
			}
			a.askToken(w, r, http.StatusUnauthorized, refused)
			return
		}
	}
	if !a.enter(w, r, grant) {
		return
	}
	defer a.inFlight.leave(grant.Name)
	if !grant.Everything() || !grant.May(token.Read) {
		a.askToken(w, r, http.StatusForbidden, "That token's scope is not all companies, or it may not read.")
		return
	}
	o := a.operations.Load()
	if o == nil {
		unavailable(w, r, "the service is starting or stopping")
		return
	}
	var page bytes.Buffer
	if err := operations.WritePage(&page, (*o).Report(a.now()), view); err != nil {
		a.log.ErrorContext(r.Context(), "the operations page could not be made", slog.Any("error", err))
		WriteProblem(w, r, Problem{Status: http.StatusInternalServerError, Detail: "the page could not be made; the log says why"})
		return
	}
	if view.Refresh > 0 {
		w.Header().Set("Refresh", strconv.Itoa(view.Refresh))
	}
	writePage(w, http.StatusOK, &page)
}

// reader returns the grant of the token that a request for the page has: in its header, as for /v1, or in the cookie. Signed reports
// whether there was a cookie.
func (a *API) reader(r *http.Request) (grant *token.Grant, signed, ok bool) {
	if bearer, given := bearerOf(r.Header["Authorization"]); given {
		grant, ok = a.tokens.Find(bearer)
		return grant, false, ok
	}
	c, err := r.Cookie(sessionCookie)
	if err != nil {
		return nil, false, false
	}
	grant, ok = a.tokens.FindSession(c.Value, a.now())
	return grant, true, ok
}

// viewOf reads the parameters of the page.
func viewOf(r *http.Request) (view operations.View, wrong string) {
	query, wrong := readQuery(r.URL.RawQuery, []string{"refresh", "open"})
	if wrong != "" {
		return view, wrong
	}
	view = operations.View{Refresh: operations.DefaultRefresh, Open: query["open"]}
	if text, given := query["refresh"]; given {
		const longest = 3600
		n, err := strconv.Atoi(text)
		if err != nil || n != 0 && n < 2 || n > longest {
			return view, "refresh is no number of seconds from 2 to 3600, or 0 for never"
		}
		view.Refresh = n
	}
	return view, ""
}

// signIn puts a session of a token into the browser's cookie.
func (a *API) signIn(w http.ResponseWriter, r *http.Request) {
	if a.tokens == nil {
		WriteProblem(w, r, Problem{Status: http.StatusNotFound, Detail: "without a tokens file there is nothing to sign in to"})
		return
	}
	if err := r.ParseForm(); err != nil {
		WriteProblem(w, r, Problem{Status: http.StatusBadRequest, Detail: "the form can't be read"})
		return
	}
	text := strings.TrimSpace(r.PostForm.Get("token"))
	grant, ok := a.tokens.Find(text)
	switch {
	case !ok:
		a.askToken(w, r, http.StatusUnauthorized, "That token is not known.")
		return
	case !grant.Everything() || !grant.May(token.Read):
		a.askToken(w, r, http.StatusForbidden, "That token's scope is not all companies, or it may not read.")
		return
	}
	http.SetCookie(w, session(r, a.tokens.Session(text, a.now().Add(sessionAge)), int(sessionAge/time.Second)))
	seeOther(w)
}

// signOut takes the session out of the browser's cookie.
func (a *API) signOut(w http.ResponseWriter, r *http.Request) {
	http.SetCookie(w, session(r, "", -1))
	seeOther(w)
}

// session is the cookie. No script reads it, no other site's request brings it, and over TLS it goes to no connection without. Ports don't
// separate cookies: other services of the same host name get it from the browser, which is why it is no token.
func session(r *http.Request, value string, maxAge int) *http.Cookie {
	secure := r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https")
	return &http.Cookie{Name: sessionCookie, Value: value, Path: "/", MaxAge: maxAge, HttpOnly: true, Secure: secure, SameSite: http.SameSiteStrictMode}
}

// seeOther sends the browser to the page.
func seeOther(w http.ResponseWriter) {
	w.Header().Set("Location", "/")
	w.WriteHeader(http.StatusSeeOther)
}

// sameOrigin keeps forms of other sites out.
func (a *API) sameOrigin(next http.HandlerFunc) http.Handler {
	check := http.NewCrossOriginProtection()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := check.Check(r); err != nil {
			WriteProblem(w, r, Problem{Status: http.StatusForbidden, Detail: "the form was sent from another site"})
			return
		}
		next(w, r)
	})
}

// askToken answers with the page that asks for a token.
func (a *API) askToken(w http.ResponseWriter, r *http.Request, status int, refused string) {
	var page bytes.Buffer
	if err := operations.WriteSignIn(&page, refused); err != nil {
		a.log.ErrorContext(r.Context(), "the sign-in page could not be made", slog.Any("error", err))
	}
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="tenantflow"`) // browsers show the form all the same
	}
	writePage(w, status, &page)
}

// writePage answers with HTML.
func writePage(w http.ResponseWriter, status int, page *bytes.Buffer) {
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	h.Set("Content-Security-Policy", operations.ContentSecurityPolicy())
	h.Set("Referrer-Policy", "same-origin") // with no-referrer the form would come with "Origin: null", and be refused where no Sec-Fetch-Site says better
	h.Set("X-Frame-Options", "DENY")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Content-Length", strconv.Itoa(page.Len()))
	w.WriteHeader(status)
	_, _ = page.WriteTo(w) // after an error no client is left
}
