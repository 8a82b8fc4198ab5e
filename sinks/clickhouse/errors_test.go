package clickhouse

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"tenantflow/internal/engine/enginetest"
)

func asInsertError(t *testing.T, err error) *InsertError {
	t.Helper()
	var failed *InsertError
	if !errors.As(err, &failed) {
		t.Fatalf("not an insert error: %v", err)
	}
	return failed
}

func TestErrorsAreClassified(t *testing.T) {
	t.Parallel()
	server := func(code int32, message string) error {
		ex := &chgo.Exception{Code: code, Message: message}
		if message != "" {
			ex.Name = "DB::Exception" // what was read whole has it
		}
		return fmt.Errorf("insert: %w", ex)
	}
	dial := &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}
	for name, c := range map[string]struct {
		err     error
		class   Class
		outcome Outcome
	}{
		"late":                         {server(469, "Constraint `in_time` for table tf.usage_tracking (f69953cc) is violated at row 1. Expression: (_insert_by >= now64(3))"), Late, Answered},
		"late, with the code in front": {server(469, "Code: 469. DB::Exception: Constraint `in_time` for table"), Late, Answered},
		"refused by a constraint":      {server(469, "Constraint `c` for table tf.usage_tracking is violated at row 1. Expression: (company_id != 'x')"), Poison, Answered},
		"refused, the values say otherwise": {server(469, "Constraint `c` for table tf.usage_tracking is violated at row 1. "+
			"Column values: api_endpoint = 'Constraint `in_time` for'"), Poison, Answered},
		"a code without its words":              {server(469, ""), Transient, Answered},
		"a constraint without a name":           {server(469, "Constraint"), Transient, Answered},
		"what text is parsed for":               {server(72, "Cannot parse number"), Transient, Answered},
		"a string too large, of a damaged body": {server(131, "Too large string size"), Transient, Answered},
		"a decimal overflow":                    {server(407, "Decimal math overflow"), Poison, Answered},
		"an overflow, with only the code read":  {server(407, ""), Transient, Answered},
		"memory limit":                          {server(241, ""), Transient, Answered},
		"too many parts":                        {server(252, ""), Transient, Answered},
		"timeout":                               {server(159, ""), Transient, Answered},
		"no space":                              {server(243, ""), Transient, Answered},
		"read only":                             {server(242, ""), Transient, Answered},
		"too many partitions":                   {server(252, ""), Transient, Answered},
		"an unknown code":                       {server(99999, ""), Transient, Answered},
		"no such table":                         {server(60, ""), Fatal, Answered},
		"no such column":                        {server(16, ""), Fatal, Answered},
		"wrong password":                        {server(516, ""), Fatal, Answered},
		"no connection":                         {fmt.Errorf("insert: %w", dial), Transient, NotSent},
		"no free connection":                    {chgo.ErrAcquireConnTimeout, Transient, NotSent},
		"a broken connection":                   {&net.OpError{Op: "read", Err: syscall.ECONNRESET}, Transient, Unknown},
		"a connection closed":                   {io.ErrUnexpectedEOF, Transient, Unknown},
		"no answer in time":                     {context.DeadlineExceeded, Transient, Unknown},
		"something else":                        {errors.New("something else"), Transient, Unknown},
		"a write that was cut off":              {&net.OpError{Op: "write", Err: syscall.EPIPE}, Transient, Unknown},
	} {
		if got := Classify(c.err); got != c.class {
			t.Errorf("%s: class %d, want %d", name, got, c.class)
		}
		if got := outcome(c.err); got != c.outcome {
			t.Errorf("%s: outcome %d, want %d", name, got, c.outcome)
		}
	}
}

// What a load balancer answers is not the server's word: the insert may still be under way behind it.
func TestTheAnswerOfSomethingInBetweenLeavesTheOutcomeUnknown(t *testing.T) {
	t.Parallel()
	server := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: enginetest.SharedClickHouse(t).Addr()})
	for _, status := range []int{http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout, http.StatusTooManyRequests} {
		between := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !strings.Contains(r.URL.RawQuery, "INSERT") {
				server.ServeHTTP(w, r) // the client asks for the version before it does anything
				return
			}
			_, _ = io.Copy(io.Discard, r.Body)
			w.WriteHeader(status)
			_, _ = io.WriteString(w, "<html><body>upstream request timeout</body></html>")
		}))
		t.Cleanup(between.Close)
		s, err := Open(t.Context(), Config{InsertTimeout: time.Minute,
			Options: &chgo.Options{Protocol: chgo.HTTP, Addr: []string{strings.TrimPrefix(between.URL, "http://")}}})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = s.Close() })
		b := blockOf(plain(1))
		got := asInsertError(t, s.Insert(t.Context(), s.intent(b), b, 0, 1))
		if got.Class != Transient || got.Outcome != Unknown {
			t.Errorf("status %d: class %d, outcome %d: %v", status, got.Class, got.Outcome, got)
		}
	}
}

func TestAnInsertWhoseDeadlineHasPassedIsNotSent(t *testing.T) {
	t.Parallel()
	s := &Store{onPart: func(int) {}} // no connection to send it on
	s.clock.Store(&reading{server: time.Now(), ours: time.Now()})
	b := blockOf(plain(1))
	in := s.intent(b)
	in.InsertBy = s.Now().Add(-time.Second)
	got := asInsertError(t, s.Insert(t.Context(), in, b, 0, 1))
	if got.Class != Late || got.Outcome != Answered {
		t.Errorf("%+v", got)
	}
}

// A dead letter says this. What a constraint or a conversion quotes of a row stays out of it.
func TestARefusalNamesNoValue(t *testing.T) {
	t.Parallel()
	for want, ex := range map[string]*chgo.Exception{
		`it breaks the constraint "c" (code 469)`: {Code: 469, Name: "DB::Exception", Message: "Constraint `c` for table tf.usage_tracking is violated at row 1. Column values: api_endpoint = '/ann@x'"},
		"CANNOT_CONVERT_TYPE (code 70)":           {Code: 70, Name: "DB::Exception", Message: "can't convert '/ann@x'"},
		"code 6":                                  {Code: 6, Name: "DB::Exception", Message: "can't parse '/ann@x'"},
	} {
		if got := Refusal(fmt.Errorf("insert: %w", ex)); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
