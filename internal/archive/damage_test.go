package archive_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"tenantflow/events"
	"tenantflow/internal/archive"
	"tenantflow/internal/engine/enginetest"
	"tenantflow/internal/kafka"
)

// use does what a replay does before it publishes: open, check.
func (l *topicLog) use(t testing.TB) error {
	t.Helper()
	a, err := archive.Open(l.root, l.topic)
	if err != nil {
		return err
	}
	return a.Check(t.Context(), nil)
}

func TestArchive_DamageIsFoundBeforeItIsUsed(t *testing.T) {
	t.Parallel()
	l := newLog(t, enginetest.SharedKafka(t), 2)
	l.grow(t, 50)
	l.archive(t)
	early := files(t, l.dir())
	l.grow(t, 50)
	l.archive(t)
	good := files(t, l.dir())
	var names []string
	for name := range good {
		if strings.HasSuffix(name, ".segment") {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	random := rand.New(rand.NewPCG(3, 4))
	flip := func(b []byte) []byte {
		b = bytes.Clone(b)
		b[random.IntN(len(b))] ^= 1 << random.IntN(8)
		return b
	}
	first, second := names[0], names[1]
	damages := map[string]func(all map[string][]byte) (damaged string){
		"a bit of the manifest": func(all map[string][]byte) string {
			all["manifest.json"] = flip(all["manifest.json"])
			return "manifest.json"
		},
		"a manifest that is cut off": func(all map[string][]byte) string {
			all["manifest.json"] = all["manifest.json"][:len(all["manifest.json"])/2]
			return "manifest.json"
		},
		"no manifest":              func(all map[string][]byte) string { delete(all, "manifest.json"); return "manifest.json" },
		"a manifest of before":     func(all map[string][]byte) string { all["manifest.json"] = early["manifest.json"]; return ".segment" },
		"a file is missing":        func(all map[string][]byte) string { delete(all, first); return first },
		"a file is cut off":        func(all map[string][]byte) string { all[first] = all[first][:len(all[first])-1]; return first },
		"a file is empty":          func(all map[string][]byte) string { all[first] = nil; return first },
		"a file is longer":         func(all map[string][]byte) string { all[first] = append(bytes.Clone(all[first]), 0); return first },
		"two files are exchanged":  func(all map[string][]byte) string { all[first], all[second] = all[second], all[first]; return first },
		"a file of other content":  func(all map[string][]byte) string { all[second] = all[first]; return second },
		"the last one is cut off":  func(all map[string][]byte) string { n := names[len(names)-1]; all[n] = all[n][:40]; return n },
		"a bit of the last one":    func(all map[string][]byte) string { n := names[len(names)-1]; all[n] = flip(all[n]); return n },
		"a bit of a file":          func(all map[string][]byte) string { all[first] = flip(all[first]); return first },
		"another bit of a file":    func(all map[string][]byte) string { all[first] = flip(all[first]); return first },
		"a bit of the second file": func(all map[string][]byte) string { all[second] = flip(all[second]); return second },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			l := *l
			l.root = t.TempDir()
			all := map[string][]byte{}
			for name, b := range good {
				all[name] = b
			}
			damaged := damage(all)
			l.put(t, all)
			err := l.use(t)
			var found *archive.DamagedError
			if !errors.As(err, &found) || !strings.Contains(found.Path, damaged) || !strings.Contains(err.Error(), "Put the file back from a copy") {
				t.Fatalf("got %v, want damage of %s", err, damaged)
			}
			// Verify sees it, too, and goes on behind it.
			v, err := archive.Verify(t.Context(), l.root, l.topic, nil)
			if err == nil && (len(v.Problems) == 0 || !strings.Contains(strings.Join(v.Problems, "\n"), damaged)) || err != nil && !errors.As(err, &found) {
				t.Errorf("verify: %v, %+v", err, v)
			}
			// An archiver that has to read or replace a damaged file says so, and leaves everything as it was.
			if _, err := archive.Run(t.Context(), l.config()); err != nil {
				sameFiles(t, files(t, l.dir()), all)
			}
		})
	}
}

// The checksums of the blocks find it where a file changes after it was checked.
func TestArchive_DamageIsFoundWhileItIsRead(t *testing.T) {
	t.Parallel()
	l := newLog(t, enginetest.SharedKafka(t), 1)
	l.grow(t, 10)
	l.archive(t)
	a := l.open(t)
	if err := a.Check(t.Context(), nil); err != nil {
		t.Fatal(err)
	}
	name := a.Manifest().Partitions[0].Files[0].Name
	path := filepath.Join(l.dir(), name)
	good := files(t, l.dir())[name]
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1 << (i % 8)
		if err := os.WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		err := a.Read(t.Context(), 0, whole, func(*events.Record) error { return nil })
		if found := (*archive.DamagedError)(nil); !errors.As(err, &found) || found.Path != path {
			t.Fatalf("byte %d: %v", i, err)
		}
	}
}

func TestArchive_DoesNotGoOnBehindADamagedTail(t *testing.T) {
	t.Parallel()
	l := newLog(t, enginetest.SharedKafka(t), 1)
	l.grow(t, 25)
	l.archive(t)
	p := l.open(t).Manifest().Partitions[0]
	tail := filepath.Join(l.dir(), p.Files[len(p.Files)-1].Name)
	b, err := os.ReadFile(tail)
	if err != nil {
		t.Fatal(err)
	}
	b[len(b)/2] ^= 4
	if err := os.WriteFile(tail, b, 0o600); err != nil {
		t.Fatal(err)
	}
	l.grow(t, 5)
	before := files(t, l.dir())
	_, err = archive.Run(t.Context(), l.config())
	if found := (*archive.DamagedError)(nil); !errors.As(err, &found) || found.Path != tail {
		t.Errorf("got %v", err)
	}
	sameFiles(t, files(t, l.dir()), before)
}

// A file that the archiver replaces while the archive is read is no damage.
func TestArchive_IsWholeWhileItIsContinued(t *testing.T) {
	t.Parallel()
	l := newLog(t, enginetest.SharedKafka(t), 2)
	l.grow(t, 24) // two files that are not full
	l.archive(t)
	before := l.open(t)
	goOn := func() { // other files instead of those
		was := files(t, l.dir())
		l.grow(t, 4)
		l.archive(t)
		for name := range files(t, l.dir()) {
			delete(was, name)
		}
		if len(was) < 2 {
			t.Fatalf("only %d files were replaced", len(was))
		}
	}
	goOn()
	if err := before.Check(t.Context(), nil); err != nil {
		t.Error(err)
	}
	l.grow(t, 16)
	l.archive(t)
	once := sync.OnceFunc(goOn)
	v, err := archive.Verify(t.Context(), l.root, l.topic, func(int64, int64) { once() })
	if err != nil {
		t.Fatal(err)
	}
	if len(v.Problems) > 0 || len(v.Notes) > 0 {
		t.Errorf("problems %v, notes %v", v.Problems, v.Notes)
	}
}

// Another archive of the topic in the place of the one that was opened is not the same one continued.
func TestArchive_AnotherOneInItsPlaceIsNoContinuation(t *testing.T) {
	t.Parallel()
	l := newLog(t, enginetest.SharedKafka(t), 1)
	l.grow(t, 40)
	l.archive(t)
	before := l.open(t)
	if err := os.RemoveAll(l.dir()); err != nil {
		t.Fatal(err)
	}
	l.deleteBefore(t, 0, 25)
	l.archive(t)
	read := 0
	err := before.Read(t.Context(), 0, kafka.Range{From: 0, To: 20}, func(*events.Record) error { read++; return nil })
	if !errors.As(err, new(*archive.DamagedError)) || read != 0 {
		t.Errorf("%d records, %v", read, err)
	}
	if err := before.Check(t.Context(), nil); !errors.As(err, new(*archive.DamagedError)) {
		t.Errorf("%v", err)
	}
}
