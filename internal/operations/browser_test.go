//go:build page

package operations

import (
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"testing"
	"time"

	"tenantflow/internal/health"
)

// The page in a real browser: `make page`, which installs what it needs, is no part of `make test`. It is looked at in light and
// dark, narrow, and with a store that hangs; axe-core must find nothing serious, and no picture may say anything that the policy forbids.
// The pictures go to docs/images.
func TestPage_InABrowser(t *testing.T) {
	script, modules := "testdata/browser.mjs", os.Getenv("TENANTFLOW_TEST_NODE_MODULES")
	if modules == "" {
		t.Fatal("TENANTFLOW_TEST_NODE_MODULES is not set; run `make page`")
	}
	boards := map[string]*Board{"/": sample(t, 16, 240), "/down": sample(t, 16, 240)}
	boards["/down"].down("Postgres")
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Content-Security-Policy", ContentSecurityPolicy())
		var err error
		switch b := boards[r.URL.Path]; {
		case r.URL.Path == "/sign-in":
			err = WriteSignIn(w, "That token is not known.")
		case b == nil:
			http.NotFound(w, r)
		default:
			report := b.Report(noon)
			for i := range report.Parts.Data {
				since := 26 * time.Hour
				if report.Parts.Data[i].State != string(health.Ready) {
					since = 90 * time.Second
				}
				report.Parts.Data[i].Since = noon.Add(-since)
			}
			err = WritePage(w, report, View{Refresh: DefaultRefresh, Open: r.URL.Query().Get("open"), SignedIn: true})
		}
		if err != nil {
			t.Error(err)
		}
	}))
	defer server.Close()
	cmd := exec.CommandContext(t.Context(), "node", script, server.URL, "../../docs/images") // #nosec G204 -- a test's own
	cmd.Env = append(os.Environ(), "NODE_PATH="+modules)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Fatal(err)
	}
}
