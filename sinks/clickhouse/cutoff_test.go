package clickhouse

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"

	chgo "github.com/ClickHouse/clickhouse-go/v2"

	"tenantflow/internal/engine/enginetest"
)

// Something in between that ends an answer early and closes the connection in order, as a proxy of HTTP/1.0 does, gives
// an answer that looks whole. A look-up that misses a stored event would have it stored twice.
func TestLookUps_AnAnswerCutOffIsAnError(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	b := blockOf(plains(5)...)
	in := s.insert(t, b)

	var keep atomic.Int64 // bytes of an answer; -1: all
	keep.Store(-1)
	proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: enginetest.SharedClickHouse(t).Addr()})
	proxy.ModifyResponse = func(r *http.Response) error {
		if n := keep.Load(); n >= 0 && r.StatusCode == http.StatusOK {
			r.Body = struct {
				io.Reader
				io.Closer
			}{io.LimitReader(r.Body, n), r.Body}
			r.Header.Del("Content-Length")
			r.ContentLength = -1
		}
		return nil
	}
	server := httptest.NewServer(proxy)
	t.Cleanup(server.Close)
	var database string
	if err := s.conn.QueryRow(t.Context(), "SELECT currentDatabase()").Scan(&database); err != nil {
		t.Fatal(err)
	}
	options, err := chgo.ParseDSN("http://default@" + strings.TrimPrefix(server.URL, "http://") + "/" + database)
	if err != nil {
		t.Fatal(err)
	}
	via, err := Open(t.Context(), Config{Options: options, InsertTimeout: enginetest.Patience})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = via.Close() })

	for name, look := range map[string]func() (int, error){
		"by identity and time": func() (int, error) { m, err := via.Find(t.Context(), b, b.all()); return len(m), err },
		"by identity": func() (int, error) {
			m, err := via.FindIdentity(t.Context(), "usage", 0, 0, b, b.all())
			return len(m), err
		},
		"by deadline": func() (int, error) { stored, err := via.stored(t.Context(), in); return stored.lenOrZero(), err },
	} {
		keep.Store(-1)
		if n, err := look(); n != 5 || err != nil {
			t.Errorf("%s: %d rows, %v", name, n, err)
		}
		for _, bytes := range []int64{0, 100, 200} {
			keep.Store(bytes)
			if n, err := look(); err == nil {
				t.Errorf("%s, %d bytes of the answer: %d rows and no error", name, bytes, n)
			}
		}
	}
	keep.Store(0)
	if _, err := via.Newest(t.Context()); err == nil {
		t.Error("the newest timestamp of an empty answer")
	}
	if _, err := via.laterCopiesOf(t, in); err == nil {
		t.Error("no later copies, says an empty answer")
	}
}

// lenOrZero is the number of rows of a block that may be nil.
func (b *Block) lenOrZero() int {
	if b == nil {
		return 0
	}
	return b.Len()
}

func (s *Store) laterCopiesOf(t *testing.T, in *Intent) (int, error) {
	_, n, err := s.laterCopies(t.Context(), in)
	return n, err
}

// The settings that a user's profile has: what a query says itself must win.
func TestLookUps_AreWholeUnderAnyProfile(t *testing.T) {
	t.Parallel()
	s := openStore(t)
	var database string
	if err := s.conn.QueryRow(t.Context(), "SELECT currentDatabase()").Scan(&database); err != nil {
		t.Fatal(err)
	}
	b := blockOf(plains(5)...)
	for i, profile := range []string{"limit=1", "max_rows_in_set=1&set_overflow_mode=break", "max_result_rows=1&result_overflow_mode=break&max_block_size=1"} {
		options, err := chgo.ParseDSN("http://default@" + enginetest.SharedClickHouse(t).Addr() + "/" + database + "?" + profile)
		if err != nil {
			t.Fatal(err)
		}
		under, err := Open(t.Context(), Config{Options: options, InsertTimeout: enginetest.Patience})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = under.Close() })
		if i == 0 {
			in := under.insert(t, b)
			if c := s.counts(t); c != (counts{5, 5, 5, 5}) {
				t.Errorf("%s: stored %+v", profile, c)
			}
			if stored, err := under.stored(t.Context(), in); err != nil || stored.Len() != 5 {
				t.Errorf("%s: read back %d rows, %v", profile, stored.lenOrZero(), err)
			}
		}
		if m, err := under.Find(t.Context(), b, b.all()); err == nil && len(m) != 5 {
			t.Errorf("%s: found %d of 5 without an error", profile, len(m))
		}
	}
}
