package schemas_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"mime"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/santhosh-tekuri/jsonschema/v6"
	"go.yaml.in/yaml/v3"

	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/health"
	"tenantflow/internal/httpapi"
	"tenantflow/internal/telemetry"
)

// An openAPI is the document as the value of a JSON text, and the compiler that knows it.
type openAPI struct {
	tree     any
	compiler *jsonschema.Compiler
}

const openAPIFile = "openapi.yaml"

func openAPIDocument(t *testing.T) openAPI {
	t.Helper()
	text, err := os.ReadFile(openAPIFile)
	if err != nil {
		t.Fatal(err)
	}
	var read any
	if err := yaml.Unmarshal(text, &read); err != nil {
		t.Fatal(err)
	}
	asJSON, err := json.Marshal(read)
	if err != nil {
		t.Fatal(err)
	}
	tree, err := jsonschema.UnmarshalJSON(bytes.NewReader(asJSON))
	if err != nil {
		t.Fatal(err)
	}
	d := openAPI{tree, jsonschema.NewCompiler()}
	d.compiler.AssertFormat()
	if err := d.compiler.AddResource(openAPIFile, tree); err != nil {
		t.Fatal(err)
	}
	return d
}

// at follows a path of names into the document, through references on its way. It returns the place where the path ends
// as a JSON pointer, and the value there; nil: there is none.
func (d openAPI) at(t *testing.T, path ...string) (string, any) {
	t.Helper()
	pointer, node := "#", d.tree
	for i := 0; ; i++ {
		object, ok := node.(map[string]any)
		if ref, isRef := object["$ref"].(string); isRef {
			_, node = d.at(t, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...)
			pointer = ref
			object, ok = node.(map[string]any)
		}
		if i == len(path) {
			return pointer, node
		}
		if node = object[path[i]]; !ok || node == nil {
			return "", nil
		}
		pointer += "/" + strings.NewReplacer("~", "~0", "/", "~1").Replace(path[i])
	}
}

func (d openAPI) members(t *testing.T, path ...string) map[string]any {
	t.Helper()
	_, node := d.at(t, path...)
	object, _ := node.(map[string]any)
	return object
}

// judge says what is wrong with a value by the schema at a place of the document.
func (d openAPI) judge(t *testing.T, pointer string, value any) error {
	t.Helper()
	schema, err := d.compiler.Compile(openAPIFile + pointer)
	if err != nil {
		t.Fatalf("the schema at %s: %v", pointer, err)
	}
	return schema.Validate(value)
}

// answers is where the answers of a kind are described: of a method and path, or of what is neither.
func (d openAPI) answers(t *testing.T, path string, method, status string) []string {
	t.Helper()
	switch {
	case status == "404" && d.members(t, "paths", path, method, "responses", status) == nil:
		return []string{"x-other-paths"}
	case status == "405":
		return []string{"paths", path, "x-other-methods"}
	default:
		return []string{"paths", path, method, "responses", status}
	}
}

// method is the one that a path answers, as the document writes it; HEAD is described as like GET.
func (d openAPI) method(t *testing.T, path string) string {
	t.Helper()
	for _, method := range []string{"post", "delete"} {
		if d.members(t, "paths", path, method) != nil {
			return method
		}
	}
	return "get"
}

// hold checks an answer against its description, and notes that this was seen.
func (d openAPI) hold(t *testing.T, seen map[string]bool, path, method string, a answer) {
	t.Helper()
	status, body := fmt.Sprint(a.status), a.body
	where := d.answers(t, path, d.method(t, path), status)
	name := fmt.Sprintf("%s %s: %s", method, path, status)
	described := d.members(t, where...)
	if described == nil || a.status == http.StatusNoContent || a.status == http.StatusNotModified {
		if described != nil && len(body) == 0 {
			seen[strings.Join(where, " ")] = true
			return
		}
		t.Errorf("%s is not in the document: %s", name, body)
		return
	}
	seen[strings.Join(where, " ")] = true
	for header, h := range d.members(t, append(where, "headers")...) {
		pointer, _ := d.at(t, append(where, "headers", header, "schema")...)
		if err := d.judge(t, pointer, a.header.Get(header)); err != nil {
			t.Errorf("%s: the header %s is %q: %v (%v)", name, header, a.header.Get(header), err, h)
		}
	}
	media, _, err := mime.ParseMediaType(a.header.Get("Content-Type"))
	if err != nil {
		t.Errorf("%s: Content-Type %q: %v", name, a.header.Get("Content-Type"), err)
		return
	}
	pointer, _ := d.at(t, append(where, "content", media, "schema")...)
	if pointer == "" {
		t.Errorf("%s comes as %s, which is not in the document", name, media)
		return
	}
	if method == http.MethodHead {
		if len(body) > 0 {
			t.Errorf("%s: a body of %d bytes", name, len(body))
		}
		return
	}
	var value any = string(body)
	if strings.HasSuffix(media, "json") {
		if value, err = jsonschema.UnmarshalJSON(bytes.NewReader(body)); err != nil {
			t.Errorf("%s: %v: %s", name, err, body)
			return
		}
	}
	if err := d.judge(t, pointer, value); err != nil {
		t.Errorf("%s: %s\n%v", name, body, err)
	}
}

func TestTheHTTPDocumentHasTheRoutesOfTheHandlerAndNoOther(t *testing.T) {
	t.Parallel()
	d := openAPIDocument(t)
	log := slog.New(slog.DiscardHandler)
	routes := httpapi.Routes(httpapi.Options{Health: health.New(time.Minute, log), Metrics: telemetry.NewRegistry(telemetry.Build{}), Log: log, API: httpapi.NewAPI(nil, log)})
	paths := d.members(t, "paths")
	if got, want := slices.Sorted(maps.Keys(paths)), slices.Sorted(maps.Keys(routes)); !slices.Equal(got, want) {
		t.Errorf("paths\n%q\nroutes\n%q", got, want)
	}
	for path, methods := range routes {
		method := d.method(t, path)
		want := []string{strings.ToUpper(method)}
		if method == "get" {
			want = append(want, http.MethodHead) // described once for all, as like GET
		}
		if !slices.Equal(methods, want) {
			t.Errorf("%s answers %q", path, methods)
		}
		for member := range d.members(t, "paths", path) {
			if !slices.Contains([]string{method, "parameters", "x-other-methods"}, member) {
				t.Errorf("%s has %s", path, member)
			}
		}
	}
}

func TestEveryAnswerOfTheHTTPDocumentIsGivenAndNoOther(t *testing.T) {
	t.Parallel()
	d := openAPIDocument(t)
	seen := map[string]bool{}
	open, closed := serve(t, nil), serve(t, noTokens(t))
	ask := func(s served, method, path, target string, header ...string) {
		t.Helper()
		d.hold(t, seen, path, method, send(t, method, s.url+target, header...))
		if method == http.MethodGet {
			d.hold(t, seen, path, http.MethodHead, send(t, http.MethodHead, s.url+target, header...))
		}
	}
	users := append(slices.Collect(maps.Keys(open.users)), "nobody", "u%20x", "%00", "a%2Fb", strings.Repeat("a", 51))
	for path := range d.members(t, "paths") {
		targets, main := []string{path}, strings.ToUpper(d.method(t, path))
		if strings.Contains(path, "{user_id}") {
			targets = nil
			for _, user := range users {
				targets = append(targets, strings.NewReplacer("{user_id}", user, "{reservation_id}", "r-1").Replace(path))
			}
			if strings.Contains(path, "{reservation_id}") {
				targets = append(targets, strings.NewReplacer("{user_id}", "pro", "{reservation_id}", "r%201").Replace(path))
			}
			targets = append(targets, targets[0]+"?x=1", targets[0]+"?a&a")
		}
		if path == operationsPath || path == businessPath {
			targets = append(targets, path+"?x=1")
		}
		if strings.Contains(path, "{company_id}") {
			targets = nil
			for _, company := range append(slices.Collect(maps.Keys(open.companies)), "nobody", "c%20x", strings.Repeat("a", 51)) {
				target := strings.NewReplacer("{company_id}", company, "{billing_period}", "2026-10").Replace(path)
				for _, query := range []string{"", "?new_tier=free", "?new_tier=pro", "?new_tier=enterprise&at=2026-11-23T12:00:00Z", "?new_tier=gold", "?new_tier=pro&at=x", "?months=3", "?months=37", "?format=csv", "?format=parquet", "?format=xml", "?x=1", "?at&at"} {
					targets = append(targets, target+query)
				}
			}
		}
		if path == billingPath {
			for _, period := range []string{"2026-13", "9998-01", "2000-01", "2026-09"} {
				targets = append(targets, "/v1/companies/pro/billing/"+period)
			}
			ask(open, main, path, "/v1/companies/pro/billing/2026-10", "If-None-Match", `"`+strings.Repeat("0f", 32)+`"`)
		}
		for _, target := range targets {
			ask(open, main, path, target)
		}
		ask(open, main, path, targets[0]+"?"+strings.Repeat("x", 2000))
		ask(open, main, path, targets[0], "X-Large", strings.Repeat("x", 16<<10))
		for _, method := range []string{http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete, http.MethodOptions, http.MethodTrace, http.MethodGet, http.MethodHead} {
			if method != main && (method != http.MethodHead || main != http.MethodGet) {
				ask(open, method, path, targets[0])
			}
		}
		if path == reservationsPath {
			for _, body := range reservationBodies() {
				ask(open, main, path, "/v1/users/pro/reservations", "body", body)
			}
		}
		if strings.HasPrefix(path, "/v1/") {
			ask(closed, main, path, targets[0])
			ask(closed, main, path, targets[0], "Authorization", "Bearer x")

			far := httptest.NewRequestWithContext(t.Context(), main, targets[0], nil)
			far.RemoteAddr = "192.0.2.1:5"
			w := httptest.NewRecorder()
			other := open.options
			other.Metrics = telemetry.NewRegistry(telemetry.Build{})
			httpapi.Handler(other).ServeHTTP(w, far)
			d.hold(t, seen, path, main, answer{w.Code, w.Header(), w.Body.Bytes()})
		}
	}
	for _, target := range []string{"/nothing", "/v1", "/v2", "//", "/v1/users//quota", "/livez/"} {
		ask(open, http.MethodGet, "", target)
		ask(open, http.MethodPost, "", target)
	}

	ask(open, http.MethodGet, businessPath, businessPath)     // of an installation with something of everything
	ask(open, http.MethodGet, operationsPath, operationsPath) // as long as there is nothing to show
	for _, b := range boards(t) {
		open.options.API.Show(b)
		ask(open, http.MethodGet, operationsPath, operationsPath)
	}

	// What the platform may be like.
	const quota, subscription = "/v1/users/{user_id}/quota", "/v1/users/{user_id}/subscription"
	open.rebuilds = true
	ask(open, http.MethodGet, quota, "/v1/users/pro/quota")
	ask(open, http.MethodGet, quota, "/v1/users/enterprise/quota")
	ask(open, http.MethodPost, reservationsPath, "/v1/users/pro/reservations")
	ask(open, http.MethodPost, reservationsPath, "/v1/users/enterprise/reservations")
	// As many requests as may be under way.
	open.hang = make(chan struct{})
	var waiting sync.WaitGroup
	before := open.asked.Load()
	const most = 256
	for range most {
		waiting.Go(func() { send(t, http.MethodGet, open.url+"/v1/users/pro/subscription") })
	}
	enginetest.Await(t, "all requests to be under way", func() bool { return open.asked.Load() >= before+most })
	for path := range d.members(t, "paths") {
		if strings.HasPrefix(path, "/v1/") {
			ask(open, strings.ToUpper(d.method(t, path)), path, strings.NewReplacer("{user_id}", "pro", "{company_id}", "pro", "{reservation_id}", "r", "{billing_period}", "2026-10").Replace(path))
		}
	}
	close(open.hang)
	waiting.Wait()
	open.hang = nil
	open.away = errors.New("connection refused")
	ask(open, http.MethodGet, businessPath, businessPath)
	ask(open, http.MethodGet, quota, "/v1/users/pro/quota")
	ask(open, http.MethodGet, subscription, "/v1/users/pro/subscription")
	ask(open, http.MethodPost, reservationsPath, "/v1/users/pro/reservations")
	ask(open, http.MethodPost, reservationsPath, "/v1/users/enterprise/reservations")
	ask(open, http.MethodDelete, reservationsPath+"/{reservation_id}", "/v1/users/pro/reservations/r")
	for path := range d.members(t, "paths") {
		if target, company := strings.CutPrefix(path, "/v1/companies/{company_id}"); company {
			target = strings.Replace(target, "{billing_period}", "2026-10", 1)
			ask(open, http.MethodGet, path, "/v1/companies/pro"+target+map[bool]string{true: "?new_tier=free"}[strings.HasSuffix(target, "preview")])
		}
	}
	for _, state := range []health.State{health.Ready, health.Failing, health.Stopped, health.Stopping} {
		open.options.Health.Set(open.part, state, "why")
		ask(open, http.MethodGet, "/readyz", "/readyz")
	}
	open.options.Health.Load(open.part, 3, 4)
	ask(open, http.MethodGet, "/livez", "/livez")
	open.options.Health.Set(open.part, health.Ready, "")
	ask(open, http.MethodGet, "/readyz", "/readyz")

	for path, item := range d.members(t, "paths") {
		for status := range d.members(t, "paths", path, d.method(t, path), "responses") {
			if where := strings.Join(d.answers(t, path, d.method(t, path), status), " "); !seen[where] {
				t.Errorf("%s: the answer %s of the document was never given", path, status)
			}
		}
		if item.(map[string]any)["x-other-methods"] == nil {
			t.Errorf("%s does not say what other methods get", path)
		}
	}
}

func TestTheExamplesOfTheHTTPDocumentAreValidAndItsReferencesResolve(t *testing.T) {
	t.Parallel()
	d := openAPIDocument(t)
	examples, used := 0, map[string]bool{}
	var visit func(path []string, node any)
	visit = func(path []string, node any) {
		object, ok := node.(map[string]any)
		if !ok {
			if list, ok := node.([]any); ok {
				for _, child := range list {
					visit(nil, child) // lists hold no examples, but references
				}
			}
			return
		}
		if ref, ok := object["$ref"].(string); ok {
			used[ref] = true
			if _, target := d.at(t, strings.Split(strings.TrimPrefix(ref, "#/"), "/")...); target == nil || len(object) > 1 {
				t.Errorf("%v: %s leads nowhere, or has neighbours", path, ref)
			}
			return
		}
		if object["schema"] != nil && path != nil {
			pointer, _ := d.at(t, append(slices.Clone(path), "schema")...)
			given := []any{}
			if one, ok := object["example"]; ok {
				given = append(given, one)
			}
			for _, named := range d.members(t, append(slices.Clone(path), "examples")...) {
				given = append(given, named.(map[string]any)["value"])
			}
			for _, example := range given {
				examples++
				if err := d.judge(t, pointer, example); err != nil {
					t.Errorf("the example at %v: %v", path, err)
				}
			}
		}
		for name, child := range object {
			if path == nil {
				visit(nil, child)
			} else {
				visit(append(slices.Clone(path), name), child)
			}
		}
	}
	root, ok := d.tree.(map[string]any)
	if !ok {
		t.Fatal("the document is no object")
	}
	for name, child := range root {
		visit([]string{name}, child)
	}
	if examples < 15 {
		t.Errorf("only %d examples were found", examples)
	}
	for kind, all := range d.members(t, "components") {
		for name := range all.(map[string]any) {
			if kind != "securitySchemes" && !used["#/components/"+kind+"/"+name] {
				t.Errorf("nothing refers to #/components/%s/%s", kind, name)
			}
		}
	}
}
