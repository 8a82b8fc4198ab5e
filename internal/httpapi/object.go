package httpapi

import (
	"encoding/json"
	"net/http"
	"strconv"
	"time"

	"tenantflow/internal/tier"
)

// An object is a JSON object being written, member after member: what thousands of requests a second get, without
// looking at types at run time. A test holds it against encoding/json.
type object struct {
	b []byte
}

func newObject() *object { return &object{b: append(make([]byte, 0, 512), '{')} }

// member begins one.
func (o *object) member(name string) {
	if o.b[len(o.b)-1] != '{' {
		o.b = append(o.b, ',')
	}
	o.b = append(o.b, '"')
	o.b = append(o.b, name...)
	o.b = append(o.b, '"', ':')
}

// open begins an object inside it; close ends that.
func (o *object) open(name string) {
	o.member(name)
	o.b = append(o.b, '{')
}

func (o *object) close() { o.b = append(o.b, '}') }

func (o *object) boolean(name string, value bool) {
	o.member(name)
	o.b = strconv.AppendBool(o.b, value)
}

func (o *object) integer(name string, value int64) {
	o.member(name)
	o.b = strconv.AppendInt(o.b, value, 10)
}

func (o *object) hundredths(name string, value uint64) {
	o.member(name)
	o.b = appendHundredths(o.b, value)
}

// limit writes the number, or "unlimited".
func (o *object) limit(name string, value tier.Limit) {
	if value == tier.Unlimited {
		o.text(name, value.String())
		return
	}
	o.integer(name, int64(value))
}

func (o *object) text(name, value string) {
	o.member(name)
	o.b = appendText(o.b, value)
}

func (o *object) texts(name string, values []string) {
	o.member(name)
	o.b = append(o.b, '[')
	for i, value := range values {
		if i > 0 {
			o.b = append(o.b, ',')
		}
		o.b = appendText(o.b, value)
	}
	o.b = append(o.b, ']')
}

// time writes RFC 3339 in UTC, with as many digits of a second as there are: every answer shows a time in the same way.
func (o *object) time(name string, value time.Time) {
	o.member(name)
	o.b = append(o.b, '"')
	o.b = value.UTC().AppendFormat(o.b, time.RFC3339Nano)
	o.b = append(o.b, '"')
}

// answer ends the object and sends it as the answer to a request.
func (o *object) answer(w http.ResponseWriter) { o.send(w, http.StatusOK) }

// created is answer for a request that has made something.
func (o *object) created(w http.ResponseWriter) { o.send(w, http.StatusCreated) }

func (o *object) send(w http.ResponseWriter, status int) {
	o.b = append(o.b, '}', '\n')
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(o.b) // after an error of the connection no client is left to report it to
}

func appendText(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			escaped, err := json.Marshal(s)
			if err != nil { // can't be: every string has a JSON form
				escaped = []byte(`""`)
			}
			return append(b, escaped...)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}
