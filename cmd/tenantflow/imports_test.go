package main

import (
	"os/exec"
	"strings"
	"testing"
)

// What judges the service, breaks things for it or measures it is no part of it.
func TestTheBinaryLinksNoJudgeAndNoEngine(t *testing.T) {
	t.Parallel()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	linked := map[string]bool{}
	for p := range strings.Lines(string(out)) {
		linked[strings.TrimSpace(p)] = true
	}
	if !linked["tenantflow/internal/service"] {
		t.Fatalf("go list names %d packages, and the service is none of them", len(linked))
	}
	for _, p := range []string{"model", "tenantmodel", "engine", "bench", "demo", "chdb"} {
		if linked["tenantflow/internal/"+p] {
			t.Errorf("internal/%s is linked", p)
		}
	}
	if linked["github.com/twmb/franz-go/pkg/kfake"] {
		t.Error("the embedded broker is linked")
	}
}
