package httpapi

import "net/http"

// A Problem is an error answer as RFC 9457 defines it.
type Problem struct {
	// Type is a URI that names the kind of problem. Empty: about:blank, which says no more than the status.
	Type string `json:"type"`
	// Title is the kind of problem in a few words, always the same for one type. Empty: the status' own words.
	Title string `json:"title"`
	// Status is the HTTP status.
	Status int `json:"status"`
	// Detail is what was wrong with this very request, in words for a person.
	Detail string `json:"detail,omitempty"`
	// Code names for programs what was refused: of a preview one of the codes of *.rejected.v1 events, of a reservation why it was not granted.
	Code string `json:"code,omitempty"`
	// Instance is the path of the request. It is filled in.
	Instance string `json:"instance,omitempty"`
	// RequestID names the request, as the answer's header X-Request-Id does. It is filled in.
	RequestID string `json:"request_id,omitempty"`
}

// WriteProblem answers a request with a problem.
func WriteProblem(w http.ResponseWriter, r *http.Request, p Problem) {
	if p.Type == "" {
		p.Type = "about:blank"
	}
	if p.Title == "" {
		p.Title = http.StatusText(p.Status)
	}
	p.Instance = r.URL.EscapedPath()
	p.RequestID = w.Header().Get(requestID)
	w.Header().Set("Content-Type", "application/problem+json")
	writeJSON(w, p.Status, p)
}
