package token

import (
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

type fileFixture struct {
	*File
	path string
	said *strings.Builder // the log
	at   *atomic.Int64    // the clock, in nanoseconds
}

func setup(t *testing.T, tokens ...string) fileFixture {
	t.Helper()
	f := fileFixture{path: filepath.Join(t.TempDir(), "tokens.json"), said: &strings.Builder{}, at: &atomic.Int64{}}
	f.write(t, listing(tokens...))
	var err error
	f.File, err = open(f.path, slog.New(slog.NewTextHandler(f.said, nil)), func() time.Time { return time.Unix(0, f.at.Load()) })
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// write replaces the file as a careful operator does, by renaming, and lets a second pass.
func (f fileFixture) write(t *testing.T, text string) {
	t.Helper()
	if err := os.WriteFile(f.path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(f.path+".new", f.path); err != nil {
		t.Fatal(err)
	}
	f.at.Add(int64(lookInterval))
}

func listing(tokens ...string) string {
	var entries []string
	for _, token := range tokens {
		entries = append(entries, `{"name": "`+token+`", "sha256": "`+hashOf(token)+`", "companies": "*"}`)
	}
	return "[" + strings.Join(entries, ",") + "]"
}

func (f fileFixture) knows(token string) bool {
	_, ok := f.Find(token)
	return ok
}

func TestAChangedFileIsInForceASecondLaterWithoutARestart(t *testing.T) {
	t.Parallel()
	f := setup(t, "old")
	f.at.Add(int64(lookInterval))
	if !f.knows("old") || f.knows("new") {
		t.Fatal("the first file is not in force")
	}
	f.write(t, listing("new"))
	if !f.knows("new") || f.knows("old") || f.Stale() {
		t.Error("the second file is not in force")
	}
	// Written over in place, within the same second.
	if err := os.WriteFile(f.path, []byte(listing("third")), 0o600); err != nil {
		t.Fatal(err)
	}
	if f.knows("third") {
		t.Error("it looks at the file more than once a second")
	}
	f.at.Add(int64(lookInterval))
	if !f.knows("third") || f.knows("new") {
		t.Error("the third file is not in force")
	}
	if n := strings.Count(f.said.String(), "tokens file read again"); n != 2 {
		t.Errorf("it was said %d times:\n%s", n, f.said)
	}
}

func TestABrokenFileLeavesTheTokensOfBeforeInForceAndIsToldOnce(t *testing.T) {
	t.Parallel()
	f := setup(t, "old")
	f.write(t, "[{")
	for range 3 {
		if !f.knows("old") || !f.Stale() {
			t.Fatal("the tokens of before are not in force")
		}
		f.at.Add(int64(lookInterval))
	}
	if err := os.Remove(f.path); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if !f.knows("old") || !f.Stale() {
			t.Fatal("the tokens of before are not in force")
		}
		f.at.Add(int64(lookInterval))
	}
	if n := strings.Count(f.said.String(), "can't be used"); n != 2 {
		t.Errorf("it was said %d times, once for each of two troubles is right:\n%s", n, f.said)
	}
	f.write(t, listing("old"))
	if !f.knows("old") || f.Stale() {
		t.Error("the mended file is not in force")
	}
}

func TestAFileThatCannotBeReadAtTheStartIsAnError(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, maxFileBytes+1); err != nil {
		t.Fatal(err)
	}
	broken := filepath.Join(dir, "broken")
	if err := os.WriteFile(broken, []byte(`[{"name": ""}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{filepath.Join(dir, "none"): "no such file", dir: "is a directory", large: "larger than", broken: "sha256 is missing"} {
		if _, err := Open(path, slog.New(slog.DiscardHandler)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestManyMayAskWhileTheFileChanges(t *testing.T) {
	t.Parallel()
	f := setup(t, "constant", "a")
	var asking sync.WaitGroup
	for range 8 {
		asking.Go(func() {
			for range 200 {
				f.at.Add(int64(lookInterval) / 10)
				if !f.knows("constant") {
					t.Error("a token that never left the file is unknown")
				}
			}
		})
	}
	for _, other := range []string{"b", "c", "d", "e"} {
		f.write(t, listing("constant", other))
	}
	asking.Wait()
	f.at.Add(int64(lookInterval))
	if !f.knows("e") || f.knows("a") {
		t.Error("the last file is not in force")
	}
}
