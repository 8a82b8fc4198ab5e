package service

import (
	"context"
	"net/http"
	"testing"
)

func TestServe_ProbesMayHaveAnAddressOfTheirOwn(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		environ []string
		part    string
		want    []map[string]int // by server: the status of each path
	}{
		{nil, "api", []map[string]int{{"/livez": 200, "/v1/users/u/quota": 503}}},
		{[]string{"TENANTFLOW_ADMIN_ADDR=127.0.0.1:0"}, "api", []map[string]int{{"/livez": 200, "/v1/users/u/quota": 404}, {"/livez": 404, "/v1/users/u/quota": 503}}},
		{[]string{"TENANTFLOW_ADMIN_ADDR=127.0.0.1:0"}, "usage", []map[string]int{{"/livez": 200, "/v1/users/u/quota": 404}}},
	} {
		s := testService(t, c.environ, Part{Name: c.part, Run: untilStopped})
		servers, err := s.serve(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { stopServers(context.Background(), servers, s.log) })
		if len(servers) != len(c.want) {
			t.Fatalf("%v: %d servers, want %d", c.environ, len(servers), len(c.want))
		}
		for i, paths := range c.want {
			for path, want := range paths {
				if got := status(t, "http://"+servers[i].Addr().String()+path); got != want {
					t.Errorf("%v, part %s, server %d: %s is %d, want %d", c.environ, c.part, i, path, got, want)
				}
			}
		}
	}
}

func TestServe_AnAddressThatIsTakenStopsTheOther(t *testing.T) {
	t.Parallel()
	taken := testService(t, nil, Part{Name: "usage", Run: untilStopped})
	servers, err := taken.serve(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { stopServers(context.Background(), servers, taken.log) })
	s := testService(t, []string{"TENANTFLOW_ADMIN_ADDR=127.0.0.1:0"}, Part{Name: "api", Run: untilStopped})
	s.cfg.HTTPAddr = servers[0].Addr().String()
	if _, err := s.serve(t.Context()); err == nil {
		t.Error("no error")
	}
}

func status(t *testing.T, url string) int {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	return response.StatusCode
}
