package deploy

import (
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os/exec"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"tenantflow/internal/config"
	"tenantflow/internal/health"
	"tenantflow/internal/httpapi"
)

// A recipe holds the parts of the Dockerfile that the tests check; of the last stage, where it does not say otherwise.
type recipe struct {
	bases       []string // of all stages
	files       []string // copied to the root
	environment map[string]string
	user        string
	exposed     string
	check       []string // the command of HEALTHCHECK
	entrypoint  []string
}

func dockerfile(t *testing.T) recipe {
	t.Helper()
	text := strings.ReplaceAll(readFile(t, "../Dockerfile"), "\\\n", " ")
	var r recipe
	for line := range strings.Lines(text) {
		instruction, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		words := strings.Fields(rest)
		switch instruction {
		case "FROM":
			words = slices.DeleteFunc(words, func(w string) bool { return strings.HasPrefix(w, "--") })
			r = recipe{bases: append(r.bases, words[0]), environment: map[string]string{}}
		case "COPY":
			for _, w := range words[:len(words)-1] {
				if !strings.HasPrefix(w, "--") && words[len(words)-1] == "/" {
					r.files = append(r.files, "/"+path.Base(w))
				}
			}
		case "ENV":
			for _, w := range words {
				name, value, _ := strings.Cut(w, "=")
				r.environment[name] = value
			}
		case "USER":
			r.user = rest
		case "EXPOSE":
			r.exposed = rest
		case "HEALTHCHECK":
			_, list, _ := strings.Cut(rest, " CMD ")
			r.check = command(t, list)
		case "ENTRYPOINT":
			r.entrypoint = command(t, rest)
		}
	}
	return r
}

// command reads the form of a command that needs no shell.
func command(t *testing.T, text string) []string {
	t.Helper()
	var list []string
	if err := json.Unmarshal([]byte(text), &list); err != nil {
		t.Fatalf("%s: there is no shell in the image to run it: %v", text, err)
	}
	return list
}

func TestTheImageIsBuiltFromPinnedOnesAndRunsAsNobody(t *testing.T) {
	t.Parallel()
	r := dockerfile(t)
	for _, base := range r.bases[:len(r.bases)-1] {
		if !pinned.MatchString(base) {
			t.Errorf("the base %s is not pinned to a release", base)
		}
	}
	if last := r.bases[len(r.bases)-1]; last != "scratch" {
		t.Errorf("the image is made on %s", last)
	}
	if !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(r.user) {
		t.Errorf("the user is %q, want numbers that are not root's", r.user)
	}
	needs := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(readFile(t, "../go.mod"))
	if !strings.HasPrefix(r.bases[0], "golang:"+needs[1]+".") {
		t.Errorf("it is built with %s, and go.mod asks for %s", r.bases[0], needs[1])
	}
}

// The image has no other program than those copied into it, and the URL must be one the service answers.
func TestTheHealthChecksAskWhatTheServiceAnswers(t *testing.T) {
	t.Parallel()
	r := dockerfile(t)
	served := httpapi.Handler(httpapi.Options{
		Health: health.New(time.Minute, slog.New(slog.DiscardHandler)), Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler),
	})
	_, port, err := net.SplitHostPort(r.environment[config.Prefix+"HTTP_ADDR"])
	if err != nil || port != r.exposed {
		t.Errorf("it listens on %v and exposes %s: %v", r.environment, r.exposed, err)
	}
	c := compose(t).Services["tenantflow"]
	for where, command := range map[string][]string{"Dockerfile": r.check, "docker-compose.yml": c.Healthcheck.Test[1:]} {
		if len(command) != 2 || !slices.Contains(r.files, command[0]) || !slices.Contains(r.files, r.entrypoint[0]) {
			t.Errorf("%s runs %q; the image holds %q", where, command, r.files)
			continue
		}
		u, err := url.Parse(command[1])
		if err != nil || u.Port() != port {
			t.Errorf("%s asks %s, and the service listens on port %s (%v)", where, command[1], port, err)
			continue
		}
		answer := httptest.NewRecorder()
		served.ServeHTTP(answer, httptest.NewRequestWithContext(t.Context(), http.MethodGet, u.Path, nil))
		if answer.Code != http.StatusOK {
			t.Errorf("%s asks %s, and a service that is well answers %d", where, u.Path, answer.Code)
		}
	}
	if !slices.Contains(c.Ports, "127.0.0.1:"+port+":"+port) {
		t.Errorf("the port %s is not published: %v", port, c.Ports)
	}
}

// .dockerignore lists what gets into the build. A package that is not among it would be missed only where there is Docker.
func TestTheBuildGetsEveryPackageItNeeds(t *testing.T) {
	t.Parallel()
	var kept []string
	for line := range strings.Lines(readFile(t, "../.dockerignore")) {
		if name, ok := strings.CutPrefix(strings.TrimSpace(line), "!"); ok {
			kept = append(kept, name)
		}
	}
	format := "{{if not .Standard}}{{$p := .ImportPath}}{{range .GoFiles}}{{$p}}/{{.}}\n{{end}}{{range .EmbedFiles}}{{$p}}/{{.}}\n{{end}}{{end}}"
	list := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", format, "./cmd/tenantflow", "./deploy/probe")
	list.Dir = ".."
	out, err := list.Output()
	if err != nil {
		t.Fatal(err)
	}
	files := 0
	for file := range strings.FieldsSeq(string(out)) {
		file, ours := strings.CutPrefix(file, "tenantflow/")
		if !ours {
			continue
		}
		files++
		if !slices.ContainsFunc(kept, func(k string) bool {
			match, err := path.Match(k, file)
			return strings.HasPrefix(file, k+"/") || match && err == nil
		}) {
			t.Errorf("%s does not get into the build", file)
		}
	}
	if files < 50 {
		t.Errorf("only %d files were looked at", files)
	}
}
